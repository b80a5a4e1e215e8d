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

from collections.abc import Callable

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
    progress: Callable[[float], None] = lambda _: None,
) -> NDArray[np.intp]:
    """Rows of ``codes`` (m, L) to measure, n distinct ones, the most telling first.

    ``known`` were measured before and need not be told again. ``progress`` is called with the
    share done.
    """
    progress(0.0)
    rows = space.canonical(codes)
    pool = rng.permutation(len(rows))[: max(_POOL, n)]
    before = rows[:0] if known is None else space.canonical(known)
    features = prior_features(space, np.concatenate([rows[pool], before]), rng, sources)
    if len(before):
        measured = features[len(pool) :]
        precision = np.eye(features.shape[1]) + measured.T @ measured / _NOISE**2
        features = np.linalg.solve(np.linalg.cholesky(precision), features.T).T
    covariance = features @ features[: len(pool)].T
    scratch = np.empty_like(covariance)  # of many candidates each is gigabytes: no third one
    taken: list[int] = []
    free = np.ones(len(pool), dtype=bool)
    lot = rng.permutation(len(pool))
    count = min(n, len(pool))
    for place in range(count):
        if rng.random() < _AT_RANDOM and place:
            row = int(lot[free[lot].argmax()])
        else:
            value = np.square(covariance, out=scratch).sum(axis=0)
            value /= np.diag(covariance) + _NOISE**2
            value[~free] = -1
            row = int(value.argmax())
        taken.append(row)
        free[row] = False
        _tell(covariance, row, scratch)
        progress((place + 1) / count)
    return np.asarray(pool[taken])


def _tell(covariance: NDArray[np.float64], row: int, scratch: NDArray[np.float64]) -> None:
    """Make the covariance, in place, what it is once the label of a candidate is known.

    It is that of all rows (m) with the candidates (p), which are the first of them.
    """
    column = covariance[:, row]
    np.outer(column, column[: covariance.shape[1]], out=scratch)
    scratch /= column[row] + _NOISE**2
    covariance -= scratch
