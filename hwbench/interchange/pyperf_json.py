"""pyperf's JSON, so that ``pyperf compare_to``, ``hist`` and ``stats`` read our samples.

One pyperf benchmark a workload and environment, one pyperf run a process, one value a kept
sample; warm-up bursts are pyperf's warmups. pyperf pools the values: what the canaries know
about them, the undisturbed latency with its interval, travels in the runs' metadata. What was
imported from pyperf goes out as it came in (:mod:`.pyperf_read`).
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyperf
from numpy.typing import NDArray

from hwbench.errors import UsageError
from hwbench.interchange.files import writing
from hwbench.interchange.pyperf_read import TOOL, written_runs
from hwbench.records import CAUSES, Measurement

_Group = tuple[str, str]
_KEPT, _WARMUP = CAUSES.index("kept"), CAUSES.index("warmup")


def write_pyperf(measurements: Sequence[Measurement], path: Path) -> list[str]:
    """Write measurements as a pyperf suite; return the name of each without a kept sample.

    Raises UsageError where none has one: a pyperf suite cannot be empty.
    """
    groups: dict[_Group, list[Measurement]] = {}
    for measurement in measurements:
        group = (measurement.workload.key, measurement.fingerprint.key)
        groups.setdefault(group, []).append(measurement)
    names = _unique_names({group: made[-1].workload.name for group, made in groups.items()})
    benchmarks, left_out = [], []
    for group, made in groups.items():
        each = [list(_runs(measurement, names[group])) for measurement in made]
        left_out += [names[group] for own in each if not own]
        if runs := [run for own in each for run in own]:
            benchmarks.append(pyperf.Benchmark(runs))
    if not benchmarks:
        raise UsageError("no kept sample to export: pyperf needs the samples of a measurement")
    suite = pyperf.BenchmarkSuite(benchmarks)
    with writing(path) as raw, io.TextIOWrapper(raw, encoding="utf-8") as file:
        suite.dump(file)
    return left_out


def _unique_names(names: Mapping[_Group, str]) -> dict[_Group, str]:
    """A name for each benchmark, the same in every export that needs no telling apart.

    Equal names get a piece of the workload's key, and where that is no help both keys.
    """
    unique = {group: _line(name) or "unnamed" for group, name in names.items()}
    for suffix in (lambda work, _: work[:8], lambda work, environment: f"{work}@{environment}"):
        count = Counter(unique.values())
        for group, name in unique.items():
            if count[name] > 1:
                unique[group] = f"{name} #{suffix(*group)}"
    return unique


def _runs(measurement: Measurement, name: str) -> Iterator[Any]:
    if measurement.fingerprint.device == TOOL:
        kept = name == _line(measurement.workload.name)
        yield from written_runs(measurement, None if kept else name)
        return
    bursts = measurement.bursts
    cause, process = (np.repeat(a, bursts.length) for a in (bursts.cause, bursts.process))
    metadata = _metadata(measurement, name)
    for number in np.unique(process):
        mine = process == number
        values = _seconds(bursts.sample_ns[mine & (cause == _KEPT)])
        if values:
            warmups = _seconds(bursts.sample_ns[mine & (cause == _WARMUP)])
            yield pyperf.Run(
                values,
                warmups=[(1, seconds) for seconds in warmups],
                metadata={**metadata, "process": int(number)},
                collect_metadata=False,
            )


def _seconds(samples_ns: NDArray[np.int64]) -> list[float]:
    """Samples in seconds; those of a clock that did not tick (0 ns) are nothing to pyperf."""
    seconds: list[float] = (samples_ns[samples_ns > 0] / 1e9).tolist()
    return seconds


def _metadata(m: Measurement, name: str) -> dict[str, Any]:
    work = m.workload
    kept = int(m.bursts.length[m.bursts.cause == _KEPT].sum())
    values: dict[str, Any] = {
        **{f"fact_{key}": value for key, value in m.fingerprint.facts.items()},
        **{f"tag_{key}": value for key, value in m.tags.items()},
        "name": name,
        "unit": "second",
        "date": datetime.fromisoformat(m.created).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "cpu_model_name": m.fingerprint.facts.get("cpu_model"),
        "mem_max_rss": m.peak_memory_bytes if (m.peak_memory_bytes or 0) > 0 else None,
        "device": m.fingerprint.device,
        "session": m.session,
        "status": m.status,
        "undisturbed_s": _in_seconds(m.latency_ns),
        "undisturbed_low_s": _in_seconds(m.low_ns),
        "undisturbed_high_s": _in_seconds(m.high_ns),
        "undisturbed_confidence": m.confidence,
        "space": work.space,
        "arch": work.arch,
        "threads": work.threads,
        "workload_key": work.key,
        "fingerprint_key": m.fingerprint.key,
        "warmup": m.warmup,
        "stop_reason": m.stop_reason,
        "rejected_samples": m.bursts.sample_ns.size - kept,
    }
    lines = {_line(k): _line(v) if isinstance(v, str) else v for k, v in values.items()}
    return {key: value for key, value in lines.items() if value not in (None, "")}


def _line(text: str) -> str:
    """Text on one line: pyperf's metadata holds no other."""
    return " ".join(text.split())


def _in_seconds(value_ns: float | None) -> float | None:
    return None if value_ns is None else value_ns / 1e9
