"""ONNX files of others become graphs that compute the same; what does not fit is named."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from hwbench.errors import ModelError, UnknownNameError
from hwbench.lower import create_session, from_onnx, input_specs, open_onnx, to_onnx, to_torch
from hwbench.lower.onnx_file import external_tensors
from hwbench.records import InputSpec
from tests.graphs import mobile_net, relative_error
from tests.onnx_models import (
    TRAINED,
    assert_import_computes_the_same,
    node_model,
    run,
    torch_export,
    trained_model,
)

TOLERANCE = 1e-4


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread() -> Iterator[None]:
    """On a busy machine torch's threads wait for each other far longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# -- whole files ------------------------------------------------------------------------------

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

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


def light(name: str) -> Path:
    path = LIGHT / f"light_{name}.onnx"
    assert path.is_file(), f"this onnx package carries no {path.name}"
    return path


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


# -- single nodes -----------------------------------------------------------------------------


@st.composite
def window_models(draw: st.DrawFn) -> onnx.ModelProto:
    """Convolutions and pools with auto_pad or ceil_mode, as far as onnxruntime takes them."""
    rank = draw(st.integers(1, 2))

    def per_axis(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    op_type = draw(st.sampled_from(["Conv", "MaxPool", "AveragePool"]))
    mode = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"]))
    kernel = per_axis(1, 3)
    same = mode.startswith("SAME")  # then onnxruntime wants windows that touch, undilated
    strides = [min(s, k) if same else s for s, k in zip(per_axis(1, 3), kernel, strict=True)]
    attrs = {"auto_pad": mode, "strides": strides}
    if mode == "NOTSET":
        attrs["pads"] = [draw(st.integers(0, k - 1)) for k in kernel * 2]
    constants = {}
    if op_type == "Conv":
        attrs["dilations"] = [1] * rank if same else per_axis(1, 2)
        values = np.random.default_rng(0).standard_normal((3, 2, *kernel))
        constants["w"] = values.astype(np.float32)
    else:
        attrs["kernel_shape"] = kernel
        attrs["ceil_mode"] = draw(st.integers(0, 1)) if mode == "NOTSET" else 0
    node = helper.make_node(op_type, ["x", *constants], ["y"], **attrs)
    return node_model([node], (2, 2, *per_axis(5, 9)), constants)


@settings(max_examples=150)
@given(model=window_models())
def test_implicit_padding_and_ceiling_are_made_explicit(model: onnx.ModelProto) -> None:
    (spec,) = input_specs(model)
    rng = np.random.default_rng(1)
    inputs = {"x": rng.standard_normal(spec.shape).astype(np.float32)}
    wanted = run(model, inputs)
    try:
        graph, weights = from_onnx(model.SerializeToString())
    except ModelError:
        # Said, not guessed: the ceiling asks for as much padding as the kernel is long.
        if not ceiling_exceeds_the_kernel(model, wanted.shape):
            raise
        return
    assert relative_error(run(to_onnx(graph, weights).bytes, inputs), wanted) <= TOLERANCE


def ceiling_exceeds_the_kernel(model: onnx.ModelProto, out: tuple[int, ...]) -> bool:
    (node,), (spec,) = model.graph.node, input_specs(model)
    attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    begins = attrs["pads"][: len(out) - 2]
    rows = zip(
        out[2:], attrs["strides"], attrs["kernel_shape"], begins, spec.shape[2:], strict=True
    )
    return any((o - 1) * stride + k - begin - n >= k for o, stride, k, begin, n in rows)


NODES = {
    "old softmax over three axes": (
        [helper.make_node("Softmax", ["x"], ["y"], axis=1)],
        (2, 3, 4),
        {},
        11,
    ),
    "softmax": ([helper.make_node("Softmax", ["x"], ["y"])], (2, 3, 4), {}, 13),
    "old clip": ([helper.make_node("Clip", ["x"], ["y"], min=-0.5)], (2, 9), {}, 10),
    "clip without a lower bound": (
        [helper.make_node("Clip", ["x", "", "a"], ["y"])],
        (2, 9),
        {"a": np.float32(0.5)},
        17,
    ),
    "old pad": (
        [helper.make_node("Pad", ["x"], ["y"], pads=[0, 1, 2, 0], value=0.5)],
        (2, 3),
        {},
        10,
    ),
    "pad of some axes": (
        [helper.make_node("Pad", ["x", "p", "", "a"], ["y"])],
        (2, 3, 4),
        {"p": np.array([1, 2], np.int64), "a": np.array([-1], np.int64)},
        18,
    ),
    "scaled Gemm": (
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], alpha=0.5, beta=2.0)],
        (3, 4),
        {"w": np.arange(20, dtype=np.float32).reshape(4, 5), "b": np.ones((1, 5), np.float32)},
        17,
    ),
    "sum of three": (
        [helper.make_node("Sum", ["x", "a", "x"], ["y"])],
        (2, 3),
        {"a": np.float32(2)},
        17,
    ),
    "sum of one": (
        [helper.make_node("Sum", ["x"], ["s"]), helper.make_node("Relu", ["s"], ["y"])],
        (2, 3),
        {},
        17,
    ),
    "reshape that keeps an axis": (
        [helper.make_node("Reshape", ["x", "s"], ["y"])],
        (2, 3, 4),
        {"s": np.array([0, -1], np.int64)},
        17,
    ),
    "squeeze and unsqueeze": (
        [
            helper.make_node("Unsqueeze", ["x"], ["u"], axes=[0, 3]),
            helper.make_node("Squeeze", ["u"], ["y"], axes=[0]),
        ],
        (2, 3),
        {},
        11,
    ),
    "mean of every axis": ([helper.make_node("ReduceMean", ["x"], ["y"])], (2, 3, 4), {}, 17),
    "mean with axes as input": (
        [helper.make_node("ReduceMean", ["x", "a"], ["y"], keepdims=0)],
        (2, 3, 4),
        {"a": np.array([-1], np.int64)},
        18,
    ),
    "transpose of all": ([helper.make_node("Transpose", ["x"], ["y"])], (2, 3, 4), {}, 17),
    "bias on the left": (
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["b", "m"], ["y"])],
        (2, 3, 4),
        {"w": np.arange(8, dtype=np.float32).reshape(4, 2), "b": np.ones(2, np.float32)},
        17,
    ),
    "product read twice": (
        [
            helper.make_node("MatMul", ["x", "w"], ["m"]),
            helper.make_node("Add", ["m", "b"], ["a"]),
            helper.make_node("Mul", ["a", "m"], ["y"]),
        ],
        (3, 4),
        {"w": np.arange(8, dtype=np.float32).reshape(4, 2), "b": np.ones(2, np.float32)},
        17,
    ),
    "shape arithmetic": (
        [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Slice", ["shape", "zero", "one", "zero"], ["batch"]),
            helper.make_node("Gather", ["shape", "one"], ["width"], axis=0),
            helper.make_node("Mul", ["width", "two"], ["wider"]),
            helper.make_node("Div", ["wider", "two"], ["halved"]),
            helper.make_node("Concat", ["batch", "halved", "rest"], ["target"], axis=0),
            helper.make_node("Cast", ["target"], ["cast"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["x", "cast"], ["y"]),
        ],
        (2, 3, 4, 5),
        {
            "zero": np.array([0], np.int64),
            "one": np.array([1], np.int64),
            "two": np.array([2], np.int64),
            "rest": np.array([-1], np.int64),
        },
        17,
    ),
    "constant folded through views": (
        [
            helper.make_node(
                "ConstantOfShape", ["s"], ["c"], value=helper.make_tensor("v", 1, [1], [2.5])
            ),
            helper.make_node("Unsqueeze", ["c"], ["u"], axes=[1, 2]),
            helper.make_node("Expand", ["u", "e"], ["w"]),
            helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0, 2]),
            helper.make_node("Sqrt", ["t"], ["r"]),
            helper.make_node("Mul", ["x", "r"], ["y"]),
        ],
        (4, 3, 2),
        {"s": np.array([3], np.int64), "e": np.array([3, 4, 2], np.int64)},
        11,
    ),
}


@pytest.mark.parametrize("name", NODES)
def test_a_node_is_read_as_onnxruntime_runs_it(name: str) -> None:
    assert_import_computes_the_same(node_model(*NODES[name]))


def test_dead_ops_are_dropped_and_a_product_is_counted_once() -> None:
    graph, _ = from_onnx(node_model(*NODES["product read twice"]).SerializeToString())
    assert [op.kind for op in graph.ops] == ["linear", "constant", "add", "mul"]
    graph, weights = from_onnx(node_model(*NODES["bias on the left"]).SerializeToString())
    assert [op.kind for op in graph.ops] == ["linear"]
    assert set(weights) == {"y.weight", "y.bias"}


def test_local_functions_are_inlined() -> None:
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    model = node_model([helper.make_node("Twice", ["x"], ["y"], domain="own")], (2, 3))
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    graph = assert_import_computes_the_same(model)
    assert [op.kind for op in graph.ops] == ["add"]


# -- refusals ---------------------------------------------------------------------------------


def refusal(source: Path | bytes, shapes: Mapping[str, tuple[int, ...]] | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        from_onnx(source, shapes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_kind_without_equivalent_is_named_in_one_line() -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Det", ["b"], ["c"], name="second"),
        helper.make_node("LSTM", ["c"], ["d"], name="third"),
        helper.make_node("MaxPool", ["x"], ["e"], kernel_shape=[2], dilations=[2], name="fourth"),
        helper.make_node("Own", ["x"], ["f"], domain="com.example", name="fifth"),
        helper.make_node("Pow", ["x", "x"], ["y"], name="sixth"),
    ]
    assert refusal(node_model(nodes, (2, 3, 3)).SerializeToString()) == (
        "model: no equivalent for Det (node 'first' and 1 more), LSTM (node 'third'), "
        "MaxPool with dilations (node 'fourth'), com.example.Own (node 'fifth'), "
        "Pow with computed exponent (node 'sixth')"
    )


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    assert refusal(path) == f"{path}: No such file or directory"
    assert refusal(tmp_path) == f"{tmp_path}: Is a directory"
    path.write_bytes(b"")
    assert "empty or cut short" in refusal(path)
    path.write_text("a text of many words\n" * 50)
    assert "not an ONNX model" in refusal(path)
    whole = light("squeezenet").read_bytes()
    for size in (10, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert str(path) in refusal(path)


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_damaged_files_are_refused_or_read_never_anything_else(seed: int) -> None:
    rng = random.Random(seed)
    content = bytearray(DAMAGED)
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    with contextlib.suppress(ModelError):
        from_onnx(bytes(content))


DAMAGED = node_model(
    [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], group=1),
        helper.make_node("Clip", ["c", "low", "high"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], ceil_mode=1),
        helper.make_node("Reshape", ["p", "s"], ["y"]),
    ],
    (1, 2, 5, 5),
    {
        "w": np.ones((2, 2, 3, 3), np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
        "s": np.array([0, -1], np.int64),
    },
).SerializeToString()


def test_a_node_that_reads_what_nothing_makes_is_named() -> None:
    model = node_model([helper.make_node("Relu", ["z"], ["y"], name="lost")], (2, 3))
    message = refusal(model.SerializeToString())
    assert message == "model: node 'lost' (Relu): nothing makes the tensor 'z'"


def test_a_shape_misfit_inside_the_file_names_the_node() -> None:
    weights = {"w": np.ones((4, 5, 3, 3), np.float32)}
    model = node_model(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="c")], (1, 3, 8, 8), weights
    )
    message = refusal(model.SerializeToString())
    assert "y.weight" in message
    assert "(4, 5, 3, 3), not float32 (4, 3, 3, 3)" in message


def test_a_constant_that_explodes_is_refused() -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("Transpose", ["c"], ["t"]),
        helper.make_node("Add", ["c", "t"], ["sum"]),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    model = node_model(nodes, (1,), {"s": np.array([1, 10**6], np.int64)})
    assert "2**28" in refusal(model.SerializeToString())


# -- inputs -----------------------------------------------------------------------------------


def two_inputs() -> onnx.ModelProto:
    a = helper.make_tensor_value_info("a", TensorProto.FLOAT, ["batch", 3, None])
    b = helper.make_tensor_value_info("b", TensorProto.INT64, ["batch"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [helper.make_node("Relu", ["a"], ["y"])]
    return helper.make_model(helper.make_graph(nodes, "g", [a, b], [y]))


def test_open_dimensions_are_filled_and_fixed_ones_kept() -> None:
    specs = input_specs(two_inputs(), {"a": (2, 3, 8), "b": (2,)})
    assert specs == (InputSpec("a", "float32", (2, 3, 8)), InputSpec("b", "int64", (2,)))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, r"a\[batch, 3, \?\], b\[batch\]: give its shape"),
        ({"a": (2, 3, 8)}, r"input b\[batch\]"),
        ({"a": (2, 4, 8), "b": (2,)}, r"a\[batch, 3, \?\] cannot be given the shape \(2, 4, 8\)"),
        ({"a": (2, 3), "b": (2,)}, "cannot be given"),
        ({"a": (2, 3, 8), "b": (5,)}, r"b\[batch\] cannot be given the shape \(5,\)"),
        ({"a": (2, 3, 0), "b": (2,)}, "positive integers"),
    ],
)
def test_shapes_that_do_not_settle_the_inputs_are_refused(shapes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        input_specs(two_inputs(), shapes)


def test_a_shape_for_an_unknown_input_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="known: a, b"):
        input_specs(two_inputs(), {"c": (1,)})


@pytest.mark.parametrize("package", ["onnx", "magika", "rapidocr-onnxruntime", "silero-vad"])
def test_the_inputs_of_third_party_models_are_understood(
    third_party_models: Callable[[str], list[Path]], package: str
) -> None:
    for path in third_party_models(package):
        model = open_onnx(path)
        open_inputs = {
            value.name: tuple(d.dim_value if d.dim_value > 0 else 64 for d in dims)
            for value in model.graph.input
            if (dims := value.type.tensor_type.shape.dim)
        }
        stored = {t.name for t in model.graph.initializer}
        shapes = {name: shape for name, shape in open_inputs.items() if name not in stored}
        if "backend" in path.parts:
            continue  # onnx's own node tests: many feed what no deployed model does
        specs = input_specs(model, shapes)
        names = {value.name for value in model.graph.input} - stored
        assert {spec.name for spec in specs} == names


# -- external data ----------------------------------------------------------------------------


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder with data beside the model, below it, and outside it by several ways."""
    folder = tmp_path / "models"
    (folder / "below").mkdir(parents=True)
    data = np.arange(4, dtype=np.float32).tobytes()
    for path in (folder / "w.bin", folder / "below" / "w.bin", tmp_path / "outside.bin"):
        path.write_bytes(data)
    (folder / "short.bin").write_bytes(data[:8])
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "linked").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.bin")
    return folder


def write_external(folder: Path, location: str) -> Path:
    tensor = TensorProto(name="w", dims=[4], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value="16")
    model = node_model([helper.make_node("Mul", ["x", "w"], ["y"])], (1, 4))
    model.graph.initializer.append(tensor)
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["w.bin", "./w.bin", "below/w.bin"])
def test_external_data_inside_the_folder_is_read(model_folder: Path, location: str) -> None:
    _, weights = from_onnx(write_external(model_folder, location))
    assert weights["w.value"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../outside.bin", "not a path inside"),
        ("below/../../outside.bin", "not a path inside"),
        ("/etc/hostname", "not a path inside"),
        ("", "not a path inside"),
        ("link.bin", "link that leaves"),
        ("linked/outside.bin", "link that leaves"),
        ("absent.bin", "missing"),
        ("below", "missing"),
        ("pipe.bin", "missing"),
        ("short.bin", "damaged"),
    ],
)
def test_external_data_elsewhere_is_refused(
    model_folder: Path, location: str, message: str
) -> None:
    path = write_external(model_folder, location)
    assert message in refusal(path)
    if message != "damaged":
        with pytest.raises(ModelError, match="external data"):
            open_onnx(path)


def test_external_data_of_bytes_has_no_folder(model_folder: Path) -> None:
    content = write_external(model_folder, "w.bin").read_bytes()
    assert "give the model as a file" in refusal(content)


def test_external_data_is_found_in_attributes_and_subgraphs() -> None:
    def outside(name: str) -> TensorProto:
        tensor = TensorProto(name=name, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="../outside.bin")
        return tensor

    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=outside("deep"))],
        "b",
        [],
        [],
        [outside("stored")],
    )
    nodes = [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]
    model = node_model(nodes, (1,))
    assert {t.name for t in external_tensors(model)} == {"deep", "stored"}
    with pytest.raises(ModelError, match=r"'(deep|stored)'"):
        open_onnx(model.SerializeToString())


def test_the_runtime_is_given_files_with_external_data_as_they_are(model_folder: Path) -> None:
    session = create_session(write_external(model_folder, "w.bin"))
    assert session.run(None, {"x": np.ones((1, 4), np.float32)})[0].tolist() == [[0, 1, 2, 3]]
