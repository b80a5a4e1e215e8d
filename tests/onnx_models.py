"""ONNX models as others write them, and the proof that an import computes the same."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from hwbench.errors import ModelError
from hwbench.graph import Graph
from hwbench.lower import create_session, from_onnx, to_onnx, to_torch
from tests.graphs import relative_error

TOLERANCE = 1e-4
INTEGERS = ("int32", "int64")
#: Of the onnx package: published nets without their weights.
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def light(name: str) -> Path:
    """The file of one of them."""
    path = LIGHT / f"light_{name}.onnx"
    assert path.is_file(), f"this onnx package carries no {path.name}"
    return path


def run(model: onnx.ModelProto | bytes, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return create_session(content).run(None, dict(inputs))[0]


def assert_import_computes_the_same(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Graph:
    """A model and what we make of it agree in onnxruntime and in torch."""
    graph, weights = from_onnx(model.SerializeToString(), shapes)
    rng = np.random.default_rng(0)
    inputs = {n: rng.standard_normal(s.shape).astype(np.float32) for n, s in graph.inputs}
    inputs |= {
        n: rng.integers(0, 9, s.shape, s.dtype) for n, s in graph.inputs if s.dtype in INTEGERS
    }
    wanted = run(model, inputs)
    got = run(to_onnx(graph, weights).bytes, inputs)
    assert wanted.std() > 1e-4 or wanted.size == 1  # a constant output would prove nothing
    assert relative_error(got, wanted) <= TOLERANCE
    in_torch = to_torch(graph, weights)(*map(torch.from_numpy, inputs.values()))
    assert relative_error(in_torch.detach().numpy(), wanted) <= TOLERANCE
    return graph


def refusal(source: Path | bytes, shapes: Mapping[str, tuple[int, ...]] | None = None) -> str:
    """The one line that says why a source is not read."""
    with pytest.raises(ModelError) as caught:
        from_onnx(source, shapes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def node_model(
    nodes: list[onnx.NodeProto],
    shape: tuple[int | str, ...],
    constants: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model from input ``x`` to output ``y``."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", [x], [y], stored)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def torch_export(module: nn.Module, x: torch.Tensor, opset: int = 17) -> onnx.ModelProto:
    """What torch's own exporter makes of a module; every axis of 'x' is left open."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (x,),
            buffer,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            dynamic_axes={"x": {i: f"d{i}" for i in range(x.dim())}},
        )
    return onnx.load_from_string(buffer.getvalue())


#: Package, part of the file's name, shapes of the inputs, shape of the output.
TRAINED = [
    ("rapidocr-onnxruntime", "cls", {"x": (2, 3, 48, 192)}, (2, 2)),
    ("rapidocr-onnxruntime", "det", {"x": (1, 3, 96, 64)}, (1, 1, 96, 64)),
    ("rapidocr-onnxruntime", "rec", {"x": (2, 3, 48, 80)}, (2, 10, 6625)),
    ("magika", "model", {"bytes": (1, 2048)}, (1, 214)),
]


def trained_model(paths: Sequence[Path], name: str) -> onnx.ModelProto:
    """The trained model of others whose file's name holds ``name``.

    The detector of text ends before its sigmoid: no text is in noise, and only there are numbers
    to compare.
    """
    (path,) = (path for path in paths if name in path.name)
    model = onnx.load(path)
    if name == "det":
        (last,) = (n for n in model.graph.node if n.output[0] == model.graph.output[0].name)
        assert last.op_type == "Sigmoid"
        model.graph.output[0].name = last.input[0]
    return model
