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
against (:mod:`.levels`): a gate that is run again says the same, until ``hwbench bench`` takes the
new level for its baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from hwbench.errors import HwbenchError, NoHistoryError
from hwbench.measure.jobs import Job
from hwbench.records import CanaryEpoch, Measurement
from hwbench.watch.comparison import TOLERANCE, Comparison, Word, together
from hwbench.watch.levels import (
    CONFIDENCE,
    Level,
    against_level,
    comparable,
    forming,
    is_experiment,
    level_of,
    since_last_change,
)
from hwbench.watch.selection import changed_facts, is_of_series, of_commit, series_key
from hwbench.watch.sides import BASELINE, Side, told_apart
from hwbench.watch.trial import Effort, Outcome

#: What is held against its baseline is a version of it.
GATE: Final = Effort(confidence=CONFIDENCE, versions=True)


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
    side = told_apart(before, after, (BASELINE, ""))

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
    the points of a ``commit``, else all since the last change of level of those
    :func:`.levels.forming` levels (by this ``tolerance`` and ``confidence``). Raises NoHistoryError
    where there is none.
    """
    name = current.workload.name
    same_name = [m for m in history if m.workload.name == name and m.session != current.session]
    series = [m for m in same_name if is_of_series(m, series_key(current))]
    notes = _strangers(current, same_name, series)
    past = [m for m in series if _when(m) <= _when(current)]
    if len(past) < len(series):
        lost = len(series) - len(past)
        notes.append(f"{lost} points left out: their time is yet to come, a clock was wrong")
    series = past
    usable = comparable(series, current.epoch)
    if len(usable) < len(series):
        lost = len(series) - len(usable)
        notes.append(f"{lost} points left out: another calibration, or no latency")
    if commit is not None:
        whole = of_commit(usable, commit, changed=True)
        usable = of_commit(whole, commit)
        if len(usable) < len(whole):
            lost = len(whole) - len(usable)
            notes.append(f"{lost} points left out: measured with changes that are not in it")
    else:
        tried = sum(map(is_experiment, usable))
        kept = forming(usable, epoch, tolerance, confidence)
        if lost := len(usable) - len(kept) - tried:
            notes.append(
                f"{lost} points left out: a gate found them slower, and no hwbench bench has taken "
                "their level for the new one"
            )
        if tried:
            notes.append(
                f"{tried} points left out: uncommitted changes that were run beside a baseline"
            )
        usable = kept
    if not usable:
        of = f" of commit {commit[:12]}" if commit else ""
        why = f" ({'; '.join(notes)})" if notes else ""
        raise NoHistoryError(
            f"{name}: no measurement{of} on this device to compare with{why}: run hwbench bench on "
            "the baseline, or name a file of it"
        )
    if commit is None:
        level, step = since_last_change(usable)
        usable = list(level)
        if step is not None:
            notes.append(f"held against the level since {usable[0].created} ({step:+.1f} % then)")
    return level_of(usable, epoch, tuple(notes))


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
    own = [m for m in same_name if not project or m.tags.get("project", project) == project]
    if lost := len(same_name) - len(own):
        whose = {m.tags.get("project", "") for m in same_name} - {"", project}
        notes.append(f"{lost} points left out, of another project: {', '.join(sorted(whose))}")
    others = [m for m in own if m.fingerprint.key != current.fingerprint.key]
    if others:
        where = changed_facts(others[-1], current)
        notes.append(f"{len(others)} points left out, measured elsewhere: {where}")
    if lost := len(own) - len(others) - len(series):
        notes.append(f"{lost} points left out: of other inputs, threads or options")
    return notes
