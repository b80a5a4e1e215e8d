"""The gate: is this model slower than its baseline, on this device, beyond doubt?

Where the baseline can be run, both are run side by side (:mod:`.trial`). Where it cannot, the model
is measured and held against what the store has of it on the same device: the level that the series
ends on, or the points of one commit.

What is slower beyond doubt, and by its estimate by more than the tolerance, is an alarm. It is
measured again, from fresh processes, before it is raised. It stands where the second estimate is
beyond the tolerance too, and both times together are, whole interval and all (against a history:
the second time by itself). So chance raises one far less often than the first time's error alone
would allow, and a small regression is not given up before it had twice the time.

Such an alarm's points stay in the store, and are no part of the level that the next run is held
against: a gate that is run again says the same, until ``hwbench bench`` takes the new level for its
baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

import numpy as np

from hwbench.errors import HwbenchError, InconclusiveError, NoHistoryError
from hwbench.measure.jobs import Job
from hwbench.records import CanaryEpoch, Measurement
from hwbench.watch.comparison import TOLERANCE, Comparison, Word, latency_spread, together
from hwbench.watch.segments import changes
from hwbench.watch.selection import changed_facts, of_commit, series_key
from hwbench.watch.trial import Effort, Outcome, Side, told_apart

#: Two-sided: of a hundred models that have not changed one at most is measured again.
CONFIDENCE = 0.98
#: What is held against its baseline is a version of it.
GATE: Final = Effort(confidence=CONFIDENCE, versions=True)
#: Sessions of one model on one machine differ by about this much (log), beyond what their own
#: intervals say: known as well as from so many points.
BETWEEN, BETWEEN_KNOWN = 0.004, 3.0
#: The tags of what is measured to be held against a store's history.
GATED: Final = {"gate": "history"}


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the gate says of one model: its ``word``, the comparison that it rests on, and the one
    of the alarm that had to be measured again, if any. ``notes`` say what was left out.
    """

    name: str
    word: Word
    comparison: Comparison
    alarm: Comparison | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """A model that there is nothing to measure of: its file is that of the baseline's commit (which
    then runs the same on this device), or that commit has none.
    """

    name: str
    word: Literal["unchanged", "new"]


def ruled(
    name: str,
    compare: Callable[[], Comparison],
    tolerance: float,
    notes: Sequence[str] = (),
    *,
    joined: Callable[[Comparison, Comparison], Comparison] = lambda first, second: second,
) -> Ruling:
    """Compare; where that is :func:`alarming`, compare again.

    The alarm stands where the second time is beyond the tolerance as well, and the two ``joined``
    are so beyond doubt. Where they share what they were held against, the second time stands for
    both.
    """
    first = compare()
    if not alarming(first, tolerance):
        return Ruling(name, first.word(tolerance), first, notes=tuple(notes))
    second = compare()
    again = second.log_ratio > math.log1p(tolerance)
    found = joined(first, second) if again else second
    return Ruling(name, found.word(tolerance), found, first, tuple(notes))


def alarming(found: Comparison, tolerance: float) -> bool:
    """Slower beyond doubt, and by its estimate by more than the tolerance."""
    slower = found.p_value(0.0) <= 1 - found.confidence
    return slower and found.log_ratio > math.log1p(tolerance)


def ruled_by_pair(
    before: Job, after: Job, compare: Callable[[Side], Sequence[Outcome]], tolerance: float
) -> Ruling:
    """Compare a model with a baseline that runs as well; ``compare`` answers for the one pair.

    Raises the error that stands for the pair where it could not be compared.
    """
    side = told_apart(before, after, (" (baseline)", ""))

    def once() -> Comparison:
        (found,) = compare(side)
        if isinstance(found, HwbenchError):
            raise found
        return found

    return ruled(after.workload.name, once, tolerance, joined=together)


def ruled_by_history(
    name: str,
    measure: Callable[[], Measurement],
    history: Sequence[Measurement],
    epochs: Callable[[], Sequence[CanaryEpoch]],
    tolerance: float,
    *,
    commit: str | None = None,
    confidence: float = CONFIDENCE,
) -> Ruling:
    """Measure, and hold that against a store's ``history``; ``epochs`` answers those it has then.

    Raises NoHistoryError as :func:`stored_level` does, InconclusiveError as :func:`against_level`.
    """
    notes: tuple[str, ...] = ()

    def once() -> Comparison:
        nonlocal notes
        current = measure()
        epoch = next((epoch for epoch in epochs() if epoch.id == current.epoch), None)
        level = stored_level(
            history, current, epoch, commit, tolerance=tolerance, confidence=confidence
        )
        notes = level.notes
        return against_level(current, level, epoch, confidence=confidence)

    ruling = ruled(name, once, tolerance)
    return replace(ruling, notes=notes)


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


def stored_level(
    history: Sequence[Measurement],
    current: Measurement,
    epoch: CanaryEpoch | None,
    commit: str | None = None,
    *,
    tolerance: float = TOLERANCE,
    confidence: float = CONFIDENCE,
) -> Level:
    """The level in a store's ``history`` that a measurement has to hold.

    Of the same series (project, name, inputs, threads, options, device with all facts) and epoch:
    the points of a ``commit``, else all since the last change of level but for those that a gate
    found slower (by this ``tolerance`` and ``confidence``). Raises NoHistoryError where there is
    none.
    """
    name = current.workload.name
    same_name = [m for m in history if m.workload.name == name and m.session != current.session]
    series = [m for m in same_name if series_key(m) == series_key(current)]
    notes = _strangers(current, same_name, series)
    past = [m for m in series if _when(m) <= _when(current)]
    if len(past) < len(series):
        lost = len(series) - len(past)
        notes.append(f"{lost} points left out: their time is yet to come, a clock was wrong")
    series = past
    usable = [
        m
        for m in series
        if m.epoch == current.epoch and m.epoch and latency_spread(m, epoch) is not None
    ]
    if len(usable) < len(series):
        lost = len(series) - len(usable)
        notes.append(f"{lost} points left out: another calibration, or no latency")
    if commit is not None:
        whole = of_commit(usable, commit, changed=True)
        usable = of_commit(whole, commit)
        if len(usable) < len(whole):
            lost = len(whole) - len(usable)
            notes.append(f"{lost} points left out: measured with changes that are not in it")
    if not usable:
        of = f" of commit {commit[:12]}" if commit else ""
        why = f" ({'; '.join(notes)})" if notes else ""
        raise NoHistoryError(
            f"{name}: no measurement{of} on this device to compare with{why}: run hwbench bench on "
            "the baseline, or name a file of it"
        )
    if commit is None:
        kept = _unalarming(usable, epoch, tolerance, confidence)
        if len(kept) < len(usable):
            lost = len(usable) - len(kept)
            notes.append(
                f"{lost} points left out: a gate found them slower, and no hwbench bench has taken "
                "their level for the new one"
            )
        level, step = _since_last_change(kept)
        usable = list(level)
        if step is not None:
            notes.append(f"held against the level since {usable[0].created} ({step:+.1f} % then)")
    return _level(usable, epoch, tuple(notes))


def _unalarming(
    points: Sequence[Measurement], epoch: CanaryEpoch | None, tolerance: float, confidence: float
) -> list[Measurement]:
    """Points without those that a gate measured, and found slower than what was before them.

    Whatever was measured in another way since then, by ``hwbench bench`` say, has taken what
    was there for granted.
    """
    trailing = len(points)
    while trailing and GATED.items() <= points[trailing - 1].tags.items():
        trailing -= 1
    kept = list(points[:trailing])
    for point in points[trailing:]:
        fastest = min((m.latency_ns or math.inf for m in kept), default=math.inf)
        if (point.latency_ns or 0.0) > fastest * (1 + tolerance):  # else no level calls it slower
            level = _level(_since_last_change(kept)[0], epoch)
            found = against_level(point, level, epoch, confidence=confidence)
            if found.word(tolerance) == "slower":
                continue
        kept.append(point)
    return kept


def _since_last_change(
    points: Sequence[Measurement],
) -> tuple[Sequence[Measurement], float | None]:
    """The points of the last level of a series, and by how much that differed (in per cent)."""
    found = changes([math.log(m.latency_ns or 1.0) for m in points])
    if not found:
        return points, None
    return points[found[-1].index :], 100 * (found[-1].ratio - 1)


def _level(
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
        before_ns=math.exp(level.log_latency),
    )


def _when(measurement: Measurement) -> datetime:
    return datetime.fromisoformat(measurement.created)


def _strangers(
    current: Measurement, same_name: Sequence[Measurement], series: Sequence[Measurement]
) -> list[str]:
    """Notes on points of the same name that are of another project, device or set-up, or of other
    work.
    """
    notes = []
    project = current.tags.get("project")
    own = [m for m in same_name if m.tags.get("project") == project]
    if lost := len(same_name) - len(own):
        whose = sorted({m.tags.get("project", "no clone") for m in same_name if m not in own})
        notes.append(f"{lost} points left out: measured in another project ({', '.join(whose)})")
    others = [m for m in own if m.fingerprint.key != current.fingerprint.key]
    if others:
        where = changed_facts(others[-1], current)
        notes.append(f"{len(others)} points left out, measured elsewhere: {where}")
    if lost := len(own) - len(others) - len(series):
        notes.append(f"{lost} points left out: of other inputs, threads or options")
    return notes
