"""Random architectures, and all there are: both scored by the evaluator."""

from __future__ import annotations

import numpy as np

from hwbench.search.scoring import Scored, Scores
from hwbench.spaces.base import ENUMERABLE


def random_pool(scorer: Scores, calls: int, rng: np.random.Generator) -> Scored:
    """``calls`` random architectures, or all where there are fewer: one pool for all budgets."""
    space = scorer.space
    if space.raw_size() <= ENUMERABLE:
        return scorer(rng.permutation(space.all_codes())[:calls])
    return scorer(space.sample(calls, rng))


def every_one(scorer: Scores) -> Scored:
    """All architectures of a space that can be listed: the best that the evaluator allows."""
    return scorer(scorer.space.all_codes())
