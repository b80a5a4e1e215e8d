"""Where inputs leave: thresholds of confidence, chosen on validation images after training.

An input leaves at the first stage whose largest softmax reaches the stage's threshold. Which
thresholds are best depends on all of them together, so a grid of all combinations is looked at:
levels between the confidences that the validation images have, as many as make the grid no larger
than some ten thousand.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.errors import UsageError

Array = NDArray[np.float64]

_MOST_COMBINATIONS = 20_000
_MOST_LEVELS, _LEAST_LEVELS = 60, 4
_MOST_LOOKS = 50_000_000  # at an image under a combination: a byte each


@dataclass(frozen=True, slots=True, eq=False)
class Exits:
    """Ways to set the thresholds (m, stages - 1), and what each gives on the images looked at.

    ``left`` (m, stages): the share that leaves at each stage; ``accuracy`` (m,) from 0 to 1;
    ``cost`` (m,): the mean over the images, in the unit of the stages' costs.
    """

    thresholds: Array
    left: Array
    accuracy: Array
    cost: Array

    def __len__(self) -> int:
        return len(self.cost)

    def __getitem__(self, rows: NDArray[np.generic]) -> Exits:
        return Exits(self.thresholds[rows], self.left[rows], self.accuracy[rows], self.cost[rows])

    def front(self) -> Exits:
        """Those than which none is both cheaper and more accurate, the cheapest first."""
        order = np.lexsort((-self.accuracy, self.cost))
        best = np.maximum.accumulate(self.accuracy[order])
        new = np.concatenate([[True], best[1:] > best[:-1]])
        return self[order[new]]

    def cheapest(self, accuracy: float) -> Exits:
        """The one of least cost among those at least so accurate.

        UsageError where none is, and where the best lets nothing leave before the last stage:
        the stages before are then a waste.
        """
        good = self.accuracy >= accuracy
        if not good.any():
            raise UsageError(
                f"no thresholds give an accuracy of {accuracy:.4f}: the most is "
                f"{self.accuracy.max():.4f}: train longer, or ask for less"
            )
        rows = np.flatnonzero(good)
        chosen = self[rows[[int(np.lexsort((-self.accuracy[rows], self.cost[rows]))[0])]]]
        if chosen.left.shape[1] > 1 and chosen.left[0, -1] == 1:
            raise UsageError(
                f"at an accuracy of {accuracy:.4f} nothing leaves before the last stage: train "
                "longer, ask for less, or give the first stages more channels"
            )
        return chosen


def all_exits(confidences: ArrayLike, right: ArrayLike, costs: ArrayLike) -> Exits:
    """All thresholds of a grid, judged on n images.

    ``confidences`` (stages, n): each stage's largest softmax; ``right`` (stages, n): whether its
    answer is; ``costs`` (stages,): what it costs to run each. UsageError where these do not fit.
    """
    sure, good = np.asarray(confidences, float), np.asarray(right, bool)
    price = np.asarray(costs, float)
    if (
        sure.ndim != 2
        or not sure.shape[1]
        or good.shape != sure.shape
        or price.shape != sure.shape[:1]
    ):
        raise UsageError(
            f"confidences {sure.shape}, answers {good.shape} and costs {price.shape} do not fit: "
            "give (stages, n), (stages, n) and (stages,) of some validation images"
        )
    if not np.isfinite(sure).all():
        raise UsageError("some confidence is no number: the network diverged, train it again")
    stages, n = sure.shape
    levels, most = _MOST_LEVELS, min(_MOST_COMBINATIONS, _MOST_LOOKS // n)
    while levels > _LEAST_LEVELS and levels ** (stages - 1) > most:
        levels -= 1
    ways = list(product(*(_levels(row, levels) for row in sure[:-1])))
    grid = np.array(ways, float).reshape(len(ways), stages - 1)
    staying = np.ones((len(grid), n), bool)
    left, correct = np.empty((len(grid), stages)), np.zeros(len(grid))
    for j in range(stages):
        going = staying if j == stages - 1 else staying & (sure[j] >= grid[:, j, None])
        left[:, j] = going.sum(axis=1) / n
        correct += (going & good[j]).sum(axis=1)
        staying = staying & ~going
    reach = 1 - np.cumsum(left, axis=1) + left
    return Exits(grid, left, correct / n, reach @ price)


def _levels(confidences: Array, count: int) -> Array:
    """Thresholds between the confidences of images, evenly many between two; the last is 1."""
    ordered = np.unique(confidences)
    between = (ordered[1:] + ordered[:-1]) / 2
    # The middle of two neighbouring floats is one of them; the lower would part nothing.
    between = np.where(between > ordered[:-1], between, ordered[1:])
    at = np.linspace(0, len(between) - 1, min(count - 2, len(between))).round().astype(int)
    return np.unique([0.0, *between[at], 1.0])
