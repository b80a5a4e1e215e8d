"""``nasbench201``: the published cells, without the edges that do nothing."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from hwbench.errors import GraphError
from hwbench.spaces import get_space
from hwbench.spaces.nasbench201 import EDGES, NasBench201Space

SPACE = NasBench201Space()
EVERY = np.stack(np.meshgrid(*[range(5)] * 6, indexing="ij"), axis=-1).reshape(-1, 6)

FULL = "|{0}~0|+|{0}~0|{0}~1|+|{0}~0|{0}~1|{0}~2|".format("nor_conv_3x3")
ONLY_SKIP = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"


def kinds(text: str) -> list[str]:
    return [op.kind for op in SPACE.graph(SPACE.encode([text])[0]).ops]


#: Stem, two residual blocks of (3x3, 3x3, 1x1) and the classifier.
OUTSIDE = (
    3 * 16 * 9 * 32**2
    + (16 * 32 * 9 + 32 * 32 * 9 + 16 * 32) * 16**2
    + (32 * 64 * 9 + 64 * 64 * 9 + 32 * 64) * 8**2
    + 64 * 10
)
#: A 1x1 convolution at 16 channels and 32x32, 32 and 16x16, 64 and 8x8; five cells each.
ON_AN_EDGE = 5 * (16**2 * 32**2 + 32**2 * 16**2 + 64**2 * 8**2)


@pytest.mark.parametrize(
    ("text", "macs"),
    [
        (ONLY_SKIP, OUTSIDE),
        (FULL, OUTSIDE + 6 * 9 * ON_AN_EDGE),
        (FULL.replace("3x3", "1x1"), OUTSIDE + 6 * ON_AN_EDGE),
        (FULL.replace("nor_conv_3x3~2", "avg_pool_3x3~2"), OUTSIDE + 5 * 9 * ON_AN_EDGE),
    ],
)
def test_macs_are_those_counted_by_hand(text: str, macs: int) -> None:
    (code,) = SPACE.encode([text])
    assert SPACE.graph(code).macs == SPACE.macs([code])[0] == macs


def test_there_are_15625_cells_and_all_texts_differ() -> None:
    texts = SPACE.decode(EVERY)
    assert len(set(texts)) == 5**6
    assert np.array_equal(SPACE.encode(texts), EVERY)


def reaches(code: np.ndarray) -> bool:
    """By walking: does anything get from node 0 to node 3?"""
    frontier, seen = [0], set()
    while frontier:
        node = frontier.pop()
        seen.add(node)
        frontier += [t for (s, t), op in zip(EDGES, code, strict=True) if s == node and op]
    return 3 in seen


def test_connected_cells_are_those_with_a_path() -> None:
    assert SPACE.connected(EVERY).tolist() == [reaches(code) for code in EVERY]


def test_live_edges_are_those_that_matter() -> None:
    """An edge is live iff the cell without it computes something else: another graph, or none."""
    rng = np.random.default_rng(0)
    for code in SPACE.sample(40, rng):
        for j, live in enumerate(SPACE.live([code])[0]):
            without = code.copy()
            without[j] = 0
            same = SPACE.connected([without])[0] and (
                SPACE.graph(without).hash == SPACE.graph(code).hash
            )
            assert same != live or code[j] == 0


def test_a_dead_edge_leaves_the_graph_as_it_was() -> None:
    nowhere = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    from_nothing = "|none~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|none~2|"
    assert kinds(nowhere) == kinds(from_nothing) == kinds(ONLY_SKIP)


def test_a_disconnected_cell_has_text_and_code_but_no_graph() -> None:
    text = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|avg_pool_3x3~2|"
    (code,) = SPACE.encode([text])
    assert SPACE.decode([code]) == [text]
    assert SPACE.macs([code]) == [0]
    with pytest.raises(GraphError, match="no path leads from its input to its output"):
        SPACE.graph(code)


def test_samples_can_be_measured() -> None:
    codes = SPACE.sample(10_000, np.random.default_rng(0))
    assert SPACE.connected(codes).all()
    assert len(SPACE.all_codes()) == SPACE.connected(EVERY).sum()


def test_skeleton_is_that_of_the_benchmark() -> None:
    graph = SPACE.graph(SPACE.encode([FULL])[0])
    convs = [op for op in graph.ops if op.kind == "conv"]
    shapes = [graph.tensors[op.output].shape[1:] for op in convs]
    assert len(convs) == 1 + 3 * 5 * 6 + 2 * 3
    assert shapes[0] == (16, 32, 32)
    assert shapes[-1] == (64, 8, 8)
    assert list(dict.fromkeys(shapes)) == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert [op.kind for op in graph.ops[-5:]] == [
        "batch_norm",
        "relu",
        "global_avg_pool",
        "flatten",
        "linear",
    ]
    assert graph.tensors[graph.outputs[0]].shape == (1, 10)


def test_a_node_is_rectified_once_and_sums_its_edges() -> None:
    words = kinds("|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|avg_pool_3x3~0|none~1|skip_connect~2|")
    # stem, then the first cell: node 1 is dead, node 2 = conv(relu(node 0)), node 3 = pool + node 2
    assert words[:6] == ["conv", "relu", "conv", "avg_pool", "add", "relu"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1 nodes joined by '+': give 3"),
        (FULL.rsplit("+", 1)[0], "2 nodes joined by '+'"),
        (FULL.replace("~0|+", "~0+", 1), "node 1 is '|nor_conv_3x3~0'"),
        (FULL.replace("|nor_conv_3x3~2|", "|"), "node 3 is"),
        (FULL.replace("~2", "~1"), "node 3, edge 3 is 'nor_conv_3x3~1': it comes from node 2: ~2"),
        (FULL.replace("nor_conv_3x3~2", "conv~2"), "node 3, edge 3 is 'conv~2': give one of none"),
        (FULL.replace("~2", ""), "node 3, edge 3 is 'nor_conv_3x3'"),
    ],
)
def test_the_error_names_the_place(text: str, message: str) -> None:
    with pytest.raises(GraphError) as raised:
        SPACE.encode([text])
    assert message in str(raised.value)


def test_codes_are_those_of_the_published_tables(shared_data: Path) -> None:
    table = shared_data / "latency" / "nb201_help_archs.csv.gz"
    with gzip.open(table, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    codes = np.array([[int(row[f"op{j}"]) for j in range(6)] for row in rows])
    assert len(codes) > 10_000
    assert np.array_equal(SPACE.encode([row["arch_str"] for row in rows]), codes)
    assert SPACE.connected(codes).tolist() == [row["connected"] == "1" for row in rows]


def test_it_is_the_registered_space() -> None:
    assert isinstance(get_space("nasbench201"), NasBench201Space)
