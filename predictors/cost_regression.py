"""The space-level predictor: a Bayesian regression on what an architecture costs.

Latency over its median is a linear function of cost totals plus a Gaussian process on the grand
totals (:mod:`.features`), fitted by evidence with Student's t noise (:mod:`.bayes`). Not in log
space: latency is a sum, its logarithm is not. Tail and shape of the noise, and whether single
choices join the features, are chosen by leave-one-out density on the data at hand.

For serving, posterior mean and covariance are folded into the tables: a row of additive terms
holds its part of the mean, of the projections whose squares add up to the variance, and of the
grand totals that the kernel reads. Projections are the principal ones over the space; the rest
of the variance, a percent or so, enters as its average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hwbench.predictors.bayes import Data, Regression, regress
from hwbench.predictors.costs import cost_tables
from hwbench.predictors.data import Prediction, TrainingSet
from hwbench.predictors.features import (
    Basis,
    choice_block,
    cost_basis,
    gaussian_kernel,
    pair_block,
)
from hwbench.predictors.model import LatencyModel, State, register_model
from hwbench.predictors.tables import TableSum, checked_table_sum, symbol_counts, symbols
from hwbench.spaces import Codes, Space, spread_sample

Array = NDArray[np.float64]

#: Degrees of freedom of the noise that are tried.
_TAILS = (math.inf, 4.0, 2.0)
#: The learned noise is the same for all, or in proportion to the latency.
_POWERS = (0, 1)

_REFERENCE = 1000
_PROJECTIONS = 48
_FUSED_STATES = 2048
_BATCH = 8192

#: A prediction is never below this share of the shortest latency learned from.
_FLOOR = 0.25


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
    left_out: Prediction | None = None

    @classmethod
    def fit(cls, space: Space, training: TrainingSet, rng: np.random.Generator) -> Self:
        reference = symbols(space, np.concatenate([_spread(space, rng), training.codes]))
        seen = symbols(space, training.codes)
        best = _choose(_bases(space, reference, rng), seen, training)
        return cls(space, **_served(best, training, reference))

    @cached_property
    def _fast(self) -> TableSum:
        return self.tables.fused(_FUSED_STATES)

    def predict(self, codes: Codes) -> Prediction:
        rows = symbols(self.space, codes)
        mean, scale = np.empty(len(rows)), np.empty(len(rows))
        for start in range(0, len(rows), _BATCH):
            at = slice(start, start + _BATCH)
            mean[at], scale[at] = self._mean_and_scale(rows[at])
        return Prediction(mean * self.unit_ms, scale * self.unit_ms)

    def _mean_and_scale(self, rows: NDArray[np.float32]) -> tuple[Array, Array]:
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
        """Leave-one-out in closed form, where this very model was fitted on ``training``."""
        if self.left_out is None or len(self.left_out) != len(training):
            return super().cross_validate(space, training, rng)
        return self.left_out

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
        tables = np.split(state["tables"], np.cumsum(state["table_rows"])[:-1])
        scopes = tuple(tuple(int(j) for j in row if j >= 0) for row in state["scopes"])
        return cls(
            space,
            unit_ms,
            floor,
            checked_table_sum(symbol_counts(space), scopes, tables),
            state["offset"],
            state["centres"],
            state["kernel_map"],
            (learned, power, labels, factor),
            tail_variance,
        )


# --- fitting ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Candidate:
    basis: Basis
    regression: Regression
    power: int


def _spread(space: Space, rng: np.random.Generator) -> Codes:
    """Random architectures (n, L) of all sizes, as far as codes rise with size."""
    cardinalities = np.asarray(space.cardinalities)
    level, loyalty = rng.random((2, _REFERENCE, 1))
    shape = (_REFERENCE, len(cardinalities))
    drawn = np.where(rng.random(shape) < loyalty, level, rng.random(shape))
    codes = space.canonical((drawn * cardinalities).astype(np.int16))
    return codes[space.valid(codes)]


def _bases(
    space: Space, reference: NDArray[np.float32], rng: np.random.Generator
) -> list[Basis]:
    """The feature sets to choose from, the plain one first."""
    costs = cost_tables(space, rng)
    if costs is None:
        choices = choice_block(space, range(len(space.decisions)), reference)
        pairs = pair_block(space, reference)
        return [Basis((choices,) if pairs is None else (choices, pairs), None)]
    plain = cost_basis(costs, reference)
    decisions = sorted({j for scope in costs.totals.scopes for j in scope})
    choices = choice_block(space, decisions, reference)
    return [plain, Basis((*plain.blocks, choices), plain.kernel)]


def _choose(
    bases: Sequence[Basis], seen: NDArray[np.float32], training: TrainingSet
) -> _Candidate:
    """The noise that suits the plain basis best, then the basis that suits that noise best."""
    plain = bases[0].design(seen)
    noises = [(tail, power) for tail in _TAILS for power in _POWERS]
    fits = [(*noise, _regress(bases[0], plain, training, *noise)) for noise in noises]
    tail, power, found = max(fits, key=lambda fit: fit[2].loo_log_density)
    best = _Candidate(bases[0], found, power)
    for basis in bases[1:]:
        found = _regress(basis, basis.design(seen), training, tail, power)
        if found.loo_log_density > best.regression.loo_log_density:
            best = _Candidate(basis, found, power)
    return best


def _regress(
    basis: Basis, design: Array, training: TrainingSet, tail: float, power: int
) -> Regression:
    unit = _unit_ms(training)
    target, known = training.latency_ms / unit, (training.sd_ms / unit) ** 2
    data = Data(design, basis.groups, target, known, np.ones(len(target)))
    found = regress(data, tail=tail)
    if power == 0:
        return found
    fitted = np.maximum(design @ found.weights, _floor(training))
    return regress(Data(design, basis.groups, target, known, fitted ** (2 * power)), tail=tail)


def _unit_ms(training: TrainingSet) -> float:
    return float(np.median(training.latency_ms))


def _floor(training: TrainingSet) -> float:
    return _FLOOR * float(training.latency_ms.min()) / _unit_ms(training)


# --- serving ----------------------------------------------------------------------------------


def _served(
    best: _Candidate, training: TrainingSet, reference: NDArray[np.float32]
) -> dict[str, Any]:
    """The posterior folded into tables: what :class:`CostRegression` holds."""
    found, unit = best.regression, _unit_ms(training)
    projections, tail_variance = _projections(best.basis.design(reference), found.factor)
    columns = np.column_stack([found.weights, projections])
    additive, kernel = best.basis.additive, best.basis.kernel
    split = 1 + additive.width
    tables = additive.project(columns[1:split])
    centres, kernel_map = np.zeros((0, 0)), np.zeros((0, columns.shape[1]))
    if kernel is not None:
        tables = tables.beside(kernel.loads)
        centres, kernel_map = kernel.centres, kernel.whiten @ columns[split:]
    factor = _half_width(found.loo_error / found.loo_scale)
    labels = float(np.median(training.sd_ms / training.latency_ms))
    left_out = Prediction(
        training.latency_ms - found.loo_error * unit, factor * found.loo_scale * unit
    )
    return {
        "unit_ms": unit,
        "floor": _floor(training),
        "tables": tables.astype(np.float32),
        "offset": columns[0].astype(np.float32),
        "centres": centres.astype(np.float32),
        "kernel_map": kernel_map.astype(np.float32),
        "noise": (found.noise, float(best.power), labels, factor),
        "tail_variance": tail_variance,
        "left_out": left_out,
    }


def _projections(design: Array, factor: Array) -> tuple[Array, float]:
    """(D, q) directions whose squared projections add up to the variance; what they leave out.

    The principal components of ``design @ factor``: on average over the reference they hold as
    much of the predictive variance as q directions can.
    """
    spread = design @ factor
    values, vectors = np.linalg.eigh(spread.T @ spread / len(design))
    kept = vectors[:, ::-1][:, :_PROJECTIONS]
    return factor @ kept, float(np.maximum(values[:-_PROJECTIONS], 0).sum())


def _half_width(z: Array) -> float:
    """Half of the central 68.3 % interval of standardised errors, with its finite-sample rank."""
    rank = min(math.ceil((len(z) + 1) * math.erf(math.sqrt(0.5))), len(z))
    return float(np.sort(np.abs(z))[rank - 1])


def _padded(scopes: Sequence[Sequence[int]]) -> NDArray[np.int16]:
    """Scopes as rows of one array, filled up with -1."""
    rows = np.full((len(scopes), max(map(len, scopes))), -1, dtype=np.int16)
    for row, scope in zip(rows, scopes, strict=True):
        row[: len(scope)] = scope
    return rows
