"""How often the gate would cry wolf on this device, and how small a wolf it sees.

A model is held against itself, side by side, in fresh processes: whatever is an alarm is a false
one. Beside these live comparisons, many more are drawn from the processes they took: either pair of
the model's slots, in any of the processes, as a comparison would have had them. They are no fresh
evidence, but they tell the spread of what the device gives; and by twos they are rulings, of which
the second is what an alarm would have been measured again by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from hwbench.errors import HwbenchError, WorkerError
from hwbench.measure.jobs import Job, Target
from hwbench.measure.plan import Plan, Progress
from hwbench.measure.session import measure
from hwbench.records import CanaryEpoch, Measurement
from hwbench.watch.comparison import Comparison, compare_pairs, together
from hwbench.watch.gate import alarming
from hwbench.watch.pairs import Pairs, pairs_of, pooled
from hwbench.watch.trial import Effort

#: Slots of the model in each process: two live comparisons.
SLOTS = 4
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Calibration:
    """Comparisons of a model with itself: ``live`` ones, and ``drawn`` from their processes."""

    live: tuple[Comparison, ...]
    drawn: tuple[Comparison, ...]
    tolerance: float

    def again(self, comparisons: Sequence[Comparison]) -> int:
        """How many would have been measured again."""
        return sum(alarming(c, self.tolerance) for c in comparisons)

    def most_likely(self, comparisons: Sequence[Comparison]) -> float:
        """Upper end of the 95 % interval of the rate of such (Clopper and Pearson)."""
        found = stats.binomtest(self.again(comparisons), len(comparisons))
        return float(found.proportion_ci(0.95, method="exact").high)

    def raised(self) -> tuple[int, int]:
        """False alarms of the drawn rulings, and how many of these there are."""
        needed = needed_changes(self.drawn, self.tolerance)
        return sum(change <= 0 for change in needed), len(needed)

    def smallest(self, power: float = POWER) -> float | None:
        """The smallest regression seen with that power; see :func:`smallest_seen`."""
        return smallest_seen(self.drawn, self.tolerance, power)


def smallest_seen(
    comparisons: Sequence[Comparison], tolerance: float, power: float = POWER, most: float = 1.0
) -> float | None:
    """The smallest regression (relative) that the gate calls slower in the share ``power`` of the
    rulings that comparisons of a model with itself make; ``None`` where not even ``most`` is.
    """
    needed = needed_changes(comparisons, tolerance)
    if not needed:
        return None
    found = math.expm1(float(np.quantile(needed, power, method="higher")))
    return max(found, 0.0) if found <= most else None


def needed_changes(comparisons: Sequence[Comparison], tolerance: float) -> list[float]:
    """The change (log) from which on each ruling of two comparisons, the first and the second,
    third and fourth and so on, would have been *slower*.

    An estimate moves as its data do, so that comparisons of a model with itself tell what others
    would have found. By the rules of :func:`hwbench.watch.gate.ruled`.
    """
    least = math.log1p(tolerance)
    needed = []
    for first, second in zip(comparisons[::2], comparisons[1::2], strict=False):
        both = together(first, second)
        needed.append(
            max(
                max(first.log_half_width, least) - first.log_ratio,
                least - second.log_ratio,
                least + both.log_half_width - both.log_ratio,
            )
        )
    return needed


def calibrate_gate(
    target: Target,
    job: Job,
    sessions: int,
    draws: int,
    effort: Effort,
    epoch: CanaryEpoch | None,
    *,
    progress: Progress | None = None,
) -> Calibration:
    """Hold a job's model against itself, ``SLOTS // 2`` times in each of so many sessions.

    A drawn comparison has as many processes as a live one. The look is the last of ``effort``'s.
    """
    taken: list[dict[tuple[int, int], Pairs]] = []
    live: list[Comparison] = []
    for session in range(sessions):
        slots = _session(target, job, effort, epoch, session)
        kinds = [canary.kind for canary in target.canaries(job.workload.threads)]
        anchors = slots[0].status != "observed_only"
        pairs = {
            (i, j): pairs_of(slots[i], slots[j], kinds, anchors=anchors)
            for first in range(0, len(slots) - 1, 2)
            for i, j in ((first, first + 1), (first + 1, first))
        }
        taken.append(pairs)
        names = (job.workload.name, job.workload.name)
        for i in range(0, len(slots) - 1, 2):
            seconds = slots[i].seconds + slots[i + 1].seconds
            live.append(replace(_compared(names, pairs[i, i + 1], effort), seconds=seconds))
        if progress:
            progress((session + 1) / sessions)
    rng = np.random.default_rng(effort.seed)
    return Calibration(tuple(live), redrawn(taken, draws, effort, rng), effort.tolerance)


def redrawn(
    taken: Sequence[dict[tuple[int, int], Pairs]],
    draws: int,
    effort: Effort,
    rng: np.random.Generator,
) -> tuple[Comparison, ...]:
    """Comparisons of ``effort.processes`` processes each, drawn without replacement from sessions
    (each with the pairs of its slots), the two slots of each at random.
    """
    processes = [
        (pairs, int(label))
        for pairs in taken
        for label in np.unique(next(iter(pairs.values())).process)
    ]
    size = min(effort.processes, len(processes))
    found = []
    for _ in range(draws):
        parts = []
        for index in rng.choice(len(processes), size, replace=False):
            pairs, label = processes[index]
            slots = list(pairs)
            part = pairs[slots[rng.integers(len(slots))]].of_process(label)
            if part.log_ratio.size:
                parts.append(part)
        if len(parts) > 1:
            # As of one session: what the processes of one share, those of several have as well.
            found.append(_compared(("A", "A"), replace(pooled(parts), sessions=1), effort))
    return tuple(found)


def _compared(names: tuple[str, str], pairs: Pairs, effort: Effort) -> Comparison:
    """As the last look of such an effort does."""
    return compare_pairs(names, pairs, versions=effort.versions, confidence=effort.confidence)


def _session(
    target: Target, job: Job, effort: Effort, epoch: CanaryEpoch | None, number: int
) -> list[Measurement]:
    """One session of ``SLOTS`` slots of the job."""
    seed = None if effort.seed is None else effort.seed + number
    plan = Plan(
        processes=effort.processes, seconds=effort.seconds, loaded=SLOTS, pairs=True, seed=seed
    )
    found = []
    for answer in measure(target, [job] * SLOTS, plan, epoch):
        if not isinstance(answer, Measurement):
            error: HwbenchError = answer.error
            raise error
        found.append(answer)
    if len(found) < SLOTS:
        raise WorkerError(f"{job.workload.name}: {len(found)} of {SLOTS} slots were measured")
    return found
