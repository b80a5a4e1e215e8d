"""The records that everything else passes around: frozen, plain, and free of behaviour.

Times are integer or float **nanoseconds** of a monotonic clock; milliseconds appear at the
border only. A record never holds an object of a runtime.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Status = Literal["ok", "inconclusive", "observed_only"]

#: Why a burst does not count. Only a physical cause that was recorded may reject one.
CAUSES = ("kept", "preempted", "stolen", "migrated", "throttled", "warmup", "canary_unstable")


def digest(value: Any) -> str:
    """First 32 hex digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a model: its name, numpy dtype name and concrete shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """What is timed: a model with concrete shapes, on so many threads, with these options.

    ``name``, ``space`` and ``arch`` are labels; ``key`` identifies the work itself.
    """

    name: str
    model_hash: str
    inputs: tuple[InputSpec, ...]
    threads: int = 1
    options: tuple[tuple[str, str], ...] = ()
    space: str | None = None
    arch: str | None = None

    @property
    def key(self) -> str:
        """Digest of all that changes the work, and of nothing else."""
        inputs = [[i.name, i.dtype, list(i.shape)] for i in self.inputs]
        return digest([self.model_hash, inputs, self.threads, sorted(map(list, self.options))])


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The environment a latency belongs to.

    ``facts`` are what makes two latencies comparable (CPU, runtime and its version, affinity);
    ``state`` is what varies from run to run (load, frequency) and is kept for the record.
    """

    device: str
    facts: Mapping[str, str]
    state: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Digest of the device's name and facts."""
        return digest([self.device, dict(self.facts)])


@dataclass(frozen=True, slots=True)
class CanaryEpoch:
    """The canonical time of a device's canaries: fixed once, never changed.

    ``c0_ns[k]`` is the undisturbed time of canary ``names[k]``, with a 95 % interval
    ``[c0_low_ns[k], c0_high_ns[k]]``. A new epoch starts a new series of absolute latencies.
    """

    id: str
    fingerprint_key: str
    threads: int
    names: tuple[str, ...]
    canary_key: str
    c0_ns: tuple[float, ...]
    c0_low_ns: tuple[float, ...]
    c0_high_ns: tuple[float, ...]
    runs: int
    created: str


@dataclass(frozen=True, slots=True)
class Bursts:
    """The raw record of one measurement: B bursts of consecutive runs beside K canaries.

    Row ``b`` is a burst of ``length[b]`` runs, whose times lie one after the other in
    ``sample_ns``. ``copy[b]`` tells which of the copies of the model that its process holds ran.
    ``canary_ns[b, 0, k]`` and ``[b, 1, k]`` are canary k's times before and after it, within
    milliseconds. ``cause[b]`` indexes :data:`CAUSES`.
    """

    sample_ns: NDArray[np.int64]
    length: NDArray[np.int32]
    start_ns: NDArray[np.int64]
    process: NDArray[np.int16]
    copy: NDArray[np.int16]
    round: NDArray[np.int32]
    canary_ns: NDArray[np.int64]
    preemptions: NDArray[np.int32]
    steal_ns: NDArray[np.int64]
    cause: NDArray[np.uint8]

    def __len__(self) -> int:
        return int(self.length.size)


@dataclass(frozen=True, slots=True)
class Percentile:
    """An observed percentile with its distribution-free interval; ``None`` where refused."""

    q: float
    value_ns: float | None
    low_ns: float | None
    high_ns: float | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One workload's latency on one device: two answers, and all that they rest on.

    ``latency_ns`` with ``[low_ns, high_ns]`` is the **undisturbed** latency, ``observed`` what a
    caller met during the run. ``status`` says whether it is an answer: of an ``inconclusive``
    one the interval is too wide to be claimed, and ``observed_only`` was not anchored.
    ``beta`` are the workload's sensitivities to the canaries; with them and ``canary_ref_ns`` an
    absolute latency can be restated for another epoch. ``session_sd`` is the relative standard
    deviation of what is alike in all measurements of its session: part of the interval, and what
    no comparison within the session shows. ``footprint_bytes`` is the memory that loading and a
    first run took, ``peak_memory_bytes`` the most that many runs did, in a pass of its own.
    """

    workload: Workload
    fingerprint: Fingerprint
    session: str
    created: str
    status: Status
    latency_ns: float | None
    low_ns: float | None
    high_ns: float | None
    confidence: float
    canaries: tuple[str, ...]
    beta: tuple[float, ...]
    canary_ref_ns: tuple[float, ...]
    epoch: str | None
    observed: tuple[Percentile, ...]
    bursts: Bursts
    warmup: str
    stop_reason: str
    contention: Mapping[str, float]
    seconds: float
    load_ns: int | None = None
    first_inference_ns: int | None = None
    footprint_bytes: int | None = None
    peak_memory_bytes: int | None = None
    session_sd: float = 0.0
    energy_mj: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def keeps(budget: float, low: float, high: float) -> bool | None:
    """Whether a latency whose interval is ``[low, high]`` keeps a budget; all in one unit.

    By all of the interval: ``None``, inconclusive, where the budget lies in it, or where there is
    none (NaN).
    """
    if high <= budget:
        return True
    return False if low > budget else None


Outcome = Literal["confirmed", "refuted", "partly", "inconclusive", "not testable here"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the claims ledger: what was claimed, how it was tested, what came out."""

    claim: str
    protocol: str
    outcome: Outcome
    evidence: Mapping[str, Any]
    figure: str | None
    created: str
