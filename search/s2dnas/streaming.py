"""How fast deployed networks answer, image after image, timed side by side in this process.

What is timed is what a user waits for: the whole of :meth:`DynamicModel.predict`, on the wall
clock, whatever else the machine does. So networks are compared only where they took turns: each
round, all answer the same images, in an order that changes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from hwbench.errors import UsageError
from hwbench.search.s2dnas.dynamic import DynamicModel, Floats

Array = NDArray[np.float64]

#: Answers of a network in a round that count, and those before them that do not. In short turns it
#: is others that drive what a network runs seldom out of the caches, more than the network itself.
_TURN, _WARM = 100, 10
_LEAST_ROUNDS = 8
_RESAMPLED = 2000
_CONFIDENCE = 0.95
_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds on the wall clock for one call that answers ``batch`` images.

    ``low`` and ``high`` bound the mean at 95 %, by rounds drawn again (Efron, 1979), and so do
    ``faster_low`` and ``faster_high`` bound ``faster``: how many times the first network's mean is
    this one's. ``undisturbed`` is the mean as if nothing else ran on the machine: calls are alike
    whose last image leaves at the same stage, and each counts as the median of those like it.
    """

    batch: int
    calls: int
    mean: float
    undisturbed: float
    low: float
    high: float
    p50: float
    p90: float
    p99: float
    faster: float
    faster_low: float
    faster_high: float


@dataclass(frozen=True, slots=True)
class Quality:
    """Share of n images that left at each stage, and accuracy (0 to 1) with its 95 % interval."""

    images: int
    exits: tuple[float, ...]
    accuracy: float
    accuracy_low: float
    accuracy_high: float


def stream(
    models: Sequence[DynamicModel],
    images: Floats,
    *,
    seconds: float = 5.0,
    batch: int = 1,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Latency, ...]:
    """Time models on images (n, c, h, w), ``seconds`` for each in all; eight rounds at least.

    Each round takes other images, all of them before any comes again; ``batch`` go in at once.
    """
    if batch < 1 or not 0 < seconds < math.inf:
        raise UsageError(f"{batch} images a call for {seconds} s: give positive numbers")
    if len(images) < batch:
        raise UsageError(f"{len(images)} images are no batch of {batch}: give more, or take less")
    rng = np.random.default_rng(seed)
    rows = np.zeros(0, np.int64)
    taken: list[list[list[tuple[int, int]]]] = []
    began, span = time.monotonic(), seconds * len(models)
    while len(taken) < _LEAST_ROUNDS or time.monotonic() - began < span:
        while len(rows) < (_WARM + _TURN) * batch:
            rows = np.concatenate([rows, rng.permutation(len(images))])
        now, rows = np.split(rows, [(_WARM + _TURN) * batch])
        calls = list(images[now].reshape(-1, batch, *images.shape[1:]))
        times: list[list[tuple[int, int]]] = [[] for _ in models]
        for turn in range(len(models)):
            at = (turn + len(taken)) % len(models)
            times[at] = _timed(models[at], calls)
        taken.append(times)
        progress(min(1.0, (time.monotonic() - began) / span))
    ns, last = np.array(taken).transpose(3, 1, 0, 2)
    return _latencies(ns / _NS_PER_MS, last, batch, rng)


def _timed(model: DynamicModel, calls: Sequence[Floats]) -> list[tuple[int, int]]:
    """Of each call but the first few: nanoseconds, and at which stage the last image left."""
    predict, now, times = model.predict, time.perf_counter_ns, []
    for images in calls:
        start = now()
        answers = predict(images)
        times.append((now() - start, int(answers.stages.max())))
    return times[_WARM:]


def _latencies(
    ms: Array, last: NDArray[np.int64], batch: int, rng: np.random.Generator
) -> tuple[Latency, ...]:
    """Of (models, rounds, calls) and the stages at which their last images left."""
    by_round = ms.mean(axis=2)
    drawn = rng.integers(by_round.shape[1], size=(_RESAMPLED, by_round.shape[1]))
    means = by_round[:, drawn].mean(axis=2)
    tails = [50 * (1 - _CONFIDENCE), 50 * (1 + _CONFIDENCE)]
    found = []
    for own, stages, again in zip(ms, last, means, strict=True):
        low, high = np.percentile(again, tails)
        faster_low, faster_high = np.percentile(means[0] / again, tails)
        figures = (
            own.mean(),
            _undisturbed(own, stages),
            low,
            high,
            *np.percentile(own, [50, 90, 99]),
            ms[0].mean() / own.mean(),
            faster_low,
            faster_high,
        )
        found.append(Latency(batch, own.size, *map(float, figures)))
    return tuple(found)


def _undisturbed(ms: Array, last: NDArray[np.int64]) -> float:
    alike = [ms[last == stage] for stage in np.unique(last)]
    return float(sum(len(each) * np.median(each) for each in alike) / ms.size)


def quality(model: DynamicModel, images: Floats, labels: NDArray[np.int64]) -> Quality:
    """Where images (n, c, h, w) leave, and how many answers are right."""
    stages = len(model.manifest.stages)
    left, right, n = np.zeros(stages), 0, len(images)
    for start in range(0, n, 500):
        found = model.predict(images[start : start + 500])
        left += np.bincount(found.stages - 1, minlength=stages)
        right += int((found.labels == labels[start : start + 500]).sum())
    share = binomtest(right, n).proportion_ci(_CONFIDENCE, method="wilson")
    return Quality(n, tuple((left / n).tolist()), right / n, float(share.low), float(share.high))
