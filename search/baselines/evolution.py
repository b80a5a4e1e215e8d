"""Regularised evolution under each of several budgets (Real et al., AAAI 2019).

The oldest of a population die; the best of a random few become parents; a child differs from its
parent in one decision. One population a budget: that is what a search without a generator has to
do. They run side by side, which changes nothing but the time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwbench.search.moves import mutated
from hwbench.search.scoring import Scored, Scores
from hwbench.spaces.base import NOTHING_FIXED, Codes, Value

Array = NDArray[np.float64]

_POPULATION, _TOURNAMENT, _CHILDREN = 50, 10, 5


def evolve(
    scorer: Scores,
    budgets_ms: Array,
    calls: int,
    rng: np.random.Generator,
    fixed: Mapping[str, Value] = NOTHING_FIXED,
    *,
    population: int = _POPULATION,
    first: Codes | None = None,
) -> Scored:
    """``calls`` evaluator calls for each budget (b,); returns all that was scored.

    All have the values of ``fixed``. Every population has ``first`` (f, L) among its members, and
    begins with random ones else.

    A member within its budget stands before one that is not, then the better score; of two beyond
    it the faster.
    """
    space, count = scorer.space, len(budgets_ms)
    members = min(population, calls)
    codes = np.stack([space.sample(members, rng, fixed=fixed) for _ in budgets_ms])
    if first is not None:
        codes[:, : len(first)] = first[:members]
    found = scorer(codes.reshape(-1, codes.shape[2]))
    parts = [found]
    worth = _worth(found, np.repeat(budgets_ms, members)).reshape(count, members)
    oldest = 0
    for spent in range(members, calls, _CHILDREN):
        children = min(_CHILDREN, calls - spent)
        drawn = rng.integers(0, members, (count, children, min(_TOURNAMENT, members)))
        at = np.arange(count)[:, None]
        winner = np.take_along_axis(
            drawn, worth[at[:, :, None], drawn].argmax(axis=2)[:, :, None], axis=2
        )[:, :, 0]
        parents = codes[at, winner].reshape(-1, codes.shape[2])
        found = scorer(mutated(space, parents, rng, fixed))
        parts.append(found)
        slots = (oldest + np.arange(children)) % members
        codes[:, slots] = found.codes.reshape(count, children, -1)
        worth[:, slots] = _worth(found, np.repeat(budgets_ms, children)).reshape(count, children)
        oldest = (oldest + children) % members
    return parts[0].joined(*parts[1:])


def _worth(found: Scored, budgets_ms: Array) -> Array:
    """(n,) by which members of one budget compare, each under its own budget (n,)."""
    # Scores are of order 1: any that keeps the budget stands above all that do not.
    above = 1e6
    return np.where(found.upper_ms <= budgets_ms, above + found.score, -found.upper_ms)
