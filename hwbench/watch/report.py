"""What a store has to tell: devices and their state, every workload's series, the claims ledger.

A series is one workload (by name, inputs, threads and options) on one device with all its facts;
a device that changed starts new ones, and so does a new calibration within a series, for
milliseconds of two do not mix. Levels are looked for in what is anchored alike, the newest one.
Architectures of a space that were measured too seldom for a history are a sample of it instead.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hwbench.records import CanaryEpoch, Fingerprint, Measurement, Verdict, Workload
from hwbench.store.documents import microseconds
from hwbench.watch.report_notes import notes_on
from hwbench.watch.report_runs import Of, distributions, newest, of
from hwbench.watch.segments import Change, changes
from hwbench.watch.selection import Key, changed_facts, series_key

if TYPE_CHECKING:
    from hwbench.store import CanaryRun, Store

#: Tags that every run has from git; the others are the user's own, to filter by.
GIT_TAGS = frozenset({"commit", "branch", "dirty"})
#: Facts by which a machine is known again after an upgrade.
MACHINE = ("machine", "machine_id", "cpu_model", "cores")
#: An architecture of a space with fewer measurements has no history to look at.
LEAST_HISTORY = 3
_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: milliseconds, ``None`` where there are none, and where it came from.

    ``anchored``: the latency is an undisturbed one, of the series' newest calibration. Latencies of
    one ``calibration`` compare: an epoch, or the session of what has none.
    ``runs_ms`` are quantiles of its runs (:data:`.report_runs.SHARES`), of the newest ones alone.
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
    runs_ms: Sequence[float] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """All points of one workload on one device, the oldest first.

    ``levels`` are the changes among the anchored points, by their index among these.
    """

    id: str
    name: str
    threads: int
    options: str
    device: Device
    points: Sequence[Point]
    levels: Sequence[Change]

    @property
    def anchored(self) -> list[Point]:
        """The points that levels are of."""
        return [point for point in self.points if point.anchored]

    @property
    def newest(self) -> Point:
        """The last point."""
        return self.points[-1]

    @property
    def tags(self) -> list[str]:
        """The user's own tags on any of its points, as ``name=value``."""
        found = {f"{n}={v}" for p in self.points for n, v in p.tags.items() if n not in GIT_TAGS}
        return sorted(found)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Architectures of a space on one device: the newest point of each, by its text.

    All have the same threads and options.
    """

    id: str
    space: str
    threads: int
    options: str
    device: Device
    points: Mapping[str, Point]

    @property
    def size(self) -> int:
        """How many architectures."""
        return len(self.points)

    @property
    def answered_ms(self) -> list[float]:
        """Latencies of the newest calibration, the fastest first."""
        return sorted(p.ms for p in self.points.values() if p.anchored and p.ms)


@dataclass(eq=False)
class Device:
    """A device with all its facts, what was measured on it when, and its canaries' series.

    The fingerprint is of its last measurement; ``ranges`` are the least and the largest of what
    its state said in numbers.
    """

    id: str
    fingerprint: Fingerprint
    first: str
    last: str
    count: int = 0
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    epochs: list[CanaryEpoch] = field(default_factory=list)
    runs: list[CanaryRun] = field(default_factory=list)
    changed: str = ""

    @property
    def label(self) -> str:
        """For a reader: the name, and the processor where it is known."""
        cpu = self.fingerprint.facts.get("cpu_model", "unknown")
        return self.fingerprint.device + ("" if cpu == "unknown" else f", {cpu}")

    @property
    def history(self) -> list[tuple[str, str]]:
        """What happened to it, and when, the oldest first."""
        began = "first measured" + (
            f", after its set-up changed: {self.changed}" * bool(self.changed)
        )
        events = [(self.first, began)]
        for epoch in self.epochs:
            times = ", ".join(
                f"{name} {c0 / _NS_PER_MS:.4g} ms"
                for name, c0 in zip(epoch.names, epoch.c0_ns, strict=True)
            )
            events.append((epoch.created, f"calibrated in {epoch.runs} runs: {times}"))
        return sorted(events, key=lambda event: microseconds(event[0]))

    @property
    def state(self) -> list[tuple[str, str, float | None, float | None]]:
        """What its last measurement says of its state, with the least and the largest of all."""
        return [
            (name, value, *self.ranges.get(name, (None, None)))
            for name, value in self.fingerprint.state.items()
        ]

    def saw(self, measurement: Measurement) -> None:
        """Count a measurement, the newest so far."""
        self.fingerprint, self.last = measurement.fingerprint, measurement.created
        self.count += 1
        for name, value in measurement.fingerprint.state.items():
            if (number := _number(value)) is not None:
                low, high = self.ranges.get(name, (number, number))
                self.ranges[name] = min(low, number), max(high, number)

    @property
    def drift(self) -> list[tuple[str, float]]:
        """How far the canaries of the last session read from the newest calibration (log ratio)."""
        if not self.runs or not self.epochs:
            return []
        epoch = self.epochs[-1]
        last = [run for run in self.runs if run.canary_key == epoch.canary_key][-1:]
        if not last or last[0].values_ns.shape[-1:] != (len(epoch.names),):
            return []
        moved = np.log(np.atleast_2d(last[0].values_ns)[-1] / np.array(epoch.c0_ns))
        return list(zip(epoch.names, moved.tolist(), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class StoreReport:
    """All that the page says. ``notes`` are what a reader should know of its gaps."""

    title: str
    created: str
    measurements: int
    devices: Sequence[Device]
    series: Sequence[Series]
    samples: Sequence[Sample]
    claims: Sequence[Verdict]
    notes: Sequence[str]

    @property
    def changed(self) -> list[tuple[Series, Change]]:
        """The last change of level of each series that has one, the worst first."""
        found = [(series, series.levels[-1]) for series in self.series if series.levels]
        return sorted(found, key=lambda each: -each[1].ratio)

    @property
    def tags(self) -> list[str]:
        """All tags to filter by."""
        return sorted({tag for series in self.series for tag in series.tags})


def gather(
    store: Store, measurements: Sequence[Measurement], title: str, created: str
) -> StoreReport:
    """The report of a store's ``measurements``, the oldest first; their samples are not needed.

    ``created`` is when the report is made (ISO 8601).
    """
    devices = _devices(measurements, store.epochs(), store.canary_runs())
    groups: dict[Key, list[Measurement]] = {}
    for m in measurements:
        groups.setdefault(series_key(m), []).append(m)
    drawn = [group for group in groups.values() if not _is_sample(group)]
    runs, damaged = distributions(store, newest(drawn))
    alike = Counter(_label(group) for group in drawn)
    series = [
        _series(
            f"s{number}",
            group,
            devices[group[0].fingerprint.key],
            runs,
            with_inputs=alike[_label(group)] > 1,
        )
        for number, group in enumerate(drawn)
    ]
    series.sort(key=lambda s: (s.name.casefold(), s.device.id, s.threads))
    samples = _samples([group for group in groups.values() if _is_sample(group)], devices)
    ledger = sorted(store.verdicts(), key=lambda verdict: verdict.created, reverse=True)
    notes = notes_on(measurements, series, samples, list(devices.values()), created)
    if not measurements:
        notes.insert(
            0,
            "Nothing that the store has is of the device and the time asked for."
            if store.measurements(with_bursts=False)
            else "The store has no measurement yet: hwbench bench makes the first.",
        )
    if damaged:
        of_them = f"{damaged} session{'s' * (damaged != 1)}"
        notes.append(f"The samples of {of_them} are damaged: their runs are not drawn.")
    return StoreReport(
        title, created, len(measurements), list(devices.values()), series, samples, ledger, notes
    )


def _is_sample(group: Sequence[Measurement]) -> bool:
    return group[0].workload.space is not None and len(group) < LEAST_HISTORY


def _devices(
    measurements: Sequence[Measurement], epochs: Sequence[CanaryEpoch], runs: Sequence[CanaryRun]
) -> dict[str, Device]:
    """Devices by their fingerprints' keys, in the order in which they were first met."""
    devices: dict[str, Device] = {}
    latest: dict[tuple[str | None, ...], Measurement] = {}
    for m in measurements:
        key, machine = m.fingerprint.key, _machine(m.fingerprint)
        if key not in devices:
            devices[key] = Device(f"d{len(devices)}", m.fingerprint, m.created, m.created)
            before = latest.get(machine)
            devices[key].changed = changed_facts(before, m) if before is not None else ""
        latest[machine] = m
        devices[key].saw(m)
    for epoch in epochs:
        if epoch.fingerprint_key in devices:
            devices[epoch.fingerprint_key].epochs.append(epoch)
    for run in runs:
        if run.fingerprint_key in devices:
            devices[run.fingerprint_key].runs.append(run)
    return devices


def _machine(fingerprint: Fingerprint) -> tuple[str | None, ...]:
    """What stays the same when only the set-up of a machine changes."""
    return (fingerprint.device, *(fingerprint.facts.get(name) for name in MACHINE))


def _label(group: Sequence[Measurement]) -> tuple[str, int, str, str]:
    """What a page calls a series, where no other one differs from it by its inputs alone."""
    work = group[0].workload
    return work.name, work.threads, _options(work), group[0].fingerprint.key


def _series(
    id: str,
    group: Sequence[Measurement],
    device: Device,
    runs: Mapping[Of, Sequence[float]],
    *,
    with_inputs: bool,
) -> Series:
    epoch = group[-1].epoch
    points = [_point(m, epoch, runs.get(of(m), ())) for m in group]
    logs = [math.log(point.ms) for point in points if point.anchored and point.ms]
    work = group[0].workload
    how = ", ".join(filter(None, [_options(work), _inputs(work) if with_inputs else ""]))
    return Series(id, work.name, work.threads, how, device, points, changes(logs))


def _samples(
    groups: Sequence[Sequence[Measurement]], devices: Mapping[str, Device]
) -> list[Sample]:
    """Samples by space and device, from the few measurements of each architecture."""
    alike: dict[tuple[str, int, str, str], list[Measurement]] = {}
    for last in sorted((group[-1] for group in groups), key=lambda m: microseconds(m.created)):
        work = last.workload
        key = str(work.space), work.threads, _options(work), last.fingerprint.key
        alike.setdefault(key, []).append(last)
    return [
        Sample(
            f"a{number}",
            space,
            threads,
            options,
            devices[fingerprint],
            {str(m.workload.arch): _point(m, own[-1].epoch) for m in own},
        )
        for number, ((space, threads, options, fingerprint), own) in enumerate(alike.items())
    ]


def _options(work: Workload) -> str:
    return ", ".join(f"{name}={value}" for name, value in work.options)


def _inputs(work: Workload) -> str:
    return " and ".join(f"{'x'.join(map(str, i.shape))} {i.dtype}" for i in work.inputs)


def _point(m: Measurement, epoch: str | None, runs_ms: Sequence[float] = ()) -> Point:
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
        runs_ms=runs_ms,
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _ms(time_ns: float | None) -> float | None:
    return time_ns / _NS_PER_MS if time_ns is not None and math.isfinite(time_ns) else None


def evidence(verdict: Verdict, most: int = 6) -> list[tuple[str, Any]]:
    """The plain figures of a claim, the first few."""
    plain = [
        (name.replace("_", " "), value)
        for name, value in verdict.evidence.items()
        if isinstance(value, (int, float, str)) and not isinstance(value, bool)
    ]
    return plain[:most]
