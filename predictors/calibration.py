"""Bounds that hold: quantiles of errors on architectures that the predictor did not see.

Each training label is predicted by a model that did not learn from it; its error is divided by
the predicted scale. A new architecture's standardised error ranks among these n with equal
chance at each place, so the k-th smallest of them, ``k = (n + 1) c``, is an upper bound at
confidence c, whatever the distribution (conformal prediction; in this leave-one-out form the
jackknife+ of Barber, Candès, Ramdas and Tibshirani, "Predictive inference with the jackknife+",
2021).

Of few errors the extreme ones are chance: bounds of 10 or 20 samples came out twice too wide or
half too narrow. A predicted scale means something by itself, so less than 50 errors are filled up
to 50 by its normal distribution (the predictive distribution of a Dirichlet process, Ferguson, "A
Bayesian analysis of some nonparametric problems", 1973). Beyond ``n / (n + 1)`` a sample says
nothing: there the errors' scale is extended by Student's t, and the bound never lies inside the
largest error seen.
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


#: Fewer errors are filled up to so many.
_ENOUGH = 50
#: No error is that many scales.
_MOST_ERROR = 1e6


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
        if not np.abs(errors).max() <= _MOST_ERROR:
            raise ValueError(f"the calibration has errors beyond {_MOST_ERROR:g} scales")
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


def half_width(errors: Array) -> float:
    """Half of the central 68.3 % interval of standardised errors (n,), at its finite-sample rank.

    Few errors are filled up with such as right scales give, of which it is 1.
    """
    n = len(errors)
    rank = min(math.ceil((n + 1) * math.erf(math.sqrt(0.5))), n)
    seen = float(np.sort(np.abs(errors))[rank - 1])
    added = max(_ENOUGH - n, 0)
    return math.sqrt((n * seen**2 + added) / (n + added))


def _upper_quantile(errors: Array, level: float) -> float:
    if len(errors) < _ENOUGH:
        return _filled_up_quantile(errors, level)
    n = len(errors)
    rank = math.ceil(round((n + 1) * level, 9))
    if rank <= n:
        return float(errors[rank - 1])
    scale = math.sqrt(float(np.mean(errors**2)) * (1 + 1 / n))
    return max(float(errors[-1]), scale * _student_t(level, n - 1))


def _filled_up_quantile(errors: Array, level: float) -> float:
    """The least z that all but a share of errors and normal distribution together lie below."""
    from scipy.special import ndtri

    n, unit = len(errors), half_width(errors)
    # About the share by which a rank among so many errs outwards; never all of it.
    outside = (1 - level) ** 2 / (1 - level + level / _ENOUGH)
    below = np.arange(n + 1)
    # By what lies above: next to 1, what lies below could not be told from it.
    above = (_ENOUGH * outside - (n - below)) / (_ENOUGH - n)
    bounds = -unit * ndtri(above.clip(0, 1))
    # With j errors below it, z lies from the j-th error to the next.
    starts, ends = np.r_[-math.inf, errors], np.r_[errors, math.inf]
    candidates = np.maximum(bounds, starts)
    return float(candidates[(candidates < ends).argmax()])


@lru_cache(maxsize=256)
def _student_t(level: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, level))


@lru_cache(maxsize=256)
def normal_quantile(level: float) -> float:
    """The standard normal's quantile."""
    from scipy.special import ndtri

    return float(ndtri(level))
