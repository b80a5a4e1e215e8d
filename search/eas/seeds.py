"""Generators of several seeds: the best by its labels answers, beside the candidates of all.

All learn on the same supernet, the same images and the same oracle, here
(:mod:`hwbench.search.seeds`) or on the hosts of a fleet (:mod:`hwbench.search.eas.afar`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwbench.predictors import BudgetOracle
from hwbench.search.data import Part
from hwbench.search.eas.policy import Choices, TaskPolicy
from hwbench.search.eas.tasks import TaskGroups
from hwbench.search.seeds import Progress

if TYPE_CHECKING:
    from hwbench.search.eas.search import Lesson
    from hwbench.search.supernet import Supernet

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TaskCourse:
    """What the generators of a search have in common; ``budgets_ms`` (K,) ascend."""

    net: Supernet
    images: Part
    oracle: BudgetOracle
    groups: TaskGroups
    choices: Choices
    budgets_ms: Array
    confidence: float
    plan: Lesson

    def trained(self, seed: int, progress: Progress) -> TaskPolicy:
        """The policy of a seed: the same one each time, on as many threads."""
        from hwbench.search.eas.training import train_policy

        return train_policy(
            self.net,
            self.images,
            self.oracle,
            self.groups,
            self.choices,
            self.budgets_ms,
            confidence=self.confidence,
            seed=seed,
            plan=self.plan,
            progress=progress,
        )


#: Trains the policies of a course's seeds.
TaskTrainer = Callable[[TaskCourse, Sequence[int], Progress], list[TaskPolicy]]
