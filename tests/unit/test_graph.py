"""The graph: what it refuses, what it counts, and when two are the same."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.errors import GraphError
from hwbench.graph import Graph, GraphBuilder, OpRow, describe
from hwbench.ops import Op, TensorSpec
from tests.graphs import nets


def small_net(names: str = "") -> Graph:
    """conv 3->16 stride 2, relu, residual add, pool, classifier of 10 classes."""
    b = GraphBuilder(f"net{names}")
    x = b.input(f"{names}image", (1, 3, 32, 32))
    x = b.conv(x, 16, stride=2)
    x = b.op("relu", [x], name=f"{names}first")
    x = b.add(x, b.conv(x, 16, groups=16, bias=False))
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), 10))


def test_costs_are_those_worked_out_by_hand() -> None:
    graph = small_net()
    first, depthwise, dense = 16 * 16 * 16 * 27, 16 * 16 * 16 * 9, 160
    assert graph.macs == first + depthwise + dense
    assert graph.parameters == (16 * 27 + 16) + 16 * 9 + (160 + 10)
    image, maps = 3 * 32 * 32, 16 * 16 * 16
    moved = (image + 448 + maps) + 2 * maps + (maps + 144 + maps) + 3 * maps + (maps + 16) + 196
    assert graph.bytes_moved == 4 * moved


def test_the_table_has_a_row_for_every_op_and_sums_to_the_whole() -> None:
    graph = small_net()
    rows = describe(graph)
    assert [row.name for row in rows] == [op.name for op in graph.ops]
    assert rows[0] == OpRow("conv1", "conv", (1, 16, 16, 16), 110_592, 448, 30_464)
    assert sum(row.macs for row in rows) == graph.macs
    assert sum(row.parameters for row in rows) == graph.parameters
    assert sum(row.bytes_moved for row in rows) == graph.bytes_moved


def test_views_move_no_bytes_and_a_constant_is_counted_by_its_reader() -> None:
    b = GraphBuilder("g")
    x = b.reshape(b.flatten(b.input("x", (1, 2, 3))), (3, 2))
    graph = b.build(b.add(x, b.op("constant", [], {"shape": (2,), "dtype": "float32"})))
    assert [graph.bytes_moved_of(op) for op in graph.ops] == [0, 0, 0, 4 * (6 + 2 + 6)]
    assert graph.parameters == 2


def test_bytes_follow_the_dtype() -> None:
    b = GraphBuilder("half")
    graph = b.build(b.conv(b.input("x", (1, 4, 8), "float16"), 4, kernel=1))
    assert graph.bytes_moved == 2 * (32 + 16 + 4 + 32)


def test_names_play_no_part_in_the_hash_but_content_does() -> None:
    graph = small_net()
    assert small_net("other").hash == graph.hash
    assert small_net("other") != graph
    assert len(graph.hash) == 32
    changed = set()
    for i, op in enumerate(graph.ops):
        if op.kind == "conv":
            attrs = tuple((k, (2, 2, 2, 2) if k == "padding" else v) for k, v in op.attrs)
            other = dataclasses.replace(op, attrs=attrs)
            ops = (*graph.ops[:i], other, *graph.ops[i + 1 :])
            try:
                changed.add(dataclasses.replace(graph, ops=ops).hash)
            except GraphError:  # the residual no longer fits
                continue
    assert graph.hash not in changed
    assert changed


def test_the_hash_sees_wiring_outputs_shapes_and_dtypes() -> None:
    def graph(shape: tuple[int, ...], swap: bool, outputs: slice, dtype: str = "float32") -> Graph:
        b = GraphBuilder("g")
        x, y = b.input("x", shape, dtype), b.input("y", shape, dtype)
        z = b.sub(y, x) if swap else b.sub(x, y)
        return b.build([z, b.activation(z, "relu")][outputs])

    every = slice(None)
    graphs = [
        graph((1, 4), False, every),
        graph((1, 4), True, every),
        graph((1, 5), False, every),
        graph((1, 4), False, slice(1, 2)),
        graph((1, 4), False, every, "float16"),
    ]
    assert len({g.hash for g in graphs}) == len(graphs)


@given(graph=nets())
def test_a_graph_is_a_value(graph: Graph) -> None:
    assert graph.macs >= 0  # fills the caches
    for twin in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert twin == graph
        assert hash(twin) == hash(graph)
        assert twin.hash == graph.hash
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        graph.tensors["x"] = TensorSpec((1,))  # type: ignore[index]


@given(st.floats(width=32, allow_nan=False))
def test_float_attributes_are_held_in_float32(value: float) -> None:
    b = GraphBuilder("g")
    op = b.build(b.pad(b.input("x", (2,)), (0, 1), value)).ops[0]
    assert op["value"] == value
    b = GraphBuilder("g")
    op = b.build(b.pad(b.input("x", (2,)), (0, 1), 0.1)).ops[0]
    assert op["value"] == np.float32(0.1)


def test_the_specs_of_weights_are_keyed_by_op_and_parameter() -> None:
    weights = small_net().weights
    assert list(weights) == [
        "conv1.weight",
        "conv1.bias",
        "conv2.weight",
        "linear1.weight",
        "linear1.bias",
    ]
    assert weights["conv2.weight"].shape == (16, 1, 3, 3)


def test_an_unknown_attribute_of_an_op_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="twist"):
        small_net().ops[0]["twist"]


# -- refusals ---------------------------------------------------------------------------------

X = ("x", TensorSpec((1, 4)))
RELU = Op("r", "relu", ("x",), "y")


@pytest.mark.parametrize(
    ("inputs", "outputs", "ops", "message"),
    [
        ((X,), (), (RELU,), "no output"),
        ((X,), ("z",), (RELU,), "'z' is made by no op"),
        ((X,), ("x",), (RELU,), "'x' is made by no op"),
        ((X,), ("y", "y"), (RELU,), "named twice"),
        ((X, X), ("y",), (RELU,), "'x' is defined twice"),
        ((X,), ("y",), (Op("r", "relu", ("x",), "x"), RELU), "'x' is defined twice"),
        ((X,), ("y",), (Op("r", "relu", ("y",), "z"), RELU), "'y' is not made by an earlier"),
        ((X,), ("y",), (RELU, Op("r", "relu", ("y",), "z")), "share a name"),
        ((X,), ("y",), (Op("r", "twist", ("x",), "y"),), "unknown kind"),
        ((X,), ("y",), (Op("r", "relu", ("x", "x"), "y"),), "takes 1 inputs, got 2"),
        ((X,), ("y",), (Op("r", "concat", (), "y", (("axis", 1),)),), "at least 1"),
        ((X,), ("y",), (Op("r", "softmax", ("x",), "y"),), r"needs the attributes \['axis'\]"),
        ((X,), ("y",), (Op("r", "relu", ("x",), "y", (("axis", 1),)),), "needs the attributes"),
        ((X,), ("y",), (Op("r", "softmax", ("x",), "y", (("axis", 1.0),)),), "must be int"),
        ((X,), ("y",), (Op("r", "softmax", ("x",), "y", (("axis", True),)),), "must be int"),
    ],
)
def test_a_malformed_graph_is_refused(inputs, outputs, ops, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        Graph("bad", inputs, outputs, ops)


def test_numbers_of_other_types_are_refused_not_coerced() -> None:
    b = GraphBuilder("g")
    x = b.input("x", (1, 3, 8, 8))
    with pytest.raises(GraphError, match=r"'out_channels' must be int, got np\.int64\(4\)"):
        b.conv(x, np.int64(4))  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="'kernel' must be tuple of ints"):
        b.conv(x, 4, kernel=3.0, padding=1)  # type: ignore[arg-type]


def test_the_builder_names_what_is_missing() -> None:
    b = GraphBuilder("g")
    x = b.input("x", (1, 3, 8, 8))
    with pytest.raises(GraphError, match="no tensor 'z'"):
        b.conv("z", 4)
    with pytest.raises(GraphError, match="unknown activation 'swish'; known: relu"):
        b.activation(x, "swish")
    with pytest.raises(GraphError, match="concat needs at least one"):
        b.concat([])
    with pytest.raises(GraphError, match="'same', not 'valid'"):
        b.conv(x, 4, padding="valid")


def test_fresh_names_avoid_those_taken() -> None:
    b = GraphBuilder("g")
    x = b.input("relu1", (1, 4))
    assert b.activation(x, "relu") == "relu2"
