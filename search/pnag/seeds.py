"""Controllers of several seeds: the best of them answers, beside what all of them have found.

All learn from the same accuracy labels and the same oracle, here (:mod:`hwbench.search.seeds`) or
on the hosts of a fleet (:mod:`hwbench.search.pnag.afar`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwbench.predictors import BudgetOracle
from hwbench.search.accuracy.model import AccuracyModel, restored
from hwbench.search.ledger import SearchLedger
from hwbench.search.pnag.policy import Policy, Walk
from hwbench.search.pnag.training import Schedule, train_policy
from hwbench.search.scoring import Scored, Scorer, best_each
from hwbench.search.seeds import Progress
from hwbench.spaces import Space
from hwbench.spaces.base import Value, unique_in_order

Array = NDArray[np.float64]

#: Budgets over the range by which seeds are held against each other.
_COMPARED = 40


@dataclass(frozen=True, eq=False)
class Course:
    """What the controllers of a search have in common; ``budgets_ms`` (K,) ascend.

    What it costs to train them is counted in ``ledger``.
    """

    evaluator: AccuracyModel
    oracle: BudgetOracle
    confidence: float
    budgets_ms: Array
    fixed: Mapping[str, Value]
    plan: Schedule
    ledger: SearchLedger

    @property
    def space(self) -> Space:
        """Of the architectures."""
        return self.evaluator.space

    @cached_property
    def scorer(self) -> Scorer:
        """By the evaluator and the oracle."""
        return Scorer(self.space, self.evaluator, self.oracle, self.confidence, self.ledger)

    def trained(self, seed: int, progress: Progress) -> Trained:
        """The controller of a seed: the same one each time."""
        policy, archive = train_policy(
            self.scorer,
            self.budgets_ms,
            self.evaluator.codes,
            seed=seed,
            fixed=self.fixed,
            plan=self.plan,
            progress=progress,
        )
        return Trained(policy, archive)


@dataclass(frozen=True, eq=False)
class Trained:
    """A controller, and all that was scored in its training."""

    policy: Policy
    archive: Scored


#: Trains the controllers of a course's seeds.
Trainer = Callable[[Course, Sequence[int], Progress], list[Trained]]


def chosen(course: Course, trained: Sequence[Trained]) -> tuple[Trained, list[float]]:
    """The best controller with what all have found, and what each seed is worth by itself.

    That is the accuracy predicted of what it would answer, 0 to 1, by the mean over the range of
    budgets; nothing where it knows no architecture within one.
    """
    between = np.geomspace(course.budgets_ms[0], course.budgets_ms[-1], _COMPARED)
    worth = [_worth(course, each, between) for each in trained]
    best = trained[int(np.argmax(worth))]
    return Trained(best.policy, best.archive.joined(*(each.archive for each in trained))), worth


def _worth(course: Course, trained: Trained, budgets_ms: Array) -> float:
    codes = unique_in_order(trained.policy.draw(Walk(course.space, course.fixed), budgets_ms))
    found = trained.archive.joined(course.scorer(codes[course.space.valid(codes)]))
    rows = best_each(found, budgets_ms)
    return float(np.where(rows >= 0, restored(found.score[rows]), 0.0).mean())
