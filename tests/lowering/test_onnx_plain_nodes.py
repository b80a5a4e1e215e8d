"""Nodes that any net is made of, of old opsets and new, are read as onnxruntime runs them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from hwbench.errors import ModelError
from hwbench.lower import from_onnx, input_specs, to_onnx
from tests.graphs import relative_error
from tests.onnx_models import TOLERANCE, assert_import_computes_the_same, node_model, run

pytestmark = pytest.mark.usefixtures("one_torch_thread")


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
