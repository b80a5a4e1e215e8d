"""Bursts on the canaries' readings: two accounts of what the canaries did not see.

Both are the regression of :mod:`.estimate`: log times ``y`` on readings ``x`` (relative to the
canonical state), a normal prior on the sensitivities, a level for each group of bursts (a copy of
the model in one process) about a common one, and a variance that grows away from the canonical
state. They differ in the noise:

- :func:`even`: as often above as below, with the tails of Student's t.
- :func:`delayed`: most bursts are quiet, to a normal noise; the others met a neighbour that the
  canaries beside them missed, and took longer by an exponential delay. A mixture, fitted by
  expectation maximisation (Dempster, Laird and Rubin, 1977); a burst counts as far as it is likely
  to be a quiet one. On a machine whose cores have siblings that others use, bursts are quiet to
  0.2 % or 10 to 20 % slow, and no symmetric noise finds the quiet ones.

Which account is nearer the truth, their likelihoods say (:attr:`Regression.log_likelihood`), less
what its further parameters cost (Akaike): few bursts can always be told apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

#: Degrees of freedom of the tails; of quiet bursts too, some of which a canary corrects too much.
TAIL_DOF = 3.0
#: Prior of the standard deviation between groups: a share of that between bursts (what makes a
#: model noisy, memory, also makes its layout matter), at least a floor.
GROUP_SHARE, GROUP_FLOOR = 0.7, 0.003
#: A neighbour's delay before any was seen (log), counted as so many; and how many bursts of three
#: it is thought to meet.
DELAY, DELAYS_KNOWN, MET = 0.08, 3.0, 1.0
MOST_DELAYED = 0.95
_FLOOR = 0.002
#: The share of delayed bursts and their delay; the priors above know about half of them.
_MORE_PARAMETERS = 1.0
_STEPS, _SETTLED = 20, 1e-4
_T_CONSTANT = (
    math.lgamma((TAIL_DOF + 1) / 2) - math.lgamma(TAIL_DOF / 2) - math.log(TAIL_DOF * math.pi) / 2
)

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scale:
    """What is known beforehand of the noise, by one account.

    The standard deviation ``sd`` of bursts, as well as from ``weight`` observations, and how much
    of it groups differ by.
    """

    sd: float = 1.0
    weight: float = 0.0
    group_share: float = GROUP_SHARE

    def group_sd(self, sd: float) -> float:
        """Standard deviation between groups where that of bursts is ``sd``."""
        return max(self.group_share * sd, GROUP_FLOOR)


@dataclass(frozen=True, slots=True)
class Scales:
    """What is known beforehand of the noise, by either account."""

    even: Scale
    delayed: Scale


NOTHING_KNOWN = Scales(Scale(), Scale())


@dataclass(frozen=True, slots=True)
class Problem:
    """B bursts: ``y`` (B,), ``x`` (B, K), which group's each is ``member`` (groups, B), and the
    sensitivities' prior means and standard deviations (K,); ``wander`` (B,) is the variance that
    a burst has for standing away from the canonical state. ``scales`` are the noise's.
    """

    y: Array
    x: Array
    member: NDArray[np.bool_]
    mean: Array
    sd: Array
    wander: Array
    scales: Scales = NOTHING_KNOWN

    @property
    def near(self) -> NDArray[np.bool_]:
        """The half of the bursts, and at least eight, that stood nearest to the canonical state."""
        last = min(max(8, self.y.size // 2), self.y.size) - 1
        return np.asarray(self.wander <= np.sort(self.wander)[last])


@dataclass(frozen=True, slots=True)
class Regression:
    """``beta`` (K,), how likely each burst was ``quiet`` (B,), the ``weight`` (B,) that it counts
    with beside others (outliers less), the standard deviations ``sd`` of quiet bursts (seen with
    ``sd_weight`` degrees of freedom) and ``group_sd`` between groups. Of the sensitivities alone,
    without their prior, the bursts have the ``information`` (K, K), and ``pull`` (K,) is that times
    what they would say.
    """

    beta: Array
    quiet: Array
    weight: Array
    sd: float
    sd_weight: float
    group_sd: float
    log_likelihood: float
    information: Array
    pull: Array


def even(problem: Problem) -> Regression:
    """Noise on both sides alike."""
    near, scale = problem.near, problem.scales.even
    counted = near.astype(np.float64)
    level = float(np.median((problem.y - problem.x @ problem.mean)[near]))
    theta = np.r_[level, problem.mean]
    residual, sd = problem.y - level - problem.x @ problem.mean, 0.02
    for _ in range(_STEPS):
        weight = _t_weight(residual, sd**2 + problem.wander)
        before = theta
        theta, residual, unsure = _step(problem, weight, scale.group_sd(sd))
        sd = _spread(np.abs(residual), unsure, counted, scale)
        if np.abs(theta - before).max() < _SETTLED:
            break
    variance = sd**2 + problem.wander
    squares = residual**2 / variance
    log_density = _T_CONSTANT - (TAIL_DOF + 1) / 2 * np.log1p(squares / TAIL_DOF)
    likelihood = float((log_density - np.log(variance) / 2).sum())
    return Regression(
        theta[1:],
        np.ones_like(problem.y),
        weight,
        sd,
        spread_weight(float(counted.sum())),
        scale.group_sd(sd),
        likelihood,
        *_about_beta(problem, weight, scale.group_sd(sd)),
    )


def delayed(problem: Problem) -> Regression:
    """Quiet bursts, and such as took longer."""
    near, scale = problem.near, problem.scales.delayed
    corrected = problem.y - problem.x @ problem.mean
    level, sd = _densest(corrected[near])
    theta, residual = np.r_[level, problem.mean], corrected - level
    share, delay = MET / 3, DELAY
    for _ in range(_STEPS):
        quiet = _quiet(residual, sd**2 + problem.wander, share, delay)[0]
        weight = quiet * _t_weight(residual, sd**2 + problem.wander)
        before = theta
        theta, residual, unsure = _step(problem, weight, scale.group_sd(sd))
        counted = quiet * near if (quiet * near).sum() > 3 else quiet
        sd = _spread(np.abs(residual), unsure, counted, scale)
        met = float((1 - quiet).sum())
        share = min((MET + met) / (3 + quiet.size), MOST_DELAYED)
        took = float(((1 - quiet) * np.maximum(residual, 0)).sum())
        delay = (DELAYS_KNOWN * DELAY + took) / (DELAYS_KNOWN + met)
        if np.abs(theta - before).max() < _SETTLED:
            break
    variance = sd**2 + problem.wander
    quiet, log_density = _quiet(residual, variance, share, delay)
    # What not knowing whether a burst was quiet costs (Louis, 1982).
    known = quiet * np.maximum(1 - (1 - quiet) * residual**2 / variance, 0)
    likelihood = float(log_density.sum()) - _MORE_PARAMETERS
    return Regression(
        theta[1:],
        np.maximum(known, 1e-9),
        weight,
        sd,
        spread_weight(float(counted.sum())),
        scale.group_sd(sd),
        likelihood,
        *_about_beta(problem, weight, scale.group_sd(sd)),
    )


def _step(problem: Problem, weight: Array, group_sd: float) -> tuple[Array, Array, Array]:
    """Posterior mode of (level, beta), residuals around each group's own level, and the variance
    (B,) of what is known of that level.
    """
    precision = np.diag(np.r_[0.0, problem.sd**-2.0])
    pull = precision @ np.r_[0.0, problem.mean]
    design = np.column_stack([np.ones_like(problem.y), problem.x])
    y, columns = _quasi_demean(problem, design, weight, group_sd)
    information = columns.T @ (columns * weight[:, None]) + precision
    theta = np.linalg.solve(information, columns.T @ (weight * y) + pull)
    # As far as a group's bursts can tell its level: what differs between groups is counted
    # later, and a group of two must not seem free of noise.
    residual = problem.y - design @ theta
    share = problem.member * weight
    unsure = 1 / (1 / group_sd**2 + share.sum(axis=1))
    own = unsure * (share @ residual)
    return theta, residual - own @ problem.member, unsure @ problem.member


def _about_beta(problem: Problem, weight: Array, group_sd: float) -> tuple[Array, Array]:
    """Information (K, K) about beta and its pull (K,), whatever the level."""
    design = np.column_stack([np.ones_like(problem.y), problem.x])
    y, columns = _quasi_demean(problem, design, weight, group_sd)
    information = columns.T @ (columns * weight[:, None])
    pull = columns.T @ (weight * y)
    of_level = information[1:, 0] / information[0, 0]
    return (
        information[1:, 1:] - np.outer(of_level, information[0, 1:]),
        pull[1:] - of_level * pull[0],
    )


def _quasi_demean(
    problem: Problem, design: Array, weight: Array, group_sd: float
) -> tuple[Array, Array]:
    """Remove from each group the part of its mean that a random intercept accounts for."""
    share = problem.member * weight
    total = share.sum(axis=1)
    part = (1 - 1 / np.sqrt(1 + total * group_sd**2)) / total
    y = problem.y - (part * (share @ problem.y)) @ problem.member
    return y, design - problem.member.T @ (part[:, None] * (share @ design))


def _t_weight(residual: Array, variance: Array) -> Array:
    """Expected precision of each burst under Student's t."""
    return (TAIL_DOF + 1) / (TAIL_DOF + residual**2 / variance) / variance


def _quiet(residual: Array, variance: Array, share: float, delay: float) -> tuple[Array, Array]:
    """Probability (B,) of each burst to be a quiet one, and log density of it."""
    sd = np.sqrt(variance)
    at_rest = -0.5 * (residual**2 / variance + np.log(2 * np.pi * variance))
    # Normal noise and an exponential delay: the exponentially modified Gaussian.
    late = variance / (2 * delay**2) - residual / delay - math.log(delay)
    late += special.log_ndtr(residual / sd - sd / delay)
    at_rest += math.log1p(-share)
    both = np.logaddexp(at_rest, late + math.log(share))
    # Never nothing: a group without a quiet burst has a level too, of next to no weight.
    return np.maximum(np.exp(at_rest - both), 1e-9), both


def _densest(values: Array) -> tuple[float, float]:
    """Middle and half-width of the shortest interval with a third of the values in it."""
    ordered = np.sort(values)
    count = min(max(3, ordered.size // 3), ordered.size)
    widths = ordered[count - 1 :] - ordered[: ordered.size - count + 1]
    first = int(widths.argmin())
    middle = float(np.median(ordered[first : first + count]))
    return middle, max(float(widths[first]) / 2, _FLOOR)


def _spread(distance: Array, unsure: Array, counted: Array, known: Scale) -> float:
    """Standard deviation of bursts around their groups' levels, from distances to what is known
    of these. Without its variance, groups of one burst would seem to have no noise.
    """
    seen = 1.4826 * _weighted_median(distance, counted)
    seen = math.hypot(seen, math.sqrt(_weighted_median(unsure, counted)))
    own = spread_weight(float(counted.sum()))
    variance = (known.weight * known.sd**2 + own * seen**2) / (known.weight + own)
    return max(math.sqrt(variance), _FLOOR)


def spread_weight(bursts: float) -> float:
    """Degrees of freedom of the spread of so many bursts: the median of their distances is a
    measure of it that needs 2.7 times as many as the mean of squares does.
    """
    return max(0.37 * (bursts - 1), 0.5)


def _weighted_median(values: Array, weight: Array) -> float:
    order = np.argsort(values)
    below = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(below, below[-1] / 2)])
