"""Fronts of (cost, value): the cheaper and the more valuable the better.

Costs are latencies in ms, values accuracies; both (n,). All is exact in two dimensions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def non_dominated(cost: ArrayLike, value: ArrayLike) -> NDArray[np.intp]:
    """Rows that no other is as good as in both and better in one, by rising cost.

    Of rows that are equal in both the first is kept.
    """
    costs, values = _pairs(cost, value)
    order = np.lexsort((np.arange(len(costs)), -values, costs))
    best = np.maximum.accumulate(values[order])
    before = np.concatenate([[-np.inf], best[:-1]])
    return order[values[order] > before]


def best_within(cost: ArrayLike, value: ArrayLike, budgets: ArrayLike) -> Array:
    """The largest value (b,) at a cost within each budget; -inf where nothing is that cheap."""
    costs, values = _pairs(cost, value)
    order = np.argsort(costs, kind="stable")
    best = np.maximum.accumulate(values[order])
    within = np.searchsorted(costs[order], np.asarray(budgets, dtype=np.float64), side="right")
    return np.concatenate([[-np.inf], best])[within]


def hypervolume(cost: ArrayLike, value: ArrayLike, most: float, least: float) -> float:
    """Area that the points dominate, up to a cost of ``most`` and down to a value of ``least``."""
    costs, values = _pairs(cost, value)
    inside = (costs < most) & (values > least)
    costs, values = costs[inside], values[inside]
    if not len(costs):
        return 0.0
    front = non_dominated(costs, values)
    widths = np.diff(np.append(costs[front], most))
    return float((widths * (values[front] - least)).sum())


def _pairs(cost: ArrayLike, value: ArrayLike) -> tuple[Array, Array]:
    costs, values = np.asarray(cost, np.float64), np.asarray(value, np.float64)
    if costs.ndim != 1 or costs.shape != values.shape:
        raise ValueError(f"costs {costs.shape} and values {values.shape} are not pairs")
    return costs, values
