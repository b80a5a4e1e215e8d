"""Size in place of accuracy, where nothing was trained: the more MACs the better, and no more said.

It orders architectures so that a search can be tried, and its budgets judged. It is no accuracy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwbench.spaces.base import Codes, Space
from hwbench.spaces.design import extremes


class CapacityProxy:
    """MACs as a share of those of the largest network of the space."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        self.space = space
        ends = space.macs(extremes(space, np.random.default_rng(seed)))
        self._most = float(ends.max())

    def accuracy(self, codes: Codes) -> NDArray[np.float64]:
        """Share (n,), from 0 to 1, of codes (n, L)."""
        return np.minimum(self.space.macs(codes) / self._most, 1.0)
