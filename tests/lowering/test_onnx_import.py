"""ONNX files of others become graphs that compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from hwbench.lower import from_onnx, to_torch
from tests.graphs import mobile_net
from tests.onnx_models import (
    TRAINED,
    assert_import_computes_the_same,
    light,
    torch_export,
    trained_model,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")

#: Multiply-accumulates and parameters of the published nets, in millions.
PUBLISHED = {
    "bvlc_alexnet": (655, 61.0),
    "densenet121": (2834, 8.1),
    "inception_v1": (1432, 7.0),
    "inception_v2": (2019, 11.2),
    "resnet50": (4089, 25.6),
    "shufflenet": (124.7, 1.4),
    "squeezenet": (349, 1.24),
    "vgg19": (19632, 143.7),
    "zfnet512": (1482, 87.2),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_light_models_have_the_costs_of_the_published_nets(name: str) -> None:
    graph, weights = from_onnx(light(name))
    macs, parameters = PUBLISHED[name]
    assert graph.macs / 1e6 == pytest.approx(macs, rel=0.001)
    assert graph.parameters / 1e6 == pytest.approx(parameters, rel=0.02)
    assert weights.keys() == graph.weights.keys()


def test_weights_made_in_the_graph_take_no_memory() -> None:
    _, weights = from_onnx(light("vgg19"))
    owned = sum(w.nbytes for w in weights.values() if w.base is None)
    assert sum(w.nbytes for w in weights.values()) > 5e8
    assert owned < 1e6


def with_random_weights(path: Path) -> onnx.ModelProto:
    """The model with random weights where it makes constants: those let nothing be told apart."""
    model = onnx.load(path)
    rng = np.random.default_rng(0)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kept = [node for node in model.graph.node if node.op_type != "ConstantOfShape"]
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            shape = tuple(shapes[node.input[0]])
            if len(shape) > 1:
                values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
            else:
                values = rng.uniform(0.5, 1.5, shape)  # variances and scales are among them
            tensor = numpy_helper.from_array(values.astype(np.float32), node.output[0])
            model.graph.initializer.append(tensor)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


#: Nets whose weights take hundreds of megabytes, made, written and read several times over.
HEAVY = ("bvlc_alexnet", "vgg19", "zfnet512")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in HEAVY else n for n in PUBLISHED],
)
def test_the_light_models_compute_the_same_after_import(name: str) -> None:
    assert_import_computes_the_same(with_random_weights(light(name)))


@pytest.mark.parametrize(("package", "name", "shapes", "out"), TRAINED)
def test_a_trained_model_with_shape_arithmetic_and_open_dimensions(
    third_party_models: Callable[[str], list[Path]],
    package: str,
    name: str,
    shapes: dict[str, tuple[int, ...]],
    out: tuple[int, ...],
) -> None:
    model = trained_model(third_party_models(package), name)
    graph = assert_import_computes_the_same(model, shapes)
    assert graph.tensors[graph.outputs[0]].shape == out


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


IMAGE_NET = nn.Sequential(
    nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
    nn.BatchNorm2d(8),
    nn.Hardswish(),
    nn.MaxPool2d(3, 2, ceil_mode=True),
    Residual(nn.Sequential(nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8), nn.SiLU())),
    nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
    nn.Dropout(),
    nn.ZeroPad2d((1, 0, 2, 1)),
    nn.ReLU6(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(8, 16),
    nn.GELU(),
    nn.Linear(16, 5, bias=False),
    nn.Softmax(-1),
)
SEQUENCE_NET = nn.Sequential(
    nn.Conv1d(4, 8, 5, padding=2),
    nn.LeakyReLU(0.2),
    nn.Conv1d(8, 8, 3, stride=2, groups=2),
    nn.ELU(0.5),
    nn.MaxPool1d(2),
    nn.Linear(9, 6),  # on three axes: a MatMul and an Add
    nn.GELU(),
    nn.Hardsigmoid(),
    nn.Hardtanh(-0.2, 0.4),
    nn.Linear(6, 3),
    nn.Tanh(),
)


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
@pytest.mark.parametrize(
    ("module", "shape"), [(IMAGE_NET, (1, 3, 35, 29)), (SEQUENCE_NET, (2, 4, 40))]
)
def test_what_torch_exports_is_read_back(
    module: nn.Module, shape: tuple[int, ...], opset: int
) -> None:
    if opset < 14:
        module = nn.Sequential(*(m for m in module if not isinstance(m, nn.Hardswish)))
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.uniform_(-1, 1)
            m.running_var.uniform_(0.5, 2)
    graph = assert_import_computes_the_same(
        torch_export(module, torch.zeros(*shape), opset), {"x": shape}
    )
    kinds = [op.kind for op in graph.ops]
    assert kinds.count("linear") == sum(isinstance(m, nn.Linear) for m in module)
    assert kinds.count("gelu") == sum(isinstance(m, nn.GELU) for m in module)
    assert "erf" not in kinds


def test_macs_are_half_the_flops_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    graph = mobile_net(96)
    module = to_torch(graph)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 3, 96, 96))
    assert 2 * graph.macs == counter.get_total_flops()
    assert graph.parameters == sum(p.numel() for p in module.parameters())
