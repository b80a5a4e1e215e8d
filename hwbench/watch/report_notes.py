"""What a report says ahead of all else: what is missing in a store, or odd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hwbench.records import Measurement
from hwbench.store.documents import microseconds
from hwbench.watch.sides import is_side

if TYPE_CHECKING:
    from hwbench.watch.report import Device, Sample
    from hwbench.watch.report_series import Series


def notes_on(
    measurements: Sequence[Measurement],
    series: Sequence[Series],
    samples: Sequence[Sample],
    devices: Sequence[Device],
    created: str,
) -> list[str]:
    """What is missing or odd, a line each."""
    notes = []
    if series and all(len(each.points) == 1 for each in series):
        notes.append("Every workload was measured once: there is no history yet to tell a change.")
    moved = [device for device in devices if device.changed]
    if moved:
        times = "Once" if len(moved) == 1 else f"{len(moved)} times"
        notes.append(
            f"{times} a machine's set-up changed (last: {moved[-1].changed}): what was measured "
            "since then has series of its own."
        )
    later = sum(microseconds(m.created) > microseconds(created) for m in measurements)
    if later:
        bear = "1 measurement bears" if later == 1 else f"{later} measurements bear"
        notes.append(f"{bear} a time that is yet to come: a clock was wrong.")
    points = [p for each in series for p in each.points]
    points += [p for each in samples for p in each.points.values()]
    other = [p for p in points if not p.anchored and p.status == "ok"]
    provisional = sum(p.calibration == f"session {p.session}" for p in other)
    if provisional:
        notes.append(
            f"{provisional} latencies are provisional, of a device that was not calibrated: they "
            "compare within their session only."
        )
    mixed = len(other) - provisional
    if mixed:
        notes.append(
            f"{mixed} latencies rest on an earlier calibration than the newest of their series: "
            "they are shown, and not compared."
        )
    lost = sum(point.status != "ok" for point in points)
    if lost:
        notes.append(
            f"{lost} measurement{'s' * (lost != 1)} gave no undisturbed latency: inconclusive or "
            "observed only."
        )
    sides = sum(is_side(m.workload.name) for m in measurements)
    if sides:
        notes.append(
            f"{sides} measurement{'s are sides' if sides != 1 else ' is a side'} of comparisons "
            "(hwbench compare, hwbench gate): they are in measurements.csv, and no series."
        )
    return notes
