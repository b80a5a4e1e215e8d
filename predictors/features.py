"""What a regression sees of an architecture: blocks of columns, each with a prior of its own.

- *costs* (:mod:`hwbench.predictors.costs`): totals of MACs, bytes and operations, as a share of
  those of an average network. ``loads`` are the totals of the whole, ``costs`` those of each
  class of operation: latency is a sum of what each class takes, and most devices take about as
  long for one MAC as for another.
- *sources* (:mod:`hwbench.predictors.sources`): latency on other devices.
- a smooth function of the loads (a Gaussian kernel, by Nyström features), for what is no sum: a
  device that waits for its host below some load, caches that overflow.
- *choices*: one weight for each choice, and one for each pair of choices, for what the costs
  don't tell.

The columns are tables over the views of a space (:mod:`hwbench.predictors.views`), each view with
blocks of its own: the data tell which one the device runs. A block's prior is the scale of its
weights: a median, and how many e-folds the data may move it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hwbench.predictors.costs import COSTS, CostTables
from hwbench.predictors.linear import thin_svd
from hwbench.predictors.tables import (
    Floats,
    Symbols,
    TableSum,
    scope_states,
    side_by_side,
    table_sum,
)
from hwbench.predictors.views import Views

#: Centres of the kernel on the totals, and its length scale in their standard deviations.
_CENTRES = 48
_LENGTH = 2.0

#: A factor of size within which speed is about the same, as its logarithm.
_SIZE_LENGTH = math.log(1.5)

#: Pairs of choices have at most so many columns: all pairs, or the neighbouring ones, or none.
_MAX_PAIR_COLUMNS = 1500


@dataclass(frozen=True)
class Prior:
    """Of the scale of a block's weights: log-normal, spread in e-folds."""

    median: float
    spread: float

    def shrunk(self, share: float) -> Prior:
        """With a median of that share."""
        return Prior(share * self.median, self.spread)


#: Latency in units of an average network's: these are shares of it.
LOADS, COST_CLASSES = Prior(0.4, 0.5), Prior(0.1, 0.7)
KERNEL = Prior(0.1, 2.0)
CHOICES = Prior(0.02, 1.0)
#: A size of everything that was not measured: what it does to the speed of the whole.
SIZES = Prior(0.05, 1.0)


@dataclass(frozen=True)
class Block:
    """Centred columns with a prior scale in common."""

    name: str
    columns: TableSum
    prior: Prior


@dataclass(frozen=True)
class LoadKernel:
    """Nyström features of a Gaussian kernel on the standardised loads.

    ``features(u) = k(u, centres) @ whiten``, so that their inner products give the kernel.
    """

    loads: TableSum
    centres: Floats
    whiten: Floats
    prior: Prior = KERNEL

    def features(self, loads: Floats) -> Floats:
        """(n, m) features of n standardised loads (n, 4)."""
        return gaussian_kernel(loads, self.centres) @ self.whiten


@dataclass(frozen=True)
class Basis:
    """The columns of the design matrix: intercept, blocks, kernel features."""

    blocks: tuple[Block, ...]
    kernel: LoadKernel | None

    @cached_property
    def additive(self) -> TableSum:
        """All blocks side by side."""
        return side_by_side([block.columns for block in self.blocks])

    @property
    def priors(self) -> tuple[Prior, ...]:
        """Of each block's scale, and the kernel's."""
        last = () if self.kernel is None else (self.kernel.prior,)
        return (*(block.prior for block in self.blocks), *last)

    @property
    def groups(self) -> NDArray[np.intp]:
        """Number of each column's prior scale; 0 is the intercept."""
        sizes = [1, *(b.columns.width for b in self.blocks)]
        if self.kernel is not None:
            sizes.append(self.kernel.whiten.shape[1])
        return np.repeat(np.arange(len(sizes)), sizes)

    def design(self, symbols: Symbols) -> NDArray[np.float64]:
        """The design matrix (n, D), block by block: beside each other they are zeros mostly."""
        parts = [np.ones((len(symbols), 1)), *(b.columns(symbols) for b in self.blocks)]
        if self.kernel is not None:
            parts.append(self.kernel.features(self.kernel.loads(symbols)))
        return np.concatenate(parts, axis=1)

    def shrunk(self, share: float) -> Basis:
        """With priors of which the medians are that share of what they were."""
        blocks = tuple(replace(b, prior=b.prior.shrunk(share)) for b in self.blocks)
        kernel = self.kernel
        return Basis(blocks, kernel and replace(kernel, prior=kernel.prior.shrunk(share)))

    def joined(self, *blocks: Block) -> Basis:
        """With further blocks."""
        return Basis((*self.blocks, *blocks), self.kernel)


def gaussian_kernel(u: Floats, centres: Floats) -> Floats:
    """``exp(-|u - c|^2 / 2 l^2)`` for (n, d) and (m, d): (n, m)."""
    squares = (u**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    distance = np.maximum(squares - 2 * (u @ centres.T), 0)
    kernel: Floats = np.exp(distance * u.dtype.type(-0.5 / _LENGTH**2))
    return kernel


def cost_blocks(views: Views, costs: CostTables, reference: Symbols) -> tuple[Block, ...]:
    """Loads and costs by class, of each view, as shares of the average over ``reference``."""
    sums = _sums(costs)
    blocks = []
    for view in range(views.number):
        totals = views.shifted(costs.totals, view)
        values = totals(reference)
        loads = values @ sums
        share = np.divide(1, loads.mean(axis=0), out=np.zeros(len(COSTS)), where=loads.any(axis=0))
        whole = _centred(totals.project(sums), loads, share)
        classes = _centred(totals, values, sums @ share)
        blocks += [Block("loads", whole, LOADS), Block("costs", classes, COST_CLASSES)]
    return tuple(blocks)


def load_kernel(views: Views, costs: CostTables, reference: Symbols) -> LoadKernel:
    """The kernel on the loads of the last view, standardised over ``reference``."""
    totals = views.shifted(costs.totals, views.number - 1)
    values = totals(reference)
    sums = _sums(costs)
    scales = _unit_scales(values @ sums)
    varying = np.eye(len(COSTS))[:, scales > 0]
    loads = totals.project(sums * scales @ varying, values.mean(axis=0))
    u = loads(reference)
    centres = u[_farthest_points(u, _CENTRES)]
    gram = gaussian_kernel(centres, centres)
    root = np.linalg.cholesky(gram + 1e-6 * np.eye(len(gram)))
    return LoadKernel(loads, centres, np.linalg.inv(root).T)


def size_blocks(views: Views, costs: CostTables, reference: Symbols) -> tuple[Block, ...]:
    """The load of a network times a smooth function of each decision that all costs hang on.

    Such is the resolution: another one shifts the speed of every operation, which shows only in
    measurements of it or of one near it. One block a view and decision.
    """
    blocks = []
    for view in range(views.number):
        totals = views.shifted(costs.totals, view)
        loads = totals(reference) @ _sums(costs)
        share = np.divide(1, loads.mean(axis=0), out=np.zeros(len(COSTS)), where=loads.any(axis=0))
        load = totals.project((_sums(costs) @ share / (share > 0).sum())[:, None])
        for j in sorted(set.intersection(*map(set, load.scopes))):
            values = views.space.decisions[j % len(views.space.decisions)].values
            if len(values) > 1 and all(isinstance(v, int | float) and v > 0 for v in values):
                columns = load.split(j).project(_smooth_over(np.log(values)))
                blocks.append(Block("sizes", _centred(columns, columns(reference), 1.0), SIZES))
    return tuple(blocks)


def _smooth_over(positions: Floats) -> Floats:
    """(n, n): of indicators, features whose inner products fall off with the distance."""
    squares = (positions[:, None] - positions) ** 2
    gram = np.exp(-0.5 * squares / _SIZE_LENGTH**2) + 1e-6 * np.eye(len(positions))
    root: Floats = np.linalg.cholesky(gram)
    return root


def choice_blocks(views: Views, decisions: Sequence[int], reference: Symbols) -> tuple[Block, ...]:
    """One column for each value of each of these decisions, a block a view."""
    width = len(views.space.decisions)
    return tuple(
        Block(
            "choices",
            _indicators(views, [(view * width + j,) for j in decisions], reference),
            CHOICES,
        )
        for view in range(views.number)
    )


def pair_blocks(views: Views, reference: Symbols) -> tuple[Block, ...]:
    """One column for each pair of choices, a block a view; none where they would be too many."""
    counts, width = views.counts, len(views.space.decisions)
    every = list(combinations(range(width), 2))
    neighbouring = [(j, j + 1) for j in range(width - 1)]
    for pairs in (every, neighbouring):
        columns = sum(counts[i] * counts[j] for i, j in pairs)
        if pairs and columns <= _MAX_PAIR_COLUMNS:
            starts = [view * width for view in range(views.number)]
            scopes = [[(start + i, start + j) for i, j in pairs] for start in starts]
            return tuple(
                Block("pairs of choices", _indicators(views, each, reference), CHOICES)
                for each in scopes
            )
    return ()


def _sums(costs: CostTables) -> Floats:
    """(F, 4): which of the costs each total is of."""
    return np.array([[cost == c for c in COSTS] for _, cost in costs.names], dtype=np.float64)


def _indicators(views: Views, scopes: Sequence[tuple[int, ...]], reference: Symbols) -> TableSum:
    """One column for each state of each scope in which all its decisions are active."""
    counts = views.counts
    conditional = np.array([d.when is not None for d in views.space.decisions] * views.number)
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


def _centred(columns: TableSum, values: Floats, scales: Floats | float) -> TableSum:
    """Columns centred over ``values``, scaled, and turned to as few as span the same.

    A prior of one scale for all columns does not change when they are turned, and indicators
    (whose sums are all 1) and costs (bytes in proportion to MACs) depend on each other a lot.
    """
    centre = values.mean(axis=0)
    _, size, turn = thin_svd((values - centre) * scales)
    spans = size > 1e-8 * size[0]
    return columns.project(np.reshape(scales, (-1, 1)) * turn[spans].T, centre)


def _farthest_points(points: Floats, count: int) -> NDArray[np.intp]:
    """Indices of points that cover all of them: each the farthest from those before it."""
    chosen = [int(((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin())]
    distance = np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(distance.argmax()))
    return np.array(chosen)
