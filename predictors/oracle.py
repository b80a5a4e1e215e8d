"""The budget oracle: what a search asks about latency, and the ledger of what it asked.

>>> oracle = BudgetOracle(load_predictor("cpu.hwp"), measurer=measure_on_cpu)
>>> candidates = candidates[oracle.feasible(candidates, budget_ms=12, confidence=0.98)]
>>> kept = oracle.settle(finalists, budget_ms=12, confidence=0.98, at_most=5)

It answers with a bound, not with the mean: a search drifts to where a predictor errs in its
favour. What it measured it knows, and answers with that from then on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.errors import UsageError
from hwbench.predictors.calibration import normal_quantile
from hwbench.predictors.data import TrainingSet
from hwbench.predictors.predictor import LatencyPredictor, fit_predictor
from hwbench.predictors.table import LatencyTable, latency_table
from hwbench.records import Measurement
from hwbench.spaces import Codes, Value

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Codes (n, L), or texts that the space reads.
Archs = ArrayLike | Sequence[str]

#: Measures architectures (n, L) on the predictor's device, in the order given.
Measurer = Callable[[Codes], Sequence[Measurement]]

CONFIDENCE = 0.98


class Bounded(Protocol):
    """What a limit rests on: another device's oracle, or a cost that is known exactly."""

    def upper(self, archs: Codes, confidence: float) -> Array:
        """Bound (n,) on the cost of codes (n, L) that holds with this probability, each."""


@dataclass(frozen=True)
class Limit:
    """A further bound on an architecture: its ``cost`` is at most ``most``, in the cost's unit."""

    cost: Bounded
    most: float

    def holds(self, codes: Codes, confidence: float) -> Bools:
        """Which of the codes (n, L) keep it with this probability: (n,) bool."""
        return np.asarray(self.cost.upper(codes, confidence) <= self.most)


@dataclass(frozen=True)
class Ledger:
    """What was asked of an oracle: the cost of a search, beside its own."""

    queries: int = 0
    candidates: int = 0
    measured: int = 0
    predicting_seconds: float = 0.0
    measuring_seconds: float = 0.0


@dataclass(frozen=True)
class _Known:
    """A measured latency and the standard deviation of its error."""

    latency_ms: float
    sd_ms: float


class BudgetOracle:
    """Latency, bounds and feasibility of architectures on one device, a hundred thousand at once.

    Architectures are codes (n, L) or texts. ``measurer`` is what :meth:`measure` and
    :meth:`settle` call; without one they refuse. ``also`` are limits that hold beside every
    latency budget: a second device's latency, a size. Not for use from several threads.
    """

    def __init__(
        self,
        predictor: LatencyPredictor,
        *,
        measurer: Measurer | None = None,
        also: Sequence[Limit] = (),
    ) -> None:
        self.predictor = predictor
        self._measurer = measurer
        self._limits = tuple(also)
        self._ledger = Ledger()
        self._known: dict[bytes, _Known] = {}

    @property
    def limited(self) -> bool:
        """Whether there are limits beside the latency budget."""
        return bool(self._limits)

    @property
    def ledger(self) -> Ledger:
        """What was asked so far."""
        return self._ledger

    def latency(self, archs: Archs) -> Array:
        """Expected latency (n,) in ms: measured where it was measured."""
        codes = self._codes(archs)
        with self._query(len(codes)):
            mean = self.predictor.predict(codes).mean_ms
            for row, known in self._measured_rows(codes):
                mean[row] = known.latency_ms
        return mean

    def upper(self, archs: Archs, confidence: float = CONFIDENCE) -> Array:
        """Latency (n,) in ms that a measurement stays below with this probability, each."""
        return self._bounds(archs, confidence)[0]

    def feasible(self, archs: Archs, budget_ms: float, confidence: float = CONFIDENCE) -> Bools:
        """Which architectures keep the budget with this probability: (n,) bool.

        And every other limit, each with this probability.
        """
        _check_budget(budget_ms)
        codes = self._codes(archs)
        return (self.upper(codes, confidence) <= budget_ms) & self.within_limits(codes, confidence)

    def within_limits(self, archs: Archs, confidence: float = CONFIDENCE) -> Bools:
        """Which architectures keep all limits beside the latency budget: (n,) bool."""
        codes = self._codes(archs)
        kept = np.ones(len(codes), bool)
        for limit in self._limits:
            kept &= limit.holds(codes, confidence)
        return kept

    def settle(
        self,
        archs: Archs,
        budget_ms: float,
        confidence: float = CONFIDENCE,
        *,
        at_most: int,
    ) -> Bools:
        """Like :meth:`feasible`, but measures where the prediction does not decide.

        That is where the budget lies between the lower and the upper bound, or the predictor is
        out of its depth (:meth:`LatencyPredictor.unfamiliar`) and no bound of it is worth much:
        at most so many of them, those first whose expected latency is nearest to the budget.
        """
        _check_budget(budget_ms)
        codes = self._codes(archs)
        (upper, mean, lower) = self._bounds(codes, confidence)
        allowed = self.within_limits(codes, confidence)
        undecided = (lower <= budget_ms) & (budget_ms < upper)
        undecided |= self.predictor.unfamiliar(self.predictor.predict(codes))
        doubtful = np.flatnonzero(undecided & allowed)
        nearest = doubtful[np.argsort(np.abs(mean[doubtful] - budget_ms), kind="stable")]
        known = {row for row, _ in self._measured_rows(codes)}
        ask = [row for row in nearest if row not in known][:at_most]
        if ask:
            self.measure(codes[ask])
        return self.feasible(codes, budget_ms, confidence)

    def measure(self, archs: Archs) -> list[Measurement]:
        """Measure architectures on the device, and answer with that from now on.

        What it knows is the measurement's interval: of an inconclusive one, a wide one.
        """
        if self._measurer is None:
            raise UsageError("this oracle has no measurer: give BudgetOracle(…, measurer=…)")
        codes = self.predictor.space.canonical(self._codes(archs))
        start = time.perf_counter()
        found = list(self._measurer(codes))
        took = time.perf_counter() - start
        if len(found) != len(codes):
            raise UsageError(f"the measurer gave {len(found)} results for {len(codes)} networks")
        for code, measurement in zip(codes, found, strict=True):
            if (known := _known(measurement)) is not None:
                self._known[code.tobytes()] = known
        self._ledger = replace(
            self._ledger,
            measured=self._ledger.measured + len(codes),
            measuring_seconds=self._ledger.measuring_seconds + took,
        )
        return found

    def know(self, archs: Archs, latency_ms: ArrayLike, sd_ms: ArrayLike) -> None:
        """Answer with what was measured elsewhere from now on: (n,), and the sd of its errors.

        PredictorError where a latency is none, as :class:`TrainingSet` has it.
        """
        codes = self.predictor.space.canonical(self._codes(archs))
        latencies, sds = (
            np.broadcast_to(np.asarray(x, dtype=np.float64), len(codes))
            for x in (latency_ms, sd_ms)
        )
        TrainingSet(codes, latencies, sds)  # refuses what is no measurement
        for code, latency, sd in zip(codes, latencies, sds, strict=True):
            self._known[code.tobytes()] = _Known(float(latency), float(sd))

    @property
    def known(self) -> TrainingSet:
        """What was measured, or measured elsewhere, in the order in which it came to know it."""
        width = len(self.predictor.space.decisions)
        return TrainingSet(
            np.frombuffer(b"".join(self._known), dtype=np.int16).reshape(-1, width),
            np.array([known.latency_ms for known in self._known.values()]),
            np.array([known.sd_ms for known in self._known.values()]),
        )

    def learn(self, training: TrainingSet) -> None:
        """Fit the predictor anew, on ``training`` (what it learned from) and what was measured.

        A search leads to a corner of the space; what was measured there makes its neighbours'
        bounds narrower. Of the same family and seed, calibrated on all of it.
        """
        if not self._known:
            return
        meta = self.predictor.meta
        self.predictor = fit_predictor(
            self.predictor.space,
            training.joined(self.known),
            meta.provenance,
            seed=meta.seed,
            kind=meta.kind,
        )

    def calibrate(self, chosen: TrainingSet) -> None:
        """Give bounds by errors on what a search chose (:meth:`LatencyPredictor.calibrated_on`)."""
        self.predictor = self.predictor.calibrated_on(chosen)

    def table(self, *, fixed: Mapping[str, Value] | None = None, seed: int = 0) -> LatencyTable:
        """Latency as a sum of entries, for a differentiable search; with what the sum loses.

        ``fixed`` pins decisions to a value (``{"r": 224}``): the table is of that part of the
        space.
        """
        with self._query(0):
            return latency_table(self.predictor, fixed or {}, np.random.default_rng(seed))

    # --- inside -------------------------------------------------------------------------------

    def _codes(self, archs: Archs) -> Codes:
        space = self.predictor.space
        if isinstance(archs, str) or (isinstance(archs, Sequence) and _are_texts(archs)):
            return space.encode(archs)
        return space.check(archs)

    def _bounds(self, archs: Archs, confidence: float) -> tuple[Array, Array, Array]:
        """Upper bound, expectation and lower bound (n,) in ms."""
        if not 0.5 <= confidence < 1:
            raise UsageError(f"confidence {confidence:g} is not from 0.5 to below 1")
        codes = self._codes(archs)
        with self._query(len(codes)):
            prediction = self.predictor.predict(codes)
            mean = prediction.mean_ms
            upper = self.predictor.bound(prediction, confidence)
            lower = self.predictor.bound(prediction, 1 - confidence)
            for row, known in self._measured_rows(codes):
                beyond = normal_quantile(confidence) * known.sd_ms
                mean[row] = known.latency_ms
                upper[row], lower[row] = known.latency_ms + beyond, known.latency_ms - beyond
        return upper, mean, lower

    def _measured_rows(self, codes: Codes) -> Iterator[tuple[int, _Known]]:
        if not self._known:
            return
        rows = np.ascontiguousarray(self.predictor.space.canonical(codes))
        keys = rows.view(f"V{rows.itemsize * rows.shape[1]}").reshape(-1)
        measured = np.frombuffer(b"".join(self._known), dtype=keys.dtype)
        for row in np.flatnonzero(np.isin(keys, measured)):
            yield int(row), self._known[rows[row].tobytes()]

    @contextmanager
    def _query(self, candidates: int) -> Iterator[None]:
        start = time.perf_counter()
        yield
        took = time.perf_counter() - start
        self._ledger = replace(
            self._ledger,
            queries=self._ledger.queries + 1,
            candidates=self._ledger.candidates + candidates,
            predicting_seconds=self._ledger.predicting_seconds + took,
        )


def _are_texts(archs: Sequence[object]) -> TypeGuard[Sequence[str]]:
    return len(archs) > 0 and all(isinstance(arch, str) for arch in archs)


def _known(measurement: Measurement) -> _Known | None:
    m = measurement
    if m.latency_ns is None or m.low_ns is None or m.high_ns is None:
        return None
    half_width = max(m.high_ns - m.latency_ns, m.latency_ns - m.low_ns)
    z = normal_quantile(0.5 + m.confidence / 2)
    return _Known(m.latency_ns / 1e6, half_width / z / 1e6)


def _check_budget(budget_ms: float) -> None:
    if not (math.isfinite(budget_ms) and budget_ms > 0):
        raise UsageError(f"a budget of {budget_ms} ms cannot be kept: give a positive number")
