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

What the scales are is not known either, least of all in directions in which the labels hardly
vary: far from them a single best value is too sure. ``spread`` therefore draws values of the
scales from a Gaussian about the best (Laplace), weighted by their evidence over that density
(importance sampling; as the grid of Rue, Martino and Chopin, "Approximate Bayesian inference",
2009, but for more dimensions), and the posterior is their mixture.

Leave-one-out predictions come in closed form (Rasmussen and Williams 2006, 5.4.2): with the
covariance C of the labels, the error is ``[C^-1 y]_i / [C^-1]_ii`` and its variance
``1 / [C^-1]_ii``. They are a little too good, since scales and t-weights saw the label: right
to compare models with, not to calibrate intervals on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Log-normal priors, median and spread in e-folds: of the noise scale, and of others by default.
_NOISE, _WIDE = (0.02, 1.5), (0.1, 2.0)
_BOUNDS = (math.log(1e-4), math.log(10.0))

#: Each round is some steps on the scales, then new weights of the labels.
MAX_ROUNDS = 12
_STEPS = 8
_SETTLED = 0.03

#: Values of the scales that a posterior is mixed over; the step of their curvature, in e-folds.
_DRAWS, _STEP = 32, 0.05


@dataclass(frozen=True)
class Data:
    """n observations: features (n, D) in groups (D,), targets of order 1, and their noise.

    Group 0 is the intercept, whose prior scale is 1. ``known`` (n,) is each label's own noise
    variance; ``shape`` (n,) says how the learned noise variance varies over the observations.
    ``scales`` (G, 2) are the log-normal priors of the other groups' scales, median and spread in
    e-folds; by default wide ones.
    """

    features: Array
    groups: NDArray[np.intp]
    target: Array
    known: Array
    shape: Array
    scales: Array | None = None

    @cached_property
    def grams(self) -> Array:
        """Inner products of the observations in each group's features, (1 + G, n, n)."""
        groups = range(int(self.groups.max()) + 1)
        parts = [self.features[:, self.groups == g] for g in groups]
        return np.stack([part @ part.T for part in parts])


@dataclass(frozen=True, eq=False)
class Regression:
    """A posterior of the weights, and its errors left one out.

    ``theta`` (1 + G,) are the logarithms of prior scales and of the noise scale, ``noise``: an
    observation's noise has scale ``sqrt(known + noise^2 shape)``; ``trust`` (n,) are the t-weights
    of the labels. ``loo_scale`` is the predicted scale of ``loo_error``, the label's noise
    included. The posterior is a mixture over ``thetas`` (k, 1 + G) in ``shares`` (k,).
    """

    data: Data
    theta: Array
    trust: Array
    tail: float
    loo_error: Array
    loo_scale: Array
    thetas: Array
    shares: Array

    @property
    def noise(self) -> float:
        return math.exp(self.theta[-1])

    def at(self, design: Array) -> tuple[Array, Array]:
        """Mean and variance (n,) of the fitted values of a design (n, D), noise apart."""
        found = self._problem.fitted(self.thetas, design)
        mean = self.shares @ np.array([m for m, _ in found])
        variance = self.shares @ np.array([v + (m - mean) ** 2 for m, v in found])
        return mean, variance

    def moments(self) -> tuple[Array, Array]:
        """Mean (D,) and covariance (D, D) of the weights."""
        found = [self._problem.moments(theta) for theta in self.thetas]
        mean = self.shares @ np.array([m for m, _ in found])
        covariance = np.zeros((len(mean), len(mean)))
        for share, (m, c) in zip(self.shares, found, strict=True):
            covariance += share * (c + np.outer(m - mean, m - mean))
        return mean, covariance

    @property
    def loo_log_density(self) -> float:
        """Log density of all observations, each predicted from the others: to choose models."""
        log_density = log_student_t(self.loo_error / self.loo_scale, self.tail)
        return float((log_density - np.log(self.loo_scale)).sum())

    @property
    def _problem(self) -> _Problem:
        return _Problem(self.data, self.trust)


def log_student_t(z: Array, tail: float) -> Array:
    """Log density of Student's t with ``tail`` degrees of freedom; infinite: the normal."""
    if math.isinf(tail):
        return -0.5 * (z**2 + math.log(2 * math.pi))
    constant = math.lgamma((tail + 1) / 2) - math.lgamma(tail / 2)
    constant -= 0.5 * math.log(math.pi * tail)
    return constant - (tail + 1) / 2 * np.log1p(z**2 / tail)


def regress(
    data: Data,
    *,
    tail: float = math.inf,
    start: tuple[Array, Array] | None = None,
    rounds: int = MAX_ROUNDS,
) -> Regression:
    """Fit by evidence; ``tail`` are the noise's degrees of freedom.

    ``start``: ``theta`` and ``trust`` to begin from, of a fit to similar data; then a few
    ``rounds`` are enough.
    """
    from scipy.optimize import minimize

    problem = _Problem(data, np.ones(len(data.target)) if start is None else start[1])
    theta = problem.prior[:, 0] if start is None else start[0]
    for _ in range(rounds):
        found = minimize(
            problem.loss,
            theta,
            jac=True,
            method="L-BFGS-B",
            bounds=[_BOUNDS] * len(theta),
            options={"maxiter": _STEPS},
        ).x
        weights = problem.t_weights(found, tail)
        moved = max(np.abs(found - theta).max(), np.abs(weights - problem.t).max())
        theta, problem = found, _Problem(data, weights)
        if moved < _SETTLED:
            break
    return problem.solve(theta, tail)


def spread(found: Regression, rng: np.random.Generator, count: int = _DRAWS) -> Regression:
    """The same with its posterior mixed over what the scales may be."""
    from scipy.special import ndtri
    from scipy.stats import qmc

    problem = _Problem(found.data, found.trust)
    size = len(found.theta)
    uniform = qmc.Sobol(size, rng=rng).random(count)
    z = ndtri(np.clip(uniform, 1e-4, 1 - 1e-4))
    thetas = np.clip(found.theta + z @ problem.wander(found.theta).T, *_BOUNDS)
    log_share = np.array([-problem.loss(theta)[0] for theta in thetas]) + 0.5 * (z**2).sum(axis=1)
    shares = np.exp(log_share - log_share.max())
    return replace(found, thetas=thetas, shares=shares / shares.sum())


@dataclass(frozen=True)
class _Terms:
    """What the evidence, its gradient and leave-one-out errors are made of.

    ``pull`` is ``C^-1 y`` and ``precision`` the diagonal of ``C^-1``; ``determined`` (1 + G,) is,
    for each group, the sum over its weights in units of their prior's scale of the squared mean
    less what the data took of the variance: it vanishes at the best scale.
    """

    noise: Array
    pull: Array
    precision: Array
    determined: Array
    log_det: float


@dataclass(frozen=True)
class _Problem:
    """Data with the t-weights of its labels."""

    data: Data
    t: Array

    @property
    def prior(self) -> Array:
        """Median and spread (1 + G, 2) of the logarithms of the scales, that of noise last."""
        scales = self.data.scales
        if scales is None:
            scales = np.tile(_WIDE, (int(self.data.groups.max()), 1))
        found: Array = np.vstack([scales, _NOISE])
        found[:, 0] = np.log(found[:, 0])
        return found

    def loss(self, theta: Array) -> tuple[float, Array]:
        """Negative log of evidence times prior (less a constant), and its gradient."""
        terms = self._terms(theta)
        value = 0.5 * (self.data.target @ terms.pull + terms.log_det)
        by_scale = -terms.determined[1:]
        learned = np.exp(2 * theta[-1]) * self.data.shape / self.t
        by_noise = ((terms.precision - terms.pull**2) * learned).sum()
        median, spread = self.prior.T
        away = (theta - median) / spread
        return float(value + 0.5 * away @ away), np.r_[by_scale, by_noise] + away / spread

    def t_weights(self, theta: Array, tail: float) -> Array:
        """Expected weights of the labels under Student's t: small for outliers."""
        if math.isinf(tail):
            return np.ones_like(self.t)
        terms = self._terms(theta)
        residual = terms.noise * terms.pull
        variance = terms.noise - terms.noise**2 * terms.precision
        return (tail + 1) / (tail + (residual**2 + variance) / self._own_noise(theta))

    def solve(self, theta: Array, tail: float) -> Regression:
        terms = self._terms(theta)
        variance = np.maximum(1 / terms.precision - terms.noise, 0)
        return Regression(
            data=self.data,
            theta=theta,
            trust=self.t,
            tail=tail,
            loo_error=terms.pull / terms.precision,
            loo_scale=np.sqrt(self._own_noise(theta) + variance),
            thetas=theta[None],
            shares=np.ones(1),
        )

    def wander(self, theta: Array) -> Array:
        """Root (1 + G, 1 + G) of the covariance of the scales' logarithms at their best value."""
        size = len(theta)
        steps = _STEP * np.eye(size)
        slopes = [self.loss(theta + h)[1] - self.loss(theta - h)[1] for h in steps]
        curvature = np.array(slopes) / (2 * _STEP)
        values, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
        # Never wider than the prior, whatever a curvature away from the best value says.
        least = self.prior[:, 1].max() ** -2
        root: Array = vectors / np.sqrt(np.maximum(values, least))
        return root

    def fitted(self, thetas: Array, design: Array) -> list[tuple[Array, Array]]:
        """Mean and variance (m,) of the fitted values of a design (m, D), for each theta."""
        n, d = self.data.features.shape
        if n > d:
            moments = map(self.moments, thetas)
            return [(design @ w, np.einsum("md,md->m", design @ c, design)) for w, c in moments]
        parts = [self.data.groups == g for g in range(thetas.shape[1])]
        cross = np.stack([design[:, g] @ self.data.features[:, g].T for g in parts])
        norms = np.stack([np.einsum("md,md->m", design[:, g], design[:, g]) for g in parts])
        found = []
        for theta in thetas:
            squares = np.exp(2 * np.r_[0.0, theta[:-1]])
            inverse, _ = _inverse(_covariance(self.data, squares, self._noise(theta)))
            together, prior = np.tensordot(squares, cross, 1), squares @ norms
            told = np.einsum("mn,mn->m", together @ inverse, together)
            mean = together @ (inverse @ self.data.target)
            found.append((mean, np.maximum(prior - told, 1e-9 * prior)))
        return found

    def moments(self, theta: Array) -> tuple[Array, Array]:
        """Mean (D,) and covariance (D, D) of the weights."""
        scale, noise = self._scale(theta), self._noise(theta)
        seen = self.data.features * scale
        n, d = seen.shape
        if n > d:
            covariance, _ = _inverse(_information(seen, noise))
            mean = covariance @ (seen.T @ (self.data.target / noise))
        else:
            squares = np.exp(2 * np.r_[0.0, theta[:-1]])
            inverse, _ = _inverse(_covariance(self.data, squares, noise))
            mean = seen.T @ (inverse @ self.data.target)
            covariance = np.eye(d) - seen.T @ inverse @ seen
        return scale * mean, scale[:, None] * covariance * scale

    def _own_noise(self, theta: Array) -> Array:
        """Noise variance of each label before its t-weight."""
        return self.data.known + math.exp(2 * theta[-1]) * self.data.shape

    def _noise(self, theta: Array) -> Array:
        return np.asarray(self._own_noise(theta) / self.t)

    def _scale(self, theta: Array) -> Array:
        """Prior scale (D,) of each weight."""
        return np.asarray(np.exp(np.r_[0.0, theta[:-1]])[self.data.groups])

    def _terms(self, theta: Array) -> _Terms:
        """By labels or by weights, whichever are fewer."""
        noise = self._noise(theta)
        squares = np.exp(2 * np.r_[0.0, theta[:-1]])
        n, d = self.data.features.shape
        return (_by_labels if n <= d else _by_weights)(self.data, squares, noise)


def _by_labels(data: Data, squares: Array, noise: Array) -> _Terms:
    """``squares`` (1 + G,) of the groups' prior scales."""
    inverse, log_det = _inverse(_covariance(data, squares, noise))
    pull = inverse @ data.target
    excess = np.outer(pull, pull) - inverse
    determined = squares * np.tensordot(data.grams, excess, 2)
    return _Terms(noise, pull, np.diag(inverse), determined, log_det)


def _by_weights(data: Data, squares: Array, noise: Array) -> _Terms:
    scaled = data.features * np.sqrt(squares)[data.groups]
    covariance, log_det = _inverse(_information(scaled, noise))
    mean = covariance @ (scaled.T @ (data.target / noise))
    fitted = np.einsum("nd,nd->n", scaled @ covariance, scaled)
    return _Terms(
        noise,
        (data.target - scaled @ mean) / noise,
        (1 - fitted / noise) / noise,
        np.bincount(data.groups, mean**2 - (1 - np.diag(covariance))).astype(np.float64),
        log_det + float(np.log(noise).sum()),
    )


def _covariance(data: Data, squares: Array, noise: Array) -> Array:
    """Prior covariance (n, n) of the labels."""
    covariance: Array = np.tensordot(squares, data.grams, 1)
    covariance[np.diag_indices_from(covariance)] += noise
    return covariance


def _information(scaled: Array, noise: Array) -> Array:
    """Posterior precision of the weights in units of their prior's scale."""
    information = (scaled / noise[:, None]).T @ scaled
    information[np.diag_indices_from(information)] += 1
    return information


def _inverse(matrix: Array) -> tuple[Array, float]:
    """Inverse and log determinant of a positive definite matrix."""
    from scipy.linalg import lapack

    factor, wrong = lapack.dpotrf(matrix, lower=True, clean=True)
    if wrong:
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    log_det = 2 * float(np.log(np.diag(factor)).sum())
    lower, _ = lapack.dpotri(factor, lower=True)
    inverse: Array = lower + lower.T
    inverse[np.diag_indices_from(inverse)] /= 2
    return inverse, log_det
