"""Sums over tables: the same function in every form it is given."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.predictors.tables import (
    TableSum,
    checked_table_sum,
    scope_states,
    symbol_counts,
    symbols,
    table_sum,
)
from hwbench.spaces import Decision, Space, get_space

OFA = get_space("ofa_mbv3")


@st.composite
def sums(draw: st.DrawFn, counts: tuple[int, ...] | None = None) -> TableSum:
    """A sum of up to four tables over up to five decisions."""
    if counts is None:
        counts = tuple(draw(st.lists(st.integers(1, 4), min_size=2, max_size=5)))
    decisions = st.sampled_from(range(len(counts)))
    scope = st.sets(decisions, min_size=1, max_size=3).map(lambda s: tuple(sorted(s)))
    scopes = tuple(draw(st.lists(scope, min_size=1, max_size=4, unique=True)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    width = draw(st.integers(1, 3))
    tables = [rng.standard_normal((math.prod(counts[j] for j in s), width)) for s in scopes]
    return TableSum(counts, scopes, tuple(tables))


def all_symbols(counts: tuple[int, ...]) -> np.ndarray:
    return scope_states(counts, range(len(counts))).astype(np.float32)


def one_by_one(f: TableSum, rows: np.ndarray) -> np.ndarray:
    """What the docstring says, spelled out."""
    out = np.zeros((len(rows), f.width))
    for i, row in enumerate(rows.astype(int)):
        for scope, table in zip(f.scopes, f.tables, strict=True):
            state = 0
            for j in scope:
                state = state * f.counts[j] + row[j]
            out[i] += table[state]
    return out


@given(sums())
def test_it_adds_up_one_row_of_each_table(f: TableSum) -> None:
    rows = all_symbols(f.counts)
    np.testing.assert_allclose(f(rows), one_by_one(f, rows), atol=1e-12)


@given(sums(), st.integers(1, 300))
def test_fusing_and_merging_scopes_change_nothing(f: TableSum, limit: int) -> None:
    rows = all_symbols(f.counts)
    fused, merged = f.fused(limit), table_sum(f.counts, f.scopes, f.tables)
    np.testing.assert_allclose(fused(rows), f(rows), atol=1e-12)
    np.testing.assert_allclose(merged(rows), f(rows), atol=1e-12)
    sizes = [math.prod(f.counts[j] for j in scope) for scope in fused.scopes]
    assert max(sizes) <= max(limit, *(len(t) for t in f.tables))


@given(st.data())
def test_two_functions_side_by_side(data: st.DataObject) -> None:
    f = data.draw(sums())
    g = data.draw(sums(f.counts))
    rows = all_symbols(f.counts)
    both = np.concatenate([f(rows), g(rows)], axis=1)
    np.testing.assert_allclose(f.beside(g)(rows), both, atol=1e-12)


@given(sums())
def test_a_projection_is_one_of_the_sums(f: TableSum) -> None:
    rows, rng = all_symbols(f.counts), np.random.default_rng(0)
    matrix, offset = rng.standard_normal((f.width, 2)), rng.standard_normal(f.width)
    projected = f.project(matrix, offset)
    np.testing.assert_allclose(projected(rows), (f(rows) - offset) @ matrix, atol=1e-12)


def test_a_split_puts_the_sum_at_the_place_of_its_decisions_value() -> None:
    rng = np.random.default_rng(0)
    tables = (rng.standard_normal((6, 2)), rng.standard_normal((8, 2)))
    f = TableSum((2, 3, 4), ((0, 1), (0, 2)), tables)
    rows = np.array([[0, 2, 3], [1, 0, 1]], dtype=np.float32)
    apart = f.split(0)(rows)
    assert apart.shape == (2, 4)
    np.testing.assert_allclose(apart[0], np.r_[f(rows)[0], 0, 0])
    np.testing.assert_allclose(apart[1], np.r_[0, 0, f(rows)[1]])


def test_more_rows_than_one_chunk() -> None:
    f = TableSum((3,), ((0,),), (np.arange(3.0)[:, None],))
    rows = np.tile(np.arange(3, dtype=np.float32), 5000)[:, None]
    assert np.array_equal(f(rows)[:, 0], rows[:, 0])
    assert f(rows[:0]).shape == (0, 1)


def test_symbols_tell_an_inactive_decision_from_its_first_value() -> None:
    space = get_space("mbv3_small")
    short, deep = space.encode(
        [
            "r28 d2,2,2,2,2 k33,33,33,33,33 e33,33,33,33,33",
            "r28 d3,2,2,2,2 k333,33,33,33,33 e333,33,33,33,33",
        ]
    )
    column = [d.name for d in space.decisions].index("k2")
    assert short[column] == deep[column] == 0
    assert symbols(space, np.stack([short, deep]))[:, column].tolist() == [0, 1]


def test_symbols_do_not_see_what_inactive_decisions_hold() -> None:
    codes = OFA.sample(50, np.random.default_rng(0))
    noise = np.random.default_rng(1).integers(0, OFA.cardinalities, codes.shape, np.int16)
    raw = np.where(OFA.active(codes), codes, noise)
    assert (raw != codes).any()
    assert np.array_equal(symbols(OFA, raw), symbols(OFA, codes))


def test_symbol_counts_leave_room_for_inactive() -> None:
    class Two(Space):
        def build(self, choice):
            raise NotImplementedError

    space = Two("two", [Decision("a", (1, 2)), Decision("b", (1, 2, 3), when=("a", (2,)))])
    assert symbol_counts(space) == (2, 4)


@pytest.mark.parametrize(
    ("scope", "states"), [((), 1), ((1, 0), 6), ((0, 0), 4), ((2,), 3), ((0,), 3)]
)
def test_parts_that_do_not_fit_are_refused(scope: tuple[int, ...], states: int) -> None:
    with pytest.raises(ValueError, match=r"scope|shape"):
        checked_table_sum((2, 3), [scope], [np.zeros((states, 1))])
