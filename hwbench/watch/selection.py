"""Choosing stored measurements by what they belong to: a session, a commit, a tag.

A selection is ``session:ID``, ``commit:HASH`` (the first digits do), or ``tag:NAME=VALUE``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hwbench.errors import InconclusiveError, UsageError
from hwbench.records import CanaryEpoch, Measurement
from hwbench.watch.comparison import Comparison, compare_stored
from hwbench.watch.sides import is_side

PREFIXES: Final = ("session:", "commit:", "tag:")
_LEAST_DIGITS: Final = 4

#: What one series is of: the same work by project, name and inputs, on the same device.
Key = tuple[
    str, str, tuple[tuple[str, tuple[int, ...]], ...], int, tuple[tuple[str, str], ...], str
]


def is_selection(text: str) -> bool:
    """Whether a text selects stored measurements, rather than naming a model."""
    return text.startswith(PREFIXES)


def selected(measurements: Sequence[Measurement], text: str) -> list[Measurement]:
    """The measurements of a selection, in their order.

    Raises UsageError for a selection that says nothing, InconclusiveError where none is of it.
    """
    kind, _, value = text.partition(":")
    if kind == "session" and value:
        chosen = [m for m in measurements if m.session == value]
    elif kind == "commit" and len(value) >= _LEAST_DIGITS:
        # A comparison's baseline was run at a commit, and is a file of another one.
        own = [m for m in measurements if not is_side(m.workload.name)]
        # What was measured with uncommitted changes stands for a commit of which there is no more.
        chosen = of_commit(own, value) or of_commit(own, value, changed=True)
    elif kind == "tag" and "=" in value:
        name, _, wanted = value.partition("=")
        chosen = [m for m in measurements if m.tags.get(name) == wanted]
    else:
        raise UsageError(
            f"selection {text!r}: write session:ID, commit:HASH (four digits or more), or "
            "tag:NAME=VALUE"
        )
    if not chosen:
        raise InconclusiveError(f"no measurement of {text} in the store: measure it first")
    return chosen


def of_commit(
    measurements: Sequence[Measurement], commit: str, *, changed: bool = False
) -> list[Measurement]:
    """Those of a commit, by the first digits of its hash: as it is, or also with ``changed`` files
    that are not in it.
    """
    return [
        m
        for m in measurements
        if m.tags.get("commit", "").startswith(commit) and (changed or m.tags.get("dirty") != "yes")
    ]


def series_key(measurement: Measurement) -> Key:
    """What a measurement is one point of: project (a tag, which may be missing), name, inputs,
    threads, options, device with its facts.
    """
    work = measurement.workload
    inputs = tuple((entry.dtype, tuple(entry.shape)) for entry in work.inputs)
    options = tuple(sorted(work.options))
    project = measurement.tags.get("project", "")
    return project, work.name, inputs, work.threads, options, measurement.fingerprint.key


def is_of_series(measurement: Measurement, key: Key) -> bool:
    """Whether it is a point of that series: what names no project (it was made outside of a clone,
    or before projects were told apart) may be of any.
    """
    own = series_key(measurement)
    return own[1:] == key[1:] and (own[0] == key[0] or not (own[0] and key[0]))


def by_series(measurements: Sequence[Measurement]) -> list[list[Measurement]]:
    """The points of each series, in their order. Those that name no project are points of the one
    that has such a series, if there is but one.
    """
    projects: dict[tuple[Any, ...], set[str]] = {}
    for project, *work in map(series_key, measurements):
        projects.setdefault(tuple(work), set()).update({project} - {""})
    groups: dict[tuple[Any, ...], list[Measurement]] = {}
    for m in measurements:
        project, *work = series_key(m)
        known = projects[tuple(work)]
        whose = project or (next(iter(known)) if len(known) == 1 else "")
        groups.setdefault((whose, *work), []).append(m)
    return list(groups.values())


def compare_selections(
    a: Sequence[Measurement],
    b: Sequence[Measurement],
    epochs: Mapping[str, CanaryEpoch],
    *,
    confidence: float = 0.95,
) -> tuple[list[Comparison], list[str]]:
    """Compare the newest latency of each series that both selections have; and what is left out.

    Raises InconclusiveError where nothing of them can be compared.
    """
    newest_a, newest_b = ([group[-1] for group in by_series(side)] for side in (a, b))
    comparisons, notes = [], []
    for before in newest_a:
        after = next((m for m in newest_b if is_of_series(m, series_key(before))), None)
        if after is None:
            notes.append(_unmatched(before, b))
            continue
        epoch = epochs.get(before.epoch or "")
        found = compare_stored(before, after, epoch, confidence=confidence)
        if found is None:
            notes.append(f"{before.workload.name}: left out, {_why_not(before, after)}")
        else:
            comparisons.append(found)
    if not comparisons:
        raise InconclusiveError("; ".join(["nothing of the two can be compared", *notes[:3]]))
    return comparisons, notes


def _unmatched(one: Measurement, others: Sequence[Measurement]) -> str:
    """Why a measurement has no counterpart."""
    name = one.workload.name
    for other in others:
        if other.workload.name == name and other.fingerprint.key != one.fingerprint.key:
            return f"{name}: left out, measured elsewhere: {changed_facts(one, other)}"
        projects = [m.tags.get("project", "none") for m in (one, other)]
        if other.workload.name == name and projects[0] != projects[1]:
            return f"{name}: left out, of other projects: {projects[0]} against {projects[1]}"
    return f"{name}: left out, only one side has it"


def changed_facts(one: Measurement, other: Measurement) -> str:
    """What differs between the devices of two measurements, in a few words."""
    if one.fingerprint.device != other.fingerprint.device:
        return f"{one.fingerprint.device} against {other.fingerprint.device}"
    before, after = one.fingerprint.facts, other.fingerprint.facts
    names = [n for n in {**before, **after} if before.get(n) != after.get(n)]
    said = [f"{n} {before.get(n, 'none')} to {after.get(n, 'none')}" for n in names[:2]]
    more = [f"and {len(names) - 2} facts more"] if len(names) > 2 else []
    return ", ".join([*said, *more])


def _why_not(one: Measurement, other: Measurement) -> str:
    for m in (one, other):
        if m.latency_ns is None or m.status == "observed_only":
            return f"it has no undisturbed latency ({m.status})"
    return "its milliseconds rest on different calibrations: measure both again"
