"""What a model of accuracy sees of an architecture: choices, how often each, size, and paths.

Of every view of the space (:meth:`Space.views`): an indicator of each choice. Of the last one,
which has nothing in it that does not matter: how often each value was chosen among decisions of
the same values, and the logarithm of the MACs. Cells of NAS-Bench-201 have more to tell: whether
each path from input to output exists and what lies on it, as the path encodings of BANANAS (White
et al., AAAI 2021) have it, summed up so that a hundred labels are enough.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hwbench.spaces.base import Codes, Space
from hwbench.spaces.nasbench201 import EDGES, OPERATIONS, NasBench201Space

Array = NDArray[np.float64]

_PATHS = ((0, 3), (0, 1, 3), (0, 2, 3), (0, 1, 2, 3))


def features(space: Space, codes: Codes) -> Array:
    """(n, F) features of codes (n, L), not scaled."""
    views = space.views(codes)
    blocks = [indicators(space, view) for view in views]
    blocks.append(_counts(space, views[-1]))
    blocks.append(np.log1p(space.macs(codes).astype(np.float64))[:, None])
    if isinstance(space, NasBench201Space):
        blocks.append(_paths(space.views(codes)[-1]))
    return np.concatenate(blocks, axis=1)


def indicators(space: Space, codes: Codes) -> Array:
    """(n, sum of the cardinalities): one for each choice made; nothing of what does not exist."""
    active = space.active(codes)
    columns = [
        (codes[:, j, None] == np.arange(count)) & active[:, j, None]
        for j, count in enumerate(space.cardinalities)
    ]
    return np.concatenate(columns, axis=1).astype(np.float64)


def _counts(space: Space, codes: Codes) -> Array:
    active = space.active(codes)
    kinds: dict[tuple[object, ...], list[int]] = {}
    for j, decision in enumerate(space.decisions):
        kinds.setdefault(decision.values, []).append(j)
    columns = [
        ((codes[:, members] == value) & active[:, members]).sum(axis=1)
        for values, members in kinds.items()
        for value in range(len(values))
    ]
    return np.stack(columns, axis=1).astype(np.float64)


def _paths(codes: Codes) -> Array:
    """Of each path: is it there, free, and convolutions (all, 3x3) and poolings on it; totals."""
    conv = np.isin(codes, [OPERATIONS.index("nor_conv_1x1"), OPERATIONS.index("nor_conv_3x3")])
    large, pool = (codes == OPERATIONS.index(name) for name in ("nor_conv_3x3", "avg_pool_3x3"))
    columns = []
    for path in _PATHS:
        edges = [EDGES.index(edge) for edge in pairwise(path)]
        there = (codes[:, edges] != 0).all(axis=1)
        on = [there * kind[:, edges].sum(axis=1) for kind in (conv, large, pool)]
        free = there & (on[0] + on[2] == 0)
        columns.append(np.stack([there, free, *on], axis=1))
    by_path = np.stack(columns, axis=1).astype(np.float64)  # (n, paths, 5)
    whole = [by_path.sum(axis=1), by_path[:, :, 2:].max(axis=1)]
    return np.concatenate([by_path.reshape(len(codes), -1), *whole], axis=1)
