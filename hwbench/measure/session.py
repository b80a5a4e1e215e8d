"""One measuring session: many workloads, interleaved, in several fresh processes.

Workloads are taken in blocks that fit in memory together. A block is loaded into one worker
process after another. In each, rounds visit every workload of the block in a new random order,
a burst at a time, with the canaries read between bursts. A workload's bursts of all processes
then make one estimate (:mod:`hwbench.measure.estimate`). Blocks are comparable because the
canaries run in all of them, and because they take turns: some blocks' first processes, then
their second ones. What disturbs a machine for half a minute without moving the canaries then
spoils one process of many workloads, which the estimate can tell, not all processes of a few.

Workloads of one search space are estimated together (:mod:`hwbench.measure.family`): what they
feel of the machine, and how much noise they have, is learned from all of them.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import (
    DeviceError,
    HwbenchError,
    InconclusiveError,
    ModelError,
    WorkerError,
)
from hwbench.measure import canary as canary_time
from hwbench.measure.copies import copies_of, copy_slot, load_paired
from hwbench.measure.estimate import Evidence
from hwbench.measure.family import LEAST_MODELS, Family, learned
from hwbench.measure.jobs import Canary, Job, RunnerSpec, Target, threads_of
from hwbench.measure.launches import measure_launches
from hwbench.measure.plan import Failure, Plan, Progress
from hwbench.measure.process import WorkerProcess, Workers
from hwbench.measure.result import BurstLog, Context, Result, conclude, evidence_of
from hwbench.measure.scratch import scratch
from hwbench.measure.turns import Rota, Step
from hwbench.records import CanaryEpoch, Measurement, Workload

LATENCY_MULTIPLE = 20
#: A launch holds one copy of a model, where a process of a pair has many: so many more launches.
PAIRED_LAUNCHES = 2
#: Blocks take turns that together last about this long: what an interrupt may cost.
TURNS_SECONDS = 90.0
#: Pause before a canary when a runtime's own threads may still spin.
SETTLE_S = 0.003


def measure(
    target: Target,
    jobs: Sequence[Job],
    plan: Plan,
    epoch: CanaryEpoch | None,
    *,
    progress: Progress | None = None,
    watch: Callable[[NDArray[np.float64]], None] | None = None,
) -> Iterator[Measurement | Failure]:
    """Measure ``jobs``, yielding results as the blocks that took turns end.

    ``epoch`` anchors the milliseconds; without one they are provisional (this session's own
    quiet moments). ``progress`` is told the share of the work done, ``watch`` the session's own
    canonical canary times (K,) at its end. All jobs need the same number of threads. When an
    interrupt or a broken device ends it, it first yields what two processes or more measured.
    """
    if not jobs:
        return
    threads = threads_of(jobs)
    if (launcher := target.launcher(threads)) is not None:
        if plan.pairs:
            plan = replace(plan, processes=PAIRED_LAUNCHES * plan.processes)
        yield from measure_launches(
            target, launcher, jobs, plan, epoch, progress=progress, watch=watch
        )
        return
    session = _Session(target, threads, plan, epoch)
    order = list(jobs)
    if not plan.pairs:
        session.random.shuffle(order)
    number = 1 if plan.pairs else -(-len(order) // plan.loaded)
    # Strided, so that the blocks are equally large.
    blocks = [_Block(session, order[index::number]) for index in range(number)]
    together = max(1, round(TURNS_SECONDS / (plan.seconds * plan.loaded)))
    groups = -(-number // together)
    try:
        for index in range(groups):
            yield from _take_turns(blocks[index::groups], plan, _share_of(progress, index, groups))
    finally:
        session.workers.end()
    floors = [floor for block in blocks for floor in block.floors]
    if watch and floors:
        watch(np.exp(np.median(np.log(floors), axis=0)))


def _take_turns(
    blocks: Sequence[_Block], plan: Plan, progress: Progress
) -> Iterator[Measurement | Failure]:
    """The blocks' first processes, then their second ones, and so on; then their results."""
    ended: BaseException | None = None
    spent = 0.0
    with scratch() as folder:
        try:
            for index, block in enumerate(blocks):
                block.build(folder / str(index))
            for process in range(plan.processes):
                turn = _share_of(progress, process, plan.processes)
                for index, block in enumerate(blocks):
                    block.turn(process, _share_of(turn, index, len(blocks)))
                if (share := plan.looks.get(process + 1)) is not None:
                    spent += share
                    _look(blocks, share, final=process + 1 == plan.processes)
            for block in blocks:
                block.measure_memory()
        except (KeyboardInterrupt, HwbenchError) as error:
            ended = error
    if ended is not None:
        _conclude_early(blocks, 1 - spent)
    for block in blocks:
        yield from block.results()
    if ended is not None:
        raise ended


def _look(blocks: Sequence[_Block], share: float, *, final: bool) -> None:
    """Estimate every open workload; keep those precise enough, or all at the last look."""
    session, precision = blocks[0].session, blocks[0].plan.precision
    evidence: dict[tuple[_Block, str], Evidence] = {}
    for block in blocks:
        for slot in block.open_slots():
            try:
                evidence[block, slot] = block.evidence(slot)
            except InconclusiveError as error:
                if final:
                    block.failed[slot] = error
    families = session.families(evidence)
    for (block, slot), each in evidence.items():
        result = block.conclude(slot, share, families)
        precise = precision is not None and result.relative_half_width <= precision
        if final or precise:
            session.learned_from(block.logs[slot].workload, each)
            block.done[slot] = result.measurement("precision" if precise else "time")


def _conclude_early(blocks: Sequence[_Block], share: float) -> None:
    """Results of the workloads that at least two processes have measured, by a look that spends
    the ``share`` of the error that earlier ones have left.
    """
    evidence: dict[tuple[_Block, str], Evidence] = {}
    for block in blocks:
        for slot in block.open_slots():
            if len({row[0] for row in block.logs[slot].rows}) > 1:
                with contextlib.suppress(InconclusiveError):
                    evidence[block, slot] = block.evidence(slot)
    families = blocks[0].session.families(evidence)
    for block, slot in evidence:
        block.done[slot] = block.conclude(slot, share, families).measurement("interrupted")


class _Session:
    """What all blocks of a session share."""

    def __init__(self, target: Target, threads: int, plan: Plan, epoch: CanaryEpoch | None) -> None:
        self.target, self.threads, self.plan, self.epoch = target, threads, plan, epoch
        self.canaries: tuple[Canary, ...] = target.canaries(threads)
        self.random = random.Random(plan.seed)
        self.context = Context(
            session=uuid.uuid4().hex[:12],
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            fingerprint=target.fingerprint(threads),
            canaries=self.canaries,
            epoch=epoch,
            # Spinning threads of a runtime disturb the canaries: no anchoring was shown to hold.
            anchors=threads == 1,
            tags=plan.tags,
            adjacent=not plan.pairs,
        )

        self._known: dict[str, list[Evidence]] = {}
        self.workers = Workers()

    def worker(self) -> AbstractContextManager[WorkerProcess]:
        """A fresh worker."""
        return self.workers.fresh(self.target.python)

    def families(self, evidence: Mapping[tuple[_Block, str], Evidence]) -> dict[str, Family]:
        """What the models of each search space have in common, by the space's name.

        Of these and of all before them in the session. Models of no space have nothing in common.
        """
        known = {space: list(before) for space, before in self._known.items()}
        for (block, slot), each in evidence.items():
            if space := block.logs[slot].workload.space:
                known.setdefault(space, []).append(each)
        return {space: learned(all_) for space, all_ in known.items() if len(all_) >= LEAST_MODELS}

    def learned_from(self, workload: Workload, evidence: Evidence) -> None:
        """Keep what a workload that has its answer teaches of others of its space."""
        if workload.space:
            self._known.setdefault(workload.space, []).append(evidence)


class _Block:
    """Workloads that are loaded together, over all their processes."""

    def __init__(self, session: _Session, jobs: Sequence[Job]) -> None:
        self.session, self.plan = session, session.plan
        self.logs = {f"w{i}": BurstLog(job.workload) for i, job in enumerate(jobs)}
        self.jobs = dict(zip(self.logs, jobs, strict=True))
        self.runners: dict[str, RunnerSpec] = {}
        self.failed: dict[str, HwbenchError] = {}
        self.done: dict[str, Measurement] = {}
        self.floors: list[NDArray[np.float64]] = []
        self.workers = 0

    def build(self, folder: Path) -> None:
        """Write what the runners need into ``folder``, which lives as long as the block."""
        folder.mkdir()
        self.backdrop = self.session.target.backdrop(folder, self.session.threads)
        for slot, job in self.jobs.items():
            try:
                self.runners[slot] = job.build(folder)
            except HwbenchError as error:
                self.failed[slot] = error

    def turn(self, process: int, progress: Progress) -> None:
        """One process of the workloads that have no answer as yet."""
        if self.open_slots():
            self._process(process, progress)

    def measure_memory(self) -> None:
        """The peak memory of what was measured, where the plan asks for it."""
        if self.plan.memory:
            for slot in self.done:
                self.logs[slot].peak_memory = self._peak_memory(slot)

    def results(self) -> Iterator[Measurement | Failure]:
        """What there is; failures come first."""
        for slot, error in self.failed.items():
            yield Failure(self.logs[slot].workload, error)
        for slot, result in self.done.items():
            yield self.logs[slot].complete(result)

    def open_slots(self) -> list[str]:
        """Workloads without an answer as yet."""
        return [s for s in self.logs if s not in self.failed and s not in self.done]

    def evidence(self, slot: str) -> Evidence:
        """What a workload's bursts have for an estimate."""
        return evidence_of(self.logs[slot], self.session.context, self._provisional())

    def conclude(self, slot: str, share: float, families: Mapping[str, Family]) -> Result:
        """The estimate of one workload, at a look that spends ``share`` of the error."""
        confidence = 1 - (1 - self.plan.confidence) * share
        log, context = self.logs[slot], self.session.context
        family = families.get(log.workload.space or "")
        return conclude(log, context, confidence, self.plan.confidence, self._provisional(), family)

    def _provisional(self) -> NDArray[np.float64] | None:
        return np.asarray(np.min(self.floors, axis=0)) if self.floors else None

    def _process(self, process: int, progress: Progress) -> None:
        """A fresh worker; a workload that ends it is given up, and the others get another."""
        while slots := self.open_slots():
            self.workers += 1
            began = time.monotonic()
            with self.session.worker() as worker:
                try:
                    self._work(worker, process, slots, began, progress)
                    return
                except (ModelError, WorkerError) as error:
                    culprit = worker.turn.partition("#")[0]
                    if culprit not in slots or culprit in self.failed:
                        # A canary, or the worker itself: no workload's fault.
                        if isinstance(error, ModelError):
                            raise DeviceError(f"{self.session.target.name}: {error}") from error
                        raise
                    self._fail(culprit, error)

    def _fail(self, slot: str, error: HwbenchError) -> None:
        self.failed[slot] = type(error)(f"{self.logs[slot].workload.name}: {error}")

    def _work(
        self,
        worker: WorkerProcess,
        process: int,
        slots: list[str],
        began: float,
        progress: Progress,
    ) -> None:
        """Load, warm, then rounds until the time of this process is up."""
        canaries = canary_time.load_canaries(worker, self.session.canaries)
        if process == 0 or not self.plan.pairs:
            # The runtime's own memory would otherwise count as the footprint of the first model.
            canary_time.load_backdrop(worker, self.backdrop)
        self.session.random.shuffle(slots)
        early = self._load_early(worker, slots, process)
        steps = {s: step for s in slots if (step := self._load(worker, s, process, early.get(s)))}
        if not steps:
            return
        seconds = (
            sum(
                max(self.plan.seconds, LATENCY_MULTIPLE * step.typical_ns / 1e9)
                for step in steps.values()
            )
            / self.plan.processes
        )
        if self.plan.pairs:
            self._load_pairs(worker, steps, began + seconds)
        self._rounds(worker, steps, canaries, began, seconds, progress)

    def _load_early(
        self, worker: WorkerProcess, slots: Sequence[str], process: int
    ) -> dict[str, dict[str, Any]]:
        """Load pairs at once, but where each one's memory is looked at."""
        if self.plan.pairs and process > 0:
            with contextlib.suppress(ModelError):  # which of them refused shows by itself
                return worker.load_together([(slot, self.runners[slot]) for slot in slots])
        return {}

    def _load(
        self, worker: WorkerProcess, slot: str, process: int, loaded: dict[str, Any] | None
    ) -> Step | None:
        """Load, if it is not, and warm one workload and its copies; None where it is refused."""
        log = self.logs[slot]
        try:
            if loaded is None:
                loaded = worker.load(slot, self.runners[slot])
            self.jobs[slot].require_unchanged()
            if loaded["grown"] is not None and (process == 0 or not self.plan.pairs):
                log.footprints.append(loaded["grown"])
            log.launch_bounds.append(loaded["launch_bound"])
            if process == 0:
                worker.ask("check", slot, expect_s=60)
                log.load_ns, log.first_ns = loaded["load_ns"], loaded["first_ns"]
            seconds, most = (0.05, 60) if process == 0 else (0.01, 60)
            least = 12 if loaded["first_ns"] < 0.1e9 and process == 0 else 3
            times = worker.ask("warm", slot, seconds, least, most, expect_s=60)["ns"]
        except ModelError as error:
            self._fail(slot, error)
            return None
        if process == 0:
            log.warm_ns = np.array([loaded["first_ns"], *times], np.int64)
        typical = float(np.median(times[len(times) // 2 :]))
        if typical <= 0:
            self._fail(slot, WorkerError(f"the clock gave {typical:.0f} ns"))
            return None
        log.typical_ns = typical
        copies = 1 if self.plan.pairs else copies_of(loaded["load_ns"])
        for copy in range(1, copies):
            worker.load(copy_slot(slot, copy), self.runners[slot])
        return Step.of(slot, copies, typical, log.footprint or 0)

    def _load_pairs(self, worker: WorkerProcess, steps: dict[str, Step], end: float) -> None:
        """Load copies of those that are held against each other, each pair in its part of the time
        until ``end``.
        """
        pairs = _pairs(steps)
        for number, pair in enumerate(pairs):
            now = time.monotonic()
            copies = load_paired(
                [(worker, step.slot, self.runners[step.slot]) for step in pair],
                sum(self.logs[step.slot].footprint or 0 for step in pair),
                now + (end - now) / (len(pairs) - number),
                self.session.random,
                threads=self.session.threads,
            )
            for step in pair:
                steps[step.slot] = replace(step, copies=copies)

    def _rounds(
        self,
        worker: WorkerProcess,
        steps: dict[str, Step],
        canaries: list[list[object]],
        began: float,
        seconds: float,
        progress: Progress,
    ) -> None:
        settle = SETTLE_S if self.session.threads > 1 else 0.0
        rota = Rota(worker, canaries, settle, began + seconds, self.session.random)
        found = (
            rota.in_pairs(_pairs(steps))
            if self.plan.pairs
            else rota.one_by_one(list(steps.values()))
        )
        try:
            for visits in found:
                for visit in visits:
                    slot, _, copy = visit.burst["slot"].partition("#")
                    self.logs[slot].add(
                        self.workers - 1,
                        int(copy or 0),
                        visit.round,
                        visit.burst,
                        visit.before,
                        visit.after,
                    )
                progress(min((time.monotonic() - began) / seconds, 1.0))
        finally:  # rounds before one that failed count
            for slot in steps:
                self.logs[slot].seconds += (time.monotonic() - began) / len(steps)
            if rota.readings:
                band = canary_time.quiet_band(self.session.canaries)
                self.floors.append(canary_time.floor(np.array(rota.readings, float), band))

    def _peak_memory(self, slot: str) -> int | None:
        """Peak resident memory that loading and running adds, in a process of its own."""
        with self.session.worker() as worker:
            try:
                resident = worker.load(slot, self.runners[slot])["resident"]
                worker.ask("warm", slot, 0.0, 3, 3, expect_s=60)
                peak = worker.ask("memory")["peak"]
            except (ModelError, WorkerError):
                return None  # the measurement stands without it
        return None if peak is None or resident is None else max(peak - resident, 0)


def _pairs(steps: Mapping[str, Step]) -> list[list[Step]]:
    """The steps of a block by their pairs; one whose partner was refused is alone."""
    pairs: dict[int, list[Step]] = {}
    for slot, step in steps.items():
        pairs.setdefault(int(slot[1:]) // 2, []).append(step)
    return list(pairs.values())


def _share_of(progress: Progress | None, index: int, parts: int) -> Progress:
    """Progress within part ``index`` of so many equal ones."""

    def tell(share: float) -> None:
        if progress:
            progress((index + share) / parts)

    return tell
