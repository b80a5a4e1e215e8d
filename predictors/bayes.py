"""Bayesian linear regression that learns its prior scales, its noise, and how far it errs.

``y = A w + e`` with ``w_d ~ N(0, s_g(d)^2)``, one scale a group of features, and noise of
scale ``sqrt(known_i + t^2 shape_i)``: that of the label itself, and what no feature explains.
The scales and ``t`` maximise the evidence (MacKay, "Bayesian interpolation", 1992) times a wide
log-normal prior that keeps small samples sane. With features of a kernel among the columns this
is a Gaussian process; without, ridge regression.

Measured latencies have outliers. With ``tail`` finite the noise is Student's t of that many
degrees of freedom, fitted by expectation maximisation: each label gets a weight by which its
noise is divided (Lange, Little and Taylor, "Robust statistical modeling using the t
distribution", 1989).

Leave-one-out predictions come in closed form (Rasmussen and Williams 2006, 5.4.2): with the
leverage h_i the error is ``e_i / (1 - h_i)``, and ``h_i noise_i / (1 - h_i)`` is the variance
that the weights contribute. Scales and t-weights are kept as they are for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Log-normal prior: median and spread (in e-folds) of prior scales, and of the noise scale.
_SCALE_MEDIAN, _SCALE_SPREAD = 0.1, 2.0
_NOISE_MEDIAN, _NOISE_SPREAD = 0.02, 1.5
_BOUNDS = (math.log(1e-4), math.log(10.0))

_MAX_ROUNDS = 12
_WEIGHTS_SETTLED = 0.02


@dataclass(frozen=True)
class Data:
    """n observations: features (n, D) in groups (D,), targets of order 1, and their noise.

    Group 0 is the intercept, whose prior scale is 1. ``known`` (n,) is each label's own noise
    variance; ``shape`` (n,) says how the learned noise variance varies over the observations.
    """

    features: Array
    groups: NDArray[np.intp]
    target: Array
    known: Array
    shape: Array


@dataclass(frozen=True)
class Regression:
    """The posterior ``w ~ N(weights, factor @ factor.T)``, and its errors left one out.

    The noise scale of an observation is ``sqrt(known + noise^2 shape)``. ``loo_scale`` is the
    predicted scale of ``loo_error``, the label's noise included.
    """

    weights: Array
    factor: Array
    scales: Array
    noise: float
    tail: float
    loo_error: Array
    loo_scale: Array

    @property
    def loo_log_density(self) -> float:
        """Log density of all observations, each predicted from the others: to choose models."""
        log_density = log_student_t(self.loo_error / self.loo_scale, self.tail)
        return float((log_density - np.log(self.loo_scale)).sum())


def log_student_t(z: Array, tail: float) -> Array:
    """Log density of Student's t with ``tail`` degrees of freedom; infinite: the normal."""
    if math.isinf(tail):
        return -0.5 * (z**2 + math.log(2 * math.pi))
    constant = math.lgamma((tail + 1) / 2) - math.lgamma(tail / 2)
    constant -= 0.5 * math.log(math.pi * tail)
    return constant - (tail + 1) / 2 * np.log1p(z**2 / tail)


def regress(data: Data, *, tail: float = math.inf) -> Regression:
    """Fit by evidence; ``tail`` are the noise's degrees of freedom."""
    from scipy.optimize import minimize

    problem = _Problem(data, np.ones(len(data.target)))
    theta = np.log(np.r_[np.full(problem.scales, _SCALE_MEDIAN), _NOISE_MEDIAN])
    bounds = [_BOUNDS] * len(theta)
    for _ in range(_MAX_ROUNDS):
        theta = minimize(problem.loss, theta, jac=True, method="L-BFGS-B", bounds=bounds).x
        weights = problem.t_weights(theta, tail)
        settled = np.abs(weights - problem.t).max() < _WEIGHTS_SETTLED
        problem = _Problem(data, weights)
        if settled:
            break
    return problem.solve(theta, tail)


@dataclass(frozen=True)
class _Fit:
    """What follows from scales and noise: in features scaled by their prior's scale."""

    scale: Array
    scaled: Array
    noise: Array
    mean: Array
    covariance: Array
    residual: Array
    fitted_variance: Array


@dataclass(frozen=True)
class _Problem:
    data: Data
    t: Array

    @property
    def scales(self) -> int:
        return int(self.data.groups.max())

    def _own_noise(self, theta: Array) -> Array:
        """Noise variance of each label before its t-weight."""
        return self.data.known + np.exp(2 * theta[-1]) * self.data.shape

    def _fit(self, theta: Array) -> _Fit:
        from scipy.linalg import cho_factor, cho_solve

        scale = np.exp(np.r_[0.0, theta[:-1]])[self.data.groups]
        noise = self._own_noise(theta) / self.t
        scaled = self.data.features * scale
        weighted = scaled / noise[:, None]
        precision = scaled.T @ weighted
        precision[np.diag_indices_from(precision)] += 1
        covariance = cho_solve(cho_factor(precision), np.eye(len(precision)))
        mean = covariance @ (weighted.T @ self.data.target)
        residual = self.data.target - scaled @ mean
        fitted_variance = np.einsum("nd,nd->n", scaled @ covariance, scaled)
        return _Fit(scale, scaled, noise, mean, covariance, residual, fitted_variance)

    def loss(self, theta: Array) -> tuple[float, Array]:
        """Negative log of evidence times prior (less a constant), and its gradient."""
        f = self._fit(theta)
        _, log_det = np.linalg.slogdet(f.covariance)
        pull = f.residual / f.noise
        value = 0.5 * (self.data.target @ pull - log_det + np.log(f.noise).sum())
        undetermined = 1 - np.diag(f.covariance) - f.mean**2
        by_scale = np.bincount(self.data.groups, undetermined, self.scales + 1)[1:]
        inverse = 1 / f.noise - f.fitted_variance / f.noise**2
        learned = np.exp(2 * theta[-1]) * self.data.shape / self.t
        by_noise = ((inverse - pull**2) * learned).sum()
        median = np.log(np.r_[np.full(self.scales, _SCALE_MEDIAN), _NOISE_MEDIAN])
        spread = np.r_[np.full(self.scales, _SCALE_SPREAD), _NOISE_SPREAD]
        away = (theta - median) / spread
        return float(value + 0.5 * away @ away), np.r_[by_scale, by_noise] + away / spread

    def t_weights(self, theta: Array, tail: float) -> Array:
        """Expected weights of the labels under Student's t: small for outliers."""
        if math.isinf(tail):
            return np.ones_like(self.t)
        f = self._fit(theta)
        squared = (f.residual**2 + f.fitted_variance) / self._own_noise(theta)
        return (tail + 1) / (tail + squared)

    def solve(self, theta: Array, tail: float) -> Regression:
        f = self._fit(theta)
        left = np.maximum(1 - f.fitted_variance / f.noise, 1e-9)
        return Regression(
            weights=f.mean * f.scale,
            factor=f.scale[:, None] * np.linalg.cholesky(f.covariance),
            scales=np.exp(theta[:-1]),
            noise=float(np.exp(theta[-1])),
            tail=tail,
            loo_error=f.residual / left,
            loo_scale=np.sqrt(self._own_noise(theta) + f.fitted_variance / left),
        )
