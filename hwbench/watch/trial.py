"""Comparing what can be run now: pairs of models in fresh processes, until the answer is clear.

All pairs that have no answer yet are loaded together into one session's processes. After each
session the pairs of all sessions so far are looked at; a pair whose verdict is clear is left out
of the next. Looks spend the error between them (the last one half of it), so that to look more
often is not to be wrong more often. A verdict therefore rests on as many sessions as it needs:
a second session is the re-measurement that an alarm in doubt calls for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from hwbench.errors import HwbenchError
from hwbench.measure.jobs import Job, Target
from hwbench.measure.plan import Plan, Progress
from hwbench.measure.session import measure
from hwbench.records import CanaryEpoch, Measurement, Workload
from hwbench.watch.comparison import TOLERANCE, Comparison, compare_pairs
from hwbench.watch.pairs import Pairs, pairs_of, pooled


@dataclass(frozen=True, slots=True)
class Effort:
    """What a comparison may cost and how sure it is to be.

    A session has ``processes`` fresh processes and takes ``seconds`` a model; there are at most
    ``sessions``. ``tolerance`` is the relative difference that nobody minds.
    """

    processes: int = 6
    seconds: float = 4.0
    sessions: int = 3
    tolerance: float = TOLERANCE
    confidence: float = 0.95
    seed: int | None = None

    def share(self, session: int) -> float:
        """Of the error, what the look after this session (from 0) may spend."""
        if self.sessions == 1:
            return 1.0
        return 0.5 if session == self.sessions - 1 else 0.5 / (self.sessions - 1)


Side = tuple[Job, Job]
Outcome = Comparison | HwbenchError


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
    """Compare each pair (A, B) of jobs on a device; outcomes in their order.

    ``keep`` is given every measurement, which bears ``tags``. An error stands for a pair that
    could not be measured; a broken device is raised.
    """
    # A workload of its own for each job: B may be A, and answers tell by it whose they are.
    own = [tuple(replace(job, workload=replace(job.workload)) for job in side) for side in sides]
    parts: list[list[Pairs]] = [[] for _ in sides]
    seconds = [0.0] * len(sides)
    outcomes: dict[int, Outcome] = {}
    undecided = list(range(len(sides)))
    for session in range(effort.sessions):
        jobs = [job for index in undecided for job in own[index]]
        plan = Plan(
            processes=effort.processes,
            seconds=effort.seconds,
            loaded=len(jobs),
            seed=effort.seed,
            tags=dict(tags or {}),
        )
        report = _scaled(progress, session, effort.sessions)
        answers = _session(target, jobs, plan, epoch, report)
        for index in undecided:
            a, b = (answers[id(job.workload)] for job in own[index])
            if isinstance(a, HwbenchError) or isinstance(b, HwbenchError):
                outcomes[index] = a if isinstance(a, HwbenchError) else b  # type: ignore[assignment]
                continue
            if keep is not None:
                keep(a)
                keep(b)
            try:
                parts[index].append(pairs_of(a, b, _kinds(target, a.workload), anchors=_anchors(a)))
            except HwbenchError as error:
                outcomes.setdefault(index, error)
                continue
            seconds[index] += a.seconds + b.seconds
            outcomes[index] = compare_pairs(
                (a.workload.name, b.workload.name),
                pooled(parts[index]),
                confidence=effort.confidence,
                share=effort.share(session),
                seconds=seconds[index],
            )
        undecided = [i for i in undecided if _open(outcomes.get(i), effort)]
        if not undecided:
            break
    return [outcomes[index] for index in range(len(sides))]


def _open(outcome: Outcome | None, effort: Effort) -> bool:
    return isinstance(outcome, Comparison) and outcome.word(effort.tolerance) == "inconclusive"


def _session(
    target: Target,
    jobs: Sequence[Job],
    plan: Plan,
    epoch: CanaryEpoch | None,
    progress: Progress | None,
) -> dict[int, Measurement | HwbenchError]:
    """One session of all jobs in the same processes; answers by their workloads' identity."""
    answers: dict[int, Measurement | HwbenchError] = {}
    for answer in measure(target, jobs, plan, epoch, progress=progress):
        found = answer if isinstance(answer, Measurement) else answer.error
        answers[id(answer.workload)] = found
    return answers


def _kinds(target: Target, workload: Workload) -> list[str]:
    return [canary.kind for canary in target.canaries(workload.threads)]


def _anchors(measurement: Measurement) -> bool:
    return measurement.status != "observed_only"


def _scaled(progress: Progress | None, session: int, sessions: int) -> Progress | None:
    if progress is None:
        return None
    return lambda share: progress((session + share) / sessions)
