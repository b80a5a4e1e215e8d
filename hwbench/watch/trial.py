"""Comparing what can be run now: pairs of models in fresh processes, until the answer is clear.

All pairs that have no answer yet are loaded together into one session's processes. After each
session the pairs of all sessions so far are looked at; a pair whose verdict is clear, among those
on all the others, is left out of the next. Looks spend the error between them, so that to look more
often is not to be wrong more often, and the last one most of it: what is in doubt till then needs
all that there is (the spending function t**3 of Kim and DeMets, Biometrika 74, 1987). A verdict
therefore rests on as many sessions as it needs: a second session is the re-measurement that an
alarm in doubt calls for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from hwbench.errors import HwbenchError
from hwbench.measure.jobs import Job, Target
from hwbench.measure.plan import Plan, Progress
from hwbench.measure.session import measure
from hwbench.records import CanaryEpoch, Measurement
from hwbench.watch.comparison import TOLERANCE, Comparison, compare_pairs, verdicts
from hwbench.watch.pairs import Pairs, pairs_of, pooled
from hwbench.watch.sides import Side


@dataclass(frozen=True, slots=True)
class Effort:
    """What a comparison may cost and how sure it is to be.

    A session has ``processes`` fresh processes and takes ``seconds`` a model; there are at most
    ``sessions``. ``tolerance`` is the relative difference that nobody minds. Two that are
    ``versions`` of one model are likely to feel the machine alike.
    """

    processes: int = 3
    seconds: float = 4.5
    sessions: int = 3
    tolerance: float = TOLERANCE
    confidence: float = 0.95
    versions: bool = False
    seed: int | None = None

    def share(self, session: int) -> float:
        """Of the error, what the look after this session (from 0) may spend."""
        return ((session + 1) ** 3 - session**3) / self.sessions**3


#: Pairs that are loaded together.
MOST_PAIRS = 12

Outcome = Comparison | HwbenchError


class Venue(Protocol):
    """Where the sessions of a comparison are run: all of them on one device."""

    def session(
        self, jobs: Sequence[Job], plan: Plan, progress: Progress | None
    ) -> Sequence[Measurement | HwbenchError]:
        """One session of all jobs in the same processes; answers in their order."""

    def kinds(self, threads: int) -> Sequence[str]:
        """What the device's canaries stand for; asked after a session."""


def compare_live(
    target: Target,
    sides: Sequence[Side],
    effort: Effort,
    epoch: CanaryEpoch | None,
    *,
    keep: Callable[[Measurement], object] | None = None,
    tags: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Compare each pair (A, B) of jobs on a device, as :func:`compare_at` does."""
    here = _Here(target, epoch)
    return compare_at(here, sides, effort, keep=keep, tags=tags, progress=progress)


def compare_at(
    venue: Venue,
    sides: Sequence[Side],
    effort: Effort,
    *,
    keep: Callable[[Measurement], object] | None = None,
    tags: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Compare each pair (A, B) of jobs at a venue; outcomes in their order.

    ``keep`` is given every measurement, which bears ``tags``. An error stands for a pair that
    could not be measured; a broken device is raised.
    """
    # A workload of its own for each job: B may be A, and answers tell by it whose they are.
    trials = [_Trial(tuple(replace(j, workload=replace(j.workload)) for j in s)) for s in sides]
    undecided = list(trials)
    for session in range(effort.sessions):
        # What is loaded together has to fit in memory; both of a pair have to be.
        batches = [undecided[i : i + MOST_PAIRS] for i in range(0, len(undecided), MOST_PAIRS)]
        for number, batch in enumerate(batches):
            jobs = [job for trial in batch for job in trial.jobs]
            plan = Plan(
                processes=effort.processes,
                seconds=effort.seconds,
                loaded=len(jobs),
                pairs=True,
                seed=effort.seed,
                tags=dict(tags or {}),
            )
            done = (session + number / len(batches)) / effort.sessions
            part = 1 / len(batches) / effort.sessions
            found = venue.session(jobs, plan, _scaled(progress, done, part))
            answers = {id(job.workload): each for job, each in zip(jobs, found, strict=True)}
            for trial in batch:
                _look(trial, answers, venue, effort, effort.share(session), keep)
        undecided = _undecided(trials, effort.tolerance)
        if not undecided:
            break
    return [trial.outcome for trial in trials if trial.outcome is not None]


@dataclass(slots=True)
class _Trial:
    """One pair: its jobs, what their sessions brought so far, and the outcome by that."""

    jobs: tuple[Job, ...]
    parts: list[Pairs] = field(default_factory=list)
    seconds: float = 0.0
    outcome: Outcome | None = None


def _look(
    trial: _Trial,
    answers: Mapping[int, Measurement | HwbenchError],
    venue: Venue,
    effort: Effort,
    share: float,
    keep: Callable[[Measurement], object] | None,
) -> None:
    """Take in what a session answered of a pair."""
    a, b = (answers[id(job.workload)] for job in trial.jobs)
    if isinstance(a, HwbenchError):
        trial.outcome = a
        return
    if isinstance(b, HwbenchError):
        trial.outcome = b
        return
    if keep is not None:
        keep(a)
        keep(b)
    kinds = venue.kinds(a.workload.threads)
    try:
        pairs = pairs_of(a, b, kinds, anchors=a.status != "observed_only")
    except HwbenchError as error:
        trial.outcome = trial.outcome or error
        return
    trial.parts.append(pairs)
    trial.seconds += a.seconds + b.seconds
    trial.outcome = compare_pairs(
        (a.workload.name, b.workload.name),
        pooled(trial.parts),
        versions=effort.versions,
        confidence=effort.confidence,
        share=share,
        seconds=trial.seconds,
        before_ns=a.latency_ns,
    )


def _undecided(trials: Sequence[_Trial], tolerance: float) -> list[_Trial]:
    """Those without a clear verdict, as it is said of all of them at once."""
    found = [(each, each.outcome) for each in trials if isinstance(each.outcome, Comparison)]
    words = verdicts([outcome for _, outcome in found], tolerance)
    return [each for (each, _), word in zip(found, words, strict=True) if word == "inconclusive"]


@dataclass(frozen=True, slots=True)
class _Here:
    """A device of this machine as a venue; each job has a workload object of its own."""

    target: Target
    epoch: CanaryEpoch | None

    def session(
        self, jobs: Sequence[Job], plan: Plan, progress: Progress | None
    ) -> list[Measurement | HwbenchError]:
        answers: dict[int, Measurement | HwbenchError] = {}
        for answer in measure(self.target, jobs, plan, self.epoch, progress=progress):
            found = answer if isinstance(answer, Measurement) else answer.error
            answers[id(answer.workload)] = found
        return [answers[id(job.workload)] for job in jobs]

    def kinds(self, threads: int) -> list[str]:
        return [canary.kind for canary in self.target.canaries(threads)]


def _scaled(progress: Progress | None, done: float, part: float) -> Progress | None:
    """Progress of a part of the work, before which so much was done."""
    return None if progress is None else lambda share: progress(done + part * share)
