"""One device and one seed of the experiment on PNAG: every method, judged by exact regret.

All methods get M accuracy labels and 100 latency labels, and answer the same 20 budgets. How the
latency labels are spent makes four readings of one search:

- *raw* and *guarded*: all 100 at random; an architecture is taken where its median (raw) or its
  bound at confidence .98 is within the budget;
- *confirmed*: 60 at random, 40 on what the method found, where a measurement decides most
  (:mod:`hwbench.search.confirm`); then as guarded, and what was measured is known;
- *calibrated*: as guarded, but by bounds calibrated on those 40, whose latencies are forgotten:
  what the bounds are worth where nothing that is answered was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.predictors import LatencyPredictor, Provenance, TrainingSet, fit_predictor
from hwbench.predictors.published import timed
from hwbench.search.accuracy.model import fit_accuracy
from hwbench.search.baselines import every_one, evolve, nsga2, random_pool
from hwbench.search.confirm import CHOSEN, confirm
from hwbench.search.labels import random_labels
from hwbench.search.ledger import SearchLedger
from hwbench.search.pareto import best_within, hypervolume
from hwbench.search.pnag import Costs, train_generator
from hwbench.search.scoring import Evaluator, Scored, Scorer, best_each
from hwbench.spaces import Codes
from hwbench.verify.cells import DeviceTable, TableOracle

Array = NDArray[np.float64]

GUARDED, RAW = 0.98, 0.5
LATENCY_LABELS, FITTED = 100, 60
BUDGETS = 20
#: Evaluator calls of per-budget evolution under one budget.
CALLS = 300
#: Quantiles of the device's latencies between which the budgets lie.
_RANGE = (0.05, 0.95)
#: Points below the front at the smallest budget: the corner that hypervolume is taken from.
_CORNER = 5.0


@dataclass(frozen=True, eq=False)
class Task:
    """What all methods of a device and seed share: budgets, half of them trained on, and labels.

    ``front`` (b,) is the best accuracy of any cell that truly keeps each budget.
    """

    table: DeviceTable
    seed: int
    trained: Array
    budgets: Array
    front: Array
    learned: TrainingSet
    few: LatencyPredictor
    many: LatencyPredictor

    @classmethod
    def of(cls, table: DeviceTable, seed: int) -> Task:
        """Draw latency labels and budgets by the seed, and fit on 60 and on 100 of them."""
        rng = np.random.default_rng([seed, 1])
        low, high = np.quantile(table.latency_ms, _RANGE)
        trained = np.geomspace(low, high, BUDGETS // 2)
        unseen = np.exp(rng.uniform(np.log(low), np.log(high), BUDGETS - BUDGETS // 2))
        budgets = np.sort(np.concatenate([trained, unseen]))
        learned = timed(table.labels[rng.permutation(len(table.labels))[:LATENCY_LABELS]])
        nowhere = Provenance("published", "", "unknown", 1)
        few, many = (
            fit_predictor(table.space, learned[np.arange(count)], nowhere, seed=seed)
            for count in (FITTED, LATENCY_LABELS)
        )
        front = best_within(table.latency_ms, table.known_accuracy, budgets)
        return cls(table, seed, trained, budgets, front, learned, few, many)

    def oracle(self, fitted: int) -> TableOracle:
        """A fresh oracle of the first 60 or of all 100 latency labels, which it knows."""
        predictor = self.few if fitted == FITTED else self.many
        return TableOracle(predictor, self.table, self.learned[np.arange(fitted)])

    def judge(self, codes: Codes, answered: NDArray[np.bool_]) -> dict[str, Any]:
        """Figures of one answer (b, L) for each budget.

        An answer that breaks its budget cannot be deployed. It counts, as no answer does, as the
        best cell that keeps even the smallest budget: what is safe whatever is asked. Figures of
        the answers that keep their budgets are None where none does.
        """
        latency, accuracy = self.table.latency(codes), self.table.accuracy(codes)
        kept = answered & (latency <= self.budgets)
        reached = np.where(kept, accuracy, self.front[0])
        corner, most = self.front[0] - _CORNER / 100, 1.001 * float(self.budgets[-1])
        best = hypervolume(self.table.latency_ms, self.table.known_accuracy, most, corner)
        return {
            "regret_points_mean": 100 * float((self.front - reached).mean()),
            "regret_kept_points_mean": _mean(100 * (self.front - accuracy)[kept]),
            "satisfaction": float(kept.sum() / max(answered.sum(), 1)),
            "answered": float(answered.mean()),
            "utilisation": _mean((latency / self.budgets)[kept]),
            "hypervolume": hypervolume(latency[kept], accuracy[kept], most, corner) / best,
        }


def _mean(values: Array) -> float | None:
    return float(values.mean()) if values.size else None


@dataclass(frozen=True, eq=False)
class Method:
    """What a method found, by which evaluator, and what that cost."""

    found: Scored
    evaluator: Evaluator
    ledger: SearchLedger


def run_trial(task: Task, labels: int) -> list[dict[str, Any]]:
    """Every method on one task with so many accuracy labels: rows for the evidence."""
    methods = {**_baselines(task, labels), **_pnag(task, labels)}
    of = {"device": task.table.device, "seed": task.seed, "labels": labels}
    return [
        {**of, "method": name, **_readings(task, method), "ledger": method.ledger.row()}
        for name, method in methods.items()
    ]


def _baselines(task: Task, labels: int) -> dict[str, Method]:
    """Methods that label at random; they share labels and evaluator."""
    rng = np.random.default_rng([task.seed, 2])
    spent = SearchLedger()
    labelled = random_labels(task.table, labels, rng, spent)
    evaluator = fit_accuracy(task.table.space, labelled.codes, labelled.accuracy)
    scorer = _scorer(task, evaluator)
    return {
        "best of labelled": Method(scorer(labelled.codes), evaluator, spent),
        **_searches(task, scorer, labels),
    }


def _searches(task: Task, scorer: Scorer, labels: int) -> dict[str, Method]:
    rng = np.random.default_rng([task.seed, 3])
    total = CALLS * len(task.budgets)
    runs: dict[str, Callable[[Scorer], Scored]] = {
        "rank all": every_one,
        "random": lambda ask: random_pool(ask, total, rng),
        "evolution": lambda ask: evolve(ask, task.budgets, CALLS, rng),
        "nsga2": lambda ask: nsga2(ask, total, rng),
    }
    methods = {}
    for name, search in runs.items():
        ledger = SearchLedger(validations=labels)
        with ledger.timed():
            found = search(scorer.counted_in(ledger))
        methods[name] = Method(found, scorer.evaluator, ledger)
    return methods


def _pnag(task: Task, labels: int) -> dict[str, Method]:
    """PNAG, its controller alone, and searches that were handed its labels and evaluator."""
    oracle = task.oracle(FITTED)
    generator, ledger = train_generator(
        task.table, oracle, list(task.trained), costs=Costs(labels), seed=task.seed
    )
    scorer = _scorer(task, generator.evaluator).counted_in(ledger)
    alone = scorer(generator.proposals(task.budgets).codes)
    found = scorer(generator.kept).joined(alone)
    ranked = SearchLedger(validations=labels)
    return {
        "pnag": Method(found, generator.evaluator, ledger),
        "pnag, controller alone": Method(alone, generator.evaluator, replace(ledger)),
        "rank all, labels of pnag": Method(
            every_one(scorer.counted_in(ranked)), generator.evaluator, ranked
        ),
    }


def _scorer(task: Task, evaluator: Evaluator) -> Scorer:
    oracle = task.oracle(FITTED)
    return Scorer(task.table.space, evaluator, oracle, GUARDED, SearchLedger())


def _readings(task: Task, method: Method) -> dict[str, dict[str, Any]]:
    """Raw, guarded, confirmed and calibrated figures of what was found."""
    found, readings = method.found, {}
    plain = task.oracle(LATENCY_LABELS)
    for name, confidence in (("raw", RAW), ("guarded", GUARDED)):
        upper = plain.upper(found.codes, confidence)
        readings[name] = _judged(task, Scored(found.codes, found.score, upper))
    device = task.oracle(FITTED)
    settled = confirm(found, device, task.budgets, GUARDED, LATENCY_LABELS - FITTED, method.ledger)
    readings["confirmed"] = _judged(task, settled)
    blind = task.oracle(FITTED)
    chosen = device.known[np.arange(FITTED, len(device.known))]
    if len(chosen) >= CHOSEN:
        blind.calibrate(chosen)
    upper = blind.upper(found.codes, GUARDED)
    readings["calibrated"] = _judged(task, Scored(found.codes, found.score, upper))
    return readings


def _judged(task: Task, found: Scored) -> dict[str, Any]:
    best = best_each(found, task.budgets)
    return task.judge(found.codes[np.maximum(best, 0)], best >= 0)
