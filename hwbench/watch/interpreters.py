"""The same work under two interpreters: does one version of a runtime beat another, here?

Two workers live beside each other, one of each interpreter, on one core in turns: while one makes
a burst, the other waits for its request. Bursts of one round are a pair, as they are in
:mod:`.pairs`; no canary runs beside them, since the interpreters' own would differ, and what both
share cancels without. Each session takes fresh workers, the cores in turn.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from hwbench.devices.interpreters import run_elsewhere
from hwbench.errors import HwbenchError, InconclusiveError, ModelError, WorkerError
from hwbench.measure.copies import load_paired
from hwbench.measure.jobs import Job, RunnerSpec
from hwbench.measure.plan import Progress
from hwbench.measure.process import WorkerProcess
from hwbench.measure.result import BurstLog
from hwbench.measure.scratch import scratch
from hwbench.measure.session import LATENCY_MULTIPLE
from hwbench.measure.turns import LEAST_ROUNDS, Step
from hwbench.watch.comparison import Comparison, compare_pairs
from hwbench.watch.pairs import Pairs, Turns, pairs_alone, pooled
from hwbench.watch.sides import Side
from hwbench.watch.trial import Effort, Outcome

_SLOT: Final = "w"


def compare_interpreters(
    sides: Sequence[Side],
    pythons: tuple[str, str],
    effort: Effort,
    *,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Compare each pair (A, B) of jobs, A's run by the first interpreter and B's by the second.

    An error stands for a pair that could not be measured. Nothing is stored.
    """
    rng = random.Random(effort.seed)
    found: list[Outcome] = []
    for index, side in enumerate(sides):
        try:
            found.append(_compared(side, pythons, effort, rng))
        except HwbenchError as error:
            found.append(error)
        if progress:
            progress((index + 1) / len(sides))
    return found


def _compared(
    side: Side, pythons: tuple[str, str], effort: Effort, rng: random.Random
) -> Comparison:
    """As many sessions as the answer takes, each look with its share of the error."""
    began, parts = time.monotonic(), list[Pairs]()
    names = (side[0].workload.name, side[1].workload.name)
    for session in range(effort.sessions):
        parts.append(_session(side, pythons, effort, rng))
        found = compare_pairs(
            names,
            pooled(parts),
            confidence=effort.confidence,
            share=effort.share(session),
            seconds=time.monotonic() - began,
        )
        if found.word(effort.tolerance) != "inconclusive":
            break
    return found


def _session(side: Side, pythons: tuple[str, str], effort: Effort, rng: random.Random) -> Pairs:
    """The pairs of one session's processes."""
    logs = tuple(BurstLog(job.workload) for job in side)
    cores = sorted(os.sched_getaffinity(0))
    rng.shuffle(cores)
    with scratch() as folder:
        runners = [_built(job, folder / str(number)) for number, job in enumerate(side)]
        for process in range(effort.processes):
            core = cores[process % len(cores)] if side[0].workload.threads == 1 else None
            with ExitStack() as stack:
                voices = [
                    _Voice(stack.enter_context(WorkerProcess(python)), runner, log, process, core)
                    for python, runner, log in zip(pythons, runners, logs, strict=True)
                ]
                _rounds(voices, effort, rng)
    for job in side:
        job.require_unchanged()
    if not all(log.rows for log in logs):
        raise InconclusiveError(f"{side[0].workload.name}: nothing was measured")
    turns = [Turns(log.workload.name, log.bursts()) for log in logs]
    return pairs_alone(turns[0], turns[1])


def _built(job: Job, folder: Path) -> RunnerSpec:
    folder.mkdir()
    return run_elsewhere(job.build(folder), folder)


@dataclass(slots=True)
class _Voice:
    """One interpreter's worker, its model loaded and warm."""

    worker: WorkerProcess
    runner: RunnerSpec
    log: BurstLog
    process: int
    core: int | None
    step: Step = field(init=False)

    def ready(self) -> None:
        """Load, look at the output once, warm up, and choose the size of a burst."""
        if self.core is not None:  # both on one core: what holds it up holds up both
            with suppress(ProcessLookupError):  # it has died: the next request says so
                os.sched_setaffinity(self.worker.pid, {self.core})
        try:
            loaded = self.worker.load(_SLOT, self.runner)
            if self.process == 0:
                self.worker.ask("check", _SLOT, expect_s=60)
            times = self.worker.ask("warm", _SLOT, 0.01, 12, 60, expect_s=60)["ns"]
        except (ModelError, WorkerError) as error:
            raise type(error)(f"{self.log.workload.name}: {error}") from error
        if loaded["grown"] is not None:
            self.log.footprints.append(loaded["grown"])
        self.log.typical_ns = max(float(np.median(times[len(times) // 2 :])), 1.0)
        self.step = Step.of(_SLOT, 1, self.log.typical_ns, self.log.footprint or 0)

    def turn(self, index: int) -> None:
        """One burst."""
        expect_s = 10 * self.step.seconds
        answer = self.worker.ask("round", [self.step.turn(index)], [], 0.0, expect_s=expect_s)
        copy = index % self.step.copies
        self.log.add(self.process, copy, index, answer["bursts"][0], [], [])


def _rounds(voices: list[_Voice], effort: Effort, rng: random.Random) -> None:
    """Rounds of a burst each, in random order, until a process's share of the time is up."""
    began = time.monotonic()
    for voice in voices:
        voice.ready()
    whole = sum(max(effort.seconds, LATENCY_MULTIPLE * v.log.typical_ns / 1e9) for v in voices)
    end, once = began + whole / effort.processes, sum(voice.step.seconds for voice in voices)
    copies = load_paired(
        [(voice.worker, _SLOT, voice.runner) for voice in voices],
        sum(voice.log.footprint or 0 for voice in voices),
        end,
        rng,
        threads=voices[0].log.workload.threads,
    )
    for voice in voices:
        voice.step = replace(voice.step, copies=copies)
    index = 0
    while index < LEAST_ROUNDS or time.monotonic() + once / 2 < end:
        for voice in rng.sample(voices, len(voices)):
            voice.turn(index)
        index += 1
