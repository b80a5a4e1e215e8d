"""The time of kernels of one kind against their sizes: a roofline, and a Gaussian process on it.

``t = (a + sum of costs over their rates) exp(f(sizes))``: the costs are MACs, bytes of activations
and of weights, groups that are worked on one by one, and what a window gathers from its input
(im2col: numbers, and runs of them that lie together, which is what a convolution that fills no
vectors spends its time on). The bracket is fitted with coefficients that can't be negative
(Lawson and Hanson, "Solving least squares problems", 1974) to logarithms, and says how time grows
beyond the sizes that were measured; ``f`` is a Gaussian process over the logarithms of the sizes
with a Matérn kernel, one length scale a size (Rasmussen and Williams, "Gaussian processes for
machine learning", 2006): it learns how far a shape is from the best rate. Each size is as if it
were within those that were measured: beyond them ``f`` keeps its value at the edge, and its scale
grows to that of the prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import PredictorError
from hwbench.predictors.kernels.kernels import FEATURES
from hwbench.predictors.kernels.scales import best_scales, matern

Array = NDArray[np.float64]

#: Kernels beyond which a process learns nothing more that is worth its time.
MOST_POINTS, MOST_FOR_CHOICE, MOST_FOR_SCALES, LEAST_POINTS = 1500, 500, 250, 12
#: What a profiler that counts whole microseconds resolves, and what a time may be off by, in ns.
RESOLUTION_NS, _TICK_NS = 1000.0, 300.0
SHORTEST_NS = 50.0
_LEAST_NOISE = 0.02
#: A kernel of so many ns counts half where surroundings are chosen, and a roofline.
_SMALL_NS = 5000.0
_BLOCK = 16
#: Inputs beside the features: channels lost in blocks (read, made), bytes in use.
EXTRA_INPUTS = 3
#: Costs in a roofline, and the sizes that some of them are made of.
COSTS = 7
_GATHERING = [FEATURES.index(name) for name in ("groups", "window", "deep", "rows", "inner")]
#: Of the roofline's fit: rounds, the error of an odd kernel, what the shortest count at least.
_LINE_ROUNDS, _ODD, _LEAST_COUNT = 20, 0.5, 0.2
#: No number of a model in a file is larger, whatever its unit.
_MOST = 1e12


@dataclass(frozen=True, eq=False)
class KindModel:
    """Kernels of one kind: their roofline ``line``, and a process where there are enough.

    ``line`` (COSTS,) is what one of each cost takes in ns. ``points`` (n, D) are what was measured:
    the ``columns`` of the inputs, less ``centre``, in units of the length scales ``lengths``;
    ``target`` (n,) are logarithms of time over roofline, with their ``variance``. ``amplitude`` is
    the process' prior scale, ``noise`` what two kernels of the same sizes differ by, relative.
    """

    line: Array
    columns: NDArray[np.intp]
    centre: Array
    lengths: Array
    points: Array
    target: Array
    variance: Array
    amplitude: float
    noise: float

    def predict(self, sizes: Array) -> tuple[Array, Array]:
        """Time (n,) in ns and its relative scale (n,), of kernels with sizes (n, F)."""
        mean = self.mean(sizes)
        spread = np.full(len(sizes), self.amplitude)
        if len(self.points):
            from scipy.linalg import solve_triangular

            inputs = self._placed(sizes)
            explained = solve_triangular(self._root, self._near(inputs).T, lower=True)
            spread = np.sqrt(np.maximum(self.amplitude**2 - (explained**2).sum(axis=0), 0))
        return mean, np.hypot(spread, self.noise) * (1 + RESOLUTION_NS / mean)

    def mean(self, sizes: Array) -> Array:
        """Time (n,) in ns of kernels with sizes (n, F)."""
        base: Array = _costs(sizes) @ self.line
        if len(self.points):
            # Beyond the largest and the smallest, no further trend is believed.
            ends = self.points.min(axis=0), self.points.max(axis=0)
            factor = np.exp(self._near(np.clip(self._placed(sizes), *ends)) @ self._pull)
            base = (base + RESOLUTION_NS) * factor - RESOLUTION_NS
        shortest: Array = np.maximum(base, SHORTEST_NS)
        return shortest

    def _placed(self, sizes: Array) -> Array:
        """Where kernels (n, D) are among the points."""
        placed: Array = (_inputs(sizes)[:, self.columns] - self.centre) / self.lengths
        return placed

    def _near(self, placed: Array) -> Array:
        """Covariances (n, m) of places with those that were measured."""
        return self.amplitude**2 * matern(placed, self.points)

    @cached_property
    def _root(self) -> Array:
        """The Cholesky factor of what was measured."""
        covariance = self.amplitude**2 * matern(self.points, self.points)
        covariance[np.diag_indices_from(covariance)] += self.variance
        root: Array = np.linalg.cholesky(covariance).astype(np.float64)
        return root

    @cached_property
    def _pull(self) -> Array:
        from scipy.linalg import cho_solve

        pull: Array = cho_solve((self._root, True), self.target)
        return pull

    def learned(self, data: KindData) -> KindModel:
        """A model of these scales that knows this data alone."""
        if not len(data.ns):
            return replace(self, points=self.points[:0], target=np.empty(0), variance=np.empty(0))
        line = _roofline(data)
        inputs = self._placed(data.sizes)
        target = _target(data, line)
        variance = self.noise**2 + _known(data)
        if len(data.ns) < LEAST_POINTS:
            inputs, target, variance = inputs[:0], target[:0], variance[:0]
        else:
            inputs, target, variance = _merged(inputs, target, variance, self.noise)
        return replace(self, line=line, points=inputs, target=target, variance=variance)

    def state(self) -> Array:
        """All that was learned, one number after the other; the first two are n and D."""
        n, d = self.points.shape
        return np.concatenate(
            [
                [n, d, self.amplitude, self.noise],
                self.line,
                self.columns,
                self.centre,
                self.lengths,
                self.target,
                self.variance,
                self.points.ravel(),
            ]
        )

    @classmethod
    def restore(cls, state: Array) -> tuple[KindModel, Array]:
        """The model that a state begins with, and the rest. ValueError where it is none."""
        if len(state) < 8 or not (state[:2] >= 0).all() or state[:2].max() > len(state):
            raise ValueError("a kind of kernels is cut short")
        n, d = map(int, state[:2])
        sizes = (4, COSTS, d, d, d, n, n, n * d)
        if len(state) < sum(sizes):
            raise ValueError("a kind of kernels is cut short")
        head, line, columns, centre, lengths, target, variance, points, rest = np.split(
            state, np.cumsum(sizes)
        )
        known = (columns >= 0) & (columns < len(FEATURES) + EXTRA_INPUTS)
        positive = np.concatenate([lengths, variance, head[2:], [line.sum()]]) > 0
        whole = (n, d) == (head[0], head[1])
        bounded = np.abs(state[: sum(sizes)]).max() <= _MOST
        if not (known.all() and positive.all() and (line >= 0).all() and whole and bounded):
            raise ValueError("a kind of kernels has scales that cannot be")
        model = cls(
            line,
            columns.astype(np.intp),
            centre,
            lengths,
            points.reshape(n, d),
            target,
            variance,
            float(head[2]),
            float(head[3]),
        )
        return model, rest


@dataclass(frozen=True, eq=False)
class KindData:
    """Measured kernels of one kind: sizes (n, F), times (n,) in ns, families of networks (n,)."""

    sizes: Array
    ns: Array
    families: NDArray[np.str_]

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> KindData:
        return KindData(self.sizes[rows], self.ns[rows], self.families[rows])


#: What a kernel's surroundings may say of its time; which of it does is for the data to say.
_SURROUNDINGS = ("resident", "traffic")


def fit_kind(data: KindData, rng: np.random.Generator) -> KindModel:
    """Learn from kernels of one kind; the more there are, the more is learned.

    Whether its surroundings matter is chosen by how well families are predicted without them.
    """
    if len(data.ns) < LEAST_POINTS:
        return average(data)
    some = data[rng.permutation(len(data.ns))[:MOST_FOR_CHOICE]]
    choices = [average(data, _SURROUNDINGS[known:]) for known in range(len(_SURROUNDINGS) + 1)]
    different = {tuple(model.columns): model for model in choices}.values()
    scaled = [_scaled(model, some[:MOST_FOR_SCALES]) for model in different]
    if len(scaled) > 1:
        scaled.sort(key=lambda model: _left_out_error(model, some))
    return scaled[0].learned(data)


def _left_out_error(model: KindModel, data: KindData) -> float:
    """Mean squared logarithmic error, 1 at most, of families that the model does not know."""
    errors, weights = np.empty(len(data.ns)), data.ns / (data.ns + _SMALL_NS)
    for family in set(data.families):
        rows = data.families == family
        found = model.learned(data[~rows]).mean(data.sizes[rows])
        above = np.log((found + RESOLUTION_NS) / (data.ns[rows] + RESOLUTION_NS))
        errors[rows] = np.minimum(above**2, 1.0)
    return float(np.average(errors, weights=weights))


def average(data: KindData, without: Sequence[str] = _SURROUNDINGS) -> KindModel:
    """The roofline of kernels and how they vary about it, without a process."""
    line = _roofline(data)
    inputs = _inputs(data.sizes)
    varies = inputs.std(axis=0) > 1e-9
    varies[[FEATURES.index(feature) for feature in without]] = False
    columns = np.flatnonzero(varies)
    inputs = inputs[:, columns]
    spread = max(float(_target(data, line).std()), _LEAST_NOISE)
    return KindModel(
        line=line,
        columns=columns,
        centre=inputs.mean(axis=0),
        lengths=np.maximum(inputs.std(axis=0), 1e-3),
        points=inputs[:0],
        target=np.empty(0),
        variance=np.empty(0),
        amplitude=spread * (1 + 3 / len(data.ns)),  # few say little of how they spread
        noise=_LEAST_NOISE,
    )


def _scaled(model: KindModel, some: KindData) -> KindModel:
    """Length scales, amplitude and noise that maximise the evidence."""
    if not len(model.columns):
        return model
    inputs = (_inputs(some.sizes)[:, model.columns] - model.centre) / model.lengths
    found = best_scales(inputs, _target(some, model.line), _known(some))
    return replace(
        model,
        lengths=model.lengths * found.lengths,
        amplitude=found.amplitude,
        noise=found.noise,
    )


def _merged(
    inputs: Array, target: Array, variance: Array, noise: float
) -> tuple[Array, Array, Array]:
    """Kernels of the same sizes as one, and no more than ``MOST_POINTS``.

    What is the same for all kernels of these sizes stays: a mean is never surer than a third.
    """
    unique, place, counts = np.unique(
        inputs.round(6), axis=0, return_inverse=True, return_counts=True
    )
    place = place.reshape(-1)
    mean = np.bincount(place, target) / counts
    var = np.maximum(np.bincount(place, variance) / counts**2, noise**2 / 3)
    if len(unique) > MOST_POINTS:
        kept = np.random.default_rng(0).permutation(len(unique))[:MOST_POINTS]
        return unique[kept], mean[kept], var[kept]
    return unique, mean, var


def _roofline(data: KindData) -> Array:
    """What one of each cost takes (COSTS,), never negative, for small errors.

    These are logarithmic, and each round is a step of Gauss and Newton. Weights that fall with
    the error (Cauchy's) keep the odd kernel from bending it. Short kernels count less, or the many
    of a microsecond would say what is to be believed of those larger than any that was timed; but
    ``a``, which is all that they take, is found anew with all alike.
    """
    from scipy.optimize import nnls

    costs, above = _costs(data.sizes), data.ns + RESOLUTION_NS
    costs /= (scale := np.maximum(costs.mean(axis=0), 1e-300))
    size = np.maximum(data.ns / (data.ns + _SMALL_NS), _LEAST_COUNT)
    line, base = np.zeros(COSTS), above
    for _ in range(_LINE_ROUNDS):
        error = np.log(above / base)
        weight = np.sqrt(size / (1 + (error / _ODD) ** 2))
        target = np.clip(error, -1, 1) + 1 - RESOLUTION_NS / base
        found, _ = nnls(costs / base[:, None] * weight[:, None], weight * target)
        line = found if not line.any() else (line + found) / 2
        base = costs @ line + RESOLUTION_NS
    for _ in range(_LINE_ROUNDS):
        error = np.log(above / base)
        weight = 1 / (1 + (error / _ODD) ** 2)
        step = (weight * np.clip(error, -1, 1) / base).sum() / (weight / base**2).sum()
        line[0] = max(line[0] + step / 2, 0.0)
        base = costs @ line + RESOLUTION_NS
    if not line.any():
        raise PredictorError("kernels without any cost cannot be fitted")
    return np.asarray(line / scale)


def _target(data: KindData, line: Array) -> Array:
    """How far times are from the roofline: logarithms, but for what no profiler resolves."""
    base = _costs(data.sizes) @ line
    found: Array = np.log((data.ns + RESOLUTION_NS) / (base + RESOLUTION_NS))
    return found


def _known(data: KindData) -> Array:
    """The variance of a target that the profiler's clock brings."""
    found: Array = (_TICK_NS / (data.ns + RESOLUTION_NS)) ** 2
    return found


def _costs(sizes: Array) -> Array:
    """What the roofline sums: one, MACs, bytes (activations, weights), groups, gathers, runs."""
    macs, read, written, weights = sizes[:, :4].T
    groups, window, deep, rows, inner = sizes[:, _GATHERING].T
    gathered = np.where(window > 1, groups * window * deep * rows, 0.0)
    each = [np.ones(len(sizes)), macs, read + written, weights]
    return np.stack([*each, groups - 1, gathered, gathered / np.maximum(inner, 1)], axis=1)


def _inputs(sizes: Array) -> Array:
    """Logarithms of the sizes, how far channels fill blocks, and of the memory in use."""
    deep, wide = sizes[:, FEATURES.index("deep")], sizes[:, FEATURES.index("wide")]
    waste = [np.ceil(n / _BLOCK) * _BLOCK / np.maximum(n, 1) for n in (deep, wide)]
    footprint = sizes[:, 1:4].sum(axis=1)
    extra = np.log(np.stack([*waste, footprint + 1], axis=1))
    inputs: Array = np.concatenate([np.log1p(sizes), extra], axis=1)
    return inputs
