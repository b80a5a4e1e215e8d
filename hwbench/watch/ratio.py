"""From the pairs of two models to the ratio of their undisturbed latencies, and its interval.

Model. The log ratio D of a pair, at a slowdown s that both models shared::

    D = log(u_B / u_A) + d s + L + e

``d`` is how differently the two feel the machine. What they do differs by little (two versions of
one model), and so does what they feel; or they are different models, one of which feels twice as
much of a neighbour as the other does. All this is thought possible: there are several priors of
``d``, and their answers are averaged by how likely they make the pairs (Bayesian model averaging),
and by how likely each is beforehand, which who asks may know: a gate's two are versions.
The pair is its own canary: of what slows both, the mean of their log times says more than any
third program. It has the noise of two bursts, and is shrunk towards its process's mean by the
share of its variance that such noise makes (regression calibration; Carroll et al., *Measurement
Error in Nonlinear Models*, 4).

``L`` is the copies' luck. Where a model's buffers lie moves it by one to four per cent, anew each
time that it is loaded, in one process as in many (of 180 processes that held nets of three kinds
against each other, the levels differed by a fifth of that beyond what their four copies told; of
156 that held one net against itself, by rather more). So the copy is the unit, and a process's
copies are combined as in a random-effects meta-analysis, with the variance between them learned
from the pairs; processes are combined again in the same way, should they share more than their
copies tell. Sessions differ by a share of that once more, as those of single models do.

``e`` is the noise of a pair, with the tails of Student's t, and larger where neighbours came and
went than where there was none, or one all the while. By how much it grows with the slowdown is
averaged over as well, for itself: how restless a machine is says nothing of how alike two models
are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwbench.measure.combine import combine
from hwbench.measure.estimate import SESSION_SHARE, calibrated
from hwbench.measure.regression import Problem, Scale, Scales, even
from hwbench.watch.pairs import Pairs

#: How far two models may differ: standard deviations of d, and of their log ratio; and how likely
#: that is of two that are known for versions of one model. Two versions (nets of 100 and of 102
#: units, 18 samples: d within .005 mostly, which their own errors make, and at .04 three times);
#: the same done in another way; two models (conv, depthwise, bottleneck and dense nets: 0 to .85).
KINSHIPS = ((0.01, 0.1, 0.80), (0.1, 0.1, 0.15), (0.5, 1.0, 0.05))
#: How d changes from pair to pair (standard deviations, each as likely beforehand).
WANDERS = (0.001, 0.01, 0.05)
#: How far the d of what lasted all the while differs from that of what came and went (a clock slows
#: all alike, a neighbour does not): a share of its standard deviation.
LASTING = 0.35
#: What is thought of the standard deviation between copies, as a share of that between pairs, and
#: of that between processes, as a share of that between copies, before any was seen; and as from
#: how many of them.
COPY_SHARE, COPY_FLOOR, COPIES_KNOWN = 0.6, 0.002, 1.0
PROCESS_SHARE, PROCESSES_KNOWN = 0.3, 3.0
#: The pairs that tell the spread of the one in their middle: so many, or this part of all; and the
#: spread of all counts as so many more. Calm is what this share of all are, and what has three
#: times their variance or less: chance alone must not give some pairs more weight than others.
NEIGHBOURS, PART, NEIGHBOURS_KNOWN = 20, 8, 5
CALM, LEAST_UNREST = 0.25, 3.0

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A log ratio with its standard error on ``dof`` degrees of freedom."""

    log_ratio: float
    se: float
    dof: float


def undisturbed_ratio(pairs: Pairs, *, versions: bool = False) -> Ratio:
    """The ratio of B's undisturbed latency to A's, which may be known to be ``versions`` of one
    model.
    """
    setting = _setting(pairs)
    every = [(*kinship, wander) for kinship in KINSHIPS for wander in WANDERS]
    accounts = [_account(setting, sd, apart, wander) for sd, apart, _, wander in every]
    log_likelihood = np.array([own for _, own in accounts])
    share = np.exp(log_likelihood - log_likelihood.max())
    if versions:
        share *= [likely for _, _, likely, _ in every]
    share /= share.sum()
    found = [ratio for ratio, _ in accounts]
    centre = float(share @ [ratio.log_ratio for ratio in found])
    squares = [ratio.se**2 + (ratio.log_ratio - centre) ** 2 for ratio in found]
    dof = 1 / float(share @ [1 / ratio.dof for ratio in found])
    return Ratio(centre, math.sqrt(float(share @ squares)), dof)


@dataclass(frozen=True, slots=True)
class _Setting:
    """P pairs as all accounts have them: which are ``in_copy`` (copies, P), which copies
    ``of_process`` (processes, copies); the ``slowdown`` (P,) to be expected of each, and its
    ``unrest`` (P,).
    """

    pairs: Pairs
    in_copy: NDArray[np.bool_]
    of_process: NDArray[np.bool_]
    slowdown: Array
    unrest: Array


def _setting(pairs: Pairs) -> _Setting:
    labels = np.column_stack([pairs.process, pairs.copy])
    copies, copy = np.unique(labels, axis=0, return_inverse=True)
    processes = np.unique(pairs.process)[:, None]
    variance = _variance(pairs)
    return _Setting(
        pairs,
        copy.reshape(-1) == np.arange(len(copies))[:, None],
        copies[:, 0] == processes,
        _slowdown(pairs, pairs.process == processes, variance),
        _unrest(variance),
    )


def _account(setting: _Setting, sd: float, apart: float, wander: float) -> tuple[Ratio, float]:
    """The ratio where ``d`` has the standard deviation ``sd``, from pair to pair ``wander``, and
    the log ratio ``apart``; and the log likelihood of the pairs.
    """
    pairs, in_copy, slowdown = setting.pairs, setting.in_copy, setting.slowdown
    noise = (wander * slowdown) ** 2 + setting.unrest
    scale = Scale(group_share=COPY_SHARE)
    fit = even(
        Problem(
            y=pairs.log_ratio,
            x=slowdown[:, None],
            member=in_copy,
            mean=np.zeros(1),
            sd=np.array([sd]),
            wander=noise,
            scales=Scales(scale, scale),
        )
    )
    slope, known = float(fit.beta[0]), float(fit.information[0, 0]) + sd**-2.0
    share = in_copy * fit.weight
    share /= share.sum(axis=1, keepdims=True)
    prior_sd = max(COPY_SHARE * fit.sd, COPY_FLOOR)
    of_copies = combine(
        share @ (pairs.log_ratio - slope * slowdown),
        share**2 @ (fit.sd**2 + noise),
        prior_sd,
        COPIES_KNOWN,
    )
    member = setting.of_process * of_copies.precision
    precision = member.sum(axis=1)
    member /= precision[:, None]
    prior_sd = PROCESS_SHARE * of_copies.between_sd
    of_processes = combine(member @ of_copies.value, 1 / precision, prior_sd, PROCESSES_KNOWN)
    log_ratio, far = (
        float(of_processes.mean(v)) for v in (of_processes.value, member @ share @ slowdown)
    )
    feeling = far**2 * (1 / known + LASTING**2 * (slope**2 + sd**2))
    feeling += (slope * pairs.quiet_se) ** 2
    luck = of_copies.between_sd**2 * float((member**2).sum(axis=1).mean())
    session = SESSION_SHARE**2 * (luck + of_processes.between_sd**2) / pairs.sessions
    # Satterthwaite's, for the noise; what d adds is no better known than that.
    parts = np.array([of_copies.variance, of_processes.variance - of_copies.variance])
    dof = of_processes.variance**2 / float((parts**2 / [of_copies.dof, of_processes.dof]).sum())
    # How likely the pairs are whatever d is (Laplace): what a wide prior wastes counts against it.
    likelihood = fit.log_likelihood - (slope / sd) ** 2 / 2 - math.log(known * sd**2) / 2
    likelihood -= (log_ratio / apart) ** 2 / 2 + math.log(apart)
    return Ratio(log_ratio, math.sqrt(of_processes.variance + session + feeling), dof), likelihood


def _variance(pairs: Pairs) -> Array:
    """The variance (P,) of each pair's log ratio, that of those nearest to it in slowdown.

    Where both bursts met no neighbour, or both met one all the while, they agree to two to four
    per cent; where a neighbour came or went they differ by ten; and their mean tells which.
    """
    count = pairs.log_ratio.size
    near = min(max(NEIGHBOURS, count // PART), count)
    order = np.argsort(pairs.slowdown, kind="stable")
    window = np.lib.stride_tricks.sliding_window_view(pairs.log_ratio[order], near)
    middle = np.median(window, axis=1, keepdims=True)
    variance = (1.4826 * np.median(np.abs(window - middle), axis=1)) ** 2
    variance = near * variance + NEIGHBOURS_KNOWN * np.median(variance)
    at = np.clip(np.arange(count) - near // 2, 0, len(variance) - 1)
    found = np.empty(count)
    found[order] = variance[at] / (near + NEIGHBOURS_KNOWN)
    return found


def _unrest(variance: Array) -> Array:
    """What each pair's variance (P,) has beyond that of the calmest."""
    return np.maximum(variance - LEAST_UNREST * np.quantile(variance, CALM), 0)


def _slowdown(pairs: Pairs, in_process: NDArray[np.bool_], variance: Array) -> Array:
    """The expected slowdown of each pair, given the noise of its two bursts."""
    # Of two bursts' noise the mean has half of what their difference has.
    noise_sd = np.array([math.sqrt(float(np.median(variance))) / 2])
    return calibrated(pairs.slowdown[:, None], in_process, noise_sd)[:, 0]
