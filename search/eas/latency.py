"""Expected latency of relaxed choices, differentiable, from a table of entries.

Each entry counts by the probability of its choices, and of the layer being there. At one-hot gates
that is the table's own sum (:meth:`~hwbench.predictors.table.LatencyTable.latency`).
"""

from __future__ import annotations

import string

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwbench.predictors.table import LatencyTable
from hwbench.spaces.base import Space

Array = NDArray[np.float64]


class ExpectedLatency:
    """Latency (n,) in ms of gates (n, L, C): probabilities of each decision's values, padded."""

    def __init__(self, table: LatencyTable) -> None:
        self._base_ms = table.base_ms
        column = {d.name: j for j, d in enumerate(table.space.decisions)}
        by_shape: dict[tuple[int, ...], list[tuple[list[int], Array]]] = {}
        for part, entries in zip(table.parts, table.entries_ms, strict=True):
            axes, whole = _with_conditions(table.space, [column[name] for name in part], entries)
            by_shape.setdefault(whole.shape, []).append((axes, whole))
        # Parts of one shape are summed by one product.
        self._groups = [
            (
                torch.tensor([axes for axes, _ in members]),
                torch.from_numpy(np.stack([whole for _, whole in members])).float(),
            )
            for members in by_shape.values()
        ]

    def __call__(self, gates: Tensor) -> Tensor:
        total = torch.full((len(gates),), self._base_ms)
        for axes, entries in self._groups:
            letters = string.ascii_lowercase[: axes.shape[1]]
            weights = [gates[:, axes[:, i], : entries.shape[1 + i]] for i in range(len(letters))]
            terms = ",".join(f"NG{letter}" for letter in letters)
            total = total + torch.einsum(f"{terms},G{letters}->N", *weights, entries)
        return total


def _with_conditions(space: Space, part: list[int], entries: Array) -> tuple[list[int], Array]:
    """Columns of a part and of what its decisions hang on; entries over all, 0 where not there."""
    column = {d.name: j for j, d in enumerate(space.decisions)}
    axes = list(part)
    for j in axes:  # grows while it is walked: conditions have conditions
        when = space.decisions[j].when
        if when is not None and column[when[0]] not in axes:
            axes.append(column[when[0]])
    sizes = [space.cardinalities[j] for j in axes]
    rows = np.zeros((int(np.prod(sizes)), len(space.decisions)), np.int16)
    rows[:, axes] = np.indices(sizes).reshape(len(axes), -1).T
    there = space.active(rows)[:, part].all(axis=1)
    whole = np.where(there, entries[tuple(rows[:, part].T)], 0.0)
    return axes, whole.reshape(sizes)
