"""What the workloads of a session tell about each other: how they feel the machine's state.

A few bursts hardly tell a model's sensitivities (:mod:`.estimate`), and the prior, which is of all
kinds of models on some machines, is a wide one. But a session measures many models at once, often
of one space, and these feel this machine alike. So the prior is made the session's own (empirical
Bayes; Efron and Morris, 1973). In units of the prior's standard deviation sd_n, a model's distance
from its prior mean is::

    z_n = (beta_n - mean_n) / sd_n ~ N(offset, spread),   offset ~ N(0, COMMON)

one ``offset`` and one variance ``spread`` for each kind of canary, found by expectation
maximisation from what each model's bursts say. ``COMMON`` is the share of the prior's variance that
models of one space have in common, the rest (``1 - COMMON``, known as well as from ``SPREAD_KNOWN``
models) is their own: a single model keeps its prior.

The noise of a model's bursts is pooled likewise, as limma does for genes (Smyth, 2004): its
variance is shrunk to that of the others as far as these agree; and so is what its processes
differ by. All of it is for models that are alike. Of 13 models of five kinds that were pooled for
a trial, fresh runs agreed less (p90 of 2.0 % beside a load in place of 1.5 %).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, special

from hwbench.measure.estimate import Array, Evidence, Lesson, Levels, lesson, levels
from hwbench.measure.regression import GROUP_SHARE, Regression, Scale, Scales

COMMON, SPREAD_KNOWN = 0.5, 4.0
#: Models that feel the machine alike still do not feel it the same.
LEAST_SPREAD = 0.01
#: Fewer models are no family: each would be told mostly what it said itself.
LEAST_MODELS = 8
#: More is never known of the noise than so many degrees of freedom tell.
MOST_WEIGHT = 30.0
#: Bounds of what processes differ by, in standard deviations of a burst.
LEAST_SHARE, MOST_SHARE = 0.05, 3.0
_STEPS = 50


@dataclass(frozen=True, slots=True)
class Family:
    """``offset`` and ``spread`` (K,): mean and variance of z over the models of a session; and the
    ``noise`` of their bursts.
    """

    offset: Array
    spread: Array
    noise: Scales

    def of(self, evidence: Evidence) -> Evidence:
        """The evidence of a model of this family, with its prior."""
        prior = evidence.prior
        mean = prior.mean + self.offset * prior.sd
        prior = replace(prior, mean=mean, sd=prior.sd * np.sqrt(self.spread))
        return replace(evidence, prior=prior, scales=self.noise)


def learned(evidences: Sequence[Evidence]) -> Family:
    """The family of the models that these bursts are of, one each, ``LEAST_MODELS`` or more."""
    lessons = [lesson(evidence) for evidence in evidences]
    offset, spread = _sensitivities(lessons)
    noise = Scales(_pooled([x.even for x in lessons]), _pooled([x.delayed for x in lessons]))
    family = Family(offset, spread, noise)
    # How much processes differ shows beside the noise as it is known now.
    members = [family.of(evidence) for evidence in evidences]
    again = [lesson(member) for member in members]
    even, delayed = (
        _group_share([(levels(m, a), a.sd) for m, a in zip(members, accounts, strict=True)])
        for accounts in ([x.even for x in again], [x.delayed for x in again])
    )
    noise = Scales(
        replace(noise.even, group_share=even), replace(noise.delayed, group_share=delayed)
    )
    return replace(family, noise=noise)


def _group_share(processes: Sequence[tuple[Levels, float]]) -> float:
    """Posterior mode of how much of a burst's standard deviation processes differ by.

    Of the residual likelihood of the levels; the prior is that of a single model, known as well as
    from ``SPREAD_KNOWN`` models.
    """

    def loss(log_square: float) -> float:
        square = math.exp(log_square)
        found = SPREAD_KNOWN * (log_square + GROUP_SHARE**2 / square) / 2
        for of, sd in processes:
            variance = of.noise + square * sd**2
            centre = (of.value / variance).sum() / (1 / variance).sum()
            found += 0.5 * float(
                np.log(variance).sum()
                + math.log((1 / variance).sum())
                + ((of.value - centre) ** 2 / variance).sum()
            )
        return found

    low, high = 2 * math.log(LEAST_SHARE), 2 * math.log(MOST_SHARE)
    return math.exp(optimize.minimize_scalar(loss, bounds=(low, high), method="bounded").x / 2)


def _pooled(seen: Sequence[Regression]) -> Scale:
    """What the spreads of several models say of that of one more, by their first two moments.

    The logarithm of a variance that has d degrees of freedom, around one that has itself a scaled
    inverse chi-square distribution of w, has the variance trigamma(d / 2) + trigamma(w / 2).
    """
    log_variance = 2 * np.log([account.sd for account in seen])
    half = np.array([account.sd_weight for account in seen]) / 2
    centred = log_variance - special.digamma(half) + np.log(half)
    excess = float(centred.var(ddof=1) - special.polygamma(1, half).mean())
    weight = 2 * _trigamma_inverse(max(excess, special.polygamma(1, MOST_WEIGHT / 2)))
    centre = float(centred.mean()) + special.digamma(weight / 2) - np.log(weight / 2)
    return Scale(float(np.exp(centre / 2)), float(weight))


def _trigamma_inverse(y: float) -> float:
    """x with trigamma(x) = y, by Newton's method on 1 / trigamma (Smyth, 2004, appendix)."""
    x = 0.5 + 1 / y
    for _ in range(20):
        there = float(special.polygamma(1, x))
        x += there * (1 - there / y) / float(special.polygamma(2, x))
    return x


def _sensitivities(lessons: Sequence[Lesson]) -> tuple[Array, Array]:
    """Offset and spread (K,)."""
    # In z: information (n, K, K), and its product with the likeliest z (n, K).
    sd = np.array([lesson.prior.sd for lesson in lessons])
    mean = np.array([lesson.prior.mean for lesson in lessons])
    information = np.array([lesson.information for lesson in lessons])
    pull = np.array([lesson.pull for lesson in lessons])
    pull = (pull - np.einsum("nij,nj->ni", information, mean)) * sd
    information = information * sd[:, :, None] * sd[:, None, :]
    n, k = sd.shape
    offset, spread = np.zeros(k), np.full(k, 1 - COMMON)
    offset_variance = np.full(k, COMMON)
    for _ in range(_STEPS):
        covariance = np.linalg.inv(information + np.diag(1 / spread))
        z = np.einsum("nij,nj->ni", covariance, pull + offset / spread)
        offset_variance = 1 / (n / spread + 1 / COMMON)
        offset = offset_variance * (z / spread).sum(axis=0)
        squares = (z - offset) ** 2 + np.diagonal(covariance, axis1=1, axis2=2)
        known = SPREAD_KNOWN * (1 - COMMON) + squares.sum(axis=0)
        spread = np.maximum(known / (SPREAD_KNOWN + n), LEAST_SPREAD)
    return offset, spread + offset_variance
