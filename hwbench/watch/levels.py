"""The levels of a series: which of its points form them, and what a fresh one is held against.

The gate and the report both ask here, so that they hold a point against the same level. No part of
it are a gate's alarms, until something else than a gate finds their level too (``hwbench bench``
has taken it for the new one), and what a gate ran beside its baseline with changes that no commit
has: an experiment, which may be thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hwbench.errors import InconclusiveError
from hwbench.records import CanaryEpoch, Measurement
from hwbench.watch.comparison import TOLERANCE, Comparison, latency_spread
from hwbench.watch.segments import LEAST_POINTS, changes

#: Two-sided: of a hundred models that have not changed one at most is measured again.
CONFIDENCE: Final = 0.98
#: Sessions of one model on one machine differ by about this much (log), beyond what their own
#: intervals say: known as well as from so many points.
BETWEEN, BETWEEN_KNOWN = 0.004, 3.0
#: The tags of what is measured to be held against a store's history.
GATED: Final = {"gate": "history"}
#: The tags of what a gate runs beside a baseline.
BESIDE: Final = {"gate": "baseline"}


@dataclass(frozen=True, slots=True)
class Level:
    """A baseline from a store: mean log latency, its standard error, the standard deviation of
    sessions around it, the number of ``points``, and what was left out.
    """

    log_latency: float
    se: float
    between: float
    points: int
    notes: tuple[str, ...] = ()


def comparable(points: Sequence[Measurement], epoch: str | None) -> list[Measurement]:
    """Those that have a latency by this calibration (its id); none without one."""
    return [
        m
        for m in points
        if epoch
        and m.epoch == epoch
        and m.status != "observed_only"
        and all(0 < (ns or 0) < math.inf for ns in (m.latency_ns, m.low_ns, m.high_ns))
    ]


def forming(
    points: Sequence[Measurement],
    epoch: CanaryEpoch | None,
    tolerance: float = TOLERANCE,
    confidence: float = CONFIDENCE,
) -> list[Measurement]:
    """Those of a series' :func:`comparable` points, the oldest first, that form its levels."""
    out: set[int] = set()
    alarms: set[int] = set()  # of them, those that nothing but gates has been measured after
    for n, point in enumerate(points):
        gated = any(tags.items() <= point.tags.items() for tags in (GATED, BESIDE))
        if is_experiment(point):
            out.add(n)
        elif gated or alarms:
            kept = [m for i, m in enumerate(points[:n]) if i not in out]
            slower = _is_slower(point, kept, epoch, tolerance, confidence)
            if gated and slower:
                alarms.add(n)
                out.add(n)
            elif not gated:
                if slower:
                    out -= alarms
                alarms = set()
    return [m for n, m in enumerate(points) if n not in out]


def is_experiment(point: Measurement) -> bool:
    """Whether a gate ran it beside a baseline, with changes that no commit has."""
    return BESIDE.items() <= point.tags.items() and point.tags.get("dirty") == "yes"


def _is_slower(
    point: Measurement,
    before: Sequence[Measurement],
    epoch: CanaryEpoch | None,
    tolerance: float,
    confidence: float,
) -> bool:
    """Whether a point is slower than the level of those before it, beyond doubt."""
    if not before:
        return False
    logs = np.log([m.latency_ns or 1.0 for m in reversed(before)])
    means = np.cumsum(logs) / np.arange(1, logs.size + 1)  # of the last one, the last two, ...
    lowest = means[min(LEAST_POINTS, logs.size) - 1 :].min()
    if math.log(point.latency_ns or 1.0) <= lowest + math.log1p(tolerance):
        return False  # whatever the level is, it is no slower: spare looking for one
    level = level_of(since_last_change(before)[0], epoch)
    return against_level(point, level, epoch, confidence=confidence).word(tolerance) == "slower"


def since_last_change(
    points: Sequence[Measurement],
) -> tuple[Sequence[Measurement], float | None]:
    """The points of the last level of a series, and by how much that differed (in per cent)."""
    found = changes([math.log(m.latency_ns or 1.0) for m in points])
    if not found:
        return points, None
    return points[found[-1].index :], 100 * (found[-1].ratio - 1)


def level_of(
    points: Sequence[Measurement], epoch: CanaryEpoch | None, notes: tuple[str, ...] = ()
) -> Level:
    """The level of points that all have a latency."""
    x, n = np.log([m.latency_ns or 1.0 for m in points]), len(points)
    spreads = [latency_spread(m, epoch) or 0.0 for m in points]
    typical = BETWEEN**2 + float(np.median(np.square(spreads)))
    squares = float(((x - x.mean()) ** 2).sum())
    between = math.sqrt((BETWEEN_KNOWN * typical + squares) / (BETWEEN_KNOWN + n - 1))
    return Level(float(x.mean()), between / math.sqrt(n), between, n, notes)


def against_level(
    current: Measurement, level: Level, epoch: CanaryEpoch | None, *, confidence: float = CONFIDENCE
) -> Comparison:
    """A fresh measurement against a stored level.

    Raises InconclusiveError where the measurement has no undisturbed latency.
    """
    spread = latency_spread(current, epoch)
    if spread is None or current.latency_ns is None:
        raise InconclusiveError(
            f"{current.workload.name}: no undisturbed latency ({current.status}): on several "
            "threads name a file of the baseline, and both are run side by side"
        )
    # As one more session differs from the level, or as far as its own interval says.
    own = max(spread, level.between)
    baseline = f"its level ({level.points} stored)"
    return Comparison(
        baseline,
        current.workload.name,
        math.log(current.latency_ns) - level.log_latency,
        math.hypot(own, level.se),
        BETWEEN_KNOWN + level.points - 1,
        confidence,
        paired=False,
        seconds=current.seconds,
        before_ns=math.exp(level.log_latency),
    )
