"""A latency that no predictor family has in its form, for networks of the MobileNetV3 spaces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwbench.predictors import TrainingSet, training_set
from hwbench.spaces import Codes, space_filling
from hwbench.spaces.mbv3 import MobileNetV3Space

Array = NDArray[np.float64]

#: Relative standard deviation of a measurement.
NOISE = 0.007


class Truth:
    """Time of each layer by kernel, expansion and size, with quirks of its own; caches overflow.

    ``latency`` is exact, ``measure`` has 0.7 % of noise.
    """

    def __init__(self, space: MobileNetV3Space, seed: int = 0) -> None:
        s = self.space = space.skeleton
        self.rng = np.random.default_rng(seed)
        slots = max(s.depths)
        kernels, expansions = np.array(s.kernels)[:, None], np.array(s.expansions)
        sizes = np.array(s.resolutions, dtype=np.float64)
        self.tables = []
        for unit in s.units:
            for slot in range(slots):
                sizes = np.ceil(sizes / (unit.stride if slot == 0 else 1))
                work = unit.channels * expansions * (0.05 * kernels**1.7 + unit.channels / 40)
                table = sizes[:, None, None] ** 2 / (1 + 30 / sizes[:, None, None] ** 2) * work
                quirks = np.exp(0.02 * self.rng.standard_normal(table.shape))
                self.tables.append(table * quirks / 4e6 + 0.02)

    def latency(self, codes: Codes) -> Array:
        """Milliseconds (n,) of codes (n, L)."""
        slots, layers = max(self.space.depths), len(self.tables)
        r, depths = codes[:, 0], codes[:, 1 : 1 + len(self.space.units)]
        kernels, expansions = codes[:, -2 * layers : -layers], codes[:, -layers:]
        total = np.full(len(codes), 0.3)
        for i, table in enumerate(self.tables):
            there = np.array(self.space.depths)[depths[:, i // slots]] > i % slots
            total += np.where(there, table[r, kernels[:, i], expansions[:, i]], 0)
        return total + 0.02 * np.maximum(total - 2, 0) ** 1.5

    def measure(self, codes: Codes) -> Array:
        """Milliseconds (n,) as a measurement gives them."""
        return self.latency(codes) * np.exp(NOISE * self.rng.standard_normal(len(codes)))

    def training(self, space: MobileNetV3Space, n: int) -> TrainingSet:
        """A space-filling sample, measured."""
        codes = space_filling(space, n, self.rng)
        latency = self.measure(codes)
        return training_set(space, codes, latency, NOISE * latency)
