"""A measurement as the border shows it: milliseconds, megabytes, and null where refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwbench import console
from hwbench.records import CAUSES, Measurement

if TYPE_CHECKING:
    from rich.table import Table

    from hwbench.measure.ops import OpProfile
    from hwbench.measure.plan import Failure

_NS_PER_MS = 1e6
_BYTES_PER_MB = 1e6
_OPS_SHOWN = 20


#: The figures of an entry that a workload without a measurement has as ``None``.
_FIGURES = (
    "latency_ms", "latency_ms_low", "latency_ms_high", "p50_ms", "p90_ms", "p99_ms", "samples",
    "rejected", "warmup", "stop_reason", "peak_memory_mb", "seconds",
)  # fmt: skip


def to_json(answer: Measurement | Failure) -> dict[str, Any]:
    """One entry of ``results``: times in ms, a refused figure ``None``.

    ``latency_ms`` is there where ``status`` is ``ok``. Of an ``inconclusive`` entry there is the
    interval, too wide to be an answer; of one that is ``observed_only``, as nothing anchored it,
    neither. A failure has no figures, and says in ``error`` why.
    """
    if isinstance(answer, Measurement):
        return {**_measured(answer), "error": None}
    return {
        "name": answer.workload.name,
        "threads": answer.workload.threads,
        "status": "failed",
        **dict.fromkeys(_FIGURES),
        "error": str(answer.error),
    }


def _measured(measurement: Measurement) -> dict[str, Any]:
    bursts = measurement.bursts
    kept = bursts.cause == CAUSES.index("kept")
    observed = {p.q: p.value_ns for p in measurement.observed}
    peak = measurement.peak_memory_bytes
    answers = measurement.status == "ok"
    bounded = measurement.status != "observed_only"
    return {
        "name": measurement.workload.name,
        "device": measurement.fingerprint.device,
        "threads": measurement.workload.threads,
        "status": measurement.status,
        "latency_ms": _ms(measurement.latency_ns) if answers else None,
        "latency_ms_low": _ms(measurement.low_ns) if bounded else None,
        "latency_ms_high": _ms(measurement.high_ns) if bounded else None,
        "confidence": measurement.confidence,
        "provisional": measurement.epoch is None,
        "p50_ms": _ms(observed.get(50.0)),
        "p90_ms": _ms(observed.get(90.0)),
        "p99_ms": _ms(observed.get(99.0)),
        "samples": int(bursts.length[kept].sum()),
        "rejected": int(bursts.length[~kept].sum()),
        "rejected_by_cause": rejected_by_cause(measurement),
        "warmup": measurement.warmup,
        "stop_reason": measurement.stop_reason,
        "contention": dict(measurement.contention),
        "load_ms": _ms(measurement.load_ns),
        "first_inference_ms": _ms(measurement.first_inference_ns),
        "peak_memory_mb": None if peak is None else peak / _BYTES_PER_MB,
        "energy_mj": measurement.energy_mj,
        "seconds": measurement.seconds,
    }


def rejected_by_cause(measurement: Measurement) -> dict[str, int]:
    """How many samples each cause rejected; causes that rejected none are left out."""
    bursts = measurement.bursts
    lost = np.bincount(bursts.cause, weights=bursts.length, minlength=len(CAUSES))
    return {name: int(n) for name, n in zip(CAUSES, lost, strict=True) if n and name != "kept"}


_NO_ANSWER = {
    "inconclusive": "No latency: inconclusive, for the interval is wider than ± 5 %.",
    "observed_only": "No latency: observed only, canaries cannot anchor several threads.",
}


def to_table(measurements: Sequence[Measurement]) -> Table:
    """The same as a table of at most 80 columns.

    A latency that is no answer is left out, and the caption says why.
    """
    headings = ["model", "latency ms", "±", "p50 ms", "p90 ms", "p99 ms", "runs kept"]
    entries = [_measured(measurement) for measurement in measurements]
    rows = [
        [
            entry["name"],
            entry["latency_ms"],
            half_width(entry),
            entry["p50_ms"],
            entry["p90_ms"],
            entry["p99_ms"],
            f"{entry['samples']} of {entry['samples'] + entry['rejected']}",
        ]
        for entry in entries
    ]
    table = console.table(headings, rows)
    found = {entry["status"] for entry in entries}
    table.caption = "\n".join(why for status, why in _NO_ANSWER.items() if status in found) or None
    table.caption_justify = "left"
    return table


def operators_json(entry: Mapping[str, Any], profile: OpProfile) -> dict[str, Any]:
    """Operators of an entry's model, the slowest first, and how far they can be trusted.

    ``share`` is of the operators' sum; ``covered`` is that sum over the instrumented run, and
    ``slowdown`` the instrumented run over the undisturbed latency.
    """
    whole_ms, latency_ms = profile.whole_ns / _NS_PER_MS, entry["latency_ms"]
    return {
        "instrumented_ms": whole_ms,
        "covered": profile.covered,
        "slowdown": whole_ms / latency_ms if latency_ms else None,
        "ops": [
            {"name": op.name, "kind": op.kind, "ms": op.time_ns / _NS_PER_MS, "share": op.share}
            for op in profile.ops
        ],
    }


def operators_view(entry: Mapping[str, Any], profile: OpProfile) -> Iterator[str | Table]:
    """The same as a line and a table of the slowest."""
    shown = operators_json(entry, profile)
    slowdown = shown["slowdown"]
    yield (
        f"{entry['name']}: its operators cover {shown['covered']:.0%} of the instrumented run"
        + (f", which took {slowdown:.2f}x the undisturbed latency" if slowdown else "")
    )
    slowest, rest = shown["ops"][:_OPS_SHOWN], shown["ops"][_OPS_SHOWN:]
    lines = [(op["name"], op["kind"], op["ms"], f"{op['share']:.1%}") for op in slowest]
    if rest:
        share = sum(op["share"] for op in rest)
        lines.append((f"{len(rest)} more", "", sum(op["ms"] for op in rest), f"{share:.1%}"))
    yield console.table(("operator", "<kind", "ms", "share"), lines)


def half_width(row: dict[str, Any]) -> str | None:
    """Half the interval of an entry in percent of the latency."""
    ends = row["latency_ms"], row["latency_ms_low"], row["latency_ms_high"]
    if None in ends:
        return None
    latency, low, high = ends
    return f"{50 * (high - low) / latency:.1f}%"


def _ms(time_ns: float | None) -> float | None:
    return None if time_ns is None else time_ns / _NS_PER_MS
