"""What a regression sees of an architecture: blocks of columns, each with a prior of its own.

Two sets of blocks, by what is known of the space:

- *costs* (where :mod:`hwbench.predictors.costs` finds them): totals of MACs, bytes and
  operations, class by class, so that latency is a sum of what each class of operation takes;
  and a smooth function of the four grand totals (a Gaussian kernel, by Nyström features), for
  what is no sum: a device that waits for its host below some load, caches that overflow.
  ``decisions`` may join: one weight for each choice, for what the costs don't tell.
- *choices* (any space): one weight for each choice, and one for each pair of choices.

All but the kernel are sums over tables, so that weights can be folded into the tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hwbench.predictors.costs import COSTS, CostTables
from hwbench.predictors.tables import (
    Floats,
    Symbols,
    TableSum,
    scope_states,
    symbol_counts,
    table_sum,
)
from hwbench.spaces import Space

#: Centres of the kernel on the totals, and its length scale in their standard deviations.
_CENTRES = 48
_LENGTH = 2.0

#: Pairs of choices have at most so many columns: all pairs, or the neighbouring ones, or none.
_MAX_PAIR_COLUMNS = 1500


@dataclass(frozen=True)
class Block:
    """Columns with a prior scale in common, centred, of about unit variance in all."""

    name: str
    columns: TableSum


@dataclass(frozen=True)
class LoadKernel:
    """Nyström features of a Gaussian kernel on the standardised grand totals ``loads``.

    ``features(u) = k(u, centres) @ whiten``, so that their inner products give the kernel.
    """

    loads: TableSum
    centres: Floats
    whiten: Floats

    def features(self, loads: Floats) -> Floats:
        """(n, m) features of n standardised totals (n, 4)."""
        return gaussian_kernel(loads, self.centres) @ self.whiten


@dataclass(frozen=True)
class Basis:
    """The columns of the design matrix: intercept, blocks, kernel features."""

    blocks: tuple[Block, ...]
    kernel: LoadKernel | None

    @property
    def additive(self) -> TableSum:
        """All blocks side by side."""
        tables = self.blocks[0].columns
        for block in self.blocks[1:]:
            tables = tables.beside(block.columns)
        return tables

    @property
    def groups(self) -> NDArray[np.intp]:
        """Number of each column's prior scale; 0 is the intercept."""
        sizes = [1, *(b.columns.width for b in self.blocks)]
        if self.kernel is not None:
            sizes.append(self.kernel.whiten.shape[1])
        return np.repeat(np.arange(len(sizes)), sizes)

    def design(self, symbols: Symbols) -> NDArray[np.float64]:
        """The design matrix (n, D)."""
        parts = [np.ones((len(symbols), 1)), self.additive(symbols)]
        if self.kernel is not None:
            parts.append(self.kernel.features(self.kernel.loads(symbols)))
        return np.concatenate(parts, axis=1)


def gaussian_kernel(u: Floats, centres: Floats) -> Floats:
    """``exp(-|u - c|^2 / 2 l^2)`` for (n, d) and (m, d): (n, m)."""
    squares = (u**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    distance = np.maximum(squares - 2 * (u @ centres.T), 0)
    kernel: Floats = np.exp(distance * u.dtype.type(-0.5 / _LENGTH**2))
    return kernel


def cost_basis(costs: CostTables, reference: Symbols) -> Basis:
    """Blocks ``costs`` and the kernel on the totals, scaled over ``reference`` architectures."""
    totals = costs.totals(reference)
    scales = _unit_scales(totals)
    share = math.sqrt(max(int(np.count_nonzero(scales)), 1))
    block = Block("costs", _centred(costs.totals, totals, scales / share))
    grand = np.array([[cost == c for c in COSTS] for _, cost in costs.names], dtype=np.float64)
    load_scales = _unit_scales(totals @ grand)
    varying = np.eye(len(COSTS))[:, load_scales > 0]
    loads = costs.totals.project(grand * load_scales @ varying, totals.mean(axis=0))
    u = loads(reference)
    centres = u[_farthest_points(u, _CENTRES)]
    gram = gaussian_kernel(centres, centres)
    root = np.linalg.cholesky(gram + 1e-6 * np.eye(len(gram)))
    return Basis((block,), LoadKernel(loads, centres, np.linalg.inv(root).T))


def choice_block(space: Space, decisions: Sequence[int], reference: Symbols) -> Block:
    """One column for each value of each of the decisions."""
    return Block("choices", _indicators(space, [(j,) for j in decisions], reference))


def pair_block(space: Space, reference: Symbols) -> Block | None:
    """One column for each pair of choices; ``None`` where they would be too many."""
    counts = symbol_counts(space)
    every = list(combinations(range(len(counts)), 2))
    neighbouring = [(j, j + 1) for j in range(len(counts) - 1)]
    for pairs in (every, neighbouring):
        columns = sum(counts[i] * counts[j] for i, j in pairs)
        if pairs and columns <= _MAX_PAIR_COLUMNS:
            return Block("pairs of choices", _indicators(space, pairs, reference))
    return None


def _indicators(space: Space, scopes: Sequence[tuple[int, ...]], reference: Symbols) -> TableSum:
    """One column for each state of each scope in which all its decisions are active."""
    counts = symbol_counts(space)
    conditional = np.array([d.when is not None for d in space.decisions])
    tables, width = [], 0
    for scope in scopes:
        states = scope_states(counts, scope)
        active = ~((states == 0) & conditional[list(scope)]).any(axis=1)
        tables.append((width, np.eye(len(states))[:, active]))
        width += int(active.sum())
    padded = [np.pad(t, ((0, 0), (at, width - at - t.shape[1]))) for at, t in tables]
    columns = table_sum(counts, scopes, padded)
    values = columns(reference)
    return _centred(columns, values, np.full(width, 1 / math.sqrt(len(scopes))))


def _unit_scales(values: Floats) -> Floats:
    """One over the standard deviation of each column, 0 for columns that never vary."""
    spread = values.std(axis=0)
    scales: Floats = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
    return scales


def _centred(columns: TableSum, values: Floats, scales: Floats) -> TableSum:
    """Columns centred over ``values``, scaled, and turned to as few as span the same.

    A prior of one scale for all columns does not change when they are turned, and indicators
    (whose sums are all 1) and costs (bytes in proportion to MACs) depend on each other a lot.
    """
    centre = values.mean(axis=0)
    _, size, turn = np.linalg.svd((values - centre) * scales, full_matrices=False)
    spans = size > 1e-8 * size[0]
    return columns.project(scales[:, None] * turn[spans].T, centre)


def _farthest_points(points: Floats, count: int) -> NDArray[np.intp]:
    """Indices of points that cover all of them: each the farthest from those before it."""
    chosen = [int(((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin())]
    distance = np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(distance.argmax()))
    return np.array(chosen)
