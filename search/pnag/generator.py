"""What the search leaves behind: a generator that answers any budget by inference.

>>> generator = train_generator(space, source, oracle, budgets_ms=[5, 8, 12])
>>> generator.generate([9.3, 12])[0].text

The controller proposes, the oracle checks, and the best known candidates stand by: an answer is
the best-scored architecture, of the controller's proposals and the candidates kept, whose upper
latency bound is within the budget. Every answer says which of the two it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from hwbench.errors import UsageError
from hwbench.predictors import BudgetOracle
from hwbench.search.accuracy.model import AccuracyModel, restored
from hwbench.search.pareto import non_dominated
from hwbench.search.pnag.policy import Policy, Walk
from hwbench.search.scoring import Scored, Staircase, best_each
from hwbench.spaces.base import Codes, Space, unique_in_order

Array = NDArray[np.float64]

#: Layers of the front that are kept, so that there is a next best where the best proves too slow.
_LAYERS, _MOST_KEPT = 12, 2000


@dataclass(frozen=True, slots=True)
class Generated:
    """The answer to one budget.

    ``upper_ms`` is within ``budget_ms`` by the oracle at its confidence. ``accuracy`` (0 to 1) is
    predicted, or the label of an architecture that has one. ``proposed`` tells an answer of the
    controller from one of the candidates kept.
    """

    budget_ms: float
    code: Codes
    text: str
    predicted_ms: float
    upper_ms: float
    accuracy: float
    proposed: bool


class Generator:
    """Answers budgets on one device; made by :func:`train_generator` or :func:`load_generator`.

    ``kept`` are candidates (n, L). ``range_ms`` is what can be reached: the bound of the fastest
    and of the slowest architecture that was seen.
    """

    def __init__(
        self,
        policy: Policy,
        evaluator: AccuracyModel,
        oracle: BudgetOracle,
        kept: Codes,
        confidence: float,
    ) -> None:
        self.space: Space = evaluator.space
        self.policy, self.evaluator, self.oracle = policy, evaluator, oracle
        self.kept, self.confidence = kept, confidence
        self._walk = Walk(self.space)
        self._libraries = ThreadpoolController()

    @property
    def range_ms(self) -> tuple[float, float]:
        """The least budget that can be kept, and the largest that any network needs."""
        upper = self._known.upper_ms
        return float(upper.min()), float(upper.max())

    def generate(self, budgets_ms: Sequence[float]) -> list[Generated]:
        """The best architecture within each budget, in the order given; the same ones each time.

        UsageError where a budget is no positive number, or outside :attr:`range_ms`.
        """
        # Small matrices, many times: threads that wait for each other would take most of it.
        with self._libraries.limit(limits=1, user_api="blas"):
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
        return self._scored(self.kept)

    @cached_property
    def _stairs(self) -> Staircase:
        return Staircase(self._known)

    def _scored(self, codes: Codes) -> Scored:
        if not len(codes):
            return Scored(codes, np.zeros(0), np.zeros(0))
        upper = self.oracle.upper(codes, self.confidence)
        allowed = self.oracle.within_limits(codes, self.confidence)
        return Scored(codes, self.evaluator.score(codes), np.where(allowed, upper, np.inf))

    def _checked(self, budgets_ms: Sequence[float]) -> Array:
        low, high = self.range_ms
        for budget in budgets_ms:
            if not (math.isfinite(budget) and budget > 0):
                raise UsageError(f"a budget of {budget} ms cannot be kept: give a positive number")
            if not low <= budget <= high:
                raise UsageError(
                    f"a budget of {budget:g} ms is outside what can be reached here: give "
                    f"{rounded(low, up=True)} to {rounded(high, up=False)} ms "
                    f"(bounds at confidence {self.confidence:g})"
                )
        return np.asarray(budgets_ms, dtype=np.float64)


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


def rounded(ms: float, *, up: bool) -> str:
    """Four digits, rounded to the inside of a range that ends here: it can be given itself."""
    step = 10.0 ** (math.floor(math.log10(ms)) - 3)
    steps = math.ceil(ms / step - 1e-9) if up else math.floor(ms / step + 1e-9)
    return f"{steps * step:.12g}"
