"""Nodes that transformers and detectors are made of mean in a graph what onnxruntime does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwbench.errors import ModelError
from hwbench.lower import from_onnx
from tests.onnx_models import assert_import_computes_the_same, node_model

Case = tuple[list[onnx.NodeProto], tuple[int, ...], Mapping[str, np.ndarray], int]


def node(kind: str, *inputs: str, output: str = "y", **attrs: object) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [output], **attrs)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def split(**attrs: object) -> list[onnx.NodeProto]:
    """Three parts, put together in another order."""
    parts = ["a", "b", "c"]
    inputs = ["x", "s"] if attrs.pop("sizes", False) else ["x"]
    return [helper.make_node("Split", inputs, parts, **attrs), node("Concat", *"cab", axis=1)]


CASES: Mapping[str, tuple[Case, list[str]]] = {
    "slice from the end, by steps": (
        (
            [node("Slice", "x", "b", "e", "a", "s")],
            (3, 7, 5),
            {"b": ints(-6, 0), "e": ints(2**40, -1), "a": ints(1, -1), "s": ints(2, 3)},
            17,
        ),
        ["slice"],
    ),
    "old slice": (([node("Slice", "x", starts=[1], ends=[9], axes=[1])], (2, 4), {}, 9), ["slice"]),
    "slice of everything": (
        (
            [node("Slice", "x", "b", "e", output="z"), node("Relu", "z")],
            (2, 4),
            {"b": ints(0, 0), "e": ints(9, 9)},
            17,
        ),
        ["relu"],
    ),
    "split by sizes": ((split(axis=1, sizes=True), (2, 6), {"s": ints(1, 2, 3)}, 13), []),
    "old split": ((split(axis=-1, split=[2, 3, 1]), (2, 6), {}, 11), []),
    "split evenly": ((split(axis=1), (2, 6), {}, 13), []),
    "split with a shorter end": ((split(axis=1, num_outputs=3), (2, 8), {}, 18), []),
    "gather of one place": (
        ([node("Gather", "x", "i", axis=1)], (2, 5, 3), {"i": np.int64(-1)}, 17),
        ["slice", "reshape"],
    ),
    "gather of places in a row": (
        ([node("Gather", "x", "i", axis=-1)], (2, 5), {"i": ints(2, 3, 4)}, 17),
        ["slice"],
    ),
    "power": (
        ([node("Mul", "x", "x", output="s"), node("Pow", "s", "p")], (2, 5),
         {"p": np.float32(1.5)}, 17),
        ["mul", "pow"],
    ),
    "power of a whole number": (
        ([node("Pow", "x", "p")], (2, 5), {"p": ints(3)}, 17),
        ["pow"],
    ),
    "sum over axes": (
        ([node("ReduceSum", "x", "a", keepdims=0)], (2, 5, 3), {"a": ints(-1, 0)}, 13),
        ["sum"],
    ),
    "sum over nothing": (
        (
            [node("ReduceSum", "x", noop_with_empty_axes=1, output="s"), node("Neg", "s")],
            (2, 5),
            {},
            13,
        ),
        ["neg"],
    ),
    "old maximum over axes": (
        ([node("ReduceMax", "x", axes=[1])], (2, 5, 3), {}, 13),
        ["max"],
    ),
    "largest of three": (
        ([node("Max", "x", "a", "b")], (2, 3), {"a": floats(3), "b": np.float32(0)}, 17),
        ["maximum", "maximum"],
    ),
    "smallest of two": (([node("Min", "a", "x")], (2, 3), {"a": floats(3)}, 17), ["minimum"]),
    "cast there and back": (
        (
            [
                node("Cast", "x", to=TensorProto.INT32, output="i"),
                node("Cast", "i", to=TensorProto.INT32, output="j"),
                node("Cast", "j", to=TensorProto.FLOAT),
            ],
            (4, 9),
            {},
            17,
        ),
        ["cast", "cast"],
    ),
    "where": (
        (
            [
                node("Cast", "x", to=TensorProto.INT32, output="i"),
                node("Equal", "i", "zero", output="e"),
                node("Where", "e", "x", "a"),
            ],
            (4, 5),
            {"zero": np.int32(0), "a": floats(4, 1)},
            17,
        ),
        ["where"],
    ),
    "expand": (
        ([node("Expand", "x", "s")], (1, 3, 1), {"s": ints(2, 1, 3, 4)}, 17),
        ["expand"],
    ),
    "expand that repeats nothing": (
        ([node("Expand", "x", "s", output="z"), node("Tanh", "z")], (2, 3), {"s": ints(1, 3)}, 17),
        ["tanh"],
    ),
    "one over": (
        ([node("Exp", "x", output="e"), node("Reciprocal", "e")], (2, 3), {}, 17),
        ["exp", "reciprocal"],
    ),
    "times a number": (([node("Mul", "a", "x")], (2, 3), {"a": np.float32(2.5)}, 17), ["scale"]),
    "product of batches": (
        ([node("MatMul", "x", "w")], (2, 1, 3, 4), {"w": floats(5, 4, 2)}, 17),
        ["matmul"],
    ),
    "product by a matrix on the left": (
        ([node("MatMul", "w", "x")], (2, 3, 4), {"w": floats(5, 3)}, 17),
        ["matmul"],
    ),
    "bias with axes of size 1 before its own": (
        (
            [node("MatMul", "x", "w", output="m"), node("Add", "m", "b")],
            (2, 3, 4),
            {"w": floats(4, 5), "b": floats(1, 1, 5)},
            17,
        ),
        ["linear"],
    ),
    "sum that only looks like a bias": (
        (
            [node("MatMul", "x", "w", output="m"), node("Add", "m", "b")],
            (3, 4),
            {"w": floats(4, 5), "b": floats(2, 1, 5)},
            17,
        ),
        ["linear", "add"],
    ),
    "norm without a bias": (
        ([node("LayerNormalization", "x", "g", epsilon=1e-3)], (2, 3, 4), {"g": floats(4)}, 17),
        ["layer_norm"],
    ),
    "transposed convolution": (
        (
            [node("ConvTranspose", "x", "w", "b", strides=[2, 1], pads=[1, 0, 0, 2])],
            (2, 3, 5, 4),
            {"w": floats(3, 4, 3, 3), "b": floats(4)},
            17,
        ),
        ["conv_transpose"],
    ),
    "nearest pixels by sizes, centres halved": (
        ([node("Resize", "x", "", "", "s", mode="nearest")], (1, 2, 3, 4),
         {"s": ints(1, 2, 9, 8)}, 13),
        ["upsample"],
    ),
    "old nearest pixels": (
        (
            [node("Upsample", "x", "s", mode="nearest")],
            (1, 2, 3, 4),
            {"s": np.array([1, 1, 2, 2], np.float32)},
            9,
        ),
        ["upsample"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_node_is_read_as_onnxruntime_runs_it(name: str) -> None:
    case, kinds = CASES[name]
    graph = assert_import_computes_the_same(node_model(*case))
    if kinds:
        found = [op.kind for op in graph.ops if op.kind != "constant"]
        assert found[-len(kinds) :] == kinds


REFUSED = {
    "Slice with negative steps": (
        [node("Slice", "x", "b", "e", "a", "s")],
        {"b": ints(-1), "e": ints(-9), "a": ints(0), "s": ints(-1)},
    ),
    "Gather of places that do not follow each other": (
        [node("Gather", "x", "i", axis=1)],
        {"i": ints(2, 0)},
    ),
    "Resize other than nearest by whole factors": (
        [node("Resize", "x", "", "s", mode="linear")],
        {"s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "ConvTranspose with group 3": (
        [node("ConvTranspose", "x", "w", group=3)],
        {"w": floats(3, 1, 2, 2)},
    ),
    "LayerNormalization over more than the last axis": (
        [node("LayerNormalization", "x", "g", axis=2)],
        {"g": floats(4, 4)},
    ),
    "Cast to bfloat16": ([node("Cast", "x", to=TensorProto.BFLOAT16)], {}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_a_graph_cannot_say_is_named(reason: str) -> None:
    nodes, constants = REFUSED[reason]
    with pytest.raises(ModelError, match=f"no equivalent for {reason}"):
        from_onnx(node_model(nodes, (1, 3, 4, 4), constants).SerializeToString())


NORM = {
    "mean": node("ReduceMean", "x", axes=[-1], output="mean"),
    "centred": node("Sub", "x", "mean", output="centred"),
    "square": node("Pow", "centred", "two", output="square"),
    "variance": node("ReduceMean", "square", axes=[-1], output="variance"),
    "raised": node("Add", "variance", "epsilon", output="raised"),
    "spread": node("Sqrt", "raised", output="spread"),
    "normed": node("Div", "centred", "spread", output="normed"),
    "scaled": node("Mul", "normed", "scale", output="scaled"),
    "y": node("Add", "scaled", "bias"),
}
NORM_CONSTANTS = {"two": np.float32(2), "epsilon": np.float32(1e-4)}
NORM_CONSTANTS |= {"scale": floats(4), "bias": floats(4)}


def norm_model(changed: Mapping[str, onnx.NodeProto], **constants: np.ndarray) -> onnx.ModelProto:
    return node_model(list({**NORM, **changed}.values()), (2, 4, 4), NORM_CONSTANTS | constants)


def norm_kinds(changed: Mapping[str, onnx.NodeProto], **constants: np.ndarray) -> list[str]:
    graph = assert_import_computes_the_same(norm_model(changed, **constants))
    return [op.kind for op in graph.ops]


def test_a_layer_norm_in_pieces_is_one_op() -> None:
    assert norm_kinds({}) == ["layer_norm"]
    assert norm_kinds({"square": node("Mul", "centred", "centred", output="square")}) == [
        "layer_norm"
    ]
    swapped = {
        "raised": node("Add", "epsilon", "variance", output="raised"),
        "scaled": node("Mul", "scale", "normed", output="scaled"),
        "y": node("Add", "bias", "scaled"),
    }
    assert norm_kinds(swapped) == ["layer_norm"]


@pytest.mark.parametrize(
    "changed",
    [
        {"mean": node("ReduceMean", "x", axes=[1], output="mean")},
        {"variance": node("ReduceMean", "square", axes=[1], output="variance")},
        {"square": node("Mul", "centred", "x", output="square")},
        {"normed": node("Div", "x", "spread", output="normed")},
    ],
)
def test_what_is_nearly_a_layer_norm_stays_in_pieces(
    changed: Mapping[str, onnx.NodeProto],
) -> None:
    # A product may be negative: a large epsilon keeps the root real.
    assert "layer_norm" not in norm_kinds(changed, epsilon=np.float32(9))


def test_a_norm_with_another_scale_stays_in_pieces() -> None:
    assert "layer_norm" not in norm_kinds({}, scale=floats(4, 1))


def test_what_onnxruntime_itself_takes_for_a_layer_norm_stays_in_pieces() -> None:
    swapped = norm_model({"centred": node("Sub", "mean", "x", output="centred")})
    for model in (swapped, norm_model({}, two=np.float32(4))):
        graph, _ = from_onnx(model.SerializeToString())
        assert "layer_norm" not in [op.kind for op in graph.ops]
