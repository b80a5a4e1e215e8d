"""Fronts, best within a budget and hypervolume against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwbench.search.pareto import best_within, hypervolume, non_dominated

#: Few distinct values, so that ties are the rule.
PAIRS = arrays(np.int64, st.tuples(st.integers(1, 25), st.just(2)), elements=st.integers(0, 8))


@given(PAIRS)
def test_the_front_is_what_nothing_dominates(points: np.ndarray) -> None:
    cost, value = points.T.astype(float)
    front = non_dominated(cost, value)
    kept = {(cost[i], value[i]) for i in front}
    for i in range(len(points)):
        beaten = (cost <= cost[i]) & (value >= value[i]) & ((cost < cost[i]) | (value > value[i]))
        assert ((cost[i], value[i]) in kept) == (not beaten.any())
    assert len(kept) == len(front)
    assert (np.diff(cost[front]) > 0).all()


@given(PAIRS, st.lists(st.integers(-1, 9), min_size=1, max_size=5))
def test_the_best_within_a_budget(points: np.ndarray, budgets: list[int]) -> None:
    cost, value = points.T.astype(float)
    expected = [value[cost <= b].max() if (cost <= b).any() else -np.inf for b in budgets]
    assert best_within(cost, value, budgets).tolist() == expected


@given(PAIRS)
def test_hypervolume_counts_the_unit_squares_that_are_dominated(points: np.ndarray) -> None:
    cost, value = points.T.astype(float)
    squares = sum(
        bool(((cost <= x) & (value >= y + 1)).any()) for x in range(7) for y in range(1, 9)
    )
    assert hypervolume(cost, value, most=7, least=1) == squares


def test_points_beyond_the_corner_have_no_part_and_ragged_ones_are_refused() -> None:
    assert hypervolume([5.0, 1.0], [1.0, 0.2], most=4, least=0.3) == 0
    assert hypervolume([], [], most=4, least=0) == 0
    with pytest.raises(ValueError, match="not pairs"):
        non_dominated([1.0, 2.0], [1.0])
