"""Semantics of single ops: the shapes they give, and the inputs they refuse."""

from __future__ import annotations

import math

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
    assert (graph.macs > 0) == (kind in ("conv", "linear"))


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
        (lambda b: b.softmax("x0", axis=4), "axis 4"),
        (lambda b: b.pad("x0", (0, 0, -1, 0, 0, 0, 0, 0)), "not negative"),
        (lambda b: b.pad("x0", (0, 0)), "for each axis"),
        (lambda b: b.mean("x0", []), "rising axes"),
        (lambda b: b.mean("x0", [2, -2]), "rising axes"),
        (lambda b: b.op("lrn", ["x0"], {"size": 2, "alpha": 1.0, "beta": 1.0, "bias": 1.0}), "odd"),
        (lambda b: b.op("batch_norm", [b.input("v", (4,))], {"epsilon": 1e-5}), r"input \(N, C"),
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
