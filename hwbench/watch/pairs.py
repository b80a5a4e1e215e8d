"""Two models measured side by side: what their bursts say of how they differ.

Both take their turns in the same processes, a burst each a round, in random order and one right
after the other. A pair is two bursts of one process and one round. With the model of
:mod:`hwbench.measure.estimate` for each, the log ratio of a pair is::

    y_B - y_A = log(u_B / u_A) + m (x_B - x_A) + d (x_A + x_B) / 2 + e

with m the mean and d the difference of the two models' sensitivities: the same regression, on the
difference and the mean of the states that the canaries told. What a machine does to both cancels
before anything is estimated, so that neither a clock that wanders nor canonical times that are in
doubt stand in the way of a small difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import InconclusiveError
from hwbench.measure.estimate import KINDS, Evidence, Sensitivity
from hwbench.measure.result import burst_evidence
from hwbench.records import CAUSES, Bursts, Measurement

#: How much of the two models' sensitivities, and of how these wander, is their own: standard
#: deviations, in those of a model that is known by itself.
OWN_SHARE, OWN_WANDER = 0.5, 0.2
_KEPT = CAUSES.index("kept")


@dataclass(frozen=True, eq=False)
class Pairs:
    """The paired bursts of two models in one session.

    ``evidence`` is of the log ratio B over A, its state (pairs, 2 K); ``rejected`` pairs had a
    burst that does not count.
    """

    evidence: Evidence
    rejected: int


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """What one of two models did in its turns, and the memory that it takes (bytes)."""

    name: str
    bursts: Bursts
    footprint_bytes: int | None


def pairs_of(a: Measurement, b: Measurement, kinds: Sequence[str], *, anchors: bool) -> Pairs:
    """The pairs of two measurements of one session, whose canaries are of these ``kinds``.

    Where the canaries cannot be believed (not ``anchors``), bursts are compared as they are.
    Raises InconclusiveError where fewer than two pairs count.
    """
    mixing = np.array([[own == kind for kind in KINDS] for own in kinds], float)
    mixing /= np.maximum(mixing.sum(axis=0), 1)
    turns = [Turns(m.workload.name, m.bursts, m.footprint_bytes) for m in (a, b)]
    found = _paired(turns[0], turns[1], mixing, np.array(a.canary_ref_ns))
    return found if anchors else _as_they_are(found)


def pairs_alone(a: Turns, b: Turns) -> Pairs:
    """The pairs of turns beside which no canary ran; raises as :func:`pairs_of` does."""
    return _as_they_are(_paired(a, b, np.zeros((0, len(KINDS))), np.zeros(0)))


def _paired(
    a: Turns, b: Turns, mixing: NDArray[np.float64], reference: NDArray[np.float64]
) -> Pairs:
    """Pairs with the states of the canaries, whose canonical times are ``reference`` (K,)."""
    rows_a, rows_b = _matched(a.bursts, b.bursts)
    kept = (a.bursts.cause[rows_a] == _KEPT) & (b.bursts.cause[rows_b] == _KEPT)
    rejected = int((~kept).sum())
    if kept.sum() < 2:
        raise InconclusiveError(
            f"{a.name} and {b.name}: {int(kept.sum())} of {kept.size} pairs of "
            "bursts count, too few: leave the machine a free core, or give more time"
        )
    sides = [
        burst_evidence(
            _chosen(m.bursts, rows[kept]),
            mixing,
            reference,
            m.footprint_bytes,
            0 * reference,
            adjacent=False,
        )
        for m, rows in ((a, rows_a), (b, rows_b))
    ]
    return Pairs(_difference(*sides), rejected)


def _as_they_are(pairs: Pairs) -> Pairs:
    evidence = replace(pairs.evidence, state=0 * pairs.evidence.state, noise_sd=None)
    return replace(pairs, evidence=evidence)


def pooled(parts: Sequence[Pairs]) -> Pairs:
    """The pairs of several sessions of the same two models."""
    evidence = [part.evidence for part in parts]
    offsets = np.cumsum([0, *(int(e.process.max()) + 1 for e in evidence)])
    layouts = [e.layout for e in evidence if e.layout is not None]
    noises = [e.noise_sd for e in evidence if e.noise_sd is not None]
    whole = replace(
        evidence[0],
        log_time=np.concatenate([e.log_time for e in evidence]),
        state=np.concatenate([e.state for e in evidence]),
        process=np.concatenate([e.process + o for e, o in zip(evidence, offsets, strict=False)]),
        layout=np.concatenate(layouts),
        noise_sd=np.median(noises, axis=0) if noises else None,
    )
    return Pairs(whole, sum(part.rejected for part in parts))


def _difference(a: Evidence, b: Evidence) -> Evidence:
    """Evidence of the log ratio B over A from that of each, row by row of a pair."""
    assert a.noise_sd is not None
    assert b.noise_sd is not None
    assert a.layout is not None
    assert b.layout is not None
    noise = np.hypot(a.noise_sd, b.noise_sd)
    return Evidence(
        log_time=b.log_time - a.log_time,
        state=np.hstack([b.state - a.state, (a.state + b.state) / 2]),
        process=a.process,
        prior=_prior(a.prior, b.prior),
        layout=a.layout * (int(b.layout.max()) + 1) + b.layout,
        noise_sd=np.r_[noise, noise / 2],
        one_sided=False,
    )


def _prior(a: Sensitivity, b: Sensitivity) -> Sensitivity:
    """The prior of (mean, difference) of two models' sensitivities."""
    both = np.hypot(a.sd, b.sd)
    sd = np.r_[both / 2, OWN_SHARE * both]
    return Sensitivity(
        mean=np.r_[(a.mean + b.mean) / 2, b.mean - a.mean],
        sd=sd,
        wander=np.r_[(a.wander + b.wander) / 2, OWN_WANDER * np.hypot(a.wander, b.wander)],
        lasting_sd=sd,
    )


def _matched(a: Bursts, b: Bursts) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Rows of ``a`` and ``b`` that are of one process and round."""
    turns = [
        {(int(p), int(r)): row for row, (p, r) in enumerate(zip(m.process, m.round, strict=True))}
        for m in (a, b)
    ]
    common = sorted(turns[0].keys() & turns[1].keys())
    rows = [np.array([own[turn] for turn in common], np.intp) for own in turns]
    return rows[0], rows[1]


def _chosen(bursts: Bursts, rows: NDArray[np.integer]) -> Bursts:
    """Some bursts of a record."""
    ends = np.cumsum(bursts.length)
    samples = [bursts.sample_ns[ends[row] - bursts.length[row] : ends[row]] for row in rows]
    return Bursts(
        sample_ns=np.concatenate(samples),
        length=bursts.length[rows],
        start_ns=bursts.start_ns[rows],
        process=bursts.process[rows],
        copy=bursts.copy[rows],
        round=bursts.round[rows],
        canary_ns=bursts.canary_ns[rows],
        preemptions=bursts.preemptions[rows],
        steal_ns=bursts.steal_ns[rows],
        cause=bursts.cause[rows],
    )
