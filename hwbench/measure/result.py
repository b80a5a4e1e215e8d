"""From a workload's bursts to its Measurement: both answers, and the record of disturbances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import DeviceError, InconclusiveError
from hwbench.measure.estimate import (
    KINDS,
    NEEDED_KINDS,
    Estimate,
    Evidence,
    prior_sensitivity,
    undisturbed,
)
from hwbench.measure.family import Family
from hwbench.measure.jobs import Canary
from hwbench.measure.stats import percentile
from hwbench.measure.steady import classify
from hwbench.records import (
    CAUSES,
    Bursts,
    CanaryEpoch,
    Fingerprint,
    Measurement,
    Status,
    Workload,
)

#: An interval with a larger relative half-width than this is no answer.
WIDEST = 0.05
#: Share of a burst's time that may be spent waiting for the CPU before it is called preempted.
PATIENCE = 0.02
PERCENTILES = (50.0, 90.0, 99.0)
_KEPT, _PREEMPTED, _STOLEN, _MIGRATED = (
    CAUSES.index(c) for c in ("kept", "preempted", "stolen", "migrated")
)
# A two-sided 95 % interval is this many standard errors wide on each side.
_Z95 = 1.96
# Standard deviation of the lesser of two standard normal numbers.
_SD_OF_LESSER = (1 - 1 / np.pi) ** 0.5


@dataclass(frozen=True, slots=True)
class Context:
    """What all measurements of a session share.

    ``anchors``: the canaries can be believed. ``adjacent``: they are read within milliseconds of a
    burst, not in launches of their own, seconds away.
    """

    session: str
    created: str
    fingerprint: Fingerprint
    canaries: tuple[Canary, ...]
    epoch: CanaryEpoch | None
    anchors: bool
    tags: Mapping[str, str]
    adjacent: bool = True

    def mixing(self, *, launch_bound: bool) -> NDArray[np.float64]:
        """Matrix (canaries, kinds) that averages the canaries of each kind.

        A kind that the device has no canary of passes for never disturbed. For a model that is
        ``launch_bound`` the canaries of launches are those of its computing.
        """
        found = [canary.kind for canary in self.canaries]
        if not set(NEEDED_KINDS).issubset(found):
            raise DeviceError(f"the device needs a canary of each kind: {', '.join(NEEDED_KINDS)}")
        stands = {kind: kind for kind in KINDS}
        if launch_bound and "launch" in found:
            stands["compute"] = "launch"
        member = np.array([[own == stands[kind] for kind in KINDS] for own in found], float)
        return np.asarray(member / np.maximum(member.sum(axis=0), 1))


@dataclass(slots=True)
class BurstLog:
    """A workload's record while it grows."""

    workload: Workload
    rows: list[tuple[int, int, int, Mapping[str, Any]]] = field(default_factory=list)
    readings: list[tuple[list[int], list[int]]] = field(default_factory=list)
    warm_ns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    typical_ns: float = 0.0
    footprints: list[int] = field(default_factory=list)
    launch_bounds: list[bool] = field(default_factory=list)
    load_ns: int | None = None
    first_ns: int | None = None
    peak_memory: int | None = None
    seconds: float = 0.0
    tags: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        process: int,
        copy: int,
        index: int,
        burst: Mapping[str, Any],
        before: list[int],
        after: list[int],
    ) -> None:
        """Add a burst of one of the loaded copies, with the canary readings on both sides."""
        self.rows.append((process, copy, index, burst))
        self.readings.append((before, after))

    @property
    def footprint(self) -> int | None:
        """Memory that loading and a first run took, in bytes: the middle of all processes."""
        return int(np.median(self.footprints)) if self.footprints else None

    @property
    def launch_bound(self) -> bool:
        """Whether launches decided the model's time in most of its processes."""
        return 2 * sum(self.launch_bounds) > len(self.launch_bounds)

    def bursts(self) -> Bursts:
        """The record as arrays, with the cause of each rejected burst."""
        raw = [burst for *_, burst in self.rows]
        return Bursts(
            sample_ns=np.concatenate([np.array(b["ns"], np.int64) for b in raw]),
            length=np.array([len(b["ns"]) for b in raw], np.int32),
            start_ns=np.array([b["start"] for b in raw], np.int64),
            process=np.array([p for p, *_ in self.rows], np.int16),
            copy=np.array([c for _, c, *_ in self.rows], np.int16),
            round=np.array([i for _, _, i, _ in self.rows], np.int32),
            canary_ns=np.array(self.readings, np.int64),
            preemptions=np.array([b["preemptions"] for b in raw], np.int32),
            steal_ns=np.array([b["steal_ns"] for b in raw], np.int64),
            cause=np.array([_cause(b) for b in raw], np.uint8),
        )

    def complete(self, result: Measurement) -> Measurement:
        """Add what only the end of the session knows."""
        return replace(result, peak_memory_bytes=self.peak_memory, seconds=self.seconds)


def _cause(burst: Mapping[str, Any]) -> int:
    """The physical cause that spoils a burst's time, if one was recorded.

    What delays one run of a burst does not move its time: a burst is rejected only where half
    of its runs or more may have been delayed, and by more than a little.
    """
    if known := burst.get("cause"):  # the device said so itself
        return CAUSES.index(known)
    times = burst["ns"]
    whole = sum(times)
    if 2 * burst["preemptions"] >= len(times) and burst["waited_ns"] > PATIENCE * whole:
        return _PREEMPTED
    if burst["steal_ns"] > whole / 2:
        return _STOLEN
    return _MIGRATED if burst["migrated"] and len(times) < 3 else _KEPT


def burst_times(bursts: Bursts) -> NDArray[np.float64]:
    """The time of each burst in ns, shape (B,): that of a run which at most a quarter are faster
    than (of four runs and fewer, the fastest).

    A neighbour comes and goes within a burst too, and slows some of its runs: a median is a quiet
    run's where half of them were left alone, the lower quartile where a quarter were. Of runs
    that all were, it lies 0.1 to 0.6 % below the median, 1.5 % where memory decides.
    """
    ends = np.cumsum(bursts.length)
    runs = [bursts.sample_ns[e - n : e] for e, n in zip(ends, bursts.length, strict=True)]
    return np.array([np.sort(own)[(len(own) - 1) // 4] for own in runs], np.float64)


@dataclass(frozen=True, slots=True)
class Result:
    """An estimate with all that a Measurement needs beside it."""

    log: BurstLog
    context: Context
    bursts: Bursts
    estimate: Estimate
    look_confidence: float
    confidence: float
    canary_ref_ns: NDArray[np.float64]

    @property
    def relative_half_width(self) -> float:
        """Relative half-width of the interval at this look."""
        return self.estimate.half_width(self.look_confidence)

    @property
    def status(self) -> Status:
        """Whether the number may be used."""
        if not self.context.anchors:
            return "observed_only"
        return "ok" if self.relative_half_width <= WIDEST else "inconclusive"

    def measurement(self, stop_reason: str) -> Measurement:
        """The record to store."""
        log, context, bursts = self.log, self.context, self.bursts
        mixing = context.mixing(launch_bound=log.launch_bound)
        low, high = self.estimate.interval_ns(self.look_confidence)
        return Measurement(
            workload=log.workload,
            fingerprint=context.fingerprint,
            session=context.session,
            created=context.created,
            status=self.status,
            latency_ns=float(np.exp(self.estimate.log_latency)),
            low_ns=low,
            high_ns=high,
            confidence=self.confidence,
            canaries=tuple(c.name for c in context.canaries),
            beta=tuple(map(float, mixing @ self.estimate.beta)),
            canary_ref_ns=tuple(map(float, self.canary_ref_ns)),
            epoch=context.epoch.id if context.epoch else None,
            observed=tuple(percentile(bursts.sample_ns, q) for q in PERCENTILES),
            bursts=bursts,
            warmup=classify(log.warm_ns),
            stop_reason=stop_reason,
            contention=_contention(bursts, self.estimate),
            seconds=log.seconds,
            load_ns=log.load_ns,
            footprint_bytes=log.footprint,
            session_sd=self.estimate.session_sd,
            first_inference_ns=log.first_ns,
            tags={**context.tags, **log.tags},
        )


def conclude(
    log: BurstLog,
    context: Context,
    look_confidence: float,
    confidence: float,
    provisional_ns: NDArray[np.float64] | None,
    family: Family | None = None,
) -> Result:
    """Estimate a workload from its bursts so far, and from what its ``family`` is known to feel.

    ``provisional_ns`` (K,) stands in for the canonical canary times where no epoch is known.
    Raises :class:`~hwbench.errors.InconclusiveError` when fewer than two bursts count.
    """
    evidence = evidence_of(log, context, provisional_ns)
    estimate = undisturbed(evidence if family is None else family.of(evidence))
    reference, _ = _reference(context, provisional_ns)
    return Result(log, context, log.bursts(), estimate, look_confidence, confidence, reference)


def evidence_of(
    log: BurstLog, context: Context, provisional_ns: NDArray[np.float64] | None
) -> Evidence:
    """What the bursts so far have for an estimate; raises as :func:`conclude` does."""
    if not log.rows:
        raise InconclusiveError(f"{log.workload.name}: no worker lived long enough to measure it")
    bursts = log.bursts()
    kept = bursts.cause == _KEPT
    if kept.sum() < 2:
        causes = sorted({CAUSES[c] for c in bursts.cause[~kept]})
        raise InconclusiveError(
            f"{log.workload.name}: {kept.sum()} of {len(bursts)} bursts count, too few"
            f"{' (' + ', '.join(causes) + ')' if causes else ''}; " + _cure(causes)
        )
    reference, se = _reference(context, provisional_ns)
    mixing = context.mixing(launch_bound=log.launch_bound)
    return burst_evidence(bursts, mixing, reference, log.footprint, se, adjacent=context.adjacent)


def _reference(
    context: Context, provisional_ns: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The canonical canary times in ns, and the standard errors of their logarithms: (K,), (K,)."""
    if context.epoch is None:
        assert provisional_ns is not None
        return provisional_ns, np.zeros(len(context.canaries))
    spread = np.log(context.epoch.c0_high_ns) - np.log(context.epoch.c0_low_ns)
    return np.array(context.epoch.c0_ns), np.asarray(spread / (2 * _Z95))


def _cure(causes: Sequence[str]) -> str:
    if "throttled" in causes:
        return "let the device cool down, or lock a lower clock"
    return "leave the machine a free core, or give more time"


def burst_evidence(
    bursts: Bursts,
    mixing: NDArray[np.float64],
    reference_ns: NDArray[np.float64],
    footprint_bytes: int | None,
    reference_se: NDArray[np.float64],
    *,
    adjacent: bool = True,
) -> Evidence:
    """What an estimate rests on, from raw bursts as they were measured or as a store kept them.

    ``mixing`` (K, kinds) averages the canaries of each kind, ``reference_ns`` (K,) are their
    canonical times, whose logarithms have the standard errors ``reference_se`` (K,); for
    ``adjacent`` see :class:`Context`.
    """
    kept = bursts.cause == _KEPT
    states = np.log(bursts.canary_ns[kept] / reference_ns) @ mixing
    process, times = bursts.process[kept], burst_times(bursts)[kept]
    state, noise_sd = _around(states, adjacent=adjacent)
    return Evidence(
        np.log(times),
        state,
        process,
        prior_sensitivity(footprint_bytes, float(np.median(times))),
        layout=bursts.copy[kept],
        noise_sd=noise_sd,
        state_se=np.sqrt(reference_se**2 @ mixing**2),
    )


def _around(
    states: NDArray[np.float64], *, adjacent: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """State (B, kinds) at each burst from the readings before and after it, states (B, 2, kinds),
    and the noise (kinds,) of it, from how the two differ.

    Of the conv nets' two readings the calmer one counts, if they are ``adjacent``: what delayed
    only the other was over before the burst, or came after it. Seconds apart the machine may have
    been on its way from one to the other, and their mean counts. Memory's noise has two sides:
    their mean. The cache canary is read now and then, and what it follows moves over tens of
    seconds: of its readings in a process only the mean counts.
    """
    compute, cache = KINDS.index("compute"), KINDS.index("cache")
    state = states.mean(axis=1)
    reading_sd = 1.4826 * np.median(np.abs(states[:, 1] - states[:, 0]), axis=0) / np.sqrt(2)
    noise = reading_sd / np.sqrt(2)
    if adjacent:
        state[:, compute] = states[:, :, compute].min(axis=1)
        noise[compute] = _SD_OF_LESSER * reading_sd[compute]
    noise[cache] = np.inf
    return state, noise


def _contention(bursts: Bursts, estimate: Estimate) -> dict[str, float]:
    """How disturbed the run was: shares of bursts, and the canaries' typical slowdown."""
    return {
        "preempted": float((bursts.preemptions > 0).mean()),
        "stolen": float((bursts.steal_ns > 0).mean()),
        "rejected": float((bursts.cause != _KEPT).mean()),
        "slowdown": float(np.exp(estimate.shift @ estimate.beta)),
    }
