"""Spend accuracy labels where the front is: some at random, the rest in turns near the best known.

In each turn a model of accuracy (:mod:`hwbench.search.accuracy.model`) is fitted on the labels so
far. Candidates are random architectures and neighbours of the labelled ones that lead at some
latency. For each latency level in turn the candidate with the largest mean plus half a standard
deviation is labelled (an upper confidence bound; Srinivas et al., ICML 2010).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import UsageError
from hwbench.search.accuracy.base import AccuracySource, checked_accuracy
from hwbench.search.accuracy.model import AccuracyModel, fit_accuracy
from hwbench.search.ledger import SearchLedger
from hwbench.search.moves import mutated
from hwbench.search.pareto import non_dominated
from hwbench.search.random_search import LatencyOracle
from hwbench.spaces.base import NOTHING_FIXED, Codes, Space, Value, unique_in_order

Array = NDArray[np.float64]

_START = 0.25  # of the labels, at random
_TURNS = 6
_LEVELS = 30
_OPTIMISM = 0.5
_FRESH, _NEAR = 200, 200  # candidates of a turn: random ones, and neighbours of the leading


@dataclass(frozen=True, eq=False)
class Labelled:
    """Architectures (n, L), distinct and canonical, with their accuracies (n,), 0 to 1."""

    codes: Codes
    accuracy: Array

    def __len__(self) -> int:
        return len(self.codes)


def random_labels(
    source: AccuracySource,
    n: int,
    rng: np.random.Generator,
    ledger: SearchLedger,
    fixed: Mapping[str, Value] = NOTHING_FIXED,
) -> Labelled:
    """Label ``n`` architectures drawn at random, with the values of ``fixed``."""
    codes = source.space.sample(n, rng, fixed=fixed)
    ledger.validations += n
    return Labelled(codes, checked_accuracy(source, codes))


def spend_labels(
    source: AccuracySource,
    oracle: LatencyOracle,
    n: int,
    rng: np.random.Generator,
    ledger: SearchLedger,
    fixed: Mapping[str, Value] = NOTHING_FIXED,
) -> Labelled:
    """Label ``n`` architectures, three quarters of them where the front of the first leads.

    All have the values of ``fixed``.
    """
    if n < 20:
        raise UsageError(f"{n} accuracy labels are too few to search with: give at least 20")
    labelled = random_labels(source, max(10, int(_START * n)), rng, ledger, fixed)
    for size in np.linspace(len(labelled), n, _TURNS + 1)[1:].astype(int):
        model = fit_accuracy(source.space, labelled.codes, labelled.accuracy)
        chosen = _most_promising(
            source.space, model, oracle, labelled, size - len(labelled), rng, ledger, fixed
        )
        ledger.validations += len(chosen)
        labelled = Labelled(
            np.concatenate([labelled.codes, chosen]),
            np.concatenate([labelled.accuracy, checked_accuracy(source, chosen)]),
        )
    return labelled


def _most_promising(
    space: Space,
    model: AccuracyModel,
    oracle: LatencyOracle,
    labelled: Labelled,
    count: int,
    rng: np.random.Generator,
    ledger: SearchLedger,
    fixed: Mapping[str, Value],
) -> Codes:
    """``count`` candidates, fewer in a space that is used up: the best at each level in turn."""
    latency = oracle.latency(labelled.codes)
    lead = labelled.codes[non_dominated(latency, labelled.accuracy)]
    lead = np.concatenate([lead, _predicted_lead(space, model, oracle, rng, ledger, fixed)])
    near = mutated(space, lead[rng.integers(0, len(lead), _NEAR)], rng, fixed)
    pool = _unlabelled(np.concatenate([lead, near]), labelled)
    if not len(pool):
        return pool
    mean, sd = model.predict(pool)
    hopeful, pool_ms = mean + _OPTIMISM * sd, oracle.latency(pool)
    ledger.evaluator_calls += len(pool)
    ledger.oracle_queries += len(pool) + len(labelled)
    levels = np.geomspace(latency.min(), max(pool_ms.max(), latency.max()), _LEVELS)
    taken = np.zeros(len(pool), bool)
    chosen: list[int] = []
    for level in np.resize(rng.permutation(levels), 2 * _LEVELS + count * _LEVELS):
        free = np.flatnonzero((pool_ms <= level) & ~taken)
        if len(free) and len(chosen) < count:
            best = free[hopeful[free].argmax()]
            taken[best] = True
            chosen.append(int(best))
        if len(chosen) == min(count, len(pool)):
            break
    return pool[chosen]


def _predicted_lead(
    space: Space,
    model: AccuracyModel,
    oracle: LatencyOracle,
    rng: np.random.Generator,
    ledger: SearchLedger,
    fixed: Mapping[str, Value],
) -> Codes:
    """Of random architectures those that the model puts in front."""
    if space.raw_size(fixed) <= _FRESH:
        fresh = space.all_codes(fixed=fixed)
    else:
        fresh = space.sample(_FRESH, rng, fixed=fixed)
    mean, sd = model.predict(fresh)
    ledger.evaluator_calls += len(fresh)
    ledger.oracle_queries += len(fresh)
    hopeful, latency = mean + _OPTIMISM * sd, oracle.latency(fresh)
    shown = [non_dominated(latency, hopeful)]
    rest = np.setdiff1d(np.arange(len(fresh)), shown[0])
    shown.append(rest[non_dominated(latency[rest], hopeful[rest])])
    return fresh[np.concatenate(shown)]


def _unlabelled(codes: Codes, labelled: Labelled) -> Codes:
    known = {code.tobytes() for code in labelled.codes}
    rows = unique_in_order(codes)
    fresh: Codes = rows[np.array([row.tobytes() not in known for row in rows], dtype=bool)]
    return fresh
