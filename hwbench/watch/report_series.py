"""The series of a report: every point of one workload on one device, and its levels.

A series is one workload (by project, name, inputs, threads and options) on one device with all its
facts; a device that changed starts new ones, and so does a new calibration within a series, for
milliseconds of two do not mix. Levels are those of the gate (:mod:`.levels`), by its tolerance and
confidence where none is asked for, among what is anchored as the newest point is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hwbench.interchange.foreign import IMPORTED
from hwbench.records import CanaryEpoch, Measurement, Workload
from hwbench.watch.levels import comparable, forming, is_experiment
from hwbench.watch.report_runs import Of, of
from hwbench.watch.segments import Change, changes

if TYPE_CHECKING:
    from hwbench.watch.report import Device

#: Tags that every run has from git; the others are the user's own, to filter by.
GIT_TAGS: Final = frozenset({"project", "commit", "branch", "dirty"})
#: Why a point is no part of its level.
ALARM: Final = "alarm of a gate, not part of the level"
TRIED: Final = "uncommitted trial, not part of the level"
_DIGITS_OF_COMMIT = 10
_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: milliseconds, ``None`` where there are none, and where it came from.

    ``anchored``: the latency is an undisturbed one, of the series' newest calibration. Latencies of
    one ``calibration`` compare: an epoch, or the session of what has none. Levels are of those that
    are ``forming`` them; one that could, and does not, says why in ``left_out``.
    ``imported``: another tool's figure. ``runs_ms`` are quantiles of its runs
    (:data:`.report_runs.SHARES`), of the newest ones alone.
    """

    created: str
    session: str
    status: str
    ms: float | None
    low_ms: float | None
    high_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    commit: str
    dirty: bool
    tags: Mapping[str, str]
    anchored: bool
    calibration: str
    imported: bool
    runs_ms: Sequence[float] = ()
    forming: bool = False
    left_out: str = ""

    @property
    def of_commit(self) -> str:
        """For a reader: the first digits, with a star where changes were not committed."""
        return self.commit[:_DIGITS_OF_COMMIT] + "*" * (self.dirty and bool(self.commit))


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """All points of one workload on one device, the oldest first.

    ``levels`` are the changes among the forming points, by their index among these. ``project`` is
    empty where a report is of one project alone.
    """

    id: str
    name: str
    project: str
    threads: int
    options: str
    device: Device
    points: Sequence[Point]
    levels: Sequence[Change]

    @property
    def forming(self) -> list[Point]:
        """The points that levels are of."""
        return [point for point in self.points if point.forming]

    @property
    def newest(self) -> Point:
        """The last point."""
        return self.points[-1]

    @property
    def over_level(self) -> float | None:
        """The newest latency over the mean of its level; ``None`` without either."""
        since = self.levels[-1].index if self.levels else 0
        logs = [math.log(point.ms) for point in self.forming[since:] if point.ms]
        if not logs or not self.newest.ms:
            return None
        return float(self.newest.ms / np.exp(np.mean(logs)))

    @property
    def tags(self) -> list[str]:
        """The project, and the user's own tags on any of its points, as ``name=value``."""
        found = {f"{n}={v}" for p in self.points for n, v in p.tags.items() if n not in GIT_TAGS}
        return sorted(found | ({f"project={self.project}"} if self.project else set()))


def series_of(
    groups: Sequence[Sequence[Measurement]],
    devices: Mapping[str, Device],
    epochs: Mapping[str, CanaryEpoch],
    runs: Mapping[Of, Sequence[float]],
) -> list[Series]:
    """A series of each group of measurements of one key, the oldest first; sorted by name.

    ``devices`` are by their fingerprints' keys, ``epochs`` by their ids.
    """
    alike = Counter(map(_label, groups))
    several = len({_project(group) for group in groups}) > 1
    found = []
    for number, group in enumerate(groups):
        work, label = group[0].workload, _label(group)
        how = filter(None, [options(work), _inputs(work) if alike[label] > 1 else ""])
        points = _points(group, epochs, runs)
        found.append(
            Series(
                f"s{number}",
                work.name,
                _project(group) if several else "",
                work.threads,
                ", ".join(how),
                devices[group[0].fingerprint.key],
                points,
                changes([math.log(point.ms) for point in points if point.forming and point.ms]),
            )
        )
    return sorted(found, key=lambda s: (s.name.casefold(), s.project, s.device.id, s.threads))


def _points(
    group: Sequence[Measurement],
    epochs: Mapping[str, CanaryEpoch],
    runs: Mapping[Of, Sequence[float]],
) -> list[Point]:
    epoch = group[-1].epoch
    usable = comparable(group, epoch)
    kept = {id(m) for m in forming(usable, epochs.get(epoch or ""))}
    why = {id(m): TRIED if is_experiment(m) else ALARM for m in usable if id(m) not in kept}
    return [
        point_of(m, epoch, runs.get(of(m), ()), forming=id(m) in kept, left_out=why.get(id(m), ""))
        for m in group
    ]


def point_of(
    m: Measurement,
    epoch: str | None,
    runs_ms: Sequence[float] = (),
    *,
    forming: bool = False,
    left_out: str = "",
) -> Point:
    """A measurement's point, where the newest calibration is the ``epoch`` of this id."""
    observed: dict[float, float | None] = {p.q: p.value_ns for p in m.observed}
    usable = m.status == "ok" and m.epoch == epoch and m.epoch is not None
    return Point(
        created=m.created,
        session=m.session,
        status=m.status,
        ms=_ms(m.latency_ns),
        low_ms=_ms(m.low_ns),
        high_ms=_ms(m.high_ns),
        p50_ms=_ms(observed.get(50.0)),
        p90_ms=_ms(observed.get(90.0)),
        p99_ms=_ms(observed.get(99.0)),
        commit=m.tags.get("commit", ""),
        dirty=m.tags.get("dirty") == "yes",
        tags=m.tags,
        anchored=usable and bool(m.latency_ns and m.latency_ns > 0),
        calibration=m.epoch or f"session {m.session}",
        imported=m.stop_reason == IMPORTED,
        runs_ms=runs_ms,
        forming=forming,
        left_out=left_out,
    )


def options(work: Workload) -> str:
    """The options of a workload for a reader."""
    return ", ".join(f"{name}={value}" for name, value in work.options)


def _inputs(work: Workload) -> str:
    return " and ".join(f"{'x'.join(map(str, i.shape))} {i.dtype}" for i in work.inputs)


def _label(group: Sequence[Measurement]) -> tuple[str, str, int, str, str]:
    """What a page calls a series, where no other one differs from it by its inputs alone."""
    work = group[0].workload
    key = group[0].fingerprint.key
    return _project(group), work.name, work.threads, options(work), key


def _project(group: Sequence[Measurement]) -> str:
    return max(m.tags.get("project", "") for m in group)


def _ms(time_ns: float | None) -> float | None:
    return time_ns / _NS_PER_MS if time_ns is not None and math.isfinite(time_ns) else None
