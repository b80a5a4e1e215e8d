"""The whole search: labels, evaluator, controller, and the measurements that settle what is close.

>>> generator, ledger = train_generator(source, oracle, [5, 8, 12], labels=200)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hwbench.errors import UsageError
from hwbench.predictors import BudgetOracle
from hwbench.predictors.oracle import CONFIDENCE
from hwbench.search.accuracy.base import AccuracySource
from hwbench.search.accuracy.model import fit_accuracy
from hwbench.search.answering import rounded
from hwbench.search.confirm import AT_ONCE, calibrated, confirm
from hwbench.search.labels import spend_labels
from hwbench.search.ledger import SearchLedger
from hwbench.search.pnag.generator import Generator, front_layers
from hwbench.search.pnag.seeds import Course, Trainer, chosen
from hwbench.search.pnag.training import Schedule
from hwbench.search.seeds import trained_here
from hwbench.spaces.base import NOTHING_FIXED, Value
from hwbench.spaces.design import candidates

Array = NDArray[np.float64]
Tell = Callable[[str, float], None]

#: Budgets between the first and the last of the training, for which measurements are spent.
_CONFIRMED = 40
#: Architectures by which the range of budgets is told.
_SAMPLED = 2000
#: Least distance of two training budgets, in log: above what single precision tells apart.
_APART = 1e-6


@dataclass(frozen=True, slots=True)
class Costs:
    """What a search may spend: accuracy labels, and measurements on the device."""

    labels: int = 200
    measurements: int = 0
    plan: Schedule = field(default_factory=Schedule)


def train_generator(
    source: AccuracySource,
    oracle: BudgetOracle,
    budgets_ms: Sequence[float],
    *,
    costs: Costs | None = None,
    fixed: Mapping[str, Value] = NOTHING_FIXED,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    seeds: int = 1,
    trainer: Trainer = trained_here,
    progress: Tell = lambda what, share: None,
) -> tuple[Generator, SearchLedger]:
    """Train a generator for any budget between the first and the last of ``budgets_ms`` (K,).

    Spends the accuracy labels, trains the controller on the model of accuracy that they give, and
    measures what lies close to a budget, if measurements are to be spent (the oracle needs a
    measurer then); if enough, the bounds of all others are calibrated on it. ``fixed`` pins
    decisions in the search and in all answers, as ``{"r": 28}`` for a source that knows no other
    resolution. Of ``seeds`` controllers, of ``seed`` and those after it, the best one is kept, and
    what all have found; ``trainer`` trains them. UsageError where the budgets, the source or the
    oracle do not fit.
    """
    if seeds < 1:
        raise UsageError(f"{seeds} seeds train no controller: give at least 1")
    costs = costs or Costs()
    budgets = checked_budgets(budgets_ms)
    if source.space.name != oracle.predictor.space.name:
        raise UsageError(
            f"the accuracy source is of {source.space.name}, the oracle of "
            f"{oracle.predictor.space.name}: give two of one space"
        )
    ledger, rng = SearchLedger(), np.random.default_rng(seed)
    # Small matrices: threads cost more than they bring, far more on a busy machine.
    with ledger.timed(), threadpool_limits(1, user_api="blas"):
        progress("labelling", 0.0)
        labelled = spend_labels(source, oracle, costs.labels, rng, ledger, fixed)
        evaluator = fit_accuracy(source.space, labelled.codes, labelled.accuracy)
        course = Course(evaluator, oracle, confidence, budgets, fixed, costs.plan, ledger)
        trained = trainer(
            course,
            range(seed, seed + seeds),
            lambda share: progress("training the controller", share),
        )
        best = trained[0]
        if seeds > 1:
            best, ledger.by_seed = chosen(course, trained)
        archive = best.archive
        if costs.measurements:
            progress("measuring what is close", 0.0)
            between = np.geomspace(budgets[0], budgets[-1], _CONFIRMED)
            before = len(oracle.known)
            archive = confirm(
                archive,
                oracle,
                between,
                confidence,
                costs.measurements,
                ledger,
                at_once=AT_ONCE,
            )
            archive = calibrated(archive, oracle, before, confidence, ledger)
        kept = archive.codes[front_layers(archive)]
    return Generator(best.policy, evaluator, oracle, kept, confidence, fixed), ledger


def checked_budgets(budgets_ms: Sequence[float]) -> Array:
    """Training budgets (K,), ascending and distinct; UsageError where there are not two, or two
    that a generator, in single precision, could not tell apart.
    """
    for budget in budgets_ms:
        if not (math.isfinite(budget) and budget > 0):
            raise UsageError(f"a budget of {budget} ms cannot be kept: give a positive number")
    budgets = np.unique(np.asarray(budgets_ms, dtype=np.float64))
    if len(budgets) < 2:
        raise UsageError("a generator is trained on at least two different budgets: give more")
    close = np.flatnonzero(np.diff(np.log(budgets)) < _APART)
    if close.size:
        raise UsageError(
            f"two budgets of {budgets[close[0]]:g} ms differ by less than 1e-6: leave one out"
        )
    return budgets


def require_reachable(
    oracle: BudgetOracle,
    budgets_ms: Sequence[float],
    confidence: float,
    seed: int = 0,
    fixed: Mapping[str, Value] = NOTHING_FIXED,
) -> None:
    """UsageError where a budget is below every bound of a spread sample, or above all: says which.

    A generator can be trained on such budgets, but would not know what to answer to them.
    """
    space = oracle.predictor.space
    pool = candidates(space, _SAMPLED, np.random.default_rng(seed), fixed=fixed)
    pool = pool[oracle.within_limits(pool, confidence)]
    if not len(pool):
        raise UsageError(f"no architecture of {space.name} keeps the other limits: relax them")
    upper = oracle.upper(pool, confidence)
    low, high = float(upper.min()), float(upper.max())
    for budget in checked_budgets(budgets_ms):
        if not low <= budget <= high:
            raise UsageError(
                f"a budget of {budget:g} ms is outside what {space.name} can reach: give "
                f"{rounded(low, up=True)} to {rounded(high, up=False)} ms "
                f"(bounds at confidence {confidence:g})"
            )
