"""What the stages of a split cost on a device, each as the network that it is.

A search asks for thousands of stages; a device measures some tens. Their latencies teach a sum:
so much for each operation of a kind, for what its multiply-accumulates and bytes are, and for its
multiply-accumulates as a runtime does them that works on blocks of 8 or 16 channels and pads the
rest (narrow stages have few that fill a block, so their latency follows their MACs badly). Weights
are not negative (Lawson and Hanson, "Solving Least Squares Problems", 1974), and relative errors
count. What was measured is answered as it was measured.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.devices.base import Device
from hwbench.devices.models import GraphModel
from hwbench.errors import InconclusiveError, PredictorError, UsageError
from hwbench.graph import Graph
from hwbench.measure.campaign import anchor, record
from hwbench.measure.plan import Failure, Plan, Progress
from hwbench.predictors import Ledger
from hwbench.predictors.costs import op_costs
from hwbench.records import Measurement
from hwbench.store import Store

Array = NDArray[np.float64]

#: Measures networks on one device, in the order given.
GraphMeasurer = Callable[[Sequence[Graph]], Sequence[Measurement]]

#: Enough for a sum over many stages: what one stage's figure errs, others make good.
STAGE_PLAN = Plan(processes=3, seconds=0.3)

_BLOCKS = (8, 16)
_FOLDS = 5
#: Stages of fewer splits teach too little of what others cost.
LEAST_SPLITS = 5
_NS_PER_MS, _MILLION = 1e6, 1e6


def on_device(
    device: Device,
    store: Store,
    *,
    threads: int = 1,
    plan: Plan = STAGE_PLAN,
    progress: Progress | None = None,
) -> GraphMeasurer:
    """Measures on a device, and keeps the measurements in a store. Raises the first failure's
    error."""

    def measured(graphs: Sequence[Graph]) -> list[Measurement]:
        jobs = [device.job(GraphModel(graph, graph.name), threads) for graph in graphs]
        distinct = {job.workload.key: job for job in jobs}
        epoch = anchor(device, threads, store)
        found: dict[str, Measurement] = {}
        for result in record(
            device, list(distinct.values()), plan, store, epoch, progress=progress
        ):
            if isinstance(result, Failure):
                raise result.error
            found[result.workload.key] = result
        return [found[job.workload.key] for job in jobs]

    return measured


class StageOracle:
    """Latency of stages on one device: what a search asks instead of counting MACs.

    It stands beside :class:`~hwbench.predictors.BudgetOracle`, which knows the networks of one
    space by their codes: stages are networks of their own, told apart by what they compute.
    ``measurer`` is what :meth:`calibrate` and :meth:`measure` call; ``known`` are latencies in ms
    by the graph's hash, as :attr:`known` gives them, of measurements before. Not for several
    threads.
    """

    def __init__(
        self, measurer: GraphMeasurer, known: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        self._measurer = measurer
        self._known: dict[str, float] = dict(known)
        self._model: StageModel | None = None
        self.ledger = Ledger()

    @property
    def known(self) -> Mapping[str, float]:
        """What was measured: latency in ms by the graph's hash."""
        return MappingProxyType(self._known)

    @property
    def model(self) -> StageModel:
        """What it predicts by. UsageError before :meth:`calibrate`."""
        if self._model is None:
            raise UsageError("this oracle has learned from no stages yet: calibrate it")
        return self._model

    def calibrate(self, splits: Sequence[Sequence[Graph]]) -> None:
        """Measure the stages of some splits, unless known, and learn from them to predict others.

        Random splits will do (``space.sample``): a dozen teach as much as forty.
        """
        stages = [graph for split in splits for graph in split]
        self.measure([graph for graph in stages if graph.hash not in self._known])
        latency_ms = np.array([self._known[graph.hash] for graph in stages])
        numbers = np.repeat(np.arange(len(splits)), [len(split) for split in splits])
        self._model = fit_stages(stages, latency_ms, numbers)

    def measure(self, stages: Sequence[Graph]) -> Array:
        """Latency (n,) in ms as measured now; answered with from now on.

        InconclusiveError where the device told none.
        """
        start = time.perf_counter()
        found = list(self._measurer(stages)) if stages else []
        took = time.perf_counter() - start
        if len(found) != len(stages):
            raise UsageError(f"the measurer gave {len(found)} results for {len(stages)} networks")
        for graph, measurement in zip(stages, found, strict=True):
            if measurement.latency_ns is None:
                raise InconclusiveError(
                    f"{graph.name}: no latency could be measured: try again when less is going on"
                )
            self._known[graph.hash] = measurement.latency_ns / _NS_PER_MS
        self.ledger = replace(
            self.ledger,
            measured=self.ledger.measured + len(stages),
            measuring_seconds=self.ledger.measuring_seconds + took,
        )
        return np.array([self._known[graph.hash] for graph in stages])

    def stage_costs(self, stages: Sequence[Graph]) -> Array:
        """Latency (n,) in ms of stages: measured where it was measured, else predicted."""
        start = time.perf_counter()
        costs = np.array([self._known.get(graph.hash, math.nan) for graph in stages])
        unknown = np.flatnonzero(np.isnan(costs))
        if len(unknown):
            costs[unknown] = self.model.predict([stages[row] for row in unknown.tolist()])
        self.ledger = replace(
            self.ledger,
            queries=self.ledger.queries + 1,
            candidates=self.ledger.candidates + len(stages),
            predicting_seconds=self.ledger.predicting_seconds + time.perf_counter() - start,
        )
        return costs


def mean_latency(costs: ArrayLike, left: ArrayLike) -> float:
    """Expected latency of an input, in the unit of the stages' ``costs`` (s,).

    ``left`` (s,): the share of inputs that leaves at each stage, or their number. UsageError
    where nothing leaves.
    """
    stage_costs, shares = np.asarray(costs, float), np.asarray(left, float)
    if stage_costs.shape != shares.shape or shares.min() < 0 or not shares.sum() > 0:
        raise UsageError(f"shares {shares.tolist()} are none of {len(stage_costs)} stages")
    reach = shares[::-1].cumsum()[::-1] / shares.sum()
    return float(reach @ stage_costs)


@dataclass(frozen=True, eq=False)
class StageModel:
    """Latency in ms as a sum: ``weights`` by feature (:func:`stage_features`).

    ``error`` is the mean relative error on splits left out of the fit, ``largest`` the largest.
    """

    weights: Mapping[str, float]
    error: float
    largest: float

    def predict(self, graphs: Sequence[Graph]) -> Array:
        """Latency (n,) in ms. PredictorError for a kind of operation that was never measured."""
        return np.array([self._sum(stage_features(graph)) for graph in graphs])

    def _sum(self, features: Mapping[str, float]) -> float:
        if strange := [name for name in features if name not in self.weights]:
            raise PredictorError(
                f"no stage with {strange[0]} was measured: calibrate on splits that have it"
            )
        return sum(self.weights[name] * value for name, value in features.items())


def fit_stages(graphs: Sequence[Graph], latency_ms: Array, splits: NDArray[np.int64]) -> StageModel:
    """Learn the sum from measured stages (n,); ``splits`` (n,) says which split each is of.

    Splits are left out together, to see how well others tell of them. PredictorError for fewer
    than five.
    """
    names = np.unique(splits)
    if len(names) < LEAST_SPLITS:
        raise PredictorError(
            f"stages of {len(names)} splits teach too little: measure {LEAST_SPLITS}"
        )
    rows = [stage_features(graph) for graph in graphs]
    features = sorted({name for row in rows for name in row})
    x = np.array([[row.get(name, 0.0) for name in features] for row in rows])
    held_out = np.empty(len(x))
    for fold in range(_FOLDS):
        out = np.isin(splits, names[fold::_FOLDS])
        held_out[out] = x[out] @ _non_negative(x[~out], latency_ms[~out])
    errors = np.abs(held_out / latency_ms - 1)
    weights = _non_negative(x, latency_ms)
    by_name = dict(zip(features, weights.tolist(), strict=True))
    return StageModel(by_name, float(errors.mean()), float(errors.max()))


def _non_negative(x: Array, y: Array) -> Array:
    """Weights (f,), none below 0, of the smallest sum of squared relative errors."""
    from scipy.optimize import nnls

    scale = np.maximum(np.abs(x).max(axis=0), 1e-30)
    weights: Array = nnls(x / scale / y[:, None], np.ones(len(y)))[0] / scale
    return weights


def stage_features(graph: Graph) -> dict[str, float]:
    """What a stage's latency is a sum of, by name; bytes and MACs in millions."""
    found: dict[str, float] = defaultdict(float, {"a network": 1.0})
    for kind, macs, moved, weights in op_costs(graph):
        found[kind] += 1
        found["bytes of tensors"] += moved / _MILLION
        found["bytes of weights"] += weights / _MILLION
        if macs:
            found[f"MACs of {kind}"] += macs / _MILLION
    for op in graph.ops:
        if op.kind != "conv":
            continue
        read, made = graph.specs(op)[0].shape[1], op["out_channels"]
        each = graph.macs_of(op) / _MILLION / read / made
        for block in _BLOCKS:
            padded = math.ceil(made / block) * block
            found[f"MACs in blocks of {block}"] += each * read * padded
            found[f"MACs in blocks of {block}, twice"] += (
                each * math.ceil(read / block) * block * padded
            )
    return dict(found)
