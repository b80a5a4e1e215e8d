"""What other devices know: their latencies as columns for a device of few measurements.

Each source's latency, over its mean, is smoothed by ridge regression on the columns of the space
and so becomes a function of every architecture. A new device is taken for one of their kind: about
their mean, and away from it in the directions in which they differ from each other. That is a
Gaussian process whose covariance is the sources' own, beside the general columns (Lee et al.,
"HELP", NeurIPS 2021, and Akhauri and Abdelfattah, "On latency predictors", MLSys 2024, learn
networks for the same).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import PredictorError
from hwbench.predictors.features import Block, Prior
from hwbench.predictors.linear import thin_svd
from hwbench.predictors.tables import Symbols, TableSum
from hwbench.predictors.views import Views
from hwbench.spaces import Codes, Space
from hwbench.spaces.base import ENUMERABLE

if TYPE_CHECKING:
    from hwbench.predictors.predictor import LatencyPredictor

Array = NDArray[np.float64]

#: In units of the sources' own mean function, and of their differences.
COMMON, APART = Prior(1.0, 0.5), Prior(1.0, 1.0)
#: Shares of a source's labels that are pulled in at each end: phones hang, timers fail.
_TRIMMED = 0.002
#: More labels of a source change its function by next to nothing.
_ENOUGH = 5000
_PENALTIES = np.geomspace(1e-3, 1e3, 25)


@dataclass(frozen=True, eq=False)
class Sources:
    """Latencies (n, S) in ms of architectures (n, L), canonical, on S other devices, by name.

    Their absolute size plays no part. :class:`PredictorError` where a number is not positive.
    """

    names: tuple[str, ...]
    codes: Codes
    latency_ms: Array

    def __post_init__(self) -> None:
        if self.latency_ms.shape != (len(self.codes), len(self.names)) or not self.names:
            raise PredictorError(
                f"latencies of {len(self.names)} sources have shape {self.latency_ms.shape} for "
                f"{len(self.codes)} architectures: give one column a source"
            )
        wrong = ~(np.isfinite(self.latency_ms) & (self.latency_ms > 0))
        if wrong.any():
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            raise PredictorError(
                f"source {self.names[column]}: latency of row {row} is "
                f"{self.latency_ms[row, column]:g}: latencies are positive"
            )


def predicted_sources(space: Space, predictors: Mapping[str, LatencyPredictor]) -> Sources:
    """What predictors of other devices say of a sample of the space.

    :class:`PredictorError` names one that is of another space.
    """
    for name, predictor in predictors.items():
        if predictor.space.name != space.name:
            raise PredictorError(
                f"source {name} is a predictor of {predictor.space.name}, not of {space.name}"
            )
    if space.raw_size() <= ENUMERABLE:
        codes = space.all_codes()
    else:
        codes = space.sample(_ENOUGH, np.random.default_rng(0))
    latency_ms = [predictor.predict(codes).mean_ms for predictor in predictors.values()]
    return Sources(tuple(predictors), codes, np.stack(latency_ms, axis=1))


def source_blocks(
    views: Views, sources: Sources, columns: TableSum, reference: Symbols
) -> tuple[Block, ...]:
    """What the sources have in common, and how they differ, as sums over ``columns``."""
    rows = np.random.default_rng(0).permutation(len(sources.codes))[:_ENOUGH]
    design = np.asarray(columns(views.symbols(sources.codes[rows])), np.float64)
    weights = _smoothed(design, _trimmed(sources.latency_ms[rows]))
    functions = columns.project(weights)
    values = functions(reference)
    count = len(sources.names)
    mean = np.full((count, 1), 1 / count)
    common = Block("common", functions.project(mean, values.mean(axis=0)), COMMON)
    if count == 1:
        return (common,)
    apart = (np.eye(count) - mean) / np.sqrt(count - 1)
    centred = values - values.mean(axis=0)
    _, size, turn = thin_svd(centred @ apart)
    spans = size > 1e-6 * np.linalg.norm(centred)
    if not spans.any():  # one device twice, or another of twice the speed
        return (common,)
    differences = functions.project(apart @ turn[spans].T, values.mean(axis=0))
    return (common, Block("apart", differences, APART))


def _trimmed(latency_ms: Array) -> Array:
    """Latencies over their mean (n, S), the extremes pulled in."""
    ends = np.quantile(latency_ms, [_TRIMMED, 1 - _TRIMMED], axis=0)
    inside = np.clip(latency_ms, *ends)
    return np.asarray(inside / inside.mean(axis=0))


def _smoothed(design: Array, targets: Array) -> Array:
    """Ridge weights (D, S), each source's penalty by generalised cross-validation."""
    design = design - design.mean(axis=0)
    targets = targets - targets.mean(axis=0)
    values, turn = np.linalg.eigh(design.T @ design)
    values = np.maximum(values, 0)
    seen = turn.T @ (design.T @ targets)
    squares = (targets**2).sum(axis=0)
    best = np.full(targets.shape[1], np.inf)
    weights = np.zeros_like(seen)
    for penalty in _PENALTIES:
        shrunk = seen / (values + penalty)[:, None]
        left = squares - 2 * (seen * shrunk).sum(axis=0) + (values[:, None] * shrunk**2).sum(axis=0)
        free = 1 - (values / (values + penalty)).sum() / len(design)
        score = left / max(free, 1e-3) ** 2
        better = score < best
        best, weights = np.where(better, score, best), np.where(better, shrunk, weights)
    return np.asarray(turn @ weights)
