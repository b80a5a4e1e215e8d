"""From bursts beside canaries to the undisturbed latency, with an interval that counts all.

Model. A burst's log time y (the median of its runs) depends on the state of the machine, which
the canaries' log readings x (relative to their canonical times) show, one x for each kind of
canary (compute, memory), the mean over the canaries of that kind::

    y = log u + sum_k (beta_k + delta_k) x_k + e

``u`` is the **undisturbed latency**: the hot steady-state time with every canary at its
canonical time. ``beta_k`` are the model's sensitivities, with a normal prior: a model that was
never disturbed cannot tell its own. ``delta_k`` is their change from burst to burst, with a
standard deviation of ``WANDER`` times the prior's: a random-coefficients regression, in which a burst far from the
canonical state says little and one near it says all. So quiet moments decide where there are
any, and the regression carries the estimate where there are none; no threshold stands between.

``e`` is heavy-tailed and leans to the slow side, for what the canaries did not see only ever
delays: Student-t weights (3 degrees of freedom), and ``SLOW_SIDE`` for positive residuals.

Interval. Processes differ (layout in memory), and bursts of one process are not independent: the
process is the unit. Each gives a level, with its own variance from noise and from how far it
stood from the canonical state; the levels are combined as a random-effects meta-analysis, the
variance between processes shrunk to a prior (scaled inverse chi-square, as in limma's moderated
t, Smyth 2004). Added are the posterior variance of beta where the bursts stood away from the
canonical state, and the variance of the canonical times themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

#: Standard deviation of a sensitivity from burst to burst, as a share of its prior's.
WANDER = 1.0
SLOW_SIDE = 0.6
TAIL_DOF = 3.0
#: Prior of the standard deviation between processes: a share of that between bursts (what makes
#: a model noisy, memory, also makes its layout matter), at least a floor; its weight in processes.
PROCESS_SHARE = 0.5
PROCESS_FLOOR = 0.003
PROCESS_WEIGHT = 2.0
_FLOOR = 0.002
_STEPS = 12

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Prior of beta: means and standard deviations, one a kind of canary, shape (K,)."""

    mean: Array
    sd: Array


#: Most models compute on data in cache and feel what a conv net feels; a copy of memory sees
#: what it does not. Sensitivities found on models of all classes lie within this prior
#: (results/repeatability).
KINDS = ("compute", "memory")
PRIOR = Sensitivity(np.array([0.8, 0.1]), np.array([0.25, 0.15]))


@dataclass(frozen=True, slots=True)
class Estimate:
    """An undisturbed latency on a log scale.

    ``log_latency`` with standard error ``se`` on ``dof`` degrees of freedom; ``beta`` (K,) the
    sensitivities found; ``shift`` (K,) the weighted mean state of the bursts that it rests on.
    """

    log_latency: float
    se: float
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
        return float(stats.t.ppf(0.5 + confidence / 2, self.dof) * self.se)


def undisturbed(
    log_time: Array,
    state: Array,
    process: NDArray[np.integer],
    prior: Sensitivity = PRIOR,
    *,
    state_se: Array | None = None,
) -> Estimate:
    """Estimate the undisturbed latency from B bursts.

    ``log_time`` (B,), ``state`` (B, K) mean log canary readings of each kind over their canonical times,
    ``process`` (B,) labels, ``state_se`` (K,) standard errors of the canonical log times.
    At least two bursts are needed.
    """
    if log_time.size < 2:
        raise ValueError("an estimate needs at least two bursts")
    theta, weight, cov, sd = _regress(log_time, state, prior)
    beta = theta[1:]
    labels = np.unique(process)
    member = (process == labels[:, None]) * weight
    member /= member.sum(axis=1, keepdims=True)
    levels, states = member @ (log_time - state @ beta), member @ state
    noise = sd**2 * (member**2).sum(axis=1) + ((WANDER * prior.sd * states) ** 2).sum(axis=1)
    between, share = _combine(levels, noise, max(PROCESS_SHARE * sd, PROCESS_FLOOR))
    precision = share.sum()
    share /= precision
    shift = share @ states
    uncertain = float(shift @ cov[1:, 1:] @ shift)
    anchor = 0.0 if state_se is None else float(((beta * state_se) ** 2).sum())
    return Estimate(
        log_latency=float(share @ levels),
        se=float(np.sqrt(1 / precision + uncertain + anchor)),
        dof=float(PROCESS_WEIGHT + 1 / (share**2).sum() - 1),
        beta=beta,
        shift=shift,
        burst_sd=sd,
        process_sd=float(np.sqrt(between)),
    )


def _regress(y: Array, x: Array, prior: Sensitivity) -> tuple[Array, Array, Array, float]:
    """Posterior mode of (log u, beta), final weights (1/variance), covariance, burst sd."""
    design = np.column_stack([np.ones_like(y), x])
    wander = ((WANDER * prior.sd * x) ** 2).sum(axis=1)
    near = np.argsort(wander, kind="stable")[: max(8, y.size // 2)]
    precision = np.diag(np.concatenate([[0.0], prior.sd**-2.0]))
    pull = precision @ np.concatenate([[0.0], prior.mean])
    theta = np.concatenate([[np.median(y - x @ prior.mean)], prior.mean])
    sd = 0.02
    for _ in range(_STEPS):
        residual = y - design @ theta
        variance = sd**2 + wander
        z2 = residual**2 / variance
        weight = (TAIL_DOF + 1) / (TAIL_DOF + z2) / variance
        weight *= np.where(residual > 0, SLOW_SIDE, 1.0)
        information = design.T @ (design * weight[:, None]) + precision
        theta = np.linalg.solve(information, design.T @ (weight * y) + pull)
        residual = y - design @ theta
        sd = max(1.4826 * float(np.median(np.abs(residual[near]))), _FLOOR)
    return theta, weight, np.linalg.inv(information), sd


def _combine(levels: Array, noise: Array, prior_sd: float) -> tuple[float, Array]:
    """Variance between processes, and the precision that each level counts with.

    EM for the posterior mode of the variance; Student-t weights, for now and then a process
    was disturbed throughout in a way that no canary saw.
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
        z2 = (levels - centre) ** 2 / (noise + between)
        trust = np.minimum((TAIL_DOF + 1) / (TAIL_DOF + z2), 1.0)
    return between, trust / (noise + between)
