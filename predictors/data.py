"""What a predictor learns from, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.errors import PredictorError
from hwbench.spaces import Space

if TYPE_CHECKING:
    from hwbench.predictors.sources import Sources

Array = NDArray[np.float64]

#: With fewer distinct architectures there is nothing to calibrate an interval with.
MIN_SAMPLES = 5
#: No network takes eleven days: such a latency is one in another unit, or no latency.
MOST_MS = 1e9
#: Latencies that differ by less than this, relative, differ by rounding.
_SAME = 1e-9


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Measured latencies: ``latency_ms[i]`` of architecture ``codes[i]``, known to ``sd_ms[i]``.

    ``codes`` is (n, L) in whole numbers; ``latency_ms`` (n,) positive; ``sd_ms`` (n,) the standard
    deviation of each label's own error, 0 where it is unknown (whole-millisecond timers:
    0.3 ms). ``session_sd`` is the relative one of what all labels may share, as labels of one
    session do. ``sources`` is what is known of other devices, for a family that can use it.
    :class:`PredictorError` names the first row that is out of order: no latency is above
    :data:`MOST_MS`.
    """

    codes: NDArray[np.integer]
    latency_ms: Array
    sd_ms: Array
    session_sd: float = 0.0
    sources: Sources | None = None

    def __post_init__(self) -> None:
        n = len(self.codes)
        for name, values in (("latency_ms", self.latency_ms), ("sd_ms", self.sd_ms)):
            if values.shape != (n,):
                raise PredictorError(
                    f"{name} has shape {values.shape} for {n} architectures: give one number each"
                )
            if (bad := ~np.isfinite(values)).any():
                row = int(bad.argmax())
                raise PredictorError(f"{name} of row {row} is {values[row]}: measure it again")
        if (bad := self.latency_ms <= 0).any():
            row = int(bad.argmax())
            raise PredictorError(
                f"latency_ms of row {row} is {self.latency_ms[row]:g}: latencies are positive"
            )
        if (bad := self.sd_ms < 0).any():
            row = int(bad.argmax())
            raise PredictorError(f"sd_ms of row {row} is negative ({self.sd_ms[row]:g})")
        if (bad := np.maximum(self.latency_ms, self.sd_ms) > MOST_MS).any():
            row = int(bad.argmax())
            raise PredictorError(
                f"latency_ms of row {row} is {self.latency_ms[row]:g} (sd {self.sd_ms[row]:g}): "
                f"no network takes {MOST_MS:g} ms, is it in another unit?"
            )

    def __len__(self) -> int:
        return len(self.codes)

    def joined(self, other: TrainingSet) -> TrainingSet:
        """With the rows of another one below; what all labels share stays."""
        return replace(
            self,
            codes=np.concatenate([self.codes, other.codes]),
            latency_ms=np.concatenate([self.latency_ms, other.latency_ms]),
            sd_ms=np.concatenate([self.sd_ms, other.sd_ms]),
        )

    def __getitem__(self, rows: ArrayLike) -> TrainingSet:
        """The rows of an index array or mask."""
        at = np.asarray(rows)
        return replace(
            self, codes=self.codes[at], latency_ms=self.latency_ms[at], sd_ms=self.sd_ms[at]
        )


def training_set(
    space: Space,
    codes: ArrayLike,
    latency_ms: ArrayLike,
    sd_ms: ArrayLike = 0.0,
    *,
    session_sd: float = 0.0,
    sources: Sources | None = None,
) -> TrainingSet:
    """A checked training set of a space's architectures, canonical; sd may be one number."""
    latency = np.asarray(latency_ms, dtype=np.float64)
    rows = space.canonical(codes)
    sd = np.broadcast_to(np.asarray(sd_ms, dtype=np.float64), latency.shape).copy()
    return TrainingSet(rows, latency, sd, session_sd, sources)


def prepared(space: Space, training: TrainingSet) -> TrainingSet:
    """:func:`pooled`, one row an architecture; PredictorError where it teaches nothing."""
    unique = np.unique(space.canonical(training.codes), axis=0)
    if len(unique) < MIN_SAMPLES:
        raise PredictorError(
            f"{len(unique)} distinct {'architecture' if len(unique) == 1 else 'architectures'} of "
            f"{space.name} measured: a predictor needs at least {MIN_SAMPLES}"
        )
    latency = training.latency_ms
    if np.ptp(latency) <= _SAME * latency.max():
        raise PredictorError(
            f"all {len(training)} latencies are {latency[0]:g} ms: the timer is too coarse "
            "or the measurement broken"
        )
    return pooled(space, training)


def pooled(space: Space, training: TrainingSet) -> TrainingSet:
    """One row an architecture, as they are ordered by code where any came more than once.

    Measurements of the same architecture are pooled: their mean, weighted by precision where
    every sd is known; its sd is that of the mean, or as they spread, whichever is more.
    """
    codes = space.canonical(training.codes)
    unique, group = np.unique(codes, axis=0, return_inverse=True)
    group = group.reshape(-1)
    if len(unique) == len(codes):
        return replace(training, codes=codes)
    latency, sd = training.latency_ms, training.sd_ms
    weight = 1 / sd**2 if (sd > 0).all() else np.ones_like(sd)
    total = np.bincount(group, weight)
    mean = np.bincount(group, weight * latency) / total
    scatter = np.bincount(group, weight * (latency - mean[group]) ** 2) / total
    count = np.bincount(group)
    spread = np.sqrt(scatter / np.maximum(count - 1, 1))
    own = np.sqrt(np.bincount(group, (weight * sd) ** 2)) / total
    return replace(training, codes=unique, latency_ms=mean, sd_ms=np.maximum(own, spread))


@dataclass(frozen=True, eq=False)
class Prediction:
    """Latencies of n architectures: mean (n,) and its scale (n,), both in milliseconds.

    ``sd_ms`` is half of the central 68 % interval for a new measurement of the kind that the
    predictor learned from: a standard deviation where errors are normal.
    """

    mean_ms: Array
    sd_ms: Array

    def __len__(self) -> int:
        return len(self.mean_ms)
