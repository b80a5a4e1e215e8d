"""What the search of EAS leaves behind: an architecture for any task and budget by inference.

>>> generator.generate([(generator.groups.task("digits:0,1,7"), 3.0)])[0].text

One forward pass gives the likeliest architecture of each task and budget. Where the oracle's bound
on it is above the budget, the same is asked for somewhat less (:data:`_LADDER`), and the candidates
kept stand by: the answer is, of all that are within the budget, the one that the generator holds
for the likeliest under that task and budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hwbench.predictors import BudgetOracle
from hwbench.predictors.threads import one_thread
from hwbench.search.answering import (
    Answering,
    Array,
    Arrays,
    Generated,
    below,
    codes_of,
    numbers_of,
)
from hwbench.search.eas.policy import Choices, TaskPolicy
from hwbench.search.eas.tasks import Task, TaskGroups
from hwbench.spaces.base import Codes, Value, unique_in_order

Scenario = tuple[Task, float]

#: Shares of a budget for which the generator is asked.
_LADDER = (1.0, 0.98, 0.95, 0.91)


class Labels:
    """Validation accuracies of some architectures, each on some task.

    ``tasks`` (n,) are their classes, ``codes`` (n, L) canonical, ``accuracy`` (n,) 0 to 1.
    """

    def __init__(self, tasks: Sequence[tuple[int, ...]], codes: Codes, accuracy: Array) -> None:
        self.tasks, self.codes, self.accuracy = tuple(tasks), codes, accuracy
        self._known = {
            (task, code.tobytes()): float(a)
            for task, code, a in zip(tasks, codes, accuracy, strict=True)
        }

    def of(self, task: Task, code: Codes) -> float | None:
        """The accuracy of a canonical code (L,) on a task, where it is known."""
        return self._known.get((task.classes, code.tobytes()))

    def joined(self, other: Labels) -> Labels:
        """With those of another that are not among these."""
        new = [
            i
            for i, (task, code) in enumerate(zip(other.tasks, other.codes, strict=True))
            if (task, code.tobytes()) not in self._known
        ]
        return Labels(
            [*self.tasks, *(other.tasks[i] for i in new)],
            np.concatenate([self.codes, other.codes[new]]),
            np.concatenate([self.accuracy, other.accuracy[new]]),
        )

    def rows(self, task: Task) -> NDArray[np.intp]:
        """Which are of a task."""
        return np.flatnonzero([classes == task.classes for classes in self.tasks])


class TaskGenerator(Answering):
    """Answers tasks and budgets on one device; made by :func:`train_task_generator`, or a file.

    ``groups`` are the classes it knows, ``fixed`` the decisions that all answers share, ``labels``
    what was validated.
    """

    kind = "eas"

    def __init__(
        self,
        policy: TaskPolicy,
        groups: TaskGroups,
        fixed: Mapping[str, Value],
        labels: Labels,
        oracle: BudgetOracle,
        kept: Codes,
        confidence: float,
    ) -> None:
        super().__init__(oracle, kept, confidence)
        self.policy, self.groups, self.labels = policy, groups, labels
        self.fixed = dict(fixed)
        self._choices = Choices(self.space, fixed)

    def parts(self) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
        """The policy, the groups of classes, and the labels."""
        tasks = [list(task) for task in self.labels.tasks]
        arrays: dict[str, NDArray[np.generic]] = {
            "labelled": self.labels.codes.astype(np.int16),
            "accuracy": self.labels.accuracy,
            **{f"policy.{name}": array for name, array in self.policy.state().items()},
        }
        return {**self.groups.plain(), "fixed": self.fixed, "labelled_tasks": tasks}, arrays

    @classmethod
    def from_parts(
        cls,
        meta: Mapping[str, Any],
        arrays: Arrays,
        oracle: BudgetOracle,
        kept: Codes,
        confidence: float,
    ) -> Self:
        space = oracle.predictor.space
        groups, fixed = TaskGroups.restored(meta), dict(meta["fixed"])
        tasks = [tuple(int(c) for c in task) for task in meta["labelled_tasks"]]
        accuracy = numbers_of(arrays, "accuracy", most=1)
        labelled = codes_of(arrays, "labelled", space)
        if not len(labelled) == len(accuracy) == len(tasks):
            raise ValueError("labels are missing")
        values = Choices(space, fixed).size
        policy = TaskPolicy.restored(below(arrays, "policy."), len(groups.groups), values)
        labels = Labels(tasks, labelled, accuracy)
        return cls(policy, groups, fixed, labels, oracle, kept, confidence)

    def generate(self, scenarios: Sequence[Scenario]) -> list[Generated]:
        """An architecture for each task and budget, in the order given; the same ones each time.

        UsageError where a budget is no positive number or outside :attr:`range_ms`, or a task has
        classes that no group has.
        """
        with one_thread():
            budgets = self._checked([budget for _, budget in scenarios])
            return self._answers([task for task, _ in scenarios], budgets) if len(budgets) else []

    def proposals(self, tasks: Sequence[Task], budgets_ms: Array) -> Codes:
        """The likeliest architecture (n, L) of each task and budget, within it or not."""
        return self._choices.likeliest(self._logits(tasks, budgets_ms))

    def _answers(self, tasks: Sequence[Task], budgets: Array) -> list[Generated]:
        n = len(budgets)
        asked = (budgets * np.array(_LADDER)[:, None]).reshape(-1)
        logits = self._logits(list(tasks) * len(_LADDER), asked)
        proposed = unique_in_order(self._choices.likeliest(logits))
        codes = np.concatenate([proposed, self.kept])
        upper = np.concatenate([self._upper(proposed), self._kept_upper])
        likely = self._choices.shortfall(logits[:n], codes)
        # Of equally likely ones the first; the fastest kept is within every budget of the range.
        best = np.where(upper <= budgets[:, None], likely, -np.inf).argmax(axis=1)
        used, at = np.unique(best, return_inverse=True)
        predicted, texts = self.oracle.latency(codes[used]), self.space.decode(codes[used])
        return [
            Generated(
                budget_ms=float(budgets[i]),
                code=codes[best[i]],
                text=texts[k],
                predicted_ms=float(predicted[k]),
                upper_ms=float(upper[best[i]]),
                accuracy=self._accuracy(tasks[i], codes[best[i]], upper[best[i]]),
                proposed=bool(best[i] < len(proposed)),
                task=tasks[i].name,
            )
            for i, k in enumerate(at.reshape(-1))
        ]

    def _logits(self, tasks: Sequence[Task], budgets_ms: Array) -> NDArray[np.float32]:
        distinct = list(dict.fromkeys(tasks))
        place = {task: i for i, task in enumerate(distinct)}
        shares = self.groups.shares(distinct)[[place[task] for task in tasks]]
        return self._choices.padded(self.policy.logits(shares, budgets_ms))

    def _accuracy(self, task: Task, code: Codes, upper_ms: float) -> float | None:
        """Its label, or what labels of the task say of that latency; None of a task without any."""
        label = self.labels.of(task, code)
        if label is not None:
            return label
        latency, accuracy = self._by_latency.get(task.classes, (np.zeros(0), np.zeros(0)))
        return float(np.interp(upper_ms, latency, accuracy)) if len(latency) else None

    @cached_property
    def _by_latency(self) -> dict[tuple[int, ...], tuple[Array, Array]]:
        """Of each task that has labels: bounds in ms, ascending, and accuracies."""
        upper = self._upper(self.labels.codes)
        found = {}
        for classes in dict.fromkeys(self.labels.tasks):
            rows = self.labels.rows(Task("", classes))
            rows = rows[np.argsort(upper[rows], kind="stable")]
            found[classes] = upper[rows], self.labels.accuracy[rows]
        return found
