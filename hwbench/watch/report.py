"""What a store has to tell: devices and their state, every workload's series, the claims ledger.

Series are those of :mod:`.report_series`; what a comparison ran side by side is in none of them.
Architectures of a space that were measured too seldom for a history are a sample of it instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hwbench.records import CanaryEpoch, Fingerprint, Measurement, Verdict
from hwbench.store.documents import microseconds
from hwbench.watch.report_notes import notes_on
from hwbench.watch.report_runs import distributions, newest
from hwbench.watch.report_series import Point, Series, options, point_of, series_of
from hwbench.watch.segments import Change
from hwbench.watch.selection import by_series, changed_facts
from hwbench.watch.sides import is_side

if TYPE_CHECKING:
    from hwbench.store import CanaryRun, Store

#: Facts by which a machine is known again after an upgrade.
MACHINE = ("machine", "machine_id", "cpu_model", "cores")
#: An architecture of a space with fewer measurements has no history to look at.
LEAST_HISTORY = 3
_NS_PER_MS = 1e6


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
    # The sides of comparisons are no history of a model.
    groups = by_series([m for m in measurements if not is_side(m.workload.name)])
    drawn = [group for group in groups if not _is_sample(group)]
    runs, damaged = distributions(store, newest(drawn))
    series = series_of(drawn, devices, {epoch.id: epoch for epoch in store.epochs()}, runs)
    samples = _samples([group for group in groups if _is_sample(group)], devices)
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


def _samples(
    groups: Sequence[Sequence[Measurement]], devices: Mapping[str, Device]
) -> list[Sample]:
    """Samples by space and device, from the few measurements of each architecture."""
    alike: dict[tuple[str, int, str, str], list[Measurement]] = {}
    for last in sorted((group[-1] for group in groups), key=lambda m: microseconds(m.created)):
        work = last.workload
        key = str(work.space), work.threads, options(work), last.fingerprint.key
        alike.setdefault(key, []).append(last)
    return [
        Sample(
            f"a{number}",
            space,
            threads,
            options,
            devices[fingerprint],
            {str(m.workload.arch): point_of(m, own[-1].epoch) for m in own},
        )
        for number, ((space, threads, options, fingerprint), own) in enumerate(alike.items())
    ]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def evidence(verdict: Verdict, most: int = 6) -> list[tuple[str, Any]]:
    """The plain figures of a claim, the first few."""
    plain = [
        (name.replace("_", " "), value)
        for name, value in verdict.evidence.items()
        if isinstance(value, (int, float, str)) and not isinstance(value, bool)
    ]
    return plain[:most]
