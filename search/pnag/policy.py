"""The controller of PNAG as plain arrays: from budgets to architectures, without torch.

One LSTM cell walks over the decisions of a space (Guo et al., "Pareto-aware Neural Architecture
Generation", arXiv 2210.07634). K learned embeddings stand at fixed budgets; any other budget's is
interpolated linearly between its neighbours', on the logarithm of the budget, and held beyond the
ends. At each step the cell sees the budget and the choice before. Decisions that do not exist
under the earlier choices are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hwbench.spaces.base import NOTHING_FIXED, Codes, Space, Value

Floats = NDArray[np.float32]

HIDDEN = 64


@dataclass(frozen=True, eq=False)
class Policy:
    """Weights, with H = 64 and T = 1 + all values of all decisions (0: none, or passed over).

    ``log_budgets`` (K,) ascending, ``embeddings`` (K, H), ``tokens`` (T, H); the cell's ``w_in``
    and ``w_back`` (4H, H) and ``bias`` (4H,), gates in torch's order i f g o; ``heads`` (L, C, H)
    and ``head_bias`` (L, C) for at most C values of a decision.
    """

    log_budgets: Floats
    embeddings: Floats
    tokens: Floats
    w_in: Floats
    w_back: Floats
    bias: Floats
    heads: Floats
    head_bias: Floats

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[np.generic]], space: Space) -> Self:
        """From arrays of unknown origin; KeyError or ValueError where they do not fit."""
        found = {f.name: np.asarray(arrays[f.name], np.float32) for f in fields(cls)}
        counts = space.cardinalities
        k, decisions, most = len(found["log_budgets"]), len(counts), max(counts)
        shapes = {
            "log_budgets": (k,),
            "embeddings": (k, HIDDEN),
            "tokens": (1 + sum(counts), HIDDEN),
            "w_in": (4 * HIDDEN, HIDDEN),
            "w_back": (4 * HIDDEN, HIDDEN),
            "bias": (4 * HIDDEN,),
            "heads": (decisions, most, HIDDEN),
            "head_bias": (decisions, most),
        }
        for name, shape in shapes.items():
            if found[name].shape != shape:
                raise ValueError(f"{name} has shape {found[name].shape}, not {shape}")
        if k < 1 or (np.diff(found["log_budgets"]) <= 0).any():
            raise ValueError("log_budgets do not ascend")
        return cls(**found)

    def state(self) -> dict[str, Floats]:
        """All arrays by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @cached_property
    def _before(self) -> Floats:
        """(T, 4H): what each token adds to the gates."""
        added: Floats = self.tokens @ self.w_in.T
        return added

    def embedded(self, budgets_ms: NDArray[np.float64]) -> Floats:
        """(n, H) embeddings of budgets (n,)."""
        return (interpolation(self.log_budgets, budgets_ms) @ self.embeddings).astype(np.float32)

    def draw(
        self,
        walk: Walk,
        budgets_ms: NDArray[np.float64],
        rng: np.random.Generator | None = None,
    ) -> Codes:
        """One architecture (n, L) for each budget (n,): sampled, or the likeliest choices.

        Canonical, but not all are valid in a space that says no to some.
        """
        n, budget = len(budgets_ms), self.embedded(budgets_ms) @ self.w_in.T + self.bias
        h, c = np.zeros((2, n, HIDDEN), np.float32)
        codes = np.zeros((n, len(walk.counts)), np.int16)
        token = np.zeros(n, np.intp)
        for j, count in enumerate(walk.counts):
            gates = self._before[token] + budget + h @ self.w_back.T
            i, f, g, o = (gates[:, at : at + HIDDEN] for at in range(0, 4 * HIDDEN, HIDDEN))
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(c)
            logits = h @ self.heads[j, :count].T + self.head_bias[j, :count]
            logits = np.where(walk.padding[j, :count], -np.inf, logits)
            if rng is not None:  # the largest after Gumbel noise is a sample
                logits = logits + rng.gumbel(size=logits.shape)
            active = walk.active(codes, j)
            codes[:, j] = np.where(active, logits.argmax(axis=1), 0)
            token = walk.token(codes, active, j)
        return codes


class Walk:
    """The decisions of a space, in the order in which the controller takes them.

    Those of ``fixed`` have one value to take.
    """

    def __init__(self, space: Space, fixed: Mapping[str, Value] = NOTHING_FIXED) -> None:
        self.counts = space.cardinalities
        self._space, self._pinned = space, space.pinned(fixed)
        self._first = 1 + np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        column = {d.name: j for j, d in enumerate(space.decisions)}
        self._parents: list[tuple[int, NDArray[np.bool_]] | None] = []
        for decision in space.decisions:
            if decision.when is None:
                self._parents.append(None)
                continue
            parent, values = decision.when
            at = column[parent]
            self._parents.append(
                (at, np.array([v in values for v in space.decisions[at].values], dtype=bool))
            )

    def active(self, codes: Codes, j: int) -> NDArray[np.bool_]:
        """Whether decision ``j`` exists (n,), by the ones before it."""
        there = np.ones(len(codes), bool)
        step = self._parents[j]
        while step is not None:
            at, holds = step
            there &= holds[codes[:, at]]
            step = self._parents[at]
        return there

    def token(self, codes: Codes, active: NDArray[np.bool_], j: int) -> NDArray[np.intp]:
        """What the next step sees of decision ``j`` (n,)."""
        return np.where(active, self._first[j] + codes[:, j], 0)

    @cached_property
    def padding(self) -> NDArray[np.bool_]:
        """(L, C): the values that a decision does not have, or may not take."""
        value = np.arange(max(self.counts))
        padding: NDArray[np.bool_] = value >= np.array(self.counts)[:, None]
        for column, code in self._pinned.items():
            padding[column] = value != code
        return padding

    def teacher(self, codes: Codes) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Tokens (n, L) seen before each decision of given codes, and which are active (n, L)."""
        active = self._space.active(codes)
        seen = np.where(active, self._first + codes, 0)
        return np.concatenate([np.zeros((len(codes), 1), np.intp), seen[:, :-1]], axis=1), active


def interpolation(log_budgets: Floats, budgets_ms: NDArray[np.float64]) -> Floats:
    """(n, K) weights of the K embeddings for budgets (n,): two neighbours, or one at the ends."""
    at = np.interp(np.log(budgets_ms), log_budgets, np.arange(len(log_budgets)))
    weights = 1 - np.abs(at[:, None] - np.arange(len(log_budgets)))
    positive: Floats = np.maximum(weights, 0).astype(np.float32)
    return positive


def _sigmoid(x: Floats) -> Floats:
    half: Floats = np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + np.float32(1))
    return half
