"""Which architectures to measure next: those that tell most about all the others.

Before a label is known the regression already says how uncertain it will be: its prior is a
Gaussian process over architectures. Greedily, the next architecture is the one whose measurement
takes most from the variance summed over a sample of the space (Cohn, Ghahramani and Jordan,
"Active learning with statistical models", 1996; Krause, Singh and Guestrin, 2008). No label is
looked at, so the choice can be made before anything is measured. One in four is drawn at random
all the same: intervals are calibrated on what was measured, and the most telling architectures are
the odd ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.predictors.cost_regression import prior_features
from hwbench.predictors.sources import Sources
from hwbench.spaces import Space

#: Candidates that are looked at, and the noise that a label is expected to have.
_POOL = 1200
_NOISE = 0.03
_AT_RANDOM = 0.25


def most_telling(
    space: Space,
    codes: ArrayLike,
    n: int,
    rng: np.random.Generator,
    *,
    known: ArrayLike | None = None,
    sources: Sources | None = None,
) -> NDArray[np.intp]:
    """Rows of ``codes`` (m, L) to measure, n distinct ones, the most telling first.

    ``known`` were measured before and need not be told again.
    """
    rows = space.canonical(codes)
    pool = rng.permutation(len(rows))[: max(_POOL, n)]
    before = rows[:0] if known is None else space.canonical(known)
    features = prior_features(space, np.concatenate([rows[pool], before]), rng, sources)
    covariance = features @ features.T
    for row in range(len(pool), len(features)):
        covariance = _told(covariance, row)
    taken: list[int] = []
    lot = rng.permutation(len(pool))
    for place in range(min(n, len(pool))):
        if rng.random() < _AT_RANDOM and place:
            row = int(next(each for each in lot if each not in taken))
        else:
            value = (covariance[:, : len(pool)] ** 2).sum(axis=0)
            value /= np.diag(covariance)[: len(pool)] + _NOISE**2
            value[taken] = -1
            row = int(value.argmax())
        taken.append(row)
        covariance = _told(covariance, row)
    return np.asarray(pool[taken])


def _told(covariance: NDArray[np.float64], row: int) -> NDArray[np.float64]:
    """The covariance once the label of a row is known."""
    column = covariance[:, row]
    left: NDArray[np.float64] = covariance - np.outer(column, column) / (column[row] + _NOISE**2)
    return left
