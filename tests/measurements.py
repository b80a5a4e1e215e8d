"""Measurements made up for tests: by number, and at random."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hwbench.measure.jobs import Target, canary_key
from hwbench.records import (
    CAUSES,
    Bursts,
    CanaryEpoch,
    Fingerprint,
    InputSpec,
    Measurement,
    Percentile,
    Workload,
)

KEPT, PREEMPTED, WARMUP = (CAUSES.index(c) for c in ("kept", "preempted", "warmup"))


def bursts(seed: int = 0, *, count: int = 6, runs: int = 5, processes: int = 2) -> Bursts:
    """``count`` bursts of ``runs`` runs near 3 ms: the first is warm-up, the second preempted."""
    rng = np.random.default_rng(seed)
    cause = np.full(count, KEPT, np.uint8)
    cause[:2] = [WARMUP, PREEMPTED][:count]
    return Bursts(
        sample_ns=(3e6 * np.exp(np.abs(rng.normal(0, 0.01, count * runs)))).astype(np.int64),
        length=np.full(count, runs, np.int32),
        start_ns=np.arange(count, dtype=np.int64) * 10**8,
        process=(np.arange(count) % processes).astype(np.int16),
        copy=np.zeros(count, np.int16),
        round=np.arange(count, dtype=np.int32),
        canary_ns=rng.normal(1e6, 1e4, (count, 2, 2)).astype(np.int64),
        preemptions=(cause == PREEMPTED).astype(np.int32),
        steal_ns=np.zeros(count, np.int64),
        cause=cause,
    )


def measurement(number: int = 0, **changes: Any) -> Measurement:
    """Measurement ``number``; ``changes`` replace fields, ``work_<f>`` its workload's."""
    work: dict[str, Any] = {
        "name": f"net{number}",
        "model_hash": f"{number:032x}",
        "inputs": (InputSpec("x", "float32", (1, 3, 224, 224)),),
        "space": "ofa_mbv3",
        "arch": f"r224-{number}",
    }
    work |= {k.removeprefix("work_"): changes.pop(k) for k in [*changes] if k.startswith("work_")}
    made = Measurement(
        workload=Workload(**work),
        fingerprint=Fingerprint("cpu", {"cpu_model": "Test CPU", "kernel": "6.1"}, {"load": "0"}),
        session="session-1",
        created=f"2026-01-31T12:{number // 60 % 60:02d}:{number % 60:02d}+00:00",
        status="ok",
        latency_ns=3.0e6 + number,
        low_ns=2.9e6,
        high_ns=3.1e6,
        confidence=0.95,
        canaries=("conv", "memory"),
        beta=(0.8, 0.1),
        canary_ref_ns=(1e6, 1e6),
        epoch="epoch-1",
        observed=(Percentile(50, 3e6, 2.9e6, 3.1e6), Percentile(99, None, None, None)),
        bursts=bursts(number),
        warmup="flat",
        stop_reason="width",
        contention={"preempted": 1 / 6},
        seconds=0.9,
        load_ns=40_000_000,
        footprint_bytes=12 << 20,
        peak_memory_bytes=123 << 20,
        session_sd=0.004,
        tags={"commit": "abc"},
    )
    return dataclasses.replace(made, **changes)


def epoch(number: int = 0, **changes: Any) -> CanaryEpoch:
    """Canary epoch ``epoch-<number>``, an hour after the one before."""
    made = CanaryEpoch(
        id=f"epoch-{number}",
        fingerprint_key="f" * 32,
        threads=1,
        names=("conv", "memory"),
        canary_key="c" * 32,
        c0_ns=(1e6, 2e6),
        c0_low_ns=(0.99e6, 1.98e6),
        c0_high_ns=(1.01e6, 2.02e6),
        runs=5,
        created=f"2026-01-31T{number % 24:02d}:00:00+00:00",
    )
    return dataclasses.replace(made, **changes)


def epoch_on(
    target: Target,
    times_ns: Sequence[float] | None = None,
    spread: float = 0.01,
    **changes: Any,
) -> CanaryEpoch:
    """One that the target takes for its own on one thread: its canaries' times, ± ``spread``.

    Without times, canaries of 0.1 ms: for tests that are about no millisecond.
    """
    canaries = target.canaries(1)
    times = tuple(times_ns or [1e5] * len(canaries))
    made = epoch(
        fingerprint_key=target.fingerprint(1).key,
        names=tuple(c.name for c in canaries),
        canary_key=canary_key(canaries),
        c0_ns=times,
        c0_low_ns=tuple(t * (1 - spread) for t in times),
        c0_high_ns=tuple(t * (1 + spread) for t in times),
    )
    return dataclasses.replace(made, **changes)


def same(one: Measurement, other: Measurement) -> bool:
    """Equality down to the last sample and its dtype."""
    plain = dataclasses.replace(one, bursts=other.bursts) == other
    names = [f.name for f in dataclasses.fields(Bursts)]
    pairs = [(getattr(one.bursts, n), getattr(other.bursts, n)) for n in names]
    return plain and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs
    )


_floats = st.floats(allow_nan=False, allow_infinity=False)
_names = st.text(max_size=12)


def _optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def _mapping(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Mapping[str, Any]]:
    return st.dictionaries(_names, values, max_size=3)


def _tuple(items: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, max_size=3).map(tuple)


@st.composite
def random_bursts(draw: st.DrawFn) -> Bursts:
    """Bursts of any values that their dtypes hold."""
    count, canaries = draw(st.integers(0, 4)), draw(st.integers(0, 2))
    length = draw(hnp.arrays(np.int32, count, elements=st.integers(0, 3)))

    def column(dtype: Any) -> Any:
        return draw(hnp.arrays(dtype, count))

    return Bursts(
        sample_ns=draw(hnp.arrays(np.int64, int(length.sum()))),
        length=length,
        start_ns=column(np.int64),
        process=column(np.int16),
        copy=column(np.int16),
        round=column(np.int32),
        canary_ns=draw(hnp.arrays(np.int64, (count, 2, canaries))),
        preemptions=column(np.int32),
        steal_ns=column(np.int64),
        cause=draw(hnp.arrays(np.uint8, count, elements=st.integers(0, len(CAUSES) - 1))),
    )


random_workloads = st.builds(
    Workload,
    name=_names,
    model_hash=_names,
    inputs=_tuple(st.builds(InputSpec, _names, _names, _tuple(st.integers(0, 2**31)))),
    threads=st.integers(1, 256),
    options=_tuple(st.tuples(_names, _names)),
    space=_optional(_names),
    arch=_optional(_names),
)


def _of_a_year_that_utc_has(moment: datetime) -> bool:
    """Whether a measurement may be of that moment; of others, tests/unit/test_foreign.py."""
    try:
        return bool(moment.astimezone(UTC))
    except OverflowError:
        return False


_moments = st.datetimes(timezones=st.timezones()).filter(_of_a_year_that_utc_has)


def _answering(
    measurement: Measurement, times: tuple[float, ...], confidence: float
) -> Measurement:
    """With a latency in its interval, where it has one."""
    if not times:
        return measurement
    low, latency, high = sorted(times)
    return dataclasses.replace(
        measurement,
        status="ok" if measurement.status == "observed_only" else measurement.status,
        latency_ns=latency,
        low_ns=low,
        high_ns=high,
        confidence=confidence,
    )


_amounts = st.floats(0, 1e300)
_counts = st.integers(0, 2**63 - 1)
_without_answer = st.builds(
    Measurement,
    workload=random_workloads,
    fingerprint=st.builds(Fingerprint, _names, _mapping(_names), _mapping(_names)),
    session=_names,
    created=_moments.map(lambda moment: moment.isoformat()),
    status=st.sampled_from(["inconclusive", "observed_only"]),
    latency_ns=st.none(),
    low_ns=st.none(),
    high_ns=st.none(),
    confidence=st.floats(0, 1),
    canaries=_tuple(_names),
    beta=_tuple(_floats),
    canary_ref_ns=_tuple(_floats),
    epoch=_optional(_names),
    observed=_tuple(st.builds(Percentile, st.floats(0, 100), *[_optional(_amounts)] * 3)),
    bursts=random_bursts(),
    warmup=_names,
    stop_reason=_names,
    contention=_mapping(_floats),
    seconds=_amounts,
    load_ns=_optional(_counts),
    first_inference_ns=_optional(_counts),
    footprint_bytes=_optional(_counts),
    peak_memory_bytes=_optional(_counts),
    session_sd=st.floats(0, 1),
    energy_mj=_optional(_floats),
    tags=_mapping(_names),
)
random_measurements = st.builds(
    _answering,
    _without_answer,
    st.just(()) | st.tuples(*[st.floats(1e-9, 1e300)] * 3),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
)
