"""A task that is made, not loaded: short sequences of ten shapes, in the manner of MNIST-1D."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_CLASSES, _LENGTH, _POINTS = 10, 40, 12
_SAMPLES = 5000


def mnist1d(
    samples: int = _SAMPLES, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Sequences (n, 40), classes (n,), and which are for the test (n,), a fifth.

    Ten smooth shapes of twelve points, each sample's stretched, tilted, scaled and shifted around
    the sequence, under smooth and white noise: the construction of Greydanus (arXiv 2011.14439)
    with shapes of its own, drawn by a fixed seed.
    """
    shapes = _smooth(np.random.default_rng(11).normal(size=(_CLASSES, _POINTS)), 1.0)
    shapes = (shapes - shapes.mean(1, keepdims=True)) / shapes.std(1, keepdims=True)
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(samples) % _CLASSES)
    x = np.zeros((samples, _LENGTH), np.float32)
    for row, label in enumerate(labels):
        long = int(rng.integers(_POINTS, 2 * _POINTS + 1))
        places = np.linspace(0, _POINTS - 1, long)
        shape = np.interp(places, np.arange(_POINTS), shapes[label])
        shape = shape * rng.uniform(0.6, 1.4) + rng.normal(0, 0.5) * np.linspace(-1, 1, long)
        x[row, :long] = shape
        x[row] = np.roll(x[row], rng.integers(_LENGTH))
    x += 0.4 * _smooth(rng.normal(size=x.shape), 2.0) + 0.1 * rng.normal(size=x.shape)
    return x, labels, np.arange(samples) >= 4 * samples // 5


def _smooth(values: NDArray[Any], width: float) -> NDArray[Any]:
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(values, width, axis=1, mode="wrap"))
