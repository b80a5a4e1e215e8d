"""The latency of any network on one device, kernel by kernel.

A network is split into kernels by the device's rules, each kernel is timed by the model of its
kind, and the sum is calibrated on whole networks: what passes between kernels, and what a kind
takes in a network beside what its model says (Bayesian regression, shares near 1). The interval is
conformal over families of networks: each family is predicted by models that learned from none of
its latencies and times, so that a network unlike all that were measured lies within the errors of
such. What such models keep of a left-out family are the rules of the runtime, what its profiler
adds and a call takes, and how smooth each kind is (its scales, and which of its sizes matter).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import PredictorError
from hwbench.predictors.bayes import Data, regress
from hwbench.predictors.data import Prediction
from hwbench.predictors.kernels.kernels import Kernel, Rules, table
from hwbench.predictors.kernels.kind_model import (
    RESOLUTION_NS,
    KindData,
    KindModel,
    average,
    fit_kind,
)
from hwbench.predictors.kernels.training import Profiled, Training

Array = NDArray[np.float64]

_NS_PER_MS = 1e6
#: Kernels of a kind that was never timed are taken for the average kernel of their costs.
UNKNOWN = "unknown"
#: Kernels of a kind by which is found out what its next of kin tell of it, and how long they take
#: at least: what no profiler resolves is like everything. The most and the least that they are
#: unsure by (logarithms); a normal's scale in medians of how far it is off.
_STRANGE_KERNELS, _STRANGE_NS, _STRANGEST, _LEAST_STRANGE = 100, 2000.0, 2.0, 0.3
_NORMAL = 1.4826
#: Where an interval of 90 % ends, in scales; the most that a logarithm is unsure by.
_END, _MOST_UNSURE = 1.645, 3.0
#: The share of its kernels' times that a network takes at least.
_LEAST_SHARE = 0.5
#: Units of the overheads in the regression of the sum, in ns.
_CALL_NS, _GAP_NS = 1e4, 1e3


@dataclass(frozen=True, slots=True)
class KernelTime:
    """A kernel of a predicted network: its time in ms, the time's relative scale.

    ``known`` is whether any kernel of its kind was ever timed.
    """

    kernel: Kernel
    ms: float
    sd: float
    known: bool


@dataclass(frozen=True, slots=True)
class NetworkPrediction:
    """Latency in ms with its scale, the kernels in the order in which they run, and what is left.

    ``unknown`` is the share of the time in kernels of kinds that were never timed.
    """

    mean_ms: float
    sd_ms: float
    kernels: tuple[KernelTime, ...]
    overhead_ms: float
    unknown: float


@dataclass(frozen=True, eq=False)
class Sum:
    """How kernels make a latency: weights of call, gap, kinds' gaps, kinds' shares beyond 1.

    A kind's gap is what each of its kernels takes beside what it was timed at, such as what the
    profiler spoils of a microsecond. ``factor`` is that of the weights' covariance, ``noise`` what
    networks differ by, relative.
    """

    weights: Array
    factor: Array
    noise: float

    def total(self, times: Array, counts: Array) -> tuple[float, float]:
        """Latency and its scale in ns, of kinds with these totals and numbers (K,) of kernels."""
        (row,) = _rows(times[None], counts[None])
        # What passes between kernels may be less than nothing, where they overlap: not for long.
        mean = max(float(times.sum() + row @ self.weights), _LEAST_SHARE * float(times.sum()))
        return mean, float(np.hypot(np.linalg.norm(row @ self.factor), self.noise * mean))

    def each(self, ns: Array, kinds: NDArray[np.intp]) -> Array:
        """What kernels (k,) of these kinds take in a network, in ns: never less than nothing."""
        n = (len(self.weights) - 2) // 2
        gaps, shares = _GAP_NS * self.weights[2 : 2 + n], 1 + self.weights[2 + n :]
        alone: Array = np.maximum(ns * shares[kinds] + gaps[kinds], 0.0)
        return alone


@dataclass(frozen=True, slots=True)
class Strange:
    """How much longer kernels take than those by which they are timed, and how sure that is.

    Both are logarithms.
    """

    longer: float
    unsure: float


@dataclass(frozen=True, eq=False)
class Models:
    """Models of all kinds, and of the sum; ``kinds`` in the order of the sum's shares.

    ``strange`` are for kinds that were never timed: by next of kin, and by the average kernel.
    """

    rules: Rules
    kinds: Mapping[str, KindModel]
    sum: Sum
    strange: tuple[Strange, Strange]

    def predict(self, kernels: Sequence[Kernel]) -> NetworkPrediction:
        """The latency of a network of these kernels."""
        if not kernels:
            raise PredictorError("the network does nothing that takes time")
        ns, sd = kernel_times(self.kinds, kernels, self.strange)
        known = np.array([kernel.kind in self.kinds for kernel in kernels])
        totals, scale = _totals(self.kinds, kernels, ns), _totals(self.kinds, kernels, ns * sd)
        mean, spread = self.sum.total(totals, _totals(self.kinds, kernels, np.ones(len(kernels))))
        ms = self.sum.each(ns, _kinds_at(self.kinds, kernels)) / _NS_PER_MS
        rows = tuple(
            KernelTime(kernel, float(m), float(s), bool(k))
            for kernel, m, s, k in zip(kernels, ms, sd, known, strict=True)
        )
        return NetworkPrediction(
            mean_ms=mean / _NS_PER_MS,
            sd_ms=float(np.hypot(spread, np.linalg.norm(scale))) / _NS_PER_MS,
            kernels=rows,
            overhead_ms=mean / _NS_PER_MS - float(ms.sum()),
            unknown=float(ns[~known].sum() / max(ns.sum(), 1e-9)),
        )


def kernel_times(
    kinds: Mapping[str, KindModel], kernels: Sequence[Kernel], strange: tuple[Strange, Strange]
) -> tuple[Array, Array]:
    """Time (k,) in ns and its relative scale (k,) of each kernel.

    What was never timed is unsure by factors: its scale is the one whose interval of 90 % ends
    where that of the factors does.
    """
    sizes, ns, sd = table(kernels), np.zeros(len(kernels)), np.zeros(len(kernels))
    names = np.array([nearest_kind(kernel.kind, kinds) for kernel in kernels])
    for name in dict.fromkeys(names):
        rows = names == name
        ns[rows], sd[rows] = kinds[name].predict(sizes[rows])
    unknown = np.array([kernel.kind not in kinds for kernel in kernels])
    for each, rows in zip(
        strange, (unknown & (names != UNKNOWN), unknown & (names == UNKNOWN)), strict=True
    ):
        unresolved = 1 + RESOLUTION_NS / ns[rows]
        unsure = np.minimum(np.hypot(sd[rows] / unresolved, each.unsure), _MOST_UNSURE)
        ns[rows] *= np.exp(each.longer)
        sd[rows] = np.expm1(_END * unsure) / _END * unresolved
    return ns, sd


def nearest_kind(kind: str, kinds: Mapping[str, KindModel]) -> str:
    """The kind by which a kernel is timed: its own, else that which its name begins with."""
    words = kind.split()
    names = (" ".join(words[:n]) for n in range(len(words), 0, -1))
    return next((name for name in names if name in kinds), UNKNOWN)


def _totals(kinds: Mapping[str, KindModel], kernels: Sequence[Kernel], values: Array) -> Array:
    """Sums (K,) of the kernels' values over each kind."""
    at = _kinds_at(kinds, kernels)
    totals: Array = np.bincount(at, values, len(kinds)).astype(np.float64)
    return totals


def _kinds_at(kinds: Mapping[str, KindModel], kernels: Sequence[Kernel]) -> NDArray[np.intp]:
    """The places (k,) of the kinds by which kernels are timed."""
    place = {kind: i for i, kind in enumerate(kinds)}
    return np.array([place[nearest_kind(kernel.kind, kinds)] for kernel in kernels], np.intp)


def _rows(times: Array, counts: Array) -> Array:
    """What the sum weighs, of networks with totals (n, K) and numbers (n, K) of the kinds."""
    gaps = _GAP_NS * np.hstack([counts.sum(axis=1, keepdims=True), counts])
    return np.hstack([np.full((len(times), 1), _CALL_NS), gaps, times])


def fit_models(training: Training, rng: np.random.Generator) -> Models:
    """Learn the kinds, then their sum."""
    kinds = {kind: fit_kind(data, rng) for kind, data in training.timed.items()}
    kinds[UNKNOWN] = _any_kind(training.timed)
    strange = _strangeness(kinds, training.timed)
    return Models(training.rules, kinds, _fit_sum(kinds, training.networks), strange)


def _strangeness(
    kinds: Mapping[str, KindModel], data: Mapping[str, KindData]
) -> tuple[Strange, Strange]:
    """How much longer kinds take than by their next of kin: a median over kinds, and the spread.

    Then the same of kinds without any, by the average kernel: what a network is made of are the
    kinds that are done fast; those that nobody timed are not.
    """
    longer: tuple[list[float], list[float]] = ([], [])
    for kind, measured in data.items():
        others = {name: model for name, model in kinds.items() if name != kind}
        some = measured[measured.ns > _STRANGE_NS][:_STRANGE_KERNELS]
        if len(some.ns):
            near = nearest_kind(kind, others)
            above = np.log(
                (some.ns + RESOLUTION_NS) / (others[near].mean(some.sizes) + RESOLUTION_NS)
            )
            longer[near == UNKNOWN].append(float(np.median(above)))
    return _strange(longer[0]), _strange(longer[1])


def _strange(longer: Sequence[float]) -> Strange:
    """The median of what kinds say, and their spread about it, of which the odd one says little."""
    if not longer:
        return Strange(0.0, _STRANGEST)
    middle = float(np.median(longer))
    apart = float(np.median(np.abs(np.array(longer) - middle)))
    return Strange(middle, float(np.clip(_NORMAL * apart, _LEAST_STRANGE, _STRANGEST)))


def _any_kind(data: Mapping[str, KindData]) -> KindModel:
    """The roofline of all kernels, which vary widely about it."""
    parts = ([getattr(d, name) for d in data.values()] for name in ("sizes", "ns", "families"))
    return average(KindData(*map(np.concatenate, parts)))


def _fit_sum(kinds: Mapping[str, KindModel], networks: Sequence[Profiled]) -> Sum:
    latency = np.array([each.latency_ns for each in networks])
    totals, counts = _network_totals(kinds, networks)
    data = Data(
        features=_rows(totals, counts) / latency[:, None],
        groups=np.repeat([0, 1, 2, 3], [1, 1, len(kinds), len(kinds)]),
        target=1 - totals.sum(axis=1) / latency,
        known=np.array([each.sd**2 for each in networks]),
        shape=np.ones(len(latency)),
    )
    found = regress(data, tail=4.0)
    weights, covariance = found.moments()
    factor = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
    return Sum(weights, factor, found.noise)


def _network_totals(
    kinds: Mapping[str, KindModel], networks: Sequence[Profiled]
) -> tuple[Array, Array]:
    """The time (n, K) that the kernels of each kind take in each network, and their number."""
    kernels = [kernel for each in networks for kernel in each.kernels]
    owner = np.repeat(np.arange(len(networks)), [len(each.kernels) for each in networks])
    at, sizes = _kinds_at(kinds, kernels), table(kernels)
    totals, counts = np.zeros((2, len(networks), len(kinds)))
    for place, model in enumerate(kinds.values()):
        rows = at == place
        if rows.any():
            np.add.at(totals[:, place], owner[rows], model.mean(sizes[rows]))
    np.add.at(counts, (owner, at), 1.0)
    return totals, counts


def without_family(models: Models, training: Training, family: str) -> Models:
    """The same rules and scales of kinds, all else learned from the networks of other families."""
    kinds, data = {}, {}
    for kind, every in training.timed.items():
        others = every.families != family
        if others.any():
            model, data[kind] = models.kinds[kind], every[others]
            kinds[kind] = model if others.all() else model.learned(data[kind])
    kinds[UNKNOWN] = _any_kind(data)
    rest = [each for each in training.networks if each.family != family]
    return Models(models.rules, kinds, _fit_sum(kinds, rest), _strangeness(kinds, data))


def left_out(models: Models, training: Training) -> tuple[Array, Prediction]:
    """Latency (n,) in ms of each network, and its prediction without its family."""
    n = len(training.networks)
    mean, sd = np.empty(n), np.empty(n)
    for family in dict.fromkeys(each.family for each in training.networks):
        fitted = without_family(models, training, family)
        for i, each in enumerate(training.networks):
            if each.family == family:
                found = fitted.predict(each.kernels)
                mean[i], sd[i] = found.mean_ms, found.sd_ms
    latency = np.array([each.latency_ns for each in training.networks]) / _NS_PER_MS
    return latency, Prediction(mean, sd)
