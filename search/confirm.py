"""Spend latency measurements on the device where they decide which architecture wins.

A guard costs accuracy: what is probably within the budget, but not surely, is not taken. To
measure it settles the matter, for every budget at once. The next one to measure is that with the
largest expected gain: over all budgets, the probability that it keeps the budget times what its
score is above the best that is sure to. (Expected improvement, as in Bayesian optimisation under
an unknown constraint: Gardner et al., ICML 2014; the score takes the place of the objective.)

What was measured so tells how far the bounds hold for architectures that a search chooses, which
are those where the predictor errs in its favour: the others' bounds are calibrated on it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hwbench.predictors import BudgetOracle
from hwbench.search.ledger import SearchLedger
from hwbench.search.scoring import Scored, best_each
from hwbench.spaces.base import Codes

Array = NDArray[np.float64]

#: Measured between two looks on a device, which measures several in about the time of one.
AT_ONCE = 8
#: Chosen architectures by which bounds are calibrated, at least.
CHOSEN = 20


class MeasuringOracle(Protocol):
    """An oracle that can measure, and knows from then on; latencies in ms, codes (n, L)."""

    def latency(self, codes: Codes) -> Array:
        """Expected latency (n,)."""

    def upper(self, codes: Codes, confidence: float) -> Array:
        """Bound (n,) that holds with this probability."""

    def measure(self, codes: Codes) -> object:
        """Measure them; answer with that afterwards."""


def confirm(
    found: Scored,
    oracle: MeasuringOracle,
    budgets: Array,
    confidence: float,
    at_most: int,
    ledger: SearchLedger,
    *,
    at_once: int = 1,
) -> Scored:
    """Measure up to ``at_most`` of ``found``; returns it with the bounds that are known then.

    ``at_once`` many are measured between two looks (:data:`AT_ONCE` on a device; a table does not
    care).
    """
    mean = oracle.latency(found.codes)
    upper, middle = oracle.upper(found.codes, confidence), oracle.upper(found.codes, 0.84)
    ledger.oracle_queries += 2 * len(found)
    sd = np.maximum(middle - mean, 1e-9 * mean)
    left = at_most
    measured = np.zeros(len(found), bool)
    while left > 0:
        now = Scored(found.codes, found.score, upper)
        gain = np.where(measured, 0, _gain(now, mean, sd, budgets))
        rows = np.argsort(-gain, kind="stable")[: min(at_once, left)]
        rows = rows[gain[rows] > 0]
        if not len(rows):
            break
        oracle.measure(found.codes[rows])
        measured[rows] = True
        ledger.device_measurements += len(rows)
        left -= len(rows)
        mean[rows] = oracle.latency(found.codes[rows])
        upper[rows] = oracle.upper(found.codes[rows], confidence)
        sd[rows] = np.maximum(oracle.upper(found.codes[rows], 0.84) - mean[rows], 1e-9 * mean[rows])
    return Scored(found.codes, found.score, upper)


def calibrated(
    found: Scored, oracle: BudgetOracle, before: int, confidence: float, ledger: SearchLedger
) -> Scored:
    """``found`` with bounds calibrated on what the search had measured since ``before`` known ones.

    What was measured was chosen by the search, as its answers to other budgets are. With less than
    :data:`CHOSEN` of them the bounds stay as they are.
    """
    known = oracle.known
    chosen = known[np.arange(before, len(known))]
    if len(chosen) < CHOSEN:
        return found
    oracle.calibrate(chosen)
    ledger.oracle_queries += len(found)
    upper = oracle.upper(found.codes, confidence)
    return Scored(found.codes, found.score, np.where(np.isfinite(found.upper_ms), upper, np.inf))


def _gain(found: Scored, mean: Array, sd: Array, budgets: Array) -> Array:
    """Expected gain in score (n,) of measuring each, summed over the budgets."""
    best = best_each(found, budgets)
    sure = np.where(best >= 0, found.score[best], found.score.min())
    above = np.flatnonzero(found.score > sure.min())
    gain = np.zeros(len(found))
    better = np.maximum(found.score[above, None] - sure, 0)
    gain[above] = (better * ndtr((budgets - mean[above, None]) / sd[above, None])).sum(axis=1)
    return gain
