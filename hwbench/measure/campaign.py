"""Sessions against a store: the epoch that anchors them, resume, and the watched canary series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import DeviceError
from hwbench.measure.canary import calibrate, drift
from hwbench.measure.jobs import Job, Target, canary_key
from hwbench.measure.launches import calibrate_launches
from hwbench.measure.plan import Failure, Plan, Progress
from hwbench.measure.session import measure
from hwbench.records import CanaryEpoch, Measurement, Workload

if TYPE_CHECKING:
    from hwbench.store import Store, Sweep

#: Sessions whose quietest moments tell whether a canary left its epoch.
DRIFT_SESSIONS = 5
#: Half-width (logarithmic) of a canonical time's interval beyond which it is in doubt.
UNSURE = 0.15


def known_epoch(target: Target, threads: int, store: Store) -> CanaryEpoch | None:
    """The epoch that anchors this device's milliseconds now, if it was ever calibrated."""
    key = canary_key(target.canaries(threads))
    return store.epoch(target.fingerprint(threads).key, key, threads)


def anchor(
    target: Target, threads: int, store: Store, progress: Progress | None = None
) -> CanaryEpoch:
    """The known epoch, or a new one from a calibration of half a minute to two."""
    return known_epoch(target, threads, store) or recalibrate(target, threads, store, progress)


def recalibrate(
    target: Target, threads: int, store: Store, progress: Progress | None = None
) -> CanaryEpoch:
    """A new epoch, which anchors from now on; the old one stays with its measurements.

    Raises DeviceError where the clock lies before the old one: of two, the later anchors.
    """
    known, now = known_epoch(target, threads, store), datetime.now(UTC)
    if known is not None and datetime.fromisoformat(known.created) > now:
        raise DeviceError(
            f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, but {target.name} was calibrated "
            f"at {known.created}, which would go on anchoring: set the clock, or where it is right "
            "now, begin another store (--store)"
        )
    epoch = calibration(target, threads, progress)
    store.add_epoch(epoch)
    return epoch


def calibration(target: Target, threads: int, progress: Progress | None = None) -> CanaryEpoch:
    """Measure a device's canonical times, in whichever way it runs models. Nothing is stored."""
    launcher = target.launcher(threads)
    if launcher is None:
        return calibrate(target, threads, progress=progress)
    return calibrate_launches(target, launcher, threads, progress=progress)


def unsure(epoch: CanaryEpoch) -> tuple[str, ...]:
    """The canaries whose canonical times a busy machine left in doubt."""
    half_width = np.log(np.array(epoch.c0_high_ns) / np.array(epoch.c0_low_ns)) / 2
    wide = zip(epoch.names, half_width, strict=True)
    return tuple(name for name, half in wide if half > UNSURE)


def drift_since(target: Target, epoch: CanaryEpoch, store: Store) -> dict[str, float] | None:
    """How far each canary lies from the epoch in the sessions since (log ratio).

    None where fewer than ``DRIFT_SESSIONS`` sessions followed it: a machine may be busy for one.
    What neighbours hold of a shared cache says nothing of the machine: its canary is left out.
    """
    runs = store.canary_runs(
        fingerprint_key=epoch.fingerprint_key,
        canary_key=epoch.canary_key,
        threads=epoch.threads,
    )
    recent = [run.values_ns for run in runs if run.created >= epoch.created][-DRIFT_SESSIONS:]
    if len(recent) < DRIFT_SESSIONS:
        return None
    moved = zip(epoch.names, map(float, drift(epoch, recent)), strict=True)
    shared = {c.name for c in target.canaries(epoch.threads) if c.kind == "cache"}
    return {name: by for name, by in moved if name not in shared}


def record(
    target: Target,
    jobs: Sequence[Job],
    plan: Plan,
    store: Store,
    epoch: CanaryEpoch | None,
    *,
    campaign: str | None = None,
    progress: Progress | None = None,
) -> Iterator[Measurement | Failure]:
    """Measure ``jobs`` and store each result before it is yielded.

    With a ``campaign`` (an id of the caller's), workloads that it already holds are skipped:
    running the same campaign again goes on where it stopped.
    """
    done = store.done(campaign) if campaign else set()
    jobs = [job for job in jobs if job.workload.key not in done]
    if not jobs:
        return
    threads, session = jobs[0].workload.threads, ""
    store.announce(_sweep(target, jobs, epoch, campaign, len(done)))
    floors: list[NDArray[np.float64]] = []
    for result in measure(target, jobs, plan, epoch, progress=progress, watch=floors.append):
        if isinstance(result, Measurement):
            store.add(result, plan=campaign)
            session = result.session
        yield result
    if session:
        store.add_canary_run(
            target.fingerprint(threads).key,
            canary_key(target.canaries(threads)),
            threads,
            session,
            datetime.now(UTC).isoformat(timespec="seconds"),
            tuple(map(float, floors[0])),
        )


def _sweep(
    target: Target, jobs: Sequence[Job], epoch: CanaryEpoch | None, campaign: str | None, held: int
) -> Sweep:
    """These jobs as whoever watches the store is told of them."""
    from hwbench.store import Sweep

    works = [job.workload for job in jobs]
    key = epoch.fingerprint_key if epoch else target.fingerprint(works[0].threads).key
    return Sweep(called(works), target.name, key, campaign, len({w.key for w in works}), held)


def called(works: Sequence[Workload]) -> str:
    """A reader's name for some workloads: their space, the one's own, or how many there are."""
    spaces = {work.space for work in works}
    (only,) = spaces if len(spaces) == 1 else (None,)
    return only or (works[0].name if len(works) == 1 else f"{len(works)} models")
