"""The generator of EAS as plain arrays: from a task and a budget to an architecture, without torch.

Each group of classes has a learned row; a task's embedding is the mean over the groups that are
active in it. A budget's is interpolated between learned ones at fixed budgets, as PNAG's. A small
network makes the logits of all decisions from both (after Guo et al., "Elastic Architecture Search
for Diverse Tasks with Different Resources", arXiv 2108.01224; sizes are ours).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hwbench.search.accuracy.features import indicators
from hwbench.search.pnag.policy import interpolation
from hwbench.spaces.base import Codes, Space, Value

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

EMBEDDING, HIDDEN = 64, 256

#: The logit of what is not allowed.
_NEVER = np.float32(-1e9)


class Choices:
    """Where each value of each decision stands in a row of logits, padded or flat.

    Flat rows (S,) list the values of all decisions; padded ones (L, C) have a row for each
    decision, as long as the longest. ``fixed`` pins decisions: of those, one value is allowed.
    """

    def __init__(self, space: Space, fixed: Mapping[str, Value]) -> None:
        self.space, self.fixed = space, dict(fixed)
        counts = np.asarray(space.cardinalities)
        self.shape = (len(counts), int(counts.max()))
        self.there: NDArray[np.bool_] = np.arange(self.shape[1]) < counts[:, None]
        self.allowed = self.there.copy()
        for column, code in space.pinned(fixed).items():
            self.allowed[column] = np.arange(self.shape[1]) == code
        self.size = int(counts.sum())

    def padded(self, logits: Floats) -> Floats:
        """(n, S) -> (n, L, C), very low where nothing is allowed."""
        whole = np.full((len(logits), *self.shape), _NEVER, np.float32)
        whole[:, self.there] = logits
        whole[:, ~self.allowed] = _NEVER
        return whole

    def likeliest(self, padded: Floats) -> Codes:
        """Canonical codes (n, L) of the largest logits (n, L, C)."""
        codes: Codes = self.space.canonical(padded.argmax(axis=2).astype(np.int16))
        return codes

    def shortfall(self, padded: Floats, codes: Codes) -> Array:
        """(n, m): how much less likely each of codes (m, L) is than the likeliest choices.

        The sum over a code's decisions of its logit below the largest one (n, L, C): 0 for the
        likeliest itself, and for no other.
        """
        below = padded - padded.max(axis=2, keepdims=True)
        chosen = indicators(self.space, codes).astype(np.float32)
        lost: Array = (below[:, self.there] @ chosen.T).astype(np.float64)
        return lost


@dataclass(frozen=True, eq=False)
class TaskPolicy:
    """Weights, with H = 64, M = 256 and S = all values of all decisions.

    ``log_budgets`` (K,) ascending, ``embeddings`` (K, H), ``table`` (T, H) of the groups; ``w1``
    (M, 2 H), ``b1`` (M,), ``w2`` (M, M), ``b2`` (M,), ``w3`` (S, M), ``b3`` (S,).
    """

    log_budgets: Floats
    embeddings: Floats
    table: Floats
    w1: Floats
    b1: Floats
    w2: Floats
    b2: Floats
    w3: Floats
    b3: Floats

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[np.generic]], groups: int, values: int) -> Self:
        """From arrays of unknown origin; KeyError or ValueError where they do not fit."""
        found = {f.name: np.asarray(arrays[f.name], np.float32) for f in fields(cls)}
        shapes = {"log_budgets": found["log_budgets"].shape[:1]}
        shapes |= weight_shapes(len(found["log_budgets"]), groups, values)
        for name, shape in shapes.items():
            if found[name].shape != shape:
                raise ValueError(f"{name} has shape {found[name].shape}, not {shape}")
        if not len(found["log_budgets"]) or (np.diff(found["log_budgets"]) <= 0).any():
            raise ValueError("log_budgets do not ascend")
        return cls(**found)

    def state(self) -> dict[str, Floats]:
        """All arrays by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def logits(self, shares: Floats, budgets_ms: Array) -> Floats:
        """(n, S) of tasks, as shares of groups (n, T), and budgets (n,)."""
        budget = interpolation(self.log_budgets, budgets_ms) @ self.embeddings
        x = np.concatenate([shares @ self.table, budget], axis=1)
        x = np.maximum(x @ self.w1.T + self.b1, 0)
        x = np.maximum(x @ self.w2.T + self.b2, 0)
        logits: Floats = (x @ self.w3.T + self.b3).astype(np.float32)
        return logits


def weight_shapes(budgets: int, groups: int, values: int) -> dict[str, tuple[int, ...]]:
    """Shapes of what is learned, for K budgets, T groups and S values."""
    return {
        "embeddings": (budgets, EMBEDDING),
        "table": (groups, EMBEDDING),
        "w1": (HIDDEN, 2 * EMBEDDING),
        "b1": (HIDDEN,),
        "w2": (HIDDEN, HIDDEN),
        "b2": (HIDDEN,),
        "w3": (values, HIDDEN),
        "b3": (values,),
    }
