"""Length scales of a Gaussian process by its evidence, with a gradient that costs next to nothing.

The evidence of MacKay ("Bayesian interpolation", 1992) times wide log-normal priors, which keep few
data sane; Matérn's kernel of smoothness 5/2 with one length scale a column (Rasmussen and
Williams 2006, 4.2.1 and 5.4.1). With ``W = dL/dC * dC/dr2`` the slope in a column's scale is a sum
over pairs of ``W_ij (x_i - x_j)^2``, which is two products of matrices for all columns at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Log-normal priors: medians and spreads (in e-folds) of lengths, amplitude and noise; bounds.
_LENGTH, _AMPLITUDE, _NOISE = (3.0, 1.2), (0.4, 1.0), (0.04, 1.0)
_LENGTHS, _AMPLITUDES, _NOISES = (0.2, 100.0), (0.02, 2.0), (0.02, 0.6)
_STEPS = 40


@dataclass(frozen=True, eq=False)
class Scales:
    """Of inputs (D,), of the process, and of what two equal inputs differ by."""

    lengths: Array
    amplitude: float
    noise: float


def matern(a: Array, b: Array) -> Array:
    """Matérn's kernel of smoothness 5/2 between rows of a and b."""
    from scipy.spatial.distance import cdist

    s = np.sqrt(5) * cdist(a, b)
    kernel: Array = (1 + s + s**2 / 3) * np.exp(-s)
    return kernel


def best_scales(inputs: Array, target: Array, known: Array) -> Scales:
    """The scales that explain ``target`` (n,) best; ``known`` (n,) is the target's own variance.

    ``inputs`` (n, D) are in units of their spread.
    """
    from scipy.optimize import minimize

    d = inputs.shape[1]
    median = np.log([*[_LENGTH[0]] * d, _AMPLITUDE[0], _NOISE[0]])
    spread = np.array([*[_LENGTH[1]] * d, _AMPLITUDE[1], _NOISE[1]])
    bounds = np.log([*[_LENGTHS] * d, _AMPLITUDES, _NOISES])

    def loss(theta: Array) -> tuple[float, Array]:
        value, slope = _evidence(theta, inputs, target, known)
        away = (theta - median) / spread
        return value + 0.5 * float(away @ away), slope + away / spread

    limit = {"maxiter": _STEPS}
    found = minimize(loss, median, jac=True, method="L-BFGS-B", bounds=bounds, options=limit).x
    return Scales(np.exp(found[:d]), float(np.exp(found[d])), float(np.exp(found[d + 1])))


def _evidence(theta: Array, inputs: Array, target: Array, known: Array) -> tuple[float, Array]:
    """Negative logarithm of the evidence (less a constant) and its slope in ``theta``."""
    from scipy.linalg import cho_factor, cho_solve
    from scipy.spatial.distance import cdist

    scaled = inputs / np.exp(theta[:-2])
    power, noise = np.exp(2 * theta[-2:])
    s = np.sqrt(5) * cdist(scaled, scaled)
    fading = power * np.exp(-s)
    covariance = (1 + s + s**2 / 3) * fading
    factor = cho_factor(covariance + np.diag(noise + known), lower=True)
    inverse = cho_solve(factor, np.eye(len(target)))
    pull = inverse @ target
    value = 0.5 * target @ pull + np.log(np.diag(factor[0])).sum()
    by_covariance = 0.5 * (inverse - np.outer(pull, pull))
    pairs = by_covariance * (5 / 3) * (1 + s) * fading
    by_length = 2 * (pairs.sum(axis=1) @ scaled**2 - (scaled * (pairs @ scaled)).sum(axis=0))
    by_power = 2 * (by_covariance * covariance).sum()
    by_noise = 2 * noise * np.trace(by_covariance)
    return float(value), np.concatenate([by_length, [by_power, by_noise]])
