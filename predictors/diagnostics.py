"""Where a predictor errs, how far its intervals hold, and what more samples bring.

All are on measured architectures that it never saw, given as a :class:`TrainingSet` of m rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import PredictorError
from hwbench.predictors.data import TrainingSet
from hwbench.predictors.metrics import Metrics
from hwbench.predictors.predictor import LatencyPredictor, Provenance, evaluate, fit_predictor
from hwbench.spaces import Space

Array = NDArray[np.float64]

#: Probabilities that intervals are asked to hold with: from an even chance to a search's .98.
LEVELS = tuple(float(level) for level in np.linspace(0.5, 0.98, 25))
#: Steps of a learning curve within a decade, from 10 samples on.
_STEPS = (1, 2, 5)


@dataclass(frozen=True, eq=False)
class Coverage:
    """Of the interval at each of ``levels`` (k,): the share of measurements in it, ``held`` (k,),

    and its mean width over the predicted latency, ``width`` (k,).
    """

    levels: Array
    held: Array
    width: Array


def coverage(
    predictor: LatencyPredictor, test: TrainingSet, levels: Sequence[float] = LEVELS
) -> Coverage:
    """How often the central intervals hold the measurements, level by level."""
    prediction = predictor.predict(test.codes)
    held, width = [], []
    for level in levels:
        beside = (1 - level) / 2
        low, high = predictor.bound(prediction, beside), predictor.bound(prediction, 1 - beside)
        held.append(np.mean((low <= test.latency_ms) & (test.latency_ms <= high)))
        width.append(np.mean((high - low) / prediction.mean_ms))
    return Coverage(np.array(levels), np.array(held), np.array(width))


@dataclass(frozen=True, eq=False)
class ErrorBins:
    """Relative errors, predicted over measured less 1, in b bins of measured latency.

    ``edges_ms`` is (b + 1,); the median and the 5 and 95 % quantiles of the errors are (b,).
    """

    edges_ms: Array
    median: Array
    low: Array
    high: Array


def errors_by_latency(measured_ms: Array, predicted_ms: Array, bins: int = 10) -> ErrorBins:
    """Errors of predictions (m,) in bins of equally many; fewer where a timer's steps are coarse.

    Few predictions share few bins: a quantile of less than five of them says nothing.
    """
    bins = max(1, min(bins, len(measured_ms) // 5))
    # Edges that are latencies themselves leave no bin empty, however many of those are equal.
    ends = np.linspace(0, 1, bins + 1)
    edges = np.unique(np.quantile(measured_ms, ends, method="higher"))
    group = np.searchsorted(edges[1:-1], measured_ms, side="right")
    error = predicted_ms / measured_ms - 1
    rows = [np.quantile(error[group == g], (0.05, 0.5, 0.95)) for g in range(group.max() + 1)]
    low, median, high = np.array(rows).T
    return ErrorBins(np.r_[edges[0], edges[1:-1], edges[-1]], median, low, high)


@dataclass(frozen=True)
class LearningPoint:
    """What a predictor of ``samples`` architectures is worth, and the seconds of fitting it.

    ``measure_seconds`` is the time that measuring them took, where that is known.
    """

    samples: int
    metrics: Metrics
    fit_seconds: float
    measure_seconds: float | None = None


def sizes_below(n: int) -> list[int]:
    """10, 20, 50, 100, 200 … below ``n`` samples."""
    decades = range(1, len(str(n)))
    return [step * 10**d for d in decades for step in _STEPS if step * 10**d < n]


def learning_curve(
    space: Space,
    training: TrainingSet,
    test: TrainingSet,
    sizes: Sequence[int],
    *,
    seed: int = 0,
    kind: str = "cost-regression",
    label_seconds: Array | None = None,
) -> list[LearningPoint]:
    """A point a size: fitted on so many of the first rows of ``training`` (n,).

    ``label_seconds`` (n,) is the time that measuring each row took. A size whose rows teach
    nothing, as ten equal readings of a coarse timer, has no point.
    """
    nowhere = Provenance("", "", "", 1)
    points = []
    for size in sizes:
        began = time.perf_counter()
        try:
            fitted = fit_predictor(space, training[np.arange(size)], nowhere, seed=seed, kind=kind)
        except PredictorError:
            continue
        seconds = time.perf_counter() - began
        spent = None if label_seconds is None else float(label_seconds[:size].sum())
        points.append(LearningPoint(size, evaluate(fitted, test), seconds, spent))
    return points
