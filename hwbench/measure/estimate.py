"""From bursts beside canaries to the undisturbed latency, with an interval that counts all.

Model. A burst's log time y (the median of its runs) depends on the state of the machine, which
the canaries' log readings x (relative to their canonical times) show, one x for each kind of
canary (compute, memory, cache), the mean over the canaries of that kind::

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

``e`` is heavy-tailed and leans to the slow side, for what the canaries did not see only ever
delays: Student-t weights (3 degrees of freedom), and ``SLOW_SIDE`` for positive residuals.

Interval. Processes differ (layout in memory), and bursts of one process are not independent: the
process is the unit. Each gives a level, with its own variance from noise and from how far it
stood from the canonical state; the levels are combined as a random-effects meta-analysis, the
variance between processes shrunk to a prior (scaled inverse chi-square, as in limma's moderated
t, Smyth 2004). Added are the uncertainty of beta where the bursts stood away from the canonical
state, the variance of the canonical times themselves, and what all processes of a session shared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

SLOW_SIDE = 0.6
TAIL_DOF = 3.0
FAR = 2.0
#: Prior of the standard deviation between processes: a share of that between bursts (what makes
#: a model noisy, memory, also makes its layout matter), at least a floor; its weight in processes.
PROCESS_SHARE = 0.5
PROCESS_FLOOR = 0.003
PROCESS_WEIGHT = 2.0
#: What makes processes differ (memory, mostly) also moves slowly: sessions of one model differed
#: by this share of the standard deviation between processes more than their processes told.
SESSION_SHARE = 0.3
_FLOOR = 0.002
_STEPS = 12

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Prior of beta: means and standard deviations, one a kind of canary, shape (K,).

    ``wander`` is the standard deviation of delta, a sensitivity's change from burst to burst and
    from process to process.
    """

    mean: Array
    sd: Array
    wander: Array


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
    return Sensitivity(
        mean=np.array([COMPUTE_MEAN, *felt]),
        sd=np.array([COMPUTE_SD, *(LEAST_SD + SD_SHARE * felt)]),
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


def undisturbed(
    log_time: Array,
    state: Array,
    process: NDArray[np.integer],
    prior: Sensitivity,
    *,
    layout: NDArray[np.integer] | None = None,
    noise_sd: Array | None = None,
    state_se: Array | None = None,
) -> Estimate:
    """Estimate the undisturbed latency from B bursts.

    ``log_time`` (B,), ``state`` (B, K) mean log canary readings of each kind over their
    canonical times, ``process`` (B,) labels, ``layout`` (B,) labels of the copies of the model
    within their processes (one each, if not given), ``noise_sd`` (K,) standard deviation of a
    reading's own noise, ``state_se`` (K,) standard errors of the canonical log times. At least
    two bursts are needed.
    """
    if log_time.size < 2:
        raise ValueError("an estimate needs at least two bursts")
    pairs = np.column_stack([process, np.zeros_like(process) if layout is None else layout])
    groups, group = np.unique(pairs, axis=0, return_inverse=True)
    member = group.reshape(-1) == np.arange(len(groups))[:, None]
    if noise_sd is not None:
        state = _calibrated(state, process == np.unique(process)[:, None], noise_sd)
    beta, weight, sd, between_sd = _regress(log_time, state, member, prior)
    share = member * weight
    share /= share.sum(axis=1, keepdims=True)
    # From copies to processes: a mean, since a model that is fast in one layout and slow in
    # another has no typical one.
    noise = sd**2 * (share**2).sum(axis=1) + between_sd**2
    of_process = (groups[:, 0] == np.unique(process)[:, None]) / noise
    of_process /= of_process.sum(axis=1, keepdims=True)
    levels = of_process @ share @ (log_time - state @ beta)
    states = of_process @ share @ state
    noise = of_process**2 @ (noise - between_sd**2) + ((prior.wander * states) ** 2).sum(axis=1)
    between, precision = _combine(levels, noise, between_sd)
    total = precision.sum()
    precision /= total
    shift = precision @ states
    # The prior's width, not the posterior's: what bursts say of fast changes of the machine is
    # no proof for a slow one that all of them shared.
    uncertain = float(((prior.sd * shift) ** 2).sum())
    session = SESSION_SHARE**2 * between + uncertain
    anchor = 0.0 if state_se is None else float(((beta * state_se) ** 2).sum())
    return Estimate(
        log_latency=float(precision @ levels),
        se=float(np.sqrt(1 / total + session + anchor)),
        session_sd=float(np.sqrt(session)),
        dof=float(PROCESS_WEIGHT + 1 / (precision**2).sum() - 1),
        beta=beta,
        shift=shift,
        burst_sd=sd,
        process_sd=float(np.sqrt(between)),
    )


def _calibrated(state: Array, member: NDArray[np.bool_], noise_sd: Array) -> Array:
    """The expected true state for each reading, given how much of its variance is noise."""
    shrunk = state.copy()
    for rows in member:
        centre = state[rows].mean(axis=0)
        variance = np.maximum(state[rows].var(axis=0), 1e-12)
        signal = np.clip(1 - noise_sd**2 / variance, 0, 1)
        shrunk[rows] = centre + signal * (state[rows] - centre)
    return shrunk


def _regress(
    y: Array, x: Array, member: NDArray[np.bool_], prior: Sensitivity
) -> tuple[Array, Array, float, float]:
    """Posterior mode of beta, final weights, sd of bursts, and the prior sd between processes."""
    wander = ((prior.wander * x) ** 2).sum(axis=1)
    near = wander <= np.sort(wander)[min(max(8, y.size // 2), y.size) - 1]
    precision = np.diag(np.concatenate([[0.0], prior.sd**-2.0]))
    pull = precision @ np.concatenate([[0.0], prior.mean])
    design = np.column_stack([np.ones_like(y), x])
    # From the bursts nearest to the canonical state: where most of the others were disturbed by
    # what the prior does not expect, a start among them would take the quiet ones for outliers.
    theta = np.concatenate([[np.median((y - x @ prior.mean)[near])], prior.mean])
    sd = between_sd = 0.02
    residual = y - design @ theta
    for _ in range(_STEPS):
        variance = sd**2 + wander
        weight = (TAIL_DOF + 1) / (TAIL_DOF + residual**2 / variance) / variance
        weight *= np.where(residual > 0, SLOW_SIDE, 1.0)
        y_, design_ = _quasi_demean(y, design, weight, member, between_sd)
        information = design_.T @ (design_ * weight[:, None]) + precision
        theta = np.linalg.solve(information, design_.T @ (weight * y_) + pull)
        # Residuals around each group's own level, as far as its bursts can tell it: what differs
        # between groups is counted later, and a group of two must not seem free of noise.
        residual = y - design @ theta
        share = member * weight
        total = share.sum(axis=1)
        level = share @ residual / (1 / between_sd**2 + total)
        residual -= level @ member
        sd = max(1.4826 * float(np.median(np.abs(residual[near]))), _FLOOR)
        between_sd = max(PROCESS_SHARE * sd, PROCESS_FLOOR)
    return theta[1:], weight, sd, between_sd


def _quasi_demean(
    y: Array, design: Array, weight: Array, member: NDArray[np.bool_], between_sd: float
) -> tuple[Array, Array]:
    """Remove from each process the part of its mean that a random intercept accounts for."""
    share = member * weight
    total = share.sum(axis=1)
    part = (1 - 1 / np.sqrt(1 + total * between_sd**2)) / total
    return y - (part * (share @ y)) @ member, design - member.T @ (part[:, None] * (share @ design))


def _combine(levels: Array, noise: Array, prior_sd: float) -> tuple[float, Array]:
    """Variance between processes, and the precision that each level counts with.

    EM for the posterior mode of the variance. A level beyond ``FAR`` standard deviations counts
    less (Huber), for now and then a process was disturbed throughout in a way no canary saw.
    """
    between, trust = prior_sd**2, np.ones_like(levels)
    for _ in range(_STEPS):
        share = trust / (noise + between)
        centre = float(share @ levels / share.sum())
        pull = between / (noise + between)
        squares = (pull * (levels - centre)) ** 2 + pull * noise
        between = float(
            (PROCESS_WEIGHT * prior_sd**2 + squares.sum()) / (PROCESS_WEIGHT + levels.size)
        )
        z = np.abs(levels - centre) / np.sqrt(noise + between)
        trust = FAR / np.maximum(z, FAR)
    return between, trust / (noise + between)
