"""The canonical time of the canaries: fixed once for a device, and watched ever after.

A canary's reading moves with the machine; its canonical time c0 is what it reads when nothing
disturbs. Calibration takes ten runs in fresh processes, some seconds apart, and more where the
machine hardly came to rest. A run's
readings become medians over windows of a quarter of a second (two or three readings of the cache
canary), so that neither the noise of a reading nor a lucky moment looks like a faster machine.
Their 5th percentile over all runs marks the quiet machine, and c0 is what a quiet machine reads:
the median of the windows near that mark, within 6 % for the compute canaries (a clock that ran 5 %
faster for some seconds is no quiet machine) and 10 % for memory, which no machine with other users
keeps stiller. Of the cache that cores share such neighbours always hold a part: a band of 30 %
makes its mark what is usual. The interval is a bootstrap over runs.

Every later session leaves its own such figure in the store. The epoch itself is never changed:
:func:`drift` says when the series has left it, and a user opens a new epoch on purpose
(``hwbench doctor --recalibrate``).
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.errors import DeviceError, ModelError
from hwbench.measure.estimate import KINDS
from hwbench.measure.jobs import Canary, RunnerSpec, Target, canary_key
from hwbench.measure.process import WorkerProcess
from hwbench.measure.scratch import scratch
from hwbench.records import CanaryEpoch

WINDOW = 60  # readings: about a quarter of a second
LOW_PERCENTILE = 5.0
QUIET_BAND = {"compute": 0.06, "memory": 0.10, "cache": 0.30, "launch": 0.06}
RUNS, MOST_RUNS = 10, 40
#: More runs than ``RUNS`` are made while the compute canaries' canonical times, which every
#: latency rests on in full, are not known to within this (95 %, log).
SURE = 0.005
RUN_SECONDS = 0.8
PAUSE_SECONDS = 1.0
_TURNS = 10

Array = NDArray[np.float64]


def load_canaries(worker: WorkerProcess, canaries: Sequence[Canary]) -> list[list[object]]:
    """Load the canaries into a worker and warm them; answers their steps for ``round``."""
    steps: list[list[object]] = []
    slots = {f"canary:{canary.name}": canary.runner for canary in canaries}
    together = False
    with suppress(ModelError):  # which of them it is will show below
        worker.load_together(list(slots.items()))
        together = True
    for canary, slot in zip(canaries, slots, strict=True):
        try:
            if not together:
                worker.load(slot, canary.runner)
            worker.ask("warm", slot, 0.02, 3, 200, expect_s=1)
        except ModelError as error:
            raise DeviceError(f"canary {canary.name}: {error}") from error
        steps.append([slot, canary.runs, canary.warm, canary.every_s])
    return steps


def load_backdrop(worker: WorkerProcess, backdrop: RunnerSpec) -> None:
    """Load the device's own network; what stops it is the device's fault, not a model's."""
    try:
        worker.load("backdrop", backdrop)
    except ModelError as error:
        raise DeviceError(f"the device cannot run a network of hwbench's own: {error}") from error


def windows(readings_ns: Array) -> Array:
    """Medians of the log readings (N, K) over windows of ``WINDOW``, shape (N // WINDOW, K).

    Fewer than a window's readings make one window of what there is.
    """
    log = np.log(readings_ns)
    if len(log) < WINDOW:
        return np.median(log, axis=0, keepdims=True)
    whole = len(log) // WINDOW * WINDOW
    return np.asarray(np.median(log[:whole].reshape(-1, WINDOW, log.shape[1]), axis=1))


def quiet_band(canaries: Sequence[Canary]) -> Array:
    """How far (log) above its lowest each canary reads on a quiet machine, shape (K,)."""
    return np.array([QUIET_BAND[canary.kind] for canary in canaries])


def floor(readings_ns: Array, band: Array) -> Array:
    """One run's undisturbed canary times in ns, shape (K,)."""
    return np.asarray(np.exp(_quiet(windows(readings_ns), band)))


def _quiet(values: Array, band: Array) -> Array:
    """What the quiet ones of some windows (N, K) read: the median of those near the lowest."""
    ordered = np.sort(values, axis=0)
    low = ordered[int(LOW_PERCENTILE / 100 * (len(values) - 1))]
    near = (ordered <= low + band).sum(axis=0)
    middle = np.take_along_axis(ordered, np.stack([(near - 1) // 2, near // 2]), axis=0)
    return np.asarray(middle.mean(axis=0))


def canonical(
    runs: Sequence[Array], band: Array, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """c0 with its 95 % interval, in ns, from the readings (N, K) of each run."""
    pooled = [windows(run) for run in runs]
    c0 = _quiet(np.concatenate(pooled), band)
    draws = np.array(
        [
            _quiet(np.concatenate([pooled[i] for i in drawn]), band)
            for drawn in rng.integers(0, len(pooled), (400, len(pooled)))
        ]
    )
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return np.exp(c0), np.exp(np.minimum(low, c0)), np.exp(np.maximum(high, c0))


def calibrate(
    target: Target,
    threads: int,
    *,
    progress: Callable[[float], None] | None = None,
    seed: int = 0,
) -> CanaryEpoch:
    """Measure the canonical times: ``RUNS`` fresh processes, about 3 s each.

    On a machine with restless neighbours some more, until they have left it alone for long enough,
    but at most ``MOST_RUNS``. Raises :class:`~hwbench.errors.WorkerError` when a worker fails.
    """
    canaries = target.canaries(threads)
    runs: list[Array] = []
    with scratch() as folder:
        backdrop = target.backdrop(folder, threads)
        for index in range(MOST_RUNS):
            if index:
                time.sleep(PAUSE_SECONDS)
            runs.append(_run(target, canaries, backdrop))
            needed = RUNS
            if len(runs) >= RUNS:
                found = canonical(runs, quiet_band(canaries), np.random.default_rng(seed))
                needed = _runs_needed(len(runs), found, canaries)
            if progress:
                progress(len(runs) / needed)
            if len(runs) == needed:
                break
    return epoch_of(target, threads, canaries, found, len(runs))


def _runs_needed(made: int, found: tuple[Array, Array, Array], canaries: Sequence[Canary]) -> int:
    """How many runs the compute canaries' intervals call for, as these shrink with their root."""
    half_width = np.log(found[2] / found[1]) / 2
    widest = float(max(h for h, c in zip(half_width, canaries, strict=True) if c.kind == KINDS[0]))
    if widest <= SURE:
        return made
    return min(MOST_RUNS, max(made + 1, math.ceil(made * (widest / SURE) ** 2)))


def epoch_of(
    target: Target,
    threads: int,
    canaries: Sequence[Canary],
    found: tuple[Array, Array, Array],
    runs: int,
) -> CanaryEpoch:
    """A new epoch of what :func:`canonical` found in so many runs."""
    c0, low, high = found
    return CanaryEpoch(
        id=uuid.uuid4().hex[:12],
        fingerprint_key=target.fingerprint(threads).key,
        threads=threads,
        names=tuple(c.name for c in canaries),
        canary_key=canary_key(canaries),
        c0_ns=tuple(map(float, c0)),
        c0_low_ns=tuple(map(float, low)),
        c0_high_ns=tuple(map(float, high)),
        runs=runs,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _run(target: Target, canaries: Sequence[Canary], backdrop: RunnerSpec) -> Array:
    """Readings (N, K) of one fresh process, each after a turn of the backdrop."""
    with WorkerProcess(target.python) as worker:
        steps = load_canaries(worker, canaries)
        load_backdrop(worker, backdrop)
        readings: list[list[int]] = []
        end = time.monotonic() + RUN_SECONDS
        while time.monotonic() < end:
            answer = worker.ask("round", [["backdrop", 1, 0]] * _TURNS, steps)
            readings += answer["readings"][1:]
    return np.array(readings, float)


def drift(epoch: CanaryEpoch, floors_ns: Sequence[ArrayLike]) -> Array:
    """How far (log ratio, shape (K,)) the best of recent sessions' floors lie from the epoch.

    The minimum over sessions is compared: a busy session is no drift, but where even the
    quietest of many stays off, or one is faster than the interval allows, the machine changed.
    """
    best = np.log(np.array(floors_ns, float)).min(axis=0)
    low, high = np.log(epoch.c0_low_ns), np.log(epoch.c0_high_ns)
    return np.asarray(np.where(best > high, best - high, np.where(best < low, best - low, 0.0)))
