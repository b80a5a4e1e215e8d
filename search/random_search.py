"""Plain random search under a latency budget: draw, ask the oracle, keep the best feasible.

The one thing that is not uniform is the size of what is drawn. Uniform choices crowd the
middle of a space, so that a budget near either end would find nothing that uses it up;
:func:`hwbench.spaces.design.spread_sample` draws architectures of all sizes instead. Nothing
is learned from one draw to the next, so one pool answers any number of budgets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.errors import UsageError
from hwbench.spaces.base import NOTHING_FIXED, Codes, Space, Value
from hwbench.spaces.design import candidates

#: The default objective: the more MACs the better, until trained accuracy says otherwise.
CAPACITY_PROXY = "MACs (capacity proxy)"

Objective = Callable[[Codes], NDArray[np.float64]]


class LatencyOracle(Protocol):
    """What this search asks of a budget oracle; latencies in ms, codes (n, L)."""

    def latency(self, codes: Codes) -> NDArray[np.float64]:
        """Expected latency (n,)."""

    def upper(self, codes: Codes, confidence: float) -> NDArray[np.float64]:
        """Bound that the latency stays under with this probability (n,)."""

    def within_limits(self, codes: Codes, confidence: float) -> NDArray[np.bool_]:
        """Which keep all limits beside the latency budget, each with this probability (n,)."""


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """The best architecture found under one budget, and what the search rests on.

    ``score`` is larger for better, by the objective named; ``predicted_ms`` is the expected
    latency and ``upper_ms`` the bound that was held against the budget at ``confidence``. Of
    ``evaluated`` architectures within the other limits ``feasible`` kept the bound.
    """

    code: Codes
    text: str
    score: float
    objective: str
    budget_ms: float
    predicted_ms: float
    upper_ms: float
    confidence: float
    evaluated: int
    feasible: int

    @property
    def utilisation(self) -> float:
        """Share of the budget that the bound uses up."""
        return self.upper_ms / self.budget_ms


def random_search(
    space: Space,
    oracle: LatencyOracle,
    budget_ms: float,
    *,
    rng: np.random.Generator,
    objective: Objective | None = None,
    n: int = 20_000,
    confidence: float = 0.98,
    fixed: Mapping[str, Value] = NOTHING_FIXED,
) -> SearchResult:
    """The best of ``n`` random architectures whose latency bound is within ``budget_ms``.

    ``objective`` maps codes (m, L) to scores (m,), larger is better; by default MACs, labelled
    a capacity proxy. ``fixed`` pins decisions by name to a value. UsageError where the fastest
    architecture found exceeds the budget: it states the range that can be reached. The oracle's
    other limits hold too.
    """
    (result,) = random_search_each(
        space,
        oracle,
        [budget_ms],
        rng=rng,
        objective=objective,
        n=n,
        confidence=confidence,
        fixed=fixed,
    )
    return result


def random_search_each(
    space: Space,
    oracle: LatencyOracle,
    budgets_ms: Sequence[float],
    *,
    rng: np.random.Generator,
    objective: Objective | None = None,
    n: int = 20_000,
    confidence: float = 0.98,
    fixed: Mapping[str, Value] = NOTHING_FIXED,
) -> list[SearchResult]:
    """:func:`random_search` under each of several budgets from one pool: one result a budget."""
    _check_arguments(budgets_ms, n, confidence)
    pool = candidates(space, n, rng, fixed=fixed)
    pool = pool[oracle.within_limits(pool, confidence)]
    if not len(pool):
        raise UsageError(f"no architecture of {space.name} keeps the other limits: relax them")
    upper = _finite(oracle.upper(pool, confidence), len(pool), "the oracle's bound: fit it anew")
    scores = space.macs(pool) if objective is None else objective(pool)
    scores = _finite(scores, len(pool), "the objective: correct it")
    if min(budgets_ms) < upper.min():
        raise UsageError(
            f"no architecture of {space.name} is known to take at most {min(budgets_ms):g} ms at "
            f"confidence {confidence:g}: of {len(pool)} the bounds are "
            f"{_rounded_up(upper.min())} to {_rounded_up(upper.max())} ms"
        )
    best_first = np.lexsort((upper, -scores))  # of equals the faster
    fits = [upper[best_first] <= budget for budget in budgets_ms]
    winners = best_first[[int(np.argmax(mask)) for mask in fits]]
    predicted = _finite(
        oracle.latency(pool[winners]), len(winners), "the oracle's latency: fit it anew"
    )
    label = CAPACITY_PROXY if objective is None else getattr(objective, "__name__", "objective")
    return [
        SearchResult(
            code=pool[i],
            text=text,
            score=float(scores[i]),
            objective=label,
            budget_ms=float(budget),
            predicted_ms=float(mean),
            upper_ms=float(upper[i]),
            confidence=confidence,
            evaluated=len(pool),
            feasible=int(mask.sum()),
        )
        for i, text, budget, mean, mask in zip(
            winners, space.decode(pool[winners]), budgets_ms, predicted, fits, strict=True
        )
    ]


def _check_arguments(budgets_ms: Sequence[float], n: int, confidence: float) -> None:
    for budget in budgets_ms:
        if not (math.isfinite(budget) and budget > 0):
            raise UsageError(f"a budget of {budget} ms cannot be kept: give a positive number")
    if not len(budgets_ms):
        raise UsageError("no budget was given: give at least one, in ms")
    if n < 1:
        raise UsageError(f"a search over {n} architectures finds none: give at least 1")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence {confidence} is no probability between 0 and 1, e.g. 0.98")


def _finite(values: ArrayLike, n: int, source_and_cure: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (n,):
        raise UsageError(f"shape {array.shape} for {n} architectures came from {source_and_cure}")
    if bad := int((~np.isfinite(array)).sum()):
        raise UsageError(f"{bad} of {n} values are not finite from {source_and_cure}")
    return array


def _rounded_up(ms: float) -> str:
    """Three digits, rounded up, so that the figure shown is itself a budget that can be kept."""
    if ms <= 0:
        return f"{ms:g}"
    step = 10.0 ** (math.floor(math.log10(ms)) - 2)
    return f"{math.ceil(ms / step - 1e-9) * step:.12g}"
