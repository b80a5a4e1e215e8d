"""The gate: is this model slower than its baseline, on this device, beyond doubt?

Where the baseline can be run, both are run side by side (:mod:`.trial`). Where it cannot, the model
is measured and held against what the store has of it on the same device: the level that the series
ends on, or the points of one commit. Either way an alarm is measured again, from fresh processes,
before it is raised. What the second time does not find beyond the tolerance is none; so an alarm
is false no more often than the first time's error allows, and seldom that often.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from hwbench.errors import HwbenchError, InconclusiveError
from hwbench.measure.jobs import Job
from hwbench.records import CanaryEpoch, Measurement
from hwbench.watch.comparison import Comparison, Word, latency_spread, together
from hwbench.watch.segments import changes
from hwbench.watch.selection import changed_facts, series_key
from hwbench.watch.trial import Outcome, Side, told_apart

#: Two-sided: one alarm in a hundred at a regression of just the tolerance, and far fewer at none.
CONFIDENCE = 0.98
#: Sessions of one model on one machine differ by about this much (log), beyond what their own
#: intervals say: known as well as from so many points.
BETWEEN, BETWEEN_KNOWN = 0.004, 3.0


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


def ruled(
    name: str,
    compare: Callable[[], Comparison],
    tolerance: float,
    notes: Sequence[str] = (),
    *,
    joined: Callable[[Comparison, Comparison], Comparison] = lambda first, second: second,
) -> Ruling:
    """Compare; where that is an alarm, compare again.

    The alarm stands where the second time is beyond the tolerance as well, and the two ``joined``
    are beyond doubt. Where they share what they were held against, the second time stands for both.
    """
    first = compare()
    word = first.word(tolerance)
    if word != "slower":
        return Ruling(name, word, first, notes=tuple(notes))
    second = compare()
    again = second.log_ratio > math.log1p(tolerance)
    found = joined(first, second) if again else second
    return Ruling(name, found.word(tolerance), found, first, tuple(notes))


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

    Raises InconclusiveError as :func:`stored_level` and :func:`against_level` do.
    """
    notes: tuple[str, ...] = ()

    def once() -> Comparison:
        nonlocal notes
        current = measure()
        epoch = next((epoch for epoch in epochs() if epoch.id == current.epoch), None)
        level = stored_level(history, current, epoch, commit)
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
) -> Level:
    """The level in a store's ``history`` that a measurement has to hold.

    Of the same series (name, threads, options, device with all facts) and epoch: the points of a
    ``commit``, else all since the last change of level. Raises InconclusiveError where there is
    none.
    """
    name = current.workload.name
    same_name = [m for m in history if m.workload.name == name and m.session != current.session]
    series = [m for m in same_name if series_key(m) == series_key(current)]
    notes = _strangers(current, same_name)
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
        usable = [m for m in usable if m.tags.get("commit", "").startswith(commit)]
    if not usable:
        of = f" of commit {commit[:12]}" if commit else ""
        why = f" ({'; '.join(notes)})" if notes else ""
        raise InconclusiveError(
            f"{name}: no measurement{of} on this device to compare with{why}: run hwbench bench on "
            "the baseline, or name a file of it"
        )
    logs = [math.log(m.latency_ns or 1.0) for m in usable]
    if commit is None:
        found = changes(logs)
        if found:
            usable, logs = usable[found[-1].index :], logs[found[-1].index :]
            step = 100 * (found[-1].ratio - 1)
            notes.append(f"held against the level since {usable[0].created} ({step:+.1f} % then)")
    return _level(logs, [latency_spread(m, epoch) or 0.0 for m in usable], tuple(notes))


def _level(logs: Sequence[float], spreads: Sequence[float], notes: tuple[str, ...]) -> Level:
    x, n = np.array(logs), len(logs)
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
    )


def _when(measurement: Measurement) -> datetime:
    return datetime.fromisoformat(measurement.created)


def _strangers(current: Measurement, same_name: Sequence[Measurement]) -> list[str]:
    """A note on the points of the same name that another device, or another set-up, measured."""
    others = [m for m in same_name if m.fingerprint.key != current.fingerprint.key]
    if not others:
        return []
    where = changed_facts(others[-1], current)
    return [f"{len(others)} points left out, measured elsewhere: {where}"]
