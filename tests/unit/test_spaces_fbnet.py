"""``fbnet``: the published networks and rows, block by block."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from hwbench.errors import GraphError
from hwbench.graph import Graph
from hwbench.lower import create_session, random_weights, to_onnx, to_torch
from hwbench.ops import Op
from hwbench.spaces import get_space
from hwbench.spaces.fbnet import CHOICES, STAGES, FBNetSpace
from hwbench.testing.spaces import check_space
from tests.graphs import input_values, relative_error

SPACE = FBNetSpace()


def graph_of(text: str) -> Graph:
    return SPACE.graph(SPACE.encode([text])[0])


def everywhere(block: str) -> str:
    return ",".join([block] * 22)


def test_it_keeps_the_contract() -> None:
    check_space(SPACE)


def test_it_is_the_registered_space() -> None:
    assert isinstance(get_space("fbnet"), FBNetSpace)


# -- multiply-accumulates -----------------------------------------------------------------------

#: Stem, head and classifier.
OUTSIDE = 3 * 9 * 16 * 112**2 + 352 * 1984 * 7**2 + 1984 * 1000
#: The 1x1 convolutions of ``skip`` where a stage begins, at the size that it ends with.
PROJECTIONS = (
    16 * 24 * 56**2
    + 24 * 32 * 28**2
    + 32 * 64 * 14**2
    + 64 * 112 * 14**2
    + 112 * 184 * 7**2
    + 184 * 352 * 7**2
)


def test_macs_are_those_counted_by_hand() -> None:
    skip = everywhere("skip")
    first, second = "k3_e1_g2,k5_e3,", "skip,skip,"
    mixed = skip.replace(second, first, 1)
    grouped = (16 * 16 // 2 + 16 * 9 + 16 * 16 // 2) * 112**2
    strided = 16 * 48 * 112**2 + (48 * 25 + 48 * 24) * 56**2
    expected = {
        skip: OUTSIDE + PROJECTIONS,
        mixed: OUTSIDE + PROJECTIONS + grouped + strided - 16 * 24 * 56**2,
    }
    for text, macs in expected.items():
        assert graph_of(text).macs == SPACE.macs(SPACE.encode([text]))[0] == macs


#: Networks of the paper as Facebook's mobile-vision has them, with their width of the head and
#: the million FLOPs that the paper gives.
PUBLISHED = {
    "A": (
        "skip,k3_e3,k3_e1,skip,skip,k5_e6,k3_e3,k5_e1,k3_e3,k5_e6,k5_e3,"
        "k5_e1_g2,k5_e6,k3_e6,k5_e1_g2,k5_e3,k3_e1_g2,k5_e6,k5_e6,k5_e3,k5_e6,k5_e6",
        1504,
        249,
    ),
    "B": (
        "k3_e1,k3_e6,k5_e1,k3_e1,k3_e1,k5_e6,k5_e3,k3_e6,k5_e6,k5_e6,k5_e6,"
        "skip,k5_e3,k5_e6,k3_e1,k5_e1,k5_e3,k5_e6,k5_e1,k5_e6,k5_e6,k3_e6",
        1984,
        295,
    ),
    "C": (
        "k3_e1,k3_e6,skip,k3_e1,k3_e1,k5_e6,k5_e3,k5_e6,k3_e6,k5_e6,k5_e3,"
        "k5_e6,k5_e6,k5_e6,k5_e6,k5_e6,k5_e3,k5_e6,k5_e6,k5_e6,k5_e6,k3_e6",
        1984,
        375,
    ),
}


@pytest.mark.parametrize(("text", "head", "published"), PUBLISHED.values(), ids=PUBLISHED)
def test_macs_are_about_the_published_ones(text: str, head: int, published: int) -> None:
    """About: what the paper counts is not known, and copies of A and B differ in one layer."""
    narrower = (1984 - head) * (352 * 7**2 + 1000)
    macs = SPACE.macs(SPACE.encode([text]))[0] - narrower
    assert macs / 1e6 == pytest.approx(published, rel=0.04)


# -- structure ----------------------------------------------------------------------------------


def structure(graph: Graph) -> list[str]:
    """One word for each op."""

    def word(op: Op) -> str:
        if op.kind != "conv":
            return op.kind
        groups = {1: "", op["out_channels"]: "dw"}.get(op["groups"], f"g{op['groups']}-")
        stride = f"/{op['stride'][0]}" if op["stride"] != (1, 1) else ""
        return f"{groups}{op['kernel'][0]}x{op['kernel'][1]}-{op['out_channels']}{stride}"

    return [word(op) for op in graph.ops]


def test_layers_are_those_of_the_published_code() -> None:
    text = everywhere("skip").replace("skip,skip,skip", "k3_e1_g2,k5_e1_g2,k3_e3", 1)
    shuffle = "reshape transpose reshape"
    expected = [
        "3x3-16/2 relu",
        f"g2-1x1-16 relu {shuffle} dw3x3-16 relu g2-1x1-16 add",
        f"g2-1x1-16 relu {shuffle} dw5x5-16/2 relu g2-1x1-24",
        "1x1-72 relu dw3x3-72 relu 1x1-24 add",
        "1x1-32/2 relu 1x1-64/2 relu 1x1-112 relu 1x1-184/2 relu 1x1-352 relu",
        "1x1-1984 relu global_avg_pool flatten linear",
    ]
    assert structure(graph_of(text)) == " ".join(expected).split()


@pytest.mark.parametrize("block", CHOICES)
def test_a_net_of_one_block_throughout_can_be_built(block: str) -> None:
    graph = graph_of(everywhere(block))
    assert [spec.shape for _, spec in graph.inputs] == [(1, 3, 224, 224)]
    assert graph.tensors[graph.outputs[0]].shape == (1, 1000)
    before_pooling = next(op for op in graph.ops if op.kind == "global_avg_pool").inputs[0]
    assert graph.tensors[before_pooling].shape == (1, 1984, 7, 7)


def test_the_shuffle_deals_channels_out_in_turn() -> None:
    """Against torch's own channel_shuffle, on the first block's expanded channels."""
    graph = graph_of(everywhere("skip").replace("skip", "k3_e1_g2", 1))
    shuffle = [op for op in graph.ops if op.kind in ("reshape", "transpose")]
    before, after = shuffle[0].inputs[0], shuffle[-1].output
    seen = Graph(graph.name, graph.inputs, (before, after), graph.ops)
    (image,) = input_values(seen).values()
    with torch.no_grad():
        here, there = to_torch(seen, random_weights(seen))(torch.from_numpy(image))
    assert torch.equal(torch.nn.functional.channel_shuffle(here, 2), there)


def test_a_random_net_gives_the_same_in_onnxruntime_and_torch() -> None:
    (code,) = SPACE.sample(1, np.random.default_rng(0))
    assert {CHOICES[c] for c in code} >= {"k3_e1_g2", "skip"}
    graph = SPACE.graph(code)
    weights, inputs = random_weights(graph), input_values(graph)
    (in_onnx,) = create_session(to_onnx(graph, weights).bytes).run(None, inputs)
    with torch.no_grad():
        in_torch = to_torch(graph, weights)(*map(torch.from_numpy, inputs.values())).numpy()
    assert relative_error(in_onnx, in_torch) <= 1e-4


def test_a_skip_is_the_same_wherever_it_is_an_identity() -> None:
    skip = everywhere("skip").split(",")
    begins = np.cumsum([0, *(layers for _, layers, _ in STAGES[:-1])])
    swapped = [
        graph_of(",".join([*skip[:at], "k3_e1", *skip[at + 1 :]])).hash
        for at in (begins[1] + 1, begins[1] + 2, begins[1])
    ]
    assert swapped[0] == swapped[1] != swapped[2]


# -- text and codes -----------------------------------------------------------------------------


def test_text_may_be_pasted_with_blanks() -> None:
    text = PUBLISHED["B"][0]
    codes = SPACE.encode([f"  {text.replace(',', ', ')}\n"])
    assert SPACE.decode(codes) == [text]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1 blocks joined by ',': give 22"),
        (everywhere("skip") + ",skip", "23 blocks joined by ','"),
        (everywhere("skip")[:-1], "layer21 is 'ski': give one of k3_e1, k3_e1_g2"),
        (everywhere("k3_e1").replace("k3_e1", "k7_e1", 1), "layer0 is 'k7_e1'"),
    ],
)
def test_the_error_names_the_place(text: str, message: str) -> None:
    with pytest.raises(GraphError) as raised:
        SPACE.encode([text])
    assert message in str(raised.value)


def test_codes_are_those_of_the_published_tables(shared_data: Path) -> None:
    table = shared_data / "latency" / "fbnet_help_archs.csv.gz"
    with gzip.open(table, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    codes = np.array([[int(row[f"op{j}"]) for j in range(22)] for row in rows])
    assert len(np.unique(codes, axis=0)) == 4000
    assert np.array_equal(SPACE.check(codes), codes)
    assert np.array_equal(SPACE.encode(SPACE.decode(codes)), codes)
    assert SPACE.graph(codes[0]).macs == SPACE.macs(codes[:1])[0]
