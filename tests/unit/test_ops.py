"""Semantics of single ops: the shapes they give, and the inputs they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.errors import GraphError
from hwbench.graph import Graph, GraphBuilder
from hwbench.ops import OP_KINDS, TensorSpec
from tests.graphs import CASES, op_graphs


def builder(*shapes: tuple[int, ...]) -> GraphBuilder:
    """A builder with inputs x0, x1, … of these shapes."""
    b = GraphBuilder("g")
    for i, shape in enumerate(shapes):
        b.input(f"x{i}", shape)
    return b


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 3), st.integers(1, 4))
def test_same_padding_keeps_the_size_divided_by_the_stride(
    size: int, kernel: int, dilation: int, stride: int
) -> None:
    b = builder((1, 2, size))
    y = b.conv("x0", 2, kernel=kernel, dilation=dilation, stride=stride)
    assert b.shape(y) == (1, 2, math.ceil(size / stride))


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_same_padding_of_odd_kernels_is_even(kernel: int) -> None:
    b = builder((1, 2, 16, 16))
    (op,) = b.build(b.conv("x0", 2, kernel=kernel)).ops
    assert op["padding"] == (kernel // 2,) * 4


def test_sizes_may_differ_by_axis() -> None:
    b = builder((1, 2, 20, 30))
    y = b.conv("x0", 4, kernel=(3, 5), stride=(1, 2), padding=(0, 1, 2, 3), dilation=(2, 1))
    assert b.shape(y) == (1, 4, 20 + 0 + 2 - 4, (30 + 1 + 3 - 5) // 2 + 1)
    assert b.shape(b.max_pool("x0", (2, 3))) == (1, 2, 10, 10)


@pytest.mark.parametrize("kind", OP_KINDS)
@given(data=st.data())
def test_costs_of_every_op_are_whole_and_not_negative(kind: str, data: st.DataObject) -> None:
    graph: Graph = data.draw(op_graphs(kind))
    for op in graph.ops:
        for cost in (graph.macs_of(op), graph.parameters_of(op), graph.bytes_moved_of(op)):
            assert type(cost) is int
            assert cost >= 0
    products = ("conv", "conv_transpose", "linear", "matmul")
    assert (graph.macs > 0) == any(op.kind in products for op in graph.ops)


def test_products_of_batches_have_the_shape_of_numpys() -> None:
    for a, b in (((4, 1, 2, 3), (5, 3, 6)), ((2, 3), (7, 3, 1)), ((1, 2, 3), (1, 3, 4))):
        made = builder(a, b)
        shape = (np.zeros(a) @ np.zeros(b)).shape
        assert made.shape(made.matmul("x0", "x1")) == shape
        assert made.build("matmul1").macs == math.prod(shape) * a[-1]


def test_attention_costs_four_projections_and_two_products() -> None:
    b = builder((2, 10, 12))
    graph = b.build(b.attention("x0", 3))
    assert graph.tensors[graph.outputs[0]].shape == (2, 10, 12)
    assert graph.macs == 2 * (4 * 10 * 12 * 12 + 2 * 10 * 10 * 12)
    assert graph.parameters == 4 * (12 * 12 + 12)


def test_a_lookup_reads_its_rows_and_not_the_whole_table() -> None:
    b = GraphBuilder("g")
    graph = b.build(b.embedding(b.input("i", (1, 6), "int64"), 1000, 8))
    assert graph.parameters == 8000
    assert graph.bytes_moved == 6 * 8 + 2 * 6 * 8 * 4


def test_every_kind_has_a_case() -> None:
    assert set(CASES) == set(OP_KINDS)


CONV = {"kernel": (3,), "stride": (1,), "padding": (0, 0)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b: b.conv("x0", 4, groups=2), "2 groups do not divide 3 -> 4"),
        (lambda b: b.conv("x0", 5, groups=3), "3 groups do not divide 3 -> 5"),
        (lambda b: b.conv("x0", 3, groups=0), "0 groups"),
        (lambda b: b.conv("x0", 0), "-> 0 channels"),
        (
            lambda b: b.conv("x0", 4, kernel=9, padding=0),
            "window of 9 exceeds the padded input of 8",
        ),
        (lambda b: b.conv("x0", 4, kernel=0), "must be positive"),
        (lambda b: b.conv("x0", 4, padding=-1), "must be positive, padding not negative"),
        (lambda b: b.conv("x0", 4, kernel=(3, 3, 3), padding=1), "do not fit"),
        (lambda b: b.conv("x1", 4), "NCL or NCHW"),
        (lambda b: b.op("max_pool", ["x1"], CONV), "NCL or NCHW"),
        (lambda b: b.max_pool("x0", 2, padding=2), "below the kernel"),
        (lambda b: b.global_avg_pool("x1"), "NCL or NCHW"),
        (lambda b: b.add("x0", "x1"), "do not broadcast"),
        (lambda b: b.add("x0", b.input("h", (1,), "float16")), "float32 and float16 differ"),
        (lambda b: b.concat(["x0", "x1"]), "differ off axis 1"),
        (lambda b: b.concat(["x0"], axis=4), "axis 4"),
        (lambda b: b.concat(["x0"], axis=-5), "axis -1"),
        (lambda b: b.linear(b.input("v", (4,)), 3), r"\(\.\.\., features\)"),
        (lambda b: b.linear("x1", 0), "positive integers"),
        (lambda b: b.flatten("x0", axis=5), "axis 5"),
        (lambda b: b.reshape("x0", (7, 7)), "does not hold as many"),
        (lambda b: b.reshape("x0", (-1, 3)), "positive integers"),
        (lambda b: b.transpose("x0", (0, 1, 1, 2)), "no permutation"),
        (lambda b: b.op("expand", ["x1"], {"shape": (2, 2)}), "does not broadcast to"),
        (lambda b: b.op("expand", ["x1"], {"shape": (5,)}), "does not broadcast to"),
        (lambda b: b.softmax("x0", axis=4), "axis 4"),
        (lambda b: b.pad("x0", (0, 0, -1, 0, 0, 0, 0, 0)), "not negative"),
        (lambda b: b.pad("x0", (0, 0)), "for each axis"),
        (lambda b: b.mean("x0", []), "rising axes"),
        (lambda b: b.mean("x0", [2, -2]), "rising axes"),
        (lambda b: b.op("lrn", ["x0"], {"size": 2, "alpha": 1.0, "beta": 1.0, "bias": 1.0}), "odd"),
        (lambda b: b.op("batch_norm", [b.input("v", (4,))], {"epsilon": 1e-5}), r"input \(N, C"),
        (lambda b: b.matmul("x0", "x1"), r"no \(\.\.\., m, k\) and \(\.\.\., k, n\)"),
        (lambda b: b.matmul("x1", b.input("v", (5,))), "no "),
        (
            lambda b: b.matmul(b.input("p", (2, 4, 3)), b.input("q", (3, 3, 4))),
            "do not broadcast before the last two axes",
        ),
        (lambda b: b.matmul("x1", b.input("h", (5, 1), "float16")), "float32 and float16 differ"),
        (lambda b: b.embedding("x1", 5, 3), "int32 or int64, got float32"),
        (lambda b: b.embedding(b.input("i", (2,), "int32"), 0, 3), "nothing to look up"),
        (lambda b: b.layer_norm(b.input("v", (4,))), r"input \(\.\.\., features\)"),
        (lambda b: b.attention("x0", 2), r"2 heads needs \(N, T, heads \* d\), got \(1, 3, 8, 8\)"),
        (lambda b: b.attention(b.input("t", (1, 4, 9)), 2), "2 heads"),
        (lambda b: b.slice("x1", 1, 2, 2), "2:2:1 is no part of axis 1"),
        (lambda b: b.slice("x1", 1, 0, 6), "0:6:1 is no part"),
        (lambda b: b.slice("x1", 1, 0, 5, 0), "0:5:0 is no part"),
        (lambda b: b.slice("x1", 2, 0, 5), "rising axes"),
        (lambda b: b.op("upsample", ["x0"], {"factors": (2,)}), "one for each spatial axis"),
        (lambda b: b.op("upsample", ["x0"], {"factors": (2, 0)}), "must be positive"),
        (lambda b: b.conv_transpose("x1", 4, kernel=(2, 2)), "NCL or NCHW"),
        (lambda b: b.conv_transpose("x0", 4, kernel=1, padding=4), "leaves nothing"),
        (lambda b: b.op("cast", ["x0"], {"dtype": "complex64"}), "complex64"),
        (lambda b: b.equal("x0", "x1"), "do not broadcast"),
        (lambda b: b.op("where", ["x0", "x0", "x0"]), "condition in bool, got float32"),
        (lambda b: b.op("where", [b.equal("x0", "x0"), "x1", "x1"]), "do not broadcast"),
        (lambda b: b.op("max", ["x0"], {"axes": (), "keepdims": True}), "rising axes"),
        (lambda b: b.input("x0", (1,)), "defined twice"),
        (lambda b: b.input("z", (1, 0)), "positive integers"),
        (lambda b: b.input("z", (1,), "complex64"), "complex64"),
    ],
)
def test_an_op_that_does_not_fit_is_refused(make, message: str) -> None:
    b = builder((1, 3, 8, 8), (2, 5))
    with pytest.raises(GraphError, match=message) as caught:
        make(b)
    assert "\n" not in str(caught.value)


def test_an_error_names_the_op_and_its_kind() -> None:
    b = builder((1, 3, 8, 8))
    b.conv("x0", 3)
    with pytest.raises(GraphError, match=r"op 'conv2' \(conv\)"):
        b.conv("x0", 3, groups=2)


def test_a_tensor_knows_its_size() -> None:
    assert TensorSpec((2, 3, 4)).elements == 24
    assert TensorSpec((2, 3, 4)).bytes == 96
    assert TensorSpec((), "int64").bytes == 8
