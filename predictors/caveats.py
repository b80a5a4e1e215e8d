"""What a reader has to know of labels before the figures of a fit: each in one line, or nothing."""

from __future__ import annotations

import numpy as np

from hwbench.predictors.data import TrainingSet
from hwbench.predictors.published import timer_resolution
from hwbench.spaces import Space

#: Relative: times of one architecture that are nearer to each other are alike.
_ALIKE = 0.01


def coarse_timer(labels: TrainingSet) -> list[str]:
    """Where all latencies (n,) are multiples of a step."""
    step = timer_resolution(labels.latency_ms)
    if not step:
        return []
    return [
        f"a timer of {step:g} ms steps: each of the {len(labels)} latencies counts with "
        f"{step / np.sqrt(12):.2g} ms of error of its own"
    ]


def repeated(space: Space, labels: TrainingSet) -> list[str]:
    """Where architectures come more than once, and their times differ."""
    _, group = np.unique(space.canonical(labels.codes), axis=0, return_inverse=True)
    group = group.reshape(-1)
    low, high = np.full(group.max() + 1, np.inf), np.zeros(group.max() + 1)
    np.minimum.at(low, group, labels.latency_ms)
    np.maximum.at(high, group, labels.latency_ms)
    apart = high / low - 1
    differ = int((apart > _ALIKE).sum())
    if not differ:
        return []
    are = "architecture is" if differ == 1 else "architectures are"
    return [
        f"{differ} {are} listed more than once, with times that differ by up to "
        f"{apart.max():.0%}: the mean of each counts"
    ]


def few(space: Space, n_train: int) -> list[str]:
    """Where a free number for each choice would be more than there are samples."""
    parameters = 1 + sum(len(decision.values) - 1 for decision in space.decisions)
    if n_train >= parameters:
        return []
    return [
        f"{n_train} samples are fewer than the {parameters} choices that {space.name} has: what "
        "they leave open is taken to follow the costs of the networks, with wider intervals"
    ]
