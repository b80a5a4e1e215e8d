"""A measuring session on a device that is given whole launches, not bursts.

A phone runs a benchmark tool: a launch is a fresh process that warms up, runs a model some
times, and answers with the median. Launches of all workloads are interleaved in random order,
with a launch of each canary between them, and go to the device as one script at a time. A
workload's launches then make one estimate, as a worker's bursts do: each is a process of its
own, with the canaries' readings before and after it.

What a phone does is known beforehand, so that a launch is rejected for a recorded cause only:
the device says that it throttles (before or after its script), or a canary moved by more than
``drift`` across it. Where none of a script's launches counted, the session waits, with growing
pauses and within a bound, and goes on with launches that do not count. A workload that is
launched ``ATTEMPTS`` times as often as needed in vain is inconclusive: there is no number.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import DeviceError, HwbenchError, InconclusiveError, UsageError
from hwbench.measure import canary as canary_time
from hwbench.measure.jobs import Job, Launched, Launcher, Target, threads_of
from hwbench.measure.plan import Failure, Plan, Progress
from hwbench.measure.result import BurstLog, Context, Result, conclude
from hwbench.measure.rig import Outcome, Rig, Turn
from hwbench.measure.scratch import scratch
from hwbench.records import CanaryEpoch, Measurement, Workload

#: Workloads in one script: it ends within a minute or so, and what breaks costs no more.
TOGETHER = 6
#: A workload may be launched so many times for each launch that has to count.
ATTEMPTS = 3
#: Fewer launches that count give no interval.
LEAST = 2
#: A workload whose launches failed, or broke a script, so many times is given up.
STRIKES = 2
CALIBRATION_SCRIPTS, CALIBRATION_READINGS, CALIBRATION_SECONDS = 8, 3, 0.5


def measure_launches(
    target: Target,
    launcher: Launcher,
    jobs: Sequence[Job],
    plan: Plan,
    epoch: CanaryEpoch | None,
    *,
    progress: Progress | None = None,
    watch: Callable[[NDArray[np.float64]], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Measurement | Failure]:
    """Measure ``jobs`` by launches, yielding each result when it stands.

    As :func:`hwbench.measure.session.measure`: ``plan.processes`` launches of each workload share
    ``plan.seconds``. An interrupt, or a device that does not come back, first yields what two
    launches measured. ``sleep`` takes seconds.
    """
    if not jobs:
        return
    threads = threads_of(jobs)
    rng = random.Random(plan.seed)
    order = list(jobs)
    rng.shuffle(order)
    blocks = [order[i : i + plan.loaded] for i in range(0, len(order), plan.loaded)]
    with launcher:
        rig = Rig(target, launcher, threads, sleep)
        session = _Session(target, rig, plan, epoch, rng)
        for index, block in enumerate(blocks):

            def tell(share: float, index: int = index) -> None:
                if progress:
                    progress((index + share) / len(blocks))

            with scratch() as folder:
                yield from session.block(block, folder, tell)
        if watch and session.readings:
            watch(session.floor())


def calibrate_launches(
    target: Target,
    launcher: Launcher,
    threads: int,
    *,
    progress: Progress | None = None,
    seed: int = 0,
    sleep: Callable[[float], None] = time.sleep,
) -> CanaryEpoch:
    """Measure the canonical times of a device that is given launches.

    Raises InconclusiveError where it never came to rest, DeviceError where a canary does not run.
    """
    runs: list[NDArray[np.float64]] = []
    with launcher:
        rig = Rig(target, launcher, threads, sleep)
        handles = rig.canary_handles * CALIBRATION_READINGS
        for _ in range(ATTEMPTS * CALIBRATION_SCRIPTS):
            turn = rig.turn(handles, CALIBRATION_SECONDS)
            rig.blame(turn.broke or _ill(rig.name, turn.outcomes))
            times = [o.median_ns for o in turn.outcomes if isinstance(o, Launched)]
            if len(times) == len(handles) and not turn.throttled:
                rig.counted()
                runs.append(np.array(times).reshape(CALIBRATION_READINGS, -1))
            if progress:
                progress(len(runs) / CALIBRATION_SCRIPTS)
            if len(runs) == CALIBRATION_SCRIPTS:
                break
        else:
            raise InconclusiveError(
                f"{target.name}: {len(runs)} of {CALIBRATION_SCRIPTS} runs of the canaries counted "
                f"({'; '.join(rig.reasons) or 'it broke off'}): let the device rest, then again"
            )
    band = canary_time.quiet_band(rig.canaries)
    found = canary_time.canonical(runs, band, np.random.default_rng(seed))
    return canary_time.epoch_of(target, threads, rig.canaries, found, len(runs))


@dataclass(slots=True)
class _Work:
    """A workload on the device, and what is still to be done for it.

    ``looked``: launches that counted when its interval was last looked at.
    """

    log: BurstLog
    handle: str
    kept: int = 0
    tried: int = 0
    looked: int = 0
    strikes: int = 0
    first: Launched | None = None
    error: HwbenchError | None = None

    def strike(self, error: HwbenchError) -> None:
        """Note that a launch of it failed."""
        self.strikes, self.error = self.strikes + 1, error


class _Session:
    """What all blocks of a session share, and how a turn of the device becomes answers."""

    def __init__(
        self, target: Target, rig: Rig, plan: Plan, epoch: CanaryEpoch | None, rng: random.Random
    ) -> None:
        self.rig, self.plan, self.rng = rig, plan, rng
        self.seconds = plan.seconds / plan.processes
        self.readings: list[list[int]] = []
        self.given_up: InconclusiveError | None = None
        self.context = Context(
            session=uuid.uuid4().hex[:12],
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            fingerprint=target.fingerprint(rig.threads),
            canaries=rig.canaries,
            epoch=epoch,
            anchors=True,
            tags=plan.tags,
            adjacent=False,
        )

    def floor(self) -> NDArray[np.float64]:
        """This session's own canonical canary times in ns, shape (K,)."""
        band = canary_time.quiet_band(self.rig.canaries)
        return canary_time.floor(np.array(self.readings, float), band)

    def block(
        self, jobs: Sequence[Job], folder: Path, tell: Progress
    ) -> Iterator[Measurement | Failure]:
        """Bring these workloads to the device and launch them until each has its answer.

        After a device that did not come to rest there are no more launches in this session.
        """
        if self.given_up is not None:
            yield from (_failure(job.workload, self.given_up) for job in jobs)
            tell(1.0)
            return
        waiting, work = list(jobs), list[_Work]()
        try:
            while waiting:
                try:
                    handle = self.rig.load(waiting[-1].build(folder))
                    waiting[-1].require_unchanged()
                    work.append(_Work(BurstLog(waiting[-1].workload), handle))
                except UsageError as error:  # this model's fault
                    yield Failure(waiting[-1].workload, error)
                waiting.pop()
            yield from self._measure(work, tell)
        except InconclusiveError as error:
            self.given_up = error
            yield from (_failure(job.workload, error) for job in waiting)
            for each in work:
                yield self._early(each) or _failure(each.log.workload, error)
            tell(1.0)
        except (KeyboardInterrupt, HwbenchError):
            for each in work:
                if (found := self._early(each)) is not None:
                    yield found
            raise

    def _measure(self, work: list[_Work], tell: Progress) -> Iterator[Measurement | Failure]:
        """Launch what is open, and take out what has its answer, until nothing is left."""
        handles, total = [each.handle for each in work], len(work) * self.plan.processes
        while work:
            batch = self.rng.sample(work, min(TOGETHER, len(work)))
            self._launch(batch)
            for each in batch:
                if (answer := self._answer(each)) is not None:
                    work.remove(each)
                    yield answer
            missing = sum(self.plan.processes - each.kept for each in work)
            tell(1 - missing / total)
        self.rig.unload(handles)

    # -- launches -----------------------------------------------------------------------------

    def _launch(self, batch: Sequence[_Work]) -> None:
        """One script: the canaries, then each workload followed by the canaries."""
        began, canaries = time.monotonic(), self.rig.canary_handles
        handles = list(canaries)
        for work in batch:
            handles += [work.handle, *canaries]
        turn = self.rig.turn(handles, self.seconds)
        for work in batch:
            work.log.seconds += (time.monotonic() - began) / len(batch)
        causes = self._note_turn(batch, turn)
        if "kept" in causes:
            self.rig.counted()
        elif "canary_unstable" in causes:
            self.rig.unsteady(f"the canaries moved by more than {self.rig.launcher.drift:.0%}")

    def _note_turn(self, batch: Sequence[_Work], turn: Turn) -> set[str | None]:
        """Enter what a script brought into the record; what became of its launches."""
        k = len(self.rig.canary_handles)
        step, finished = k + 1, len(turn.outcomes)
        readings = [
            _reading(turn.outcomes[at : at + k], k) for at in range(0, step * len(batch) + 1, step)
        ]
        if not turn.throttled:
            self.readings += [reading for reading in readings if reading is not None]
        causes = set[str | None]()
        for index, work in enumerate(batch):
            at = index * step + k
            if at < finished:
                before, after = readings[index : index + 2]
                causes.add(self._note(work, turn.outcomes[at], before, after, turn.throttled))
        place, part = divmod(finished, step)
        if turn.broke is not None and part == k and place < len(batch):
            batch[place].strike(turn.broke)  # it broke off in the middle of this one
        else:
            of_canaries = [o for at, o in enumerate(turn.outcomes) if at % step != k]
            self.rig.blame(turn.broke or _ill(self.rig.name, of_canaries))
        return causes

    def _note(
        self,
        work: _Work,
        outcome: Outcome,
        before: list[int] | None,
        after: list[int] | None,
        throttled: bool,
    ) -> str | None:
        """Enter a launch, with the cause that rejects it or "kept"; None where it is no reading."""
        work.tried += 1
        if before is None:
            return None  # whatever it says: where a canary does not run, the device is ill
        if isinstance(outcome, HwbenchError):
            work.strike(outcome)
            return None
        work.first = work.first or outcome
        work.log.tags |= dict(outcome.notes)
        if after is None:
            return None  # nothing anchors it
        moved = np.abs(np.log(np.array(after) / np.array(before))).max()
        drifted = moved > np.log1p(self.rig.launcher.drift)
        cause = "throttled" if throttled else "canary_unstable" if drifted else "kept"
        burst = {
            "ns": [round(outcome.median_ns)],
            "start": time.monotonic_ns(),
            "preemptions": 0,
            "steal_ns": 0,
            "cause": cause,
        }
        work.log.add(work.tried, 0, work.tried, burst, before, after)
        if cause == "kept":  # it does run: what broke off before was chance
            work.kept, work.strikes = work.kept + 1, 0
        return cause

    # -- answers ------------------------------------------------------------------------------

    def _answer(self, work: _Work) -> Measurement | Failure | None:
        """The answer of a workload that has one, or has come to its end without."""
        if work.strikes >= STRIKES:
            assert work.error is not None
            return _failure(work.log.workload, work.error)
        share = self.plan.looks.get(work.kept) if work.kept > work.looked else None
        if share is not None:
            work.looked = work.kept
            result, precision = self._concluded(work, share), self.plan.precision
            precise = precision is not None and result.relative_half_width <= precision
            if precise or work.kept >= self.plan.processes:
                return work.log.complete(result.measurement("precision" if precise else "time"))
        if work.tried < ATTEMPTS * self.plan.processes:
            return None
        if work.kept >= LEAST:
            return work.log.complete(self._concluded(work, self._left(work)).measurement("time"))
        why = "; ".join(self.rig.reasons) or "the canaries beside them failed"
        text = f"{work.tried - work.kept} of {work.tried} launches were rejected ({why})"
        error = InconclusiveError(f"{text}: let the device rest, then again")
        return _failure(work.log.workload, error)

    def _early(self, work: _Work) -> Measurement | None:
        """What a workload's launches so far are worth, if there are enough."""
        if work.kept < LEAST:
            return None
        result = self._concluded(work, self._left(work))
        return work.log.complete(result.measurement("interrupted"))

    def _left(self, work: _Work) -> float:
        """The share of the error that a workload's looks have left."""
        return 1 - sum(share for at, share in self.plan.looks.items() if at <= work.looked)

    def _concluded(self, work: _Work, share: float) -> Result:
        """The estimate of one workload, at a look that spends ``share`` of the error."""
        log, first = work.log, work.first
        assert first is not None
        log.load_ns = round(first.init_ns)
        log.first_ns = None if first.first_ns is None else round(first.first_ns)
        log.peak_memory = first.peak_memory_bytes
        confidence = 1 - (1 - self.plan.confidence) * share
        return conclude(log, self.context, confidence, self.plan.confidence, self.floor())


def _failure(workload: Workload, error: HwbenchError) -> Failure:
    return Failure(workload, type(error)(f"{workload.name}: {error}"))


def _reading(outcomes: Sequence[Outcome], k: int) -> list[int] | None:
    """The canaries' times in ns, None where one of them is missing."""
    times = [round(o.median_ns) for o in outcomes if isinstance(o, Launched)]
    return times if len(times) == k else None


def _ill(device: str, of_canaries: Sequence[Outcome]) -> DeviceError | None:
    """The error of a device on which a canary did not run, if so."""
    failed = next((o for o in of_canaries if isinstance(o, HwbenchError)), None)
    return None if failed is None else DeviceError(f"{device}: a canary does not run: {failed}")
