"""Bounds that hold: quantiles of errors on architectures that the predictor did not see.

Each training label is predicted by a model that did not learn from it; its error is divided by
the predicted scale. A new architecture's standardised error ranks among these n with equal
chance at each place, so the k-th smallest of them, ``k = ceil((n + 1) c)``, is an upper bound at
confidence c, whatever the distribution (conformal prediction; in this leave-one-out form the
jackknife+ of Barber, Candès, Ramdas and Tibshirani, "Predictive inference with the jackknife+",
2021). Beyond ``n / (n + 1)`` the sample says nothing: there the errors' scale is extended by
Student's t, and the bound never lies inside the largest error seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import UsageError
from hwbench.predictors.data import Prediction

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Standardised errors (measured - predicted) / sd of held-out labels, sorted: (n,)."""

    errors: Array

    @classmethod
    def of(cls, latency_ms: Array, held_out: Prediction) -> Calibration:
        return cls(np.sort((latency_ms - held_out.mean_ms) / held_out.sd_ms))

    @classmethod
    def restored(cls, errors: NDArray[np.generic]) -> Calibration:
        """From a file; ValueError where it is no such thing."""
        if errors.ndim != 1 or errors.dtype != np.float64 or len(errors) < 2:
            raise ValueError("the calibration is not a list of errors")
        if (np.diff(errors) < 0).any():
            raise ValueError("the calibration's errors are not sorted")
        return cls(errors.astype(np.float64))

    def quantile(self, level: float) -> float:
        """The standardised error that a new one stays below with probability ``level``.

        Errs outwards: too high above the median, too low below it.
        """
        if not (0 < level < 1 and 1 - level < 1):
            raise UsageError(f"confidence {level:g} is not between 0 and 1")
        if level < 0.5:
            return -_upper_quantile(-self.errors[::-1], 1 - level)
        return _upper_quantile(self.errors, level)


def _upper_quantile(errors: Array, level: float) -> float:
    n = len(errors)
    rank = math.ceil(round((n + 1) * level, 9))
    if rank <= n:
        return float(errors[rank - 1])
    scale = math.sqrt(float(np.mean(errors**2)) * (1 + 1 / n))
    return max(float(errors[-1]), scale * _student_t(level, n - 1))


@lru_cache(maxsize=256)
def _student_t(level: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, level))


@lru_cache(maxsize=256)
def normal_quantile(level: float) -> float:
    """The standard normal's quantile."""
    from scipy.special import ndtri

    return float(ndtri(level))
