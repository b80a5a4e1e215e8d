"""``vit_small`` and ``bert_encoder``: transformer encoders, block by block."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.errors import GraphError, UsageError
from hwbench.graph import Graph
from hwbench.predictors.costs import CostTables, cost_tables, op_costs
from hwbench.predictors.tables import symbols
from hwbench.spaces import get_space
from hwbench.spaces.encoder import VIT_SMALL, EncoderSpace, Skeleton

VIT, BERT = get_space("vit_small"), get_space("bert_encoder")
both = pytest.mark.parametrize("space", [VIT, BERT], ids=lambda space: space.name)


def graph_of(space: EncoderSpace, text: str) -> Graph:
    return space.graph(space.encode([text])[0])


def test_macs_are_those_counted_by_hand() -> None:
    graph = graph_of(VIT, "p32 w64 h2,6 m1,4")
    patches, classifier = 49 * 64 * 3 * 32**2, 64 * 1000
    attention = [4 * 49 * 64 * inner + 2 * 49**2 * inner for inner in (64, 192)]
    hidden = [2 * 49 * 64 * 64 * ratio for ratio in (1, 4)]
    assert graph.macs == patches + classifier + sum(attention) + sum(hidden)
    graph = graph_of(BERT, "l32 w128 h4,4 m2,2")
    block = 4 * 32 * 128 * 128 + 2 * 32**2 * 128 + 2 * 32 * 128 * 256
    assert graph.macs == 2 * block + 128 * 2


def test_norms_come_first_in_images_and_last_in_sequences() -> None:
    def joints(space: EncoderSpace, text: str) -> list[str]:
        ops = graph_of(space, text).ops
        return [op.kind for op in ops if op.kind in ("layer_norm", "add", "softmax", "gelu")]

    first = ["layer_norm", "softmax", "add", "layer_norm", "gelu", "add"]
    assert joints(VIT, "p32 w64 h2,2 m1,1") == ["add", *first, *first, "layer_norm"]
    last = ["softmax", "add", "layer_norm", "gelu", "add", "layer_norm"]
    assert joints(BERT, "l32 w128 h2,2 m1,1") == ["add", "layer_norm", *last, *last]


@both
@settings(max_examples=40)
@given(data=st.data())
def test_macs_in_closed_form_are_those_of_the_graph(
    space: EncoderSpace, data: st.DataObject
) -> None:
    code = np.array([[data.draw(st.integers(0, c - 1)) for c in space.cardinalities]])
    assert space.macs(code)[0] == space.graph(code[0]).macs


@cache
def tables_of(name: str) -> CostTables:
    tables = cost_tables(get_space(name))
    assert tables is not None
    return tables


@both
@settings(max_examples=25)
@given(data=st.data())
def test_costs_are_exact_sums_over_tables(space: EncoderSpace, data: st.DataObject) -> None:
    code = np.array([[data.draw(st.integers(0, c - 1)) for c in space.cardinalities]])
    code = space.canonical(code.astype(np.int16))
    tables = tables_of(space.name)
    totals = tables.totals(symbols(space, code))[0]
    wanted = dict.fromkeys(tables.names, 0)
    for kind, *values in op_costs(space.graph(code[0])):
        for cost, value in zip(
            ("count", "macs", "activation_bytes", "weight_bytes"), (1, *values), strict=True
        ):
            wanted[kind, cost] += value
    assert totals.tolist() == list(wanted.values())


@both
def test_layers_on_tokens_are_told_from_the_classifier(space: EncoderSpace) -> None:
    smallest = space.graph(np.zeros(len(space.decisions), dtype=np.int16))
    kinds = Counter(kind for kind, *_ in op_costs(smallest))
    assert (kinds["linear"], kinds["linear on tokens"], kinds["matmul"]) == (1, 12, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p16 w64 h2,2", "four fields in the order p w h m"),
        ("l16 w64 h2,2 m1,1", "four fields in the order p w h m"),
        ("p17 w64 h2,2 m1,1", "p is '17': give one of 16, 28, 32"),
        ("p16 w65 h2,2 m1,1", "w is '65'"),
        ("p16 w64 h2 m1", "1 blocks: give one of 2, 3, 4, 5, 6"),
        ("p16 w64 h2,2 m1,1,1", "h has 2 numbers and m 3"),
        ("p16 w64 h2,5 m1,1", "h of block 2 is '5'"),
        ("p16 w64 h2,2 m1,", "m of block 2 is ''"),
    ],
)
def test_a_text_that_names_no_network_says_where(text: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        VIT.encode([text])


def test_patches_that_do_not_divide_the_image_are_refused() -> None:
    values = {name: getattr(VIT_SMALL, name) for name in Skeleton.__slots__}
    with pytest.raises(UsageError, match="do not divide the image"):
        Skeleton(**values | {"sizes": (15,)})
