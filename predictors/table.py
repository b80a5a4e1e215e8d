"""A predictor's latency as a sum of table entries, for searches that need a gradient.

A search that relaxes its choices to probabilities needs the expected latency as a function of
them: with entries for what each layer does, it is the entries weighted by the probabilities of
their choices, and by that of the layer being there. (A network that takes relaxed encodings is
wrong off the corners it was trained on.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.errors import PredictorError
from hwbench.predictors.predictor import LatencyPredictor
from hwbench.spaces import Codes, Space, Value

Array = NDArray[np.float64]

_SAMPLES_AN_ENTRY = 4
_MIN_SAMPLES = 2000
_MAX_ENTRIES = 4000


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """``base_ms`` + the sum over parts of ``entries_ms[part][codes of its decisions]``.

    ``parts[i]`` names the decisions of part i and ``entries_ms[i]`` has one axis for each of
    them. A part with an inactive decision is not there and adds nothing. ``rmspe`` is the root
    mean squared relative error of the sum against the predictor, in percent; ``fixed`` are the
    decisions that were pinned.
    """

    space: Space
    fixed: Mapping[str, Value]
    base_ms: float
    parts: tuple[tuple[str, ...], ...]
    entries_ms: tuple[Array, ...]
    rmspe: float

    def latency(self, codes: ArrayLike) -> Array:
        """The sums (n,) in ms for codes (n, L) of the pinned part of the space."""
        rows = self.space.check(codes)
        active = self.space.active(rows)
        column = {d.name: j for j, d in enumerate(self.space.decisions)}
        total = np.full(len(rows), self.base_ms)
        for part, entries in zip(self.parts, self.entries_ms, strict=True):
            at = [column[name] for name in part]
            total += np.where(active[:, at].all(axis=1), entries[tuple(rows[:, at].T)], 0)
        return total


def latency_table(
    predictor: LatencyPredictor, fixed: Mapping[str, Value], rng: np.random.Generator
) -> LatencyTable:
    """The table nearest to a predictor (least squares of relative errors on random networks)."""
    space = predictor.space
    parts = _free_parts(predictor.parts, space.pinned(fixed))
    sizes = [math.prod(space.cardinalities[j] for j in part) for part in parts]
    if sum(sizes) > _MAX_ENTRIES:
        raise PredictorError(
            f"a table of {space.name} would have {sum(sizes)} entries: fix some decisions"
        )
    codes = _sample(space, max(_MIN_SAMPLES, _SAMPLES_AN_ENTRY * sum(sizes)), fixed, rng)
    latency = predictor.predict(codes).mean_ms
    design = np.column_stack(
        [np.ones(len(codes))]
        + [_indicators(space, codes, part, size) for part, size in zip(parts, sizes, strict=True)]
    )
    scaled = design / latency[:, None]
    gram = scaled.T @ scaled
    # A touch of ridge: entries of layers that are always there are known but for a constant.
    gram[np.diag_indices_from(gram)] += 1e-9 * np.trace(gram) / len(gram)
    weights = np.linalg.solve(gram, scaled.sum(axis=0))
    rmspe = 100 * float(np.sqrt(np.mean((scaled @ weights - 1) ** 2)))
    columns = np.split(weights[1:], np.cumsum(sizes)[:-1]) if sizes else []
    return LatencyTable(
        space=space,
        fixed=dict(fixed),
        base_ms=float(weights[0]),
        parts=tuple(tuple(space.decisions[j].name for j in part) for part in parts),
        entries_ms=tuple(
            column.reshape([space.cardinalities[j] for j in part])
            for column, part in zip(columns, parts, strict=True)
        ),
        rmspe=rmspe,
    )


def _free_parts(parts: Sequence[Sequence[int]], pinned: Mapping[int, int]) -> list[tuple[int, ...]]:
    free = {tuple(j for j in part if j not in pinned) for part in parts}
    return sorted(part for part in free if part)


def _sample(space: Space, n: int, fixed: Mapping[str, Value], rng: np.random.Generator) -> Codes:
    if space.raw_size(fixed) <= n:
        return space.all_codes(fixed=fixed)
    return space.sample(n, rng, fixed=fixed)


def _indicators(space: Space, codes: Codes, part: Sequence[int], size: int) -> Array:
    """One column for each entry of a part: 1 where the architecture has it."""
    columns = list(part)
    sizes = [space.cardinalities[j] for j in columns]
    state = np.ravel_multi_index(tuple(codes[:, columns].T.astype(np.intp)), sizes)
    there = space.active(codes)[:, columns].all(axis=1)
    out = np.zeros((len(codes), size))
    out[there, state[there]] = 1
    return out
