"""Two models measured side by side: the pairs of their bursts.

Both take their turns in the same processes, a burst each a round, in random order and one right
after the other. A pair is two bursts of one process and one round, each of one copy of its model.
What a machine does to both cancels in their ratio before anything is estimated
(:mod:`hwbench.watch.ratio`), so that neither a clock that wanders nor canonical times that are in
doubt stand in the way of a small difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import InconclusiveError
from hwbench.measure.estimate import KINDS, undisturbed
from hwbench.measure.result import burst_evidence, burst_times
from hwbench.records import CAUSES, Bursts, Measurement

#: Where no canary tells what a quiet machine is, it is what this share of the pairs were faster in:
#: a smaller one finds what noise made fast.
QUIET_SHARE = 0.2
_KEPT = CAUSES.index("kept")


@dataclass(frozen=True, eq=False)
class Pairs:
    """The paired bursts of two models: P pairs.

    ``log_ratio`` (P,) is of B over A; ``slowdown`` (P,) is how much slower both were than on a
    quiet machine, the mean of their log times over that of their undisturbed latencies, which is
    known to a standard error of ``quiet_se``. ``process`` (P,) are labels, and ``copy`` (P,) such
    within a process. ``rejected`` more pairs had a burst that does not count. All are of so many
    ``sessions``.
    """

    log_ratio: NDArray[np.float64]
    slowdown: NDArray[np.float64]
    process: NDArray[np.integer]
    copy: NDArray[np.integer]
    quiet_se: float
    rejected: int = 0
    sessions: int = 1

    def of_process(self, label: int) -> Pairs:
        """The pairs of one process."""
        own = self.process == label
        return replace(
            self,
            log_ratio=self.log_ratio[own],
            slowdown=self.slowdown[own],
            process=self.process[own],
            copy=self.copy[own],
            rejected=0,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """What one of two models did in its turns."""

    name: str
    bursts: Bursts


def pairs_of(a: Measurement, b: Measurement, kinds: Sequence[str], *, anchors: bool) -> Pairs:
    """The pairs of two measurements of one session, whose canaries are of these ``kinds``.

    Where the canaries cannot be believed (not ``anchors``), the fastest pairs pass for quiet.
    Raises InconclusiveError where fewer than two pairs count.
    """
    found = pairs_alone(*(Turns(m.workload.name, m.bursts) for m in (a, b)))
    if not anchors:
        return found
    mixing = np.array([[own == kind for kind in KINDS] for own in kinds], float)
    mixing /= np.maximum(mixing.sum(axis=0), 1)
    reference = np.array(a.canary_ref_ns)
    quiet = [
        undisturbed(
            burst_evidence(
                m.bursts, mixing, reference, m.footprint_bytes, 0 * reference, adjacent=False
            )
        )
        for m in (a, b)
    ]
    level = (quiet[0].log_latency + quiet[1].log_latency) / 2
    rows = _counted(a.bursts, b.bursts)[0]
    # Both rest on the same canaries, and err together.
    return replace(
        found,
        slowdown=_log_times(a.bursts, b.bursts, rows).mean(axis=0) - level,
        quiet_se=(quiet[0].se + quiet[1].se) / 2,
    )


def pairs_alone(a: Turns, b: Turns) -> Pairs:
    """The pairs of turns beside which no canary ran; raises as :func:`pairs_of` does."""
    rows, rejected = _counted(a.bursts, b.bursts)
    count = len(rows[0])
    if count < 2:
        raise InconclusiveError(
            f"{a.name} and {b.name}: {count} of {count + rejected} pairs of "
            "bursts count, too few: leave the machine a free core, or give more time"
        )
    log = _log_times(a.bursts, b.bursts, rows)
    common = log.mean(axis=0)
    process = a.bursts.process[rows[0]]
    copies = np.column_stack([process, a.bursts.copy[rows[0]], b.bursts.copy[rows[1]]])
    level = float(np.quantile(common, QUIET_SHARE))
    return Pairs(
        log_ratio=log[1] - log[0],
        slowdown=common - level,
        process=process,
        copy=_labels(copies),
        quiet_se=0.0,
        rejected=rejected,
    )


def pooled(parts: Sequence[Pairs]) -> Pairs:
    """The pairs of several sessions of the same two models."""
    offsets = np.cumsum([0, *(int(part.process.max()) + 1 for part in parts)])
    return Pairs(
        log_ratio=np.concatenate([part.log_ratio for part in parts]),
        slowdown=np.concatenate([part.slowdown for part in parts]),
        process=np.concatenate([p.process + o for p, o in zip(parts, offsets, strict=False)]),
        copy=np.concatenate([part.copy for part in parts]),
        quiet_se=float(np.mean([part.quiet_se for part in parts])),
        rejected=sum(part.rejected for part in parts),
        sessions=sum(part.sessions for part in parts),
    )


Rows = tuple[NDArray[np.intp], NDArray[np.intp]]


def _counted(a: Bursts, b: Bursts) -> tuple[Rows, int]:
    """Rows of ``a`` and ``b`` that are of one process and round, where both bursts count; and the
    number of those that do not.
    """
    turns = [
        {(int(p), int(r)): row for row, (p, r) in enumerate(zip(m.process, m.round, strict=True))}
        for m in (a, b)
    ]
    common = sorted(turns[0].keys() & turns[1].keys())
    of_a, of_b = (np.array([own[turn] for turn in common], np.intp) for own in turns)
    kept = (a.cause[of_a] == _KEPT) & (b.cause[of_b] == _KEPT)
    return (of_a[kept], of_b[kept]), int((~kept).sum())


def _log_times(a: Bursts, b: Bursts, rows: Rows) -> NDArray[np.float64]:
    """Log times (2, P) of the paired bursts."""
    return np.log([burst_times(m)[own] for m, own in zip((a, b), rows, strict=True)])


def _labels(rows: NDArray[np.integer]) -> NDArray[np.intp]:
    """Labels (P,) of distinct rows (P, ...), in the order in which they come up."""
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse.reshape(-1)])
