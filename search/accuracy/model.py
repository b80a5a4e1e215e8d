"""Accuracy learned from some hundred labels: a Gaussian process on engineered features.

The target is ``-log(1.03 - accuracy)``: near the front, where a search is, a point more of
accuracy weighs more than among networks that hardly learn. Matern 5/2 on standardised features;
length and noise are those of the largest evidence on a grid (Rasmussen and Williams, 2006, 5.4.1),
the scale has a closed form.
"""

from __future__ import annotations

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


class AccuracyModel:
    """Posterior over accuracy, on the scale of the target; :func:`fit_accuracy` makes one.

    ``codes`` (m, L) are the labelled architectures, canonical and distinct, ``accuracy`` (m,) their
    labels; ``length`` and ``noise`` what the evidence chose. The same four give the same model.
    """

    def __init__(
        self, space: Space, codes: Codes, accuracy: Array, length: float, noise: float
    ) -> None:
        self.space, self.codes, self.accuracy = space, codes, accuracy
        self.length, self.noise = length, noise
        raw, target = features(space, codes), transformed(accuracy)
        self._varying = raw.std(axis=0) > 1e-9
        self._centre = raw[:, self._varying].mean(axis=0)
        self._spread = raw[:, self._varying].std(axis=0)
        self._mean, self._scale = float(target.mean()), float(target.std()) or 1.0
        self._seen = self._standardised(raw)
        gram = _kernel(self._seen, self._seen, length) + noise * np.eye(len(codes))
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
        variance = self._amplitude * np.maximum(1 - (solved**2).sum(axis=0), 0)
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
        rows = self._standardised(features(self.space, codes)).astype(np.float32)
        near = _kernel(rows, self._seen.astype(np.float32), self.length)
        return near.astype(np.float64)

    def _standardised(self, raw: Array) -> Array:
        scaled: Array = (raw[:, self._varying] - self._centre) / self._spread
        return scaled


def fit_accuracy(space: Space, codes: Codes, accuracy: Array) -> AccuracyModel:
    """Fit on labelled codes (m, L), canonical and distinct, with accuracies (m,) from 0 to 1.

    UsageError where fewer than five are given, or all are equal: nothing is to be learned of them.
    """
    if len(codes) < _LEAST or np.ptp(accuracy) == 0:
        raise UsageError(
            f"{len(codes)} accuracies from {accuracy.min(initial=1):.4g} to "
            f"{accuracy.max(initial=0):.4g} teach nothing: give at least {_LEAST} that differ"
        )
    raw, target = features(space, codes), transformed(accuracy)
    chosen = np.linspace(0, len(codes) - 1, min(len(codes), _TUNED_ON)).astype(int)
    raw, target = raw[chosen], target[chosen]
    varying = raw.std(axis=0) > 1e-9
    seen = (raw[:, varying] - raw[:, varying].mean(axis=0)) / raw[:, varying].std(axis=0)
    standard = (target - target.mean()) / (target.std() or 1.0)
    evidence = {
        (length, noise): _log_evidence(gram + noise * np.eye(len(seen)), standard)
        for length in _LENGTHS
        for gram in [_kernel(seen, seen, length)]
        for noise in _NOISES
    }
    length, noise = max(evidence, key=lambda key: evidence[key])
    return AccuracyModel(space, codes, accuracy, length, noise)


def _kernel(one: Floats, other: Floats, length: float) -> Floats:
    """Matern 5/2 of (n, F) and (m, F); the length is in units of a typical distance."""
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    per_length = one.dtype.type(5 / (max(one.shape[1], 1) * length**2))
    scaled = np.sqrt(np.maximum(squares, 0) * per_length)
    kernel: Floats = (1 + scaled * (1 + scaled / 3)) * np.exp(-scaled)
    return kernel


def _log_evidence(gram: Array, standard: Array) -> float:
    """Of the best amplitude, but for a constant."""
    lower = np.linalg.cholesky(gram)
    weights = cho_solve((lower, True), standard)
    n = len(standard)
    return float(-0.5 * n * np.log(standard @ weights / n) - np.log(np.diag(lower)).sum())
