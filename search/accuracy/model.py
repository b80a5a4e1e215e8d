"""Accuracy learned from some hundred labels: a Gaussian process on engineered features.

The target is ``-log(1.03 - accuracy)``: near the front, where a search is, a point more of
accuracy weighs more than among networks that hardly learn. Matern 5/2 on standardised features;
length and noise are those of the largest evidence on a grid (Rasmussen and Williams, 2006, 5.4.1),
the scale has a closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from hwbench.errors import UsageError
from hwbench.search.accuracy.features import features
from hwbench.spaces.base import Codes, Space

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]

_ABOVE = 1.03
_LENGTHS = (0.5, 0.8, 1.2, 2.0, 3.5)
_NOISES = (0.01, 0.03, 0.1, 0.3)
#: What size does beside the other process' 1, and over how many standard deviations it bends.
_SIZES, _SIZE_LENGTH = (0.0, 1.0, 10.0, 100.0, 1000.0), 6.0
#: Labels that choose length and noise; all of them make the prediction.
_TUNED_ON = 200
_LEAST = 5


def transformed(accuracy: Array) -> Array:
    """The target of accuracies (n,), 0 to 1."""
    target: Array = -np.log(_ABOVE - accuracy)
    return target


def restored(target: Array) -> Array:
    """Accuracies (n,), within 0 to 1, of targets."""
    return np.clip(_ABOVE - np.exp(-target), 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Scales:
    """How smooth accuracy is in the features, what size does beside them, and the labels' noise.

    ``length`` is in typical distances; ``size`` and ``noise`` in variances of the first process.
    """

    length: float
    size: float
    noise: float

    def __post_init__(self) -> None:
        if not (0 < self.length < np.inf and 0 <= self.size < np.inf and 0 < self.noise < np.inf):
            raise ValueError("scales of accuracy that cannot be")


class AccuracyModel:
    """Posterior over accuracy, on the scale of the target; :func:`fit_accuracy` makes one.

    ``codes`` (m, L) are the labelled architectures, canonical and distinct, ``accuracy`` (m,) their
    labels; ``scales`` are what the evidence chose. The same three give the same model.
    """

    def __init__(self, space: Space, codes: Codes, accuracy: Array, scales: Scales) -> None:
        self.space, self.codes, self.accuracy, self.scales = space, codes, accuracy, scales
        target = transformed(accuracy)
        self._inputs = _Inputs.of(space, codes)
        self._mean, self._scale = float(target.mean()), float(target.std()) or 1.0
        self._seen = self._inputs.standardised(codes)
        gram = _kernel(self._seen, self._seen, scales) + scales.noise * np.eye(len(codes))
        factor, _ = cho_factor(gram, lower=True)
        self._lower = np.tril(factor)
        standard = (target - self._mean) / self._scale
        self._weights = cho_solve((factor, True), standard)
        self._amplitude = float(standard @ self._weights) / len(codes)
        self._labels = {code.tobytes(): float(t) for code, t in zip(codes, target, strict=True)}

    def predict(self, codes: Codes) -> tuple[Array, Array]:
        """Mean and standard deviation (n,), (n,) of the target of codes (n, L)."""
        near = self._near(codes)
        mean = self._mean + self._scale * (near @ self._weights)
        solved = solve_triangular(self._lower, near.T, lower=True)
        prior = 1 + self.scales.size
        variance = self._amplitude * np.maximum(prior - (solved**2).sum(axis=0), 0)
        return mean, self._scale * np.sqrt(variance)

    def score(self, codes: Codes) -> Array:
        """Target (n,) of codes (n, L): its label where there is one, else the mean."""
        rows = self.space.canonical(codes)
        mean: Array = self._mean + self._scale * (self._near(rows) @ self._weights)
        for i, row in enumerate(rows):
            label = self._labels.get(row.tobytes())
            if label is not None:
                mean[i] = label
        return mean

    def _near(self, codes: Codes) -> Array:
        # Single precision: ten thousand architectures are scored at once, and the fit is done.
        rows = self._inputs.standardised(codes).astype(np.float32)
        near = _kernel(rows, self._seen.astype(np.float32), self.scales)
        return near.astype(np.float64)


def fit_accuracy(space: Space, codes: Codes, accuracy: Array) -> AccuracyModel:
    """Fit on labelled codes (m, L), canonical and distinct, with accuracies (m,) from 0 to 1.

    UsageError where fewer than five are given, or all are equal: nothing is to be learned of them.
    """
    if len(codes) < _LEAST or np.ptp(accuracy) == 0:
        raise UsageError(
            f"{len(codes)} accuracies from {accuracy.min(initial=1):.4g} to "
            f"{accuracy.max(initial=0):.4g} teach nothing: give at least {_LEAST} that differ"
        )
    chosen = np.linspace(0, len(codes) - 1, min(len(codes), _TUNED_ON)).astype(int)
    target = transformed(accuracy[chosen])
    seen = _Inputs.of(space, codes[chosen]).standardised(codes[chosen])
    standard = (target - target.mean()) / (target.std() or 1.0)
    evidence = {
        scales: _log_evidence(near + scales.noise * np.eye(len(seen)), standard)
        for length, size in product(_LENGTHS, _SIZES)
        for near in [_kernel(seen, seen, Scales(length, size, min(_NOISES)))]
        for scales in (Scales(length, size, noise) for noise in _NOISES)
    }
    return AccuracyModel(space, codes, accuracy, max(evidence, key=lambda each: evidence[each]))


@dataclass(frozen=True, eq=False)
class _Inputs:
    """Features as the kernel takes them: those that vary, in standard deviations; size is last."""

    space: Space
    varying: NDArray[np.bool_]
    centre: Array
    spread: Array

    @classmethod
    def of(cls, space: Space, codes: Codes) -> _Inputs:
        raw = _described(space, codes)
        varying = raw.std(axis=0) > 1e-9
        varying[-1] = True
        spread = np.maximum(raw[:, varying].std(axis=0), 1e-9)
        return cls(space, varying, raw[:, varying].mean(axis=0), spread)

    def standardised(self, codes: Codes) -> Array:
        """(n, F) of codes (n, L)."""
        raw = _described(self.space, codes)[:, self.varying]
        scaled: Array = (raw - self.centre) / self.spread
        return scaled


def _described(space: Space, codes: Codes) -> Array:
    """The features, and size once more."""
    size = np.log1p(space.macs(codes).astype(np.float64))
    return np.concatenate([features(space, codes), size[:, None]], axis=1)


def _kernel(one: Floats, other: Floats, scales: Scales) -> Floats:
    """Covariances of (n, F) and (m, F), in units of the first process' variance.

    Its length is in units of a typical distance.
    """
    choices, others = one[:, :-1], other[:, :-1]
    squares = (choices**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * choices @ others.T
    near = _matern(np.maximum(squares, 0) / (max(choices.shape[1], 1) * scales.length**2))
    if scales.size:
        apart = (one[:, -1:] - other[:, -1]) / _SIZE_LENGTH
        near += one.dtype.type(scales.size) * _matern(apart**2)
    return near


def _matern(squares: Floats) -> Floats:
    """Matern 5/2 of squared distances in lengths."""
    scaled = np.sqrt(5 * squares)
    kernel: Floats = (1 + scaled * (1 + scaled / 3)) * np.exp(-scaled)
    return kernel


def _log_evidence(gram: Array, standard: Array) -> float:
    """Of the best amplitude, but for a constant."""
    lower = np.linalg.cholesky(gram)
    weights = cho_solve((lower, True), standard)
    n = len(standard)
    return float(-0.5 * n * np.log(standard @ weights / n) - np.log(np.diag(lower)).sum())
