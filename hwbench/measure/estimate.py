"""From bursts beside canaries to the undisturbed latency, with an interval that counts all.

Model. A burst's log time y (the lower quartile of its runs) depends on the state of the machine,
which the canaries' log readings x (relative to their canonical times) show, one x for each kind
of canary (compute, memory, cache), the mean over the canaries of that kind::

    y = log u + sum_k (beta_k + delta_k) x_k + e

``u`` is the **undisturbed latency**: the hot steady-state time with every canary at its
canonical time. ``beta_k`` are the model's sensitivities, with a normal prior: a model that was
never disturbed cannot tell its own. ``delta_k`` is their change from burst to burst, with a
standard deviation of their own: a random-coefficients regression, in which a burst far from the
canonical state says little and one near it says all. So quiet moments decide where there are
any, and the regression carries the estimate where there are none; no threshold stands between.

A reading has noise of its own. Where noise makes most of its variation, on a quiet machine, a
plain regression would find beta near 0 (attenuation) and leave the machine's drift in the
latency. So readings are shrunk towards their process's mean by the share of their variance that
is noise (regression calibration; Carroll et al., *Measurement Error in Nonlinear Models*, 4),
and processes have intercepts of their own in the regression (quasi-demeaning), so that their
differences pass for what a canary did only as far as they must.

``e`` is what the canaries did not see. Either it is as often above as below, or some bursts were
delayed by neighbours and the others quiet (:mod:`.regression`). Both accounts are fitted and
averaged by their likelihoods, and how far they differ belongs to the standard error.

Interval. Processes differ (layout in memory), and bursts of one process are not independent: the
process is the unit. Each gives a level, with its own variance from noise and from how far it
stood from the canonical state; the levels are combined as a random-effects meta-analysis, the
variance between processes shrunk to a prior (scaled inverse chi-square, as in limma's moderated
t, Smyth 2004). Added are the uncertainty of beta where the bursts stood away from the canonical
state, the variance of the canonical times themselves, and what all processes of a session shared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special

from hwbench.measure.combine import combine
from hwbench.measure.regression import (
    NOTHING_KNOWN,
    Problem,
    Regression,
    Scale,
    Scales,
    delayed,
    even,
)

#: Weight of the prior of the standard deviation between processes, in processes.
PROCESS_WEIGHT = 2.0
#: What makes processes differ (memory, mostly) also moves slowly: sessions of one model differed
#: by this share of the standard deviation between processes more than their processes told.
SESSION_SHARE = 0.3

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Prior of beta: means and standard deviations, one a kind of canary, shape (K,).

    ``wander`` is the standard deviation of delta, a sensitivity's change from burst to burst and
    from process to process. ``lasting_sd`` stands for ``sd`` where all bursts were away from the
    canonical state: what they say of fast changes is no proof for a slow one that all shared.
    """

    mean: Array
    sd: Array
    wander: Array
    lasting_sd: Array


KINDS = ("compute", "memory", "cache")
#: Without these a device cannot be anchored. The cache canary is for models that share a host.
NEEDED_KINDS = KINDS[:2]
#: A clock that wanders moves every model and the conv nets alike: sensitivity 1. A neighbour on
#: the sibling thread of a core does not: beside one that made the two conv nets 15 and 7 % slower,
#: models were slower by .5 to 1.2 of their mean. So bursts that met no such neighbour count for
#: far more than any that did, and where there are none the interval says so.
COMPUTE_MEAN, COMPUTE_SD, COMPUTE_WANDER = 1.0, 0.15, 0.5
#: Memory is felt by what does not fit the caches that a core has for itself: so much a megabyte
#: of footprint, up to a limit.
MEMORY_A_MB, MOST_MEMORY = 0.012, 0.15
#: The cache that cores share is felt by what fills much of it: so much by the root of the
#: footprint a millisecond, up to a limit; less by what fills less than this.
CACHE_BY_ROOT, MOST_CACHE, FILLING_MB = 0.11, 0.6, 24.0
#: Standard deviations of these two priors, and of their changes: at least so much, and a share.
#: All are of some forty networks of seven kinds (results/README.md).
LEAST_SD, SD_SHARE = 0.01, np.array([0.4, 0.3])
LEAST_WANDER, WANDER_SHARE = 0.03, 0.15
#: Taken for a model whose footprint the system does not tell.
TYPICAL_FOOTPRINT = 10_000_000


def prior_sensitivity(footprint_bytes: int | None, typical_ns: float) -> Sensitivity:
    """The prior of beta for a model whose loading and first run took so much memory, and its
    later runs about so long.
    """
    footprint_mb = (TYPICAL_FOOTPRINT if footprint_bytes is None else footprint_bytes) / 1e6
    mb_a_ms = footprint_mb / (typical_ns / 1e6)
    memory = min(MEMORY_A_MB * footprint_mb, MOST_MEMORY)
    cache = min(CACHE_BY_ROOT * mb_a_ms**0.5, MOST_CACHE) * min(footprint_mb / FILLING_MB, 1.0)
    felt = np.array([memory, cache])
    sd = np.array([COMPUTE_SD, *(LEAST_SD + SD_SHARE * felt)])
    return Sensitivity(
        mean=np.array([COMPUTE_MEAN, *felt]),
        sd=sd,
        lasting_sd=sd,
        wander=np.array([COMPUTE_WANDER, *(LEAST_WANDER + WANDER_SHARE * felt)]),
    )


@dataclass(frozen=True, slots=True)
class Estimate:
    """An undisturbed latency on a log scale.

    ``log_latency`` with standard error ``se`` on ``dof`` degrees of freedom; ``session_sd`` is
    the part of it that a session shares (that of the canonical times is the epoch's); ``beta``
    (K,) are the sensitivities found, ``shift`` (K,) the weighted mean state of the bursts that it
    rests on.
    """

    log_latency: float
    se: float
    session_sd: float
    dof: float
    beta: Array
    shift: Array
    burst_sd: float
    process_sd: float

    def interval_ns(self, confidence: float) -> tuple[float, float]:
        """Two-sided interval of the latency, in the units of the burst times."""
        half = self.half_width(confidence)
        return float(np.exp(self.log_latency - half)), float(np.exp(self.log_latency + half))

    def half_width(self, confidence: float) -> float:
        """Relative (log) half-width of the interval."""
        return float(special.stdtrit(self.dof, 0.5 + confidence / 2) * self.se)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What an estimate rests on: B bursts.

    ``log_time`` (B,), ``state`` (B, K) mean log canary readings of each kind over their
    canonical times, ``process`` (B,) labels, ``prior`` of the sensitivities, ``layout`` (B,) labels
    of the copies of the model within their processes (one each, if not given), ``noise_sd`` (K,)
    standard deviation of a reading's own noise, ``state_se`` (K,) standard errors of the canonical
    log times, ``scales`` what is known of the bursts' noise. At least two bursts are needed.
    """

    log_time: Array
    state: Array
    process: NDArray[np.integer]
    prior: Sensitivity
    layout: NDArray[np.integer] | None = None
    noise_sd: Array | None = None
    state_se: Array | None = None
    scales: Scales = NOTHING_KNOWN

    def __post_init__(self) -> None:
        if self.log_time.size < 2:
            raise ValueError("an estimate needs at least two bursts")

    @cached_property
    def groups(self) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """The model's copies (groups, 2), by process and layout, and that of each burst (B,)."""
        layout = np.zeros_like(self.process) if self.layout is None else self.layout
        pairs = np.column_stack([self.process, layout])
        groups, group = np.unique(pairs, axis=0, return_inverse=True)
        return groups, group.reshape(-1)

    @cached_property
    def problem(self) -> Problem:
        """The regression: the readings without their noise, the bursts by their groups."""
        state, (groups, group) = self.state, self.groups
        if self.noise_sd is not None:
            of_process = self.process == np.unique(self.process)[:, None]
            state = calibrated(state, of_process, self.noise_sd)
        return Problem(
            y=self.log_time,
            x=state,
            member=group == np.arange(len(groups))[:, None],
            mean=self.prior.mean,
            sd=self.prior.sd,
            wander=((self.prior.wander * state) ** 2).sum(axis=1),
            scales=self.scales,
        )


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a model's bursts say of its sensitivities: ``information`` (K, K) about beta, and
    ``pull`` (K,), that times the likeliest beta. The ``prior`` is in neither. And both accounts,
    for what they say of its noise.
    """

    prior: Sensitivity
    information: Array
    pull: Array
    even: Regression
    delayed: Regression


def lesson(evidence: Evidence) -> Lesson:
    """What the bursts say of the sensitivities and the noise."""
    accounts, share = _accounts(evidence.problem, (even, delayed))
    information = sum(s * a.information for s, a in zip(share, accounts, strict=True))
    pull = sum(s * a.pull for s, a in zip(share, accounts, strict=True))
    return Lesson(evidence.prior, np.asarray(information), np.asarray(pull), *accounts)


def undisturbed(evidence: Evidence) -> Estimate:
    """Estimate the undisturbed latency from bursts."""
    scales = (evidence.scales.even, evidence.scales.delayed)
    accounts, share = _accounts(evidence.problem, (even, delayed))
    found = [
        _combined(evidence, account, account.group_sd, scale)
        for account, scale in zip(accounts, scales, strict=True)
    ]
    # What processes differ by beyond what was likely passed for noise of their bursts in part.
    (account, _), (scale, _), (first, _) = accounts, scales, found
    if first.process_sd > account.group_sd:
        seen = replace(scale, group_share=first.process_sd / account.sd)
        wider = replace(evidence, scales=replace(evidence.scales, even=seen))
        found[0] = _combined(wider, even(wider.problem), account.group_sd, scale)
    return _averaged(found, share)


def _accounts(
    problem: Problem, kinds: Sequence[Callable[[Problem], Regression]]
) -> tuple[list[Regression], Array]:
    """These accounts of the noise, and how likely each is."""
    accounts = [account(problem) for account in kinds]
    log_likelihood = np.array([account.log_likelihood for account in accounts])
    share = np.exp(log_likelihood - log_likelihood.max())
    return accounts, share / share.sum()


@dataclass(frozen=True, slots=True)
class Levels:
    """What each process says (processes,): its level, the variance of that, and the mean ``state``
    (processes, K) of the bursts that it rests on.
    """

    value: Array
    noise: Array
    state: Array


def levels(evidence: Evidence, account: Regression) -> Levels:
    """The groups of one account, combined to processes."""
    problem, groups = evidence.problem, evidence.groups[0]
    of_process = groups[:, 0] == np.unique(evidence.process)[:, None]
    share = problem.member * account.weight
    share /= share.sum(axis=1, keepdims=True)
    # A group with hardly a quiet burst is hardly known.
    noise = account.sd**2 * (share**2).sum(axis=1) / (share @ account.quiet)
    # From copies to processes: a mean, since a model that is fast in one layout and slow in
    # another has no typical one.
    part = of_process / (noise + account.group_sd**2)
    part /= part.sum(axis=1, keepdims=True)
    state = part @ share @ problem.x
    wander = ((evidence.prior.wander * state) ** 2).sum(axis=1)
    value = part @ share @ (problem.y - problem.x @ account.beta)
    return Levels(value, part**2 @ noise + wander, state)


def _combined(evidence: Evidence, account: Regression, prior_sd: float, scale: Scale) -> Estimate:
    """The estimate of one account: its processes' levels combined to a latency. That they differ by
    ``prior_sd`` was likely beforehand.
    """
    of = levels(evidence, account)
    found = combine(of.value, of.noise, prior_sd, PROCESS_WEIGHT + scale.weight)
    shift = found.mean(of.state)
    uncertain = float(((evidence.prior.lasting_sd * shift) ** 2).sum())
    session = (SESSION_SHARE * found.between_sd) ** 2 + uncertain
    se = evidence.state_se
    anchor = 0.0 if se is None else float(((account.beta * se) ** 2).sum())
    return Estimate(
        log_latency=float(found.mean(of.value)),
        se=math.sqrt(found.variance + session + anchor),
        session_sd=math.sqrt(session),
        dof=found.dof,
        beta=account.beta,
        shift=shift,
        burst_sd=account.sd,
        process_sd=found.between_sd,
    )


def _averaged(found: Sequence[Estimate], share: Array) -> Estimate:
    """The mean of estimates by their shares; how they differ is a part of its error."""

    def mean(values: Sequence[float]) -> float:
        return float(share @ np.array(values))

    log_latency = mean([e.log_latency for e in found])
    squares = mean([e.se**2 + (e.log_latency - log_latency) ** 2 for e in found])
    return Estimate(
        log_latency=log_latency,
        se=math.sqrt(squares),
        session_sd=math.sqrt(mean([e.session_sd**2 for e in found])),
        dof=1 / mean([1 / e.dof for e in found]),
        beta=share @ np.array([e.beta for e in found]),
        shift=share @ np.array([e.shift for e in found]),
        burst_sd=mean([e.burst_sd for e in found]),
        process_sd=mean([e.process_sd for e in found]),
    )


def calibrated(state: Array, member: NDArray[np.bool_], noise_sd: Array) -> Array:
    """The expected true state for each reading, given how much of its variance is noise."""
    shrunk = state.copy()
    for rows in member:
        centre = state[rows].mean(axis=0)
        variance = np.maximum(state[rows].var(axis=0), 1e-12)
        signal = np.clip(1 - noise_sd**2 / variance, 0, 1)
        shrunk[rows] = centre + signal * (state[rows] - centre)
    return shrunk
