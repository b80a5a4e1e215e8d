"""A measuring session on a device that is given whole launches, not bursts.

A phone runs a benchmark tool: a launch is a fresh process that warms up, runs a model some
times, and answers with the median. Launches of all workloads are interleaved in random order,
with a launch of each canary between them, and go to the device as one script at a time. A
workload's launches then make one estimate, as a worker's bursts do: each is a process of its
own, with the canaries' readings before and after it.

What a phone does is known beforehand, so that a launch is rejected for a recorded cause only:
the device says that it throttles (before or after its script), or a canary moved by more than
``drift`` across it. After a rejection by state the session waits, with growing pauses and within
a bound, and starts with a launch that does not count. A workload all of whose launches were
rejected is inconclusive: there is no number.
"""

from __future__ import annotations

import random
import tempfile
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
from hwbench.measure.jobs import Canary, Job, Launched, Launcher, Script, Target
from hwbench.measure.plan import Failure, Plan, Progress
from hwbench.measure.result import BurstLog, Context, Result, conclude
from hwbench.records import CanaryEpoch, Measurement

#: Workloads in one script: it ends within a minute or so, and what breaks costs no more.
TOGETHER = 6
#: A workload may be launched so many times for each launch that has to count.
ATTEMPTS = 3
#: Fewer launches that count give no interval.
LEAST = 2
#: A workload that failed, or that a script broke at, so many times is given up.
STRIKES = 2
#: Scripts in a row that brought nothing, after which the device is given up.
MOST_BROKEN = 3
CALIBRATION_SCRIPTS, CALIBRATION_READINGS = 8, 3


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
    ``plan.seconds``; an interrupt or a broken device first yields what two launches measured.
    """
    if not jobs:
        return
    threads = {job.workload.threads for job in jobs}
    if len(threads) != 1:
        raise UsageError("workloads on different numbers of threads need sessions of their own")
    rng = random.Random(plan.seed)
    order = list(jobs)
    rng.shuffle(order)
    with launcher:
        session = _Session(target, launcher, threads.pop(), plan, epoch, rng, sleep)
        blocks = [order[i : i + plan.loaded] for i in range(0, len(order), plan.loaded)]
        for index, block in enumerate(blocks):
            if session.given_up is not None:
                yield from (Failure(job.workload, session.given_up) for job in block)
                continue

            def tell(share: float, index: int = index) -> None:
                if progress:
                    progress((index + share) / len(blocks))

            with tempfile.TemporaryDirectory(prefix="hwbench-") as folder:
                yield from session.block(block, Path(folder), tell)
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

    Raises InconclusiveError where it never came to rest.
    """
    plan = Plan(processes=2, seed=seed)
    runs: list[NDArray[np.float64]] = []
    with launcher:
        session = _Session(target, launcher, threads, plan, None, random.Random(seed), sleep)
        for attempt in range(ATTEMPTS * CALIBRATION_SCRIPTS):
            session.settle()
            handles = session.canary_handles * CALIBRATION_READINGS
            script = launcher.run([*session.warm_up(), *handles], session.seconds)
            outcomes = session.counted(script.outcomes)
            if script.broken is not None:
                launcher.recover()
            elif not (failed := [o for o in outcomes if isinstance(o, HwbenchError)]):
                if not session.disturbed_now():
                    times = [o.median_ns for o in outcomes if isinstance(o, Launched)]
                    runs.append(np.array(times).reshape(CALIBRATION_READINGS, -1))
            elif attempt + 1 >= STRIKES:
                raise DeviceError(f"{target.name}: a canary does not run: {failed[0]}")
            if progress:
                progress(len(runs) / CALIBRATION_SCRIPTS)
            if len(runs) == CALIBRATION_SCRIPTS:
                break
        else:
            raise InconclusiveError(
                f"{target.name}: {len(runs)} of {CALIBRATION_SCRIPTS} runs of the canaries counted "
                f"({'; '.join(session.reasons) or 'it broke off'}): let the device rest, then again"
            )
    canaries = session.canaries
    band = canary_time.quiet_band(canaries)
    c0, low, high = canary_time.canonical(runs, band, np.random.default_rng(seed))
    return canary_time.epoch_of(target, threads, canaries, (c0, low, high), len(runs))


@dataclass(slots=True)
class _Work:
    """A workload on the device, and what is still to be done for it."""

    log: BurstLog
    handle: str
    kept: int = 0
    tried: int = 0
    strikes: int = 0
    first: Launched | None = None
    error: HwbenchError | None = None


class _Session:
    """What all blocks of a session share, and how a script is turned into readings."""

    def __init__(
        self,
        target: Target,
        launcher: Launcher,
        threads: int,
        plan: Plan,
        epoch: CanaryEpoch | None,
        rng: random.Random,
        sleep: Callable[[float], None],
    ) -> None:
        self.target, self.launcher, self.plan, self.rng = target, launcher, plan, rng
        self.sleep = sleep
        self.canaries: tuple[Canary, ...] = target.canaries(threads)
        self.canary_handles = [launcher.load(canary.runner) for canary in self.canaries]
        self.seconds = plan.seconds / plan.processes
        self.readings: list[list[int]] = []
        self.reasons: tuple[str, ...] = ()
        self.launches = 0
        self.given_up: InconclusiveError | None = None
        self._cold = True
        self.context = Context(
            session=uuid.uuid4().hex[:12],
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            fingerprint=target.fingerprint(threads),
            canaries=self.canaries,
            epoch=epoch,
            anchors=True,
            tags=plan.tags,
        )

    # -- the device's state -------------------------------------------------------------------

    def disturbed_now(self) -> bool:
        """Ask the device; what it says is kept for the answer where nothing else is."""
        found = self.launcher.disturbed()
        self.reasons = found or self.reasons
        self._cold |= bool(found)
        return bool(found)

    def settle(self) -> None:
        """Wait until the device is fit. Raises InconclusiveError when it takes too long."""
        pause, waited = 2.0, 0.0
        while self.disturbed_now():
            if waited + pause > self.launcher.patience_s:
                raise InconclusiveError(
                    f"{self.target.name} is not fit to be measured ({'; '.join(self.reasons)}), "
                    f"after {waited:.0f} s of waiting: let it cool and charge, then again"
                )
            self.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, 60.0)

    def warm_up(self) -> list[str]:
        """Handles of launches that do not count, where the device rested before."""
        return self.canary_handles if self._cold else []

    def counted(
        self, outcomes: tuple[Launched | HwbenchError, ...]
    ) -> tuple[Launched | HwbenchError, ...]:
        """The outcomes without those of :meth:`warm_up`, which are done now."""
        rest = outcomes[len(self.warm_up()) :]
        self._cold = False
        return rest

    def floor(self) -> NDArray[np.float64]:
        """This session's own canonical canary times in ns, shape (K,)."""
        band = canary_time.quiet_band(self.canaries)
        return canary_time.floor(np.array(self.readings, float), band)

    # -- blocks -------------------------------------------------------------------------------

    def block(
        self, jobs: Sequence[Job], folder: Path, tell: Progress
    ) -> Iterator[Measurement | Failure]:
        """Bring these workloads to the device and launch them until each has its answer."""
        work: list[_Work] = []
        for job in jobs:
            log = BurstLog(job.workload)
            try:
                runner = job.build(folder)
                work.append(_Work(log, self.launcher.load(runner)))
            except (UsageError, InconclusiveError) as error:  # this model's fault
                yield Failure(job.workload, error)
        total, broken = len(work), 0
        try:
            while work:
                self.settle()
                batch = self.rng.sample(work, min(TOGETHER, len(work)))
                script = self._launch(batch)
                broken = broken + 1 if script.broken is not None and not script.outcomes else 0
                if broken == MOST_BROKEN:
                    assert script.broken is not None
                    raise script.broken
                for each in batch:
                    if (answer := self._answer(each)) is not None:
                        work.remove(each)
                        yield answer
                counted = sum(w.kept for w in work) + (total - len(work)) * self.plan.processes
                tell(counted / max(total * self.plan.processes, 1))
                if script.broken is not None:
                    self.launcher.recover()
        except InconclusiveError as error:  # the device does not come to rest
            self.given_up = error
            for each in work:
                yield self._early(each) or _failure(each, error)
            tell(1.0)
        except (KeyboardInterrupt, HwbenchError):
            for each in work:
                if (found := self._early(each)) is not None:
                    yield found
            raise

    def _early(self, work: _Work) -> Measurement | None:
        """What a workload's launches so far are worth, if there are enough."""
        if work.kept < LEAST:
            return None
        return work.log.complete(self._concluded(work, 1.0).measurement("interrupted"))

    def _launch(self, batch: Sequence[_Work]) -> Script:
        """One script: the canaries, then each workload followed by the canaries."""
        began, k = time.monotonic(), len(self.canary_handles)
        warm = self.warm_up()
        handles = [*warm, *self.canary_handles]
        for work in batch:
            handles += [work.handle, *self.canary_handles]
        script = self.launcher.run(handles, self.seconds)
        outcomes = self.counted(script.outcomes)
        spoiled = "throttled" if script.broken is None and self.disturbed_now() else None
        before = _reading(outcomes[:k], k)
        for index, work in enumerate(batch):
            at = k + index * (k + 1)
            own, after = outcomes[at : at + 1], _reading(outcomes[at + 1 : at + 1 + k], k)
            if own:
                self._note(work, own[0], before, after, spoiled)
            elif script.broken is not None and at == len(outcomes):
                work.strikes += 1
                work.error = script.broken
            before = after
        for work in batch:
            work.log.seconds += (time.monotonic() - began) / len(batch)
        return Script(outcomes, script.broken)

    def _note(
        self,
        work: _Work,
        outcome: Launched | HwbenchError,
        before: list[int] | None,
        after: list[int] | None,
        spoiled: str | None,
    ) -> None:
        """Enter a launch into the record, with the cause that rejects it if there is one."""
        work.tried += 1
        if isinstance(outcome, HwbenchError):
            work.strikes += 1
            work.error = outcome
            return
        work.first = work.first or outcome
        work.log.tags |= dict(outcome.notes)
        if before is None or after is None:
            return  # a canary's launch failed: nothing anchors this one
        moved = np.abs(np.log(np.array(after) / np.array(before))).max()
        cause = spoiled or ("canary_unstable" if moved > self.launcher.drift else None)
        burst = {
            "ns": [round(outcome.median_ns)],
            "start": time.monotonic_ns(),
            "preemptions": 0,
            "steal_ns": 0,
            "cause": cause or "kept",
        }
        work.log.add(self.launches, 0, work.tried, burst, before, after)
        self.launches += 1
        self.readings += [before, after] if spoiled is None else []
        work.kept += cause is None

    # -- results ------------------------------------------------------------------------------

    def _answer(self, work: _Work) -> Measurement | Failure | None:
        """The answer of a workload that has one, or has come to its end without."""
        if work.strikes >= STRIKES:
            assert work.error is not None
            return _failure(work, work.error)
        final = work.kept >= self.plan.processes
        share = 1.0 if final else self.plan.looks.get(work.kept)
        if share is not None:
            result = self._concluded(work, self.plan.looks.get(work.kept, share))
            precision = self.plan.precision
            precise = precision is not None and result.relative_half_width <= precision
            if final or precise:
                return work.log.complete(result.measurement("precision" if precise else "time"))
        if work.tried < ATTEMPTS * self.plan.processes:
            return None
        if work.kept >= LEAST:
            return work.log.complete(self._concluded(work, 1.0).measurement("time"))
        limit = f"the canaries moved by more than {self.launcher.drift:.0%}"
        why = "; ".join(self.reasons) or limit
        text = f"{work.tried - work.kept} of {work.tried} launches were rejected ({why})"
        return _failure(work, InconclusiveError(f"{text}: let the device rest, then again"))

    def _concluded(self, work: _Work, share: float) -> Result:
        """The estimate of one workload, at a look that spends ``share`` of the error."""
        log, first = work.log, work.first
        assert first is not None
        log.load_ns = round(first.init_ns)
        log.first_ns = None if first.first_ns is None else round(first.first_ns)
        log.peak_memory = first.peak_memory_bytes
        confidence = 1 - (1 - self.plan.confidence) * share
        floor = self.floor() if self.readings else None
        return conclude(log, self.context, confidence, self.plan.confidence, floor)


def _failure(work: _Work, error: HwbenchError) -> Failure:
    named = type(error)(f"{work.log.workload.name}: {error}")
    return Failure(work.log.workload, named)


def _reading(outcomes: Sequence[Launched | HwbenchError], k: int) -> list[int] | None:
    """The canaries' times in ns, None where one of them is missing."""
    times = [round(o.median_ns) for o in outcomes if isinstance(o, Launched)]
    return times if len(times) == k else None
