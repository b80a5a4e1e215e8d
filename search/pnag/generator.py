"""What the search leaves behind: a generator that answers any budget by inference.

>>> generator = train_generator(space, source, oracle, budgets_ms=[5, 8, 12])
>>> generator.generate([9.3, 12])[0].text

The controller proposes, the oracle checks, and the best known candidates stand by: an answer is
the best-scored architecture, of the controller's proposals and the candidates kept, whose upper
latency bound is within the budget. Every answer says which of the two it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hwbench.predictors import BudgetOracle
from hwbench.predictors.threads import one_thread
from hwbench.search.accuracy.model import AccuracyModel, Scales, restored
from hwbench.search.answering import (
    Answering,
    Array,
    Arrays,
    Generated,
    below,
    codes_of,
    numbers_of,
)
from hwbench.search.pareto import non_dominated
from hwbench.search.pnag.policy import Policy, Walk
from hwbench.search.scoring import Scored, Staircase, best_each
from hwbench.spaces.base import NOTHING_FIXED, Codes, Value, unique_in_order

#: Layers of the front that are kept, so that there is a next best where the best proves too slow.
_LAYERS, _MOST_KEPT = 12, 2000


class Generator(Answering):
    """Answers budgets on one device; made by :func:`train_generator` or read from a file.

    ``kept`` are candidates (n, L). ``range_ms`` is what can be reached: the bound of the fastest
    and of the slowest architecture that was seen. ``fixed`` are decisions that all answers share.
    """

    kind, version = "pnag", 3

    def __init__(
        self,
        policy: Policy,
        evaluator: AccuracyModel,
        oracle: BudgetOracle,
        kept: Codes,
        confidence: float,
        fixed: Mapping[str, Value] = NOTHING_FIXED,
    ) -> None:
        super().__init__(oracle, kept, confidence)
        self.policy, self.evaluator, self.fixed = policy, evaluator, dict(fixed)
        self._walk = Walk(self.space, self.fixed)

    def parts(self) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
        """The policy, and the labelled architectures that the evaluator is made of."""
        evaluator = self.evaluator
        arrays: dict[str, NDArray[np.generic]] = {
            "labelled": evaluator.codes.astype(np.int16),
            "accuracy": evaluator.accuracy,
            **{f"policy.{name}": array for name, array in self.policy.state().items()},
        }
        return {"scales": asdict(evaluator.scales), "fixed": self.fixed}, arrays

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
        labelled, accuracy = (
            codes_of(arrays, "labelled", space),
            numbers_of(arrays, "accuracy", most=1),
        )
        if not 0 < len(labelled) == len(accuracy):
            raise ValueError("labels are missing")
        evaluator = AccuracyModel(space, labelled, accuracy, Scales(**meta["scales"]))
        policy = Policy.restored(below(arrays, "policy."), space)
        return cls(policy, evaluator, oracle, kept, confidence, dict(meta["fixed"]))

    def generate(self, budgets_ms: Sequence[float]) -> list[Generated]:
        """The best architecture within each budget, in the order given; the same ones each time.

        UsageError where a budget is no positive number, or outside :attr:`range_ms`.
        """
        with one_thread():
            budgets = self._checked(budgets_ms)
            return self._answers(budgets) if len(budgets) else []

    def _answers(self, budgets: Array) -> list[Generated]:
        distinct, again = np.unique(budgets, return_inverse=True)
        proposed, known = self.proposals(distinct), self._known
        # What is kept reaches down to the least budget: one is within each.
        kept, ours = self._stairs.best(distinct), best_each(proposed, distinct)
        score = np.append(proposed.score, -np.inf)[ours]  # the last where no proposal is within
        ours_first = score >= known.score[kept]
        rows = np.where(ours_first, len(known) + ours, kept)
        used, at = np.unique(rows, return_inverse=True)
        codes = np.concatenate([known.codes, proposed.codes])[used]
        upper = np.concatenate([known.upper_ms, proposed.upper_ms])[used]
        accuracy = restored(np.concatenate([known.score, proposed.score])[used])
        predicted, texts = self.oracle.latency(codes), self.space.decode(codes)
        return [
            Generated(
                budget_ms=float(budgets[i]),
                code=codes[k],
                text=texts[k],
                predicted_ms=float(predicted[k]),
                upper_ms=float(upper[k]),
                accuracy=float(accuracy[k]),
                proposed=bool(used[k] >= len(known)),
            )
            for i, k in enumerate(at.reshape(-1)[again.reshape(-1)])
        ]

    def proposals(self, budgets_ms: Array) -> Scored:
        """The controller's likeliest architecture for each budget (b,): valid ones, each once."""
        codes = unique_in_order(self.policy.draw(self._walk, budgets_ms))
        return self._scored(codes[self.space.valid(codes)])

    @cached_property
    def _known(self) -> Scored:
        return Scored(self.kept, self.evaluator.score(self.kept), self._kept_upper)

    @cached_property
    def _stairs(self) -> Staircase:
        return Staircase(self._known)

    def _scored(self, codes: Codes) -> Scored:
        score = self.evaluator.score(codes) if len(codes) else np.zeros(0)
        return Scored(codes, score, self._upper(codes))


def front_layers(found: Scored) -> NDArray[np.intp]:
    """Rows worth keeping of all that was scored: the first fronts, the fastest and the slowest."""
    finite = np.flatnonzero(np.isfinite(found.upper_ms))
    ends = [found.upper_ms[finite].argmin(), found.upper_ms[finite].argmax()]
    left, layers = finite, [finite[ends]]
    for _ in range(_LAYERS):
        front = left[non_dominated(found.upper_ms[left], found.score[left])]
        layers.append(front)
        left = np.setdiff1d(left, front)
        if not len(left):
            break
    return np.unique(np.concatenate(layers)[:_MOST_KEPT])
