"""Levels of which each has its own noise, combined: a random-effects meta-analysis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: A level beyond so many standard deviations counts less.
FAR = 2.0
_STEPS = 25

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Combined:
    """Levels with the ``precision`` (levels,) that each counts with, the standard deviation between
    them, and the degrees of freedom that it is known with.
    """

    value: Array
    precision: Array
    between_sd: float
    dof: float

    @property
    def variance(self) -> float:
        """Of their mean."""
        return 1 / float(self.precision.sum())

    def mean(self, values: Array) -> Array:
        """Of values (levels,) or (levels, …): shape ``values.shape[1:]``."""
        return np.asarray(self.precision @ values * self.variance)


def combine(value: Array, noise: Array, prior_sd: float, known: float) -> Combined:
    """Combine levels (levels,) that have ``noise`` (variances) of their own.

    The variance between them is the posterior mode, by EM. Beforehand ``prior_sd`` is known as well
    as from ``known`` levels, and less well where they differ by more: how far off a prior may be
    nobody told it. That their centre is not known either is allowed for (restricted maximum
    likelihood; Harville, JASA 72, 1977). A level beyond ``FAR`` standard deviations counts less,
    for the centre as for the variance (Huber): now and then a process was disturbed throughout
    in a way no canary saw.
    """
    between, weight, trust = prior_sd**2, known, np.ones_like(value)
    for _ in range(_STEPS):
        each = 1 / (noise + between)
        precision = trust * each
        off = (value - precision @ value / precision.sum()) ** 2
        pull = between * each
        squares = pull**2 * (trust * off + 1 / each.sum()) + pull * noise
        between = float((weight * prior_sd**2 + squares.sum()) / (weight + value.size))
        weight = known * min(1.0, prior_sd**2 / between)
        trust = FAR / np.maximum(np.sqrt(off / (noise + between)), FAR)
    precision = trust / (noise + between)
    effective = float(precision.sum() ** 2 / (precision**2).sum())
    return Combined(value, precision, math.sqrt(between), weight + effective - 1)
