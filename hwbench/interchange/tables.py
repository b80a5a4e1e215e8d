"""Flat tables for spreadsheets and notebooks: CSV and Parquet, one row a measurement.

Text in CSV is guarded, because a spreadsheet runs a cell that starts like a formula
(``=HYPERLINK(…)`` as a model's name): a text cell that starts with ``= + - @``, a tab, a line
break or an apostrophe gets one apostrophe in front. To undo it, strip one leading apostrophe
from text columns. Numbers and Parquet are never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from hwbench.records import CAUSES, Measurement
from hwbench.store.documents import to_json

_TEXT, _REAL, _COUNT = pa.string(), pa.float64(), pa.int64()
_FORMULA: Final = "^[=+\\-@'\t\r\n]"
_KEPT: Final = CAUSES.index("kept")

#: Columns of the table of measurements. Nested values are JSON text.
COLUMNS: Final[Mapping[str, pa.DataType]] = {
    "name": _TEXT,
    "device": _TEXT,
    "space": _TEXT,
    "arch": _TEXT,
    "threads": _COUNT,
    "created": _TEXT,
    "session": _TEXT,
    "status": _TEXT,
    "latency_ms": _REAL,
    "latency_ms_low": _REAL,
    "latency_ms_high": _REAL,
    "confidence": _REAL,
    "p50_ms": _REAL,
    "p90_ms": _REAL,
    "p99_ms": _REAL,
    "samples": _COUNT,
    "rejected": _COUNT,
    "warmup": _TEXT,
    "stop_reason": _TEXT,
    "seconds": _REAL,
    "load_ms": _REAL,
    "first_inference_ms": _REAL,
    "footprint_bytes": _COUNT,
    "peak_memory_bytes": _COUNT,
    "session_sd": _REAL,
    "energy_mj": _REAL,
    "epoch": _TEXT,
    "canaries": _TEXT,
    "beta": _TEXT,
    "canary_ref_ns": _TEXT,
    "contention": _TEXT,
    "tags": _TEXT,
    "model_hash": _TEXT,
    "inputs": _TEXT,
    "options": _TEXT,
    "workload_key": _TEXT,
    "fingerprint_key": _TEXT,
    "facts": _TEXT,
    "state": _TEXT,
}


def measurement_table(measurements: Sequence[Measurement]) -> pa.Table:
    """One row a measurement, of :data:`COLUMNS`; times in ms.

    ``samples`` and ``rejected`` count runs; they are null where bursts were not loaded.
    """
    rows = [_row(measurement) for measurement in measurements]
    return pa.Table.from_pylist(rows, schema=pa.schema(list(COLUMNS.items())))


def sample_table(measurements: Sequence[Measurement]) -> pa.Table:
    """One row a sample, kept or not: where it comes from, its time, and the canaries beside it.

    ``canary_<name>_ns`` stands for each canary of any measurement, null where it did not run.
    """
    names = list(dict.fromkeys(name for m in measurements for name in m.canaries))
    return pa.concat_tables(_samples(measurement, names) for measurement in measurements)


def write_csv(table: pa.Table, path: Path) -> None:
    """Write a table as UTF-8 CSV with a header, text guarded, null as an empty cell."""
    for index, field in enumerate(table.schema):
        if field.type == _TEXT:
            column = table.column(index)
            quoted = pc.binary_join_element_wise("'", column, "")
            risky = pc.match_substring_regex(column, _FORMULA)
            table = table.set_column(index, field, pc.if_else(risky, quoted, column))
    pyarrow.csv.write_csv(table, path)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table as Parquet."""
    pyarrow.parquet.write_table(table, path)


def _row(m: Measurement) -> dict[str, Any]:
    percentiles = {p.q: p.value_ns for p in m.observed}
    kept = int(m.bursts.length[m.bursts.cause == _KEPT].sum())
    loaded = len(m.bursts) > 0
    return {
        "name": m.workload.name,
        "device": m.fingerprint.device,
        "space": m.workload.space,
        "arch": m.workload.arch,
        "threads": m.workload.threads,
        "created": m.created,
        "session": m.session,
        "status": m.status,
        "latency_ms": _ms(m.latency_ns),
        "latency_ms_low": _ms(m.low_ns),
        "latency_ms_high": _ms(m.high_ns),
        "confidence": m.confidence,
        "p50_ms": _ms(percentiles.get(50)),
        "p90_ms": _ms(percentiles.get(90)),
        "p99_ms": _ms(percentiles.get(99)),
        "samples": kept if loaded else None,
        "rejected": m.bursts.sample_ns.size - kept if loaded else None,
        "warmup": m.warmup,
        "stop_reason": m.stop_reason,
        "seconds": m.seconds,
        "load_ms": _ms(m.load_ns),
        "first_inference_ms": _ms(m.first_inference_ns),
        "footprint_bytes": m.footprint_bytes,
        "peak_memory_bytes": m.peak_memory_bytes,
        "session_sd": m.session_sd,
        "energy_mj": m.energy_mj,
        "epoch": m.epoch,
        "canaries": to_json(m.canaries),
        "beta": to_json(m.beta),
        "canary_ref_ns": to_json(m.canary_ref_ns),
        "contention": to_json(dict(m.contention)),
        "tags": to_json(dict(m.tags)),
        "model_hash": m.workload.model_hash,
        "inputs": to_json([[i.name, i.dtype, i.shape] for i in m.workload.inputs]),
        "options": to_json(m.workload.options),
        "workload_key": m.workload.key,
        "fingerprint_key": m.fingerprint.key,
        "facts": to_json(dict(m.fingerprint.facts)),
        "state": to_json(dict(m.fingerprint.state)),
    }


def _samples(m: Measurement, canaries: Sequence[str]) -> pa.Table:
    bursts, size = m.bursts, m.bursts.sample_ns.size
    burst = np.repeat(np.arange(len(bursts)), bursts.length)
    first = np.cumsum(bursts.length, dtype=np.int64) - bursts.length
    columns: dict[str, Any] = {
        "name": pa.repeat(pa.scalar(m.workload.name, _TEXT), size),
        "session": pa.repeat(pa.scalar(m.session, _TEXT), size),
        "created": pa.repeat(pa.scalar(m.created, _TEXT), size),
        "workload_key": pa.repeat(pa.scalar(m.workload.key, _TEXT), size),
        "fingerprint_key": pa.repeat(pa.scalar(m.fingerprint.key, _TEXT), size),
        "process": bursts.process[burst],
        "copy": bursts.copy[burst],
        "round": bursts.round[burst],
        "burst": burst,
        "run": np.arange(size) - first[burst],
        "burst_start_ns": bursts.start_ns[burst],
        "cause": pa.array(np.array(CAUSES, dtype=object)[bursts.cause[burst]], _TEXT),
        "sample_ns": bursts.sample_ns,
    }
    for name in canaries:
        ran = m.canaries.index(name) if name in m.canaries else None
        known = ran is not None and ran < bursts.canary_ns.shape[2]
        for side, when in enumerate(("before", "after")):
            columns[f"canary_{name}_{when}_ns"] = (
                pa.array(bursts.canary_ns[burst, side, ran]) if known else pa.nulls(size, _COUNT)
            )
    return pa.table(columns)


def _ms(value_ns: float | None) -> float | None:
    return None if value_ns is None else value_ns / 1e6
