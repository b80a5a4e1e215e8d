"""The space-level predictor: a Bayesian regression on what an architecture costs.

Latency over its median is a linear function of cost totals, of choices and of what other devices
take, plus a Gaussian process on the grand totals (:mod:`.features`), fitted by evidence with
Student's t noise (:mod:`.bayes`): a block of columns that says nothing loses its scale. Not in log
space: latency is a sum, its logarithm is not. Tail and shape of the noise are chosen by
leave-one-out density on the data at hand.

For serving, posterior mean and covariance are folded into the tables: a row of additive terms
holds its part of the mean, of the projections whose squares add up to the variance, and of the
grand totals that the kernel reads. Projections are the principal ones over the space; the rest
of the variance, a percent or so, enters as its average. A small space of several views
(:mod:`.views`) has mean and standard deviation of every architecture in one table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hwbench.predictors.bayes import MAX_ROUNDS, Data, Regression, regress, spread
from hwbench.predictors.calibration import half_width
from hwbench.predictors.costs import cost_tables, nearby_costs
from hwbench.predictors.data import MOST_MS, Prediction, TrainingSet
from hwbench.predictors.features import (
    Basis,
    choice_blocks,
    cost_blocks,
    gaussian_kernel,
    load_kernel,
    pair_blocks,
    size_blocks,
)
from hwbench.predictors.model import LatencyModel, State, register_model
from hwbench.predictors.sources import Sources, source_blocks
from hwbench.predictors.tables import (
    Floats,
    Symbols,
    TableSum,
    checked_table_sum,
    symbol_counts,
    symbols,
)
from hwbench.predictors.views import Views
from hwbench.spaces import Codes, Space

Array = NDArray[np.float64]
Rows = NDArray[np.intp] | slice

#: Degrees of freedom of the noise that are tried.
_TAILS = (math.inf, 4.0)

_REFERENCE, _USUAL = 1000, 500
_FOLDS = 10
#: No more labels teach scales and noise; folds of so many learn them in one round.
_LEARNING = 400
#: So many labels leave little doubt about the scales: one value of them is enough.
_MANY = 200
_ROUNDS_AGAIN = 2
_PROJECTIONS = 32
_FUSED_STATES = 2048
_BATCH = 8192

#: What is left to other columns, as a share of their scales, where devices like it are known, and
#: the log odds that they are like it: those that are not would spoil all that is learned.
_BESIDE_SOURCES, _TRUST = 0.3, 3.0

#: A prediction is never below this share of the shortest latency learned from.
_FLOOR = 0.25
#: What a number of a file may be at most: all are in units of a median or a deviation.
_MOST = 1e6


@register_model("cost-regression")
@dataclass(frozen=True, eq=False)
class CostRegression(LatencyModel):
    """Served form of the posterior. All sizes are in units of ``unit_ms``.

    ``tables`` give, for each architecture, the columns [mean, q projections, totals];
    ``offset`` and ``kernel_map`` add to the first 1 + q of them. ``noise`` is (learned scale,
    its power of the mean, relative noise of labels, factor on all), ``tail_variance`` the
    variance that the projections leave out.
    """

    space: Space
    unit_ms: float
    floor: float
    tables: TableSum
    offset: NDArray[np.float32]
    centres: NDArray[np.float32]
    kernel_map: NDArray[np.float32]
    noise: tuple[float, float, float, float]
    tail_variance: float
    held_out: Prediction | None = None
    used_sources: bool = False

    @classmethod
    def fit(cls, space: Space, training: TrainingSet, rng: np.random.Generator) -> Self:
        views = Views(space)
        reference = views.symbols(np.concatenate([_spread(space, rng), training.codes]))
        usual = views.symbols(_drawn(space, rng.random((_USUAL, len(space.decisions)))))
        labels, unit = _Labels.of(training), _unit_ms(training)
        bases = [_basis(views, reference)]
        if training.sources is not None:
            bases.insert(0, _beside_sources(bases[0], views, reference, training.sources))
        best = _choose(bases, views.symbols(training.codes), labels, rng)
        mean, scale = _held_out(best, labels, rng)
        factor = half_width((labels.target - mean) / scale)
        served = _serve(views, best, usual)
        return cls(
            space=space,
            unit_ms=unit,
            floor=labels.floor,
            tables=served.tables.astype(np.float32),
            offset=served.offset.astype(np.float32),
            centres=served.centres.astype(np.float32),
            kernel_map=served.kernel_map.astype(np.float32),
            noise=(best.regression.noise, float(best.power), _label_noise(training), factor),
            tail_variance=served.tail_variance,
            held_out=Prediction(mean * unit, factor * scale * unit),
            used_sources=training.sources is not None and best.basis is bases[0],
        )

    @cached_property
    def _fast(self) -> TableSum:
        return self.tables.fused(_FUSED_STATES)

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        return self.tables.scopes

    def predict(self, codes: Codes) -> Prediction:
        rows = symbols(self.space, codes)
        mean, scale = np.empty(len(rows)), np.empty(len(rows))
        for start in range(0, len(rows), _BATCH):
            at = slice(start, start + _BATCH)
            mean[at], scale[at] = self._mean_and_scale(rows[at])
        return Prediction(mean * self.unit_ms, scale * self.unit_ms)

    def _mean_and_scale(self, rows: Symbols) -> tuple[Array, Array]:
        columns = self._fast(rows, np.float32)
        width = len(self.offset)
        line = columns[:, :width] + self.offset
        if len(self.centres):
            line += gaussian_kernel(columns[:, width:], self.centres) @ self.kernel_map
        mean = np.maximum(line[:, 0].astype(np.float64), self.floor)
        learned, power, labels, factor = self.noise
        variance = np.einsum("nq,nq->n", line[:, 1:], line[:, 1:]) + self.tail_variance
        variance = variance + (learned * mean**power) ** 2 + (labels * mean) ** 2
        return mean, factor * np.sqrt(variance)

    def cross_validate(
        self, space: Space, training: TrainingSet, rng: np.random.Generator
    ) -> Prediction:
        """What ``fit`` found on the folds, where this very model was fitted on ``training``."""
        if self.held_out is None or len(self.held_out) != len(training):
            return super().cross_validate(space, training, rng)
        return self.held_out

    def state(self) -> State:
        return {
            "scalars": np.array([self.unit_ms, self.floor, self.tail_variance, *self.noise]),
            "offset": self.offset,
            "centres": self.centres,
            "kernel_map": self.kernel_map,
            "scopes": _padded(self.tables.scopes),
            "table_rows": np.array([len(t) for t in self.tables.tables]),
            "tables": np.concatenate(self.tables.tables).astype(np.float32),
        }

    @classmethod
    def restore(cls, space: Space, state: State) -> Self:
        unit_ms, floor, tail_variance, *noise = (float(v) for v in state["scalars"])
        learned, power, labels, factor = noise
        known = [state[name] for name in ("tables", "offset", "centres", "kernel_map")]
        scales = np.concatenate([[tail_variance, learned, labels, factor], *map(np.ravel, known)])
        if not (np.abs(scales).max() <= _MOST and scales[:4].min() >= 0 and factor > 0):
            raise ValueError("scales that cannot be")
        if not (unit_ms * floor > 0 and unit_ms <= MOST_MS and floor <= 1 and power in (0, 1)):
            raise ValueError("a unit, a floor or a power that cannot be")
        tables = np.split(state["tables"].astype(np.float32), np.cumsum(state["table_rows"])[:-1])
        scopes = tuple(tuple(int(j) for j in row if j >= 0) for row in state["scopes"])
        return cls(
            space,
            unit_ms,
            floor,
            checked_table_sum(symbol_counts(space), scopes, tables),
            state["offset"].astype(np.float32),
            state["centres"].astype(np.float32),
            state["kernel_map"].astype(np.float32),
            (learned, power, labels, factor),
            tail_variance,
        )


# --- fitting ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Labels:
    """The labels in units of their median, and how their noise may grow with the mean."""

    target: Array
    known: Array
    floor: float

    @classmethod
    def of(cls, training: TrainingSet) -> _Labels:
        unit = _unit_ms(training)
        shortest = float(training.latency_ms.min())
        return cls(
            training.latency_ms / unit, (training.sd_ms / unit) ** 2, _FLOOR * shortest / unit
        )

    def data(self, basis: Basis, design: Array, shape: Array, rows: Rows = slice(None)) -> Data:
        scales = np.array([(prior.median, prior.spread) for prior in basis.priors])
        target, known = self.target[rows], self.known[rows]
        return Data(design[rows], basis.groups, target, known, shape[rows], scales)


@dataclass(frozen=True)
class _Candidate:
    """A regression on a basis, with noise in proportion to ``mean ** power``."""

    basis: Basis
    design: Array
    power: int
    shape: Array
    regression: Regression


def _spread(space: Space, rng: np.random.Generator) -> Codes:
    """Random architectures (n, L) of all sizes, as far as codes rise with size."""
    level, loyalty = rng.random((2, _REFERENCE, 1))
    shape = (_REFERENCE, len(space.decisions))
    return _drawn(space, np.where(rng.random(shape) < loyalty, level, rng.random(shape)))


def _drawn(space: Space, shares: Array) -> Codes:
    """Valid architectures out of shares (n, L), each how far through its decision's values."""
    codes = space.canonical((shares * np.asarray(space.cardinalities)).astype(np.int16))
    return codes[space.valid(codes)]


def prior_features(
    space: Space, codes: Codes, rng: np.random.Generator, sources: Sources | None
) -> Array:
    """Features (n, D) whose inner products are the prior covariance of relative latencies."""
    views = Views(space)
    reference = views.symbols(np.concatenate([_spread(space, rng), codes]))
    basis = _basis(views, reference)
    if sources is not None:
        basis = _beside_sources(basis, views, reference, sources)
    scales = np.array([1.0, *(prior.median for prior in basis.priors)])
    features: Array = basis.design(views.symbols(codes)) * scales[basis.groups]
    return features


def _basis(views: Views, reference: Symbols) -> Basis:
    """All that may tell latency; what does not, loses its scale."""
    exact = cost_tables(views.space)
    costs = nearby_costs(views.space) if exact is None else exact
    kernel = None if views.number > 1 else load_kernel(views, costs, reference)
    basis = Basis(cost_blocks(views, costs, reference), kernel)
    basis = basis.joined(*size_blocks(views, costs, reference))
    decisions = sorted({j for scope in costs.totals.scopes for j in scope})
    basis = basis.joined(*choice_blocks(views, decisions, reference))
    return basis if exact is not None else basis.joined(*pair_blocks(views, reference))


def _beside_sources(basis: Basis, views: Views, reference: Symbols, sources: Sources) -> Basis:
    """With what other devices take, to which is left what they explain."""
    known = source_blocks(views, sources, basis.additive, reference)
    return basis.shrunk(_BESIDE_SOURCES).joined(*known)


def _choose(
    bases: Sequence[Basis], seen: Symbols, labels: _Labels, rng: np.random.Generator
) -> _Candidate:
    """Columns and noise that suit best, learned from a part of the labels where there are many.

    The first basis is what is expected to suit: others have to be decidedly better.
    """
    n = len(labels.target)
    part = np.sort(rng.permutation(n)[:_LEARNING])
    found = [
        candidate
        for basis in bases
        for design in [basis.design(seen)]
        for tail in _TAILS
        for candidate in _candidates(basis, design, labels, tail, part)
    ]
    best = max(found, key=lambda each: _density(each) + _TRUST * (each.basis is bases[0]))
    basis, design = best.basis, best.design
    if n < _MANY:
        return replace(best, regression=spread(best.regression, rng))
    if len(part) == n:
        return best
    whole = best.regression
    shape = np.maximum(whole.at(design)[0], labels.floor) ** (2 * best.power)
    again = regress(
        labels.data(basis, design, shape),
        tail=whole.tail,
        start=(whole.theta, np.ones(n)),
        rounds=_ROUNDS_AGAIN,
    )
    return _Candidate(basis, design, best.power, shape, again)


def _density(candidate: _Candidate) -> float:
    return candidate.regression.loo_log_density


def _candidates(
    basis: Basis, design: Array, labels: _Labels, tail: float, part: NDArray[np.intp]
) -> tuple[_Candidate, _Candidate]:
    """Learned noise that is the same for all labels, and in proportion to the fitted mean."""
    shape = np.ones(len(labels.target))
    same = regress(labels.data(basis, design, shape, part), tail=tail)
    growing = np.maximum(same.at(design)[0], labels.floor) ** 2
    data = labels.data(basis, design, growing, part)
    found = regress(data, tail=tail, start=(same.theta, same.trust))
    return (
        _Candidate(basis, design, 0, shape, same),
        _Candidate(basis, design, 1, growing, found),
    )


def _held_out(best: _Candidate, labels: _Labels, rng: np.random.Generator) -> tuple[Array, Array]:
    """Mean and scale of each label from a fit without its fold; scales are learned again."""
    n, whole = len(labels.target), best.regression
    rounds = MAX_ROUNDS if n < _MANY else 1
    mean, scale = np.empty(n), np.empty(n)
    for fold in np.array_split(rng.permutation(n), min(_FOLDS, n)):
        rest = np.setdiff1d(np.arange(n), fold)
        data = labels.data(best.basis, best.design, best.shape, rest)
        start = (whole.theta, whole.trust[rest])
        found = regress(data, tail=whole.tail, start=start, rounds=rounds)
        found = spread(found, rng) if n < _MANY else found
        line, variance = found.at(best.design[fold])
        mean[fold] = np.maximum(line, labels.floor)
        learned = (found.noise * mean[fold] ** best.power) ** 2
        scale[fold] = np.sqrt(variance + learned + labels.known[fold])
    return mean, scale


def _label_noise(training: TrainingSet) -> float:
    """Typical relative standard deviation of a label's own error."""
    return float(np.median(training.sd_ms / training.latency_ms))


def _unit_ms(training: TrainingSet) -> float:
    return float(np.median(training.latency_ms))


# --- serving ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Served:
    """The posterior folded into tables."""

    tables: TableSum
    offset: Floats
    centres: Floats
    kernel_map: Floats
    tail_variance: float


def _serve(views: Views, best: _Candidate, usual: Symbols) -> _Served:
    basis = best.basis
    if views.number > 1:  # a small space: mean and standard deviation of every architecture

        def answers(symbols: Symbols) -> Array:
            mean, variance = best.regression.at(basis.design(symbols))
            return np.column_stack([mean, np.sqrt(variance)])

        none = np.zeros((0, 0)), np.zeros((0, 2))
        return _Served(views.tabulated(answers), np.zeros(2), *none, 0.0)
    weights, covariance = best.regression.moments()
    projections, tail_variance = _projections(basis.design(usual), covariance)
    columns = np.column_stack([weights, projections])
    additive, kernel = basis.additive, basis.kernel
    split = 1 + additive.width
    tables = additive.project(columns[1:split])
    if kernel is None:
        none = np.zeros((0, 0)), np.zeros((0, columns.shape[1]))
        return _Served(tables, columns[0], *none, tail_variance)
    maps = kernel.whiten @ columns[split:]
    return _Served(tables.beside(kernel.loads), columns[0], kernel.centres, maps, tail_variance)


def _projections(design: Array, covariance: Array) -> tuple[Array, float]:
    """(D, q) directions whose squared projections add up to the variance; what they leave out.

    Nyström's, of the principal components over ``design``: on average over it they hold as much
    of the predictive variance as q directions can.
    """
    cross = covariance @ design.T
    values, vectors = np.linalg.eigh(design @ cross)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = np.flatnonzero(values[:_PROJECTIONS] > 1e-12 * values[0])
    projections: Array = cross @ vectors[:, kept] / np.sqrt(values[kept])
    return projections, float(np.maximum(values[len(kept) :], 0).sum() / len(design))


def _padded(scopes: Sequence[Sequence[int]]) -> NDArray[np.int16]:
    """Scopes as rows of one array, filled up with -1."""
    rows = np.full((len(scopes), max(map(len, scopes))), -1, dtype=np.int16)
    for row, scope in zip(rows, scopes, strict=True):
        row[: len(scope)] = scope
    return rows
