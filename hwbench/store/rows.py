"""Records to rows and back: the statements behind :class:`hwbench.store.Store`.

The functions work inside a transaction that the caller holds. They raise ValueError for what
cannot be stored, and DamagedRow for a row whose bytes are not those that were written.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Column, Connection, Row, Select, insert, select, update

from hwbench.records import Bursts, CanaryEpoch, Fingerprint, Measurement, Verdict
from hwbench.store import documents, schema
from hwbench.store.arrays import (
    BURST_ARRAYS,
    bursts_checksum,
    checksum,
    empty_bursts,
    pack,
    pack_bursts,
    unpack,
    unpack_bursts,
)

_log = logging.getLogger(__name__)

_FROM_DOCUMENT = [c.name for c in schema.measurements.c if c.name in documents.MEASUREMENT]
_EPOCH_LISTS = ("names", "c0_ns", "c0_low_ns", "c0_high_ns")


class DamagedRow(Exception):  # noqa: N818 - never leaves the package: Store gives it its words
    """A row's bytes fail their checksum; the message names the row."""


@dataclass(frozen=True, slots=True)
class CanaryRun:
    """One run of a device's canaries: a point of the watched series.

    ``values_ns`` is what the caller gave, as float64: shape (n,), or (n, K) for K canaries.
    """

    fingerprint_key: str
    canary_key: str
    threads: int
    session: str
    created: str
    values_ns: NDArray[np.float64]


def filtered(query: Select[Any], equal: Mapping[Column[Any], Any]) -> Select[Any]:
    """``query`` with those conditions whose value is not ``None``."""
    for column, value in equal.items():
        if value is not None:
            query = query.where(column == value)
    return query


def insert_measurement(connection: Connection, measurement: Measurement, plan: str | None) -> int:
    """Insert unless the same measurement, or one for the plan's cell, is there; its row's id."""
    new = _Row.of(measurement, plan)
    rows = schema.measurements.c
    known: int | None = connection.scalar(select(rows.id).where(rows.digest == new.digest))
    if known is None and plan is not None:
        cell = rows.plan == plan, rows.workload_key == measurement.workload.key
        known = connection.scalar(select(rows.id).where(*cell))
        if known is not None:
            _log.warning("plan %s has %s already: the first stands", plan, measurement.workload)
    return _insert_new(connection, [new])[0] if known is None else known


def insert_measurements(connection: Connection, measurements: Sequence[Measurement]) -> int:
    """Insert those that are not there, of no plan; how many.

    A few statements for all of them: a server is far, and its other writers wait.
    """
    told = {row.digest: row for row in (_Row.of(each, None) for each in measurements)}
    rows = schema.measurements.c
    known = connection.scalars(select(rows.digest).where(rows.digest.in_(told)))
    for digest in known.all():
        del told[digest]
    return len(_insert_new(connection, [*told.values()])) if told else 0


@dataclass(frozen=True, slots=True)
class _Row:
    """A measurement, the checksum of its samples, the digest of it all, and its columns."""

    measurement: Measurement
    samples: str
    digest: str
    columns: Mapping[str, Any]

    @classmethod
    def of(cls, measurement: Measurement, plan: str | None) -> _Row:
        document = documents.measurement_document(measurement)
        samples = bursts_checksum(measurement.bursts)
        digest = documents.content_digest(document, samples)
        columns = {name: document[name] for name in _FROM_DOCUMENT}
        columns |= {name: documents.to_json(document[name]) for name in schema.JSON_COLUMNS}
        columns |= {
            "digest": digest,
            "plan": plan,
            "workload_key": measurement.workload.key,
            "fingerprint_key": measurement.fingerprint.key,
            "created_us": documents.microseconds(measurement.created),
        }
        return cls(measurement, samples, digest, columns)


def _insert_new(connection: Connection, new: Sequence[_Row]) -> list[int]:
    """Insert rows that are not there; their ids."""
    prints = [row.measurement.fingerprint for row in new]
    for each in {fingerprint.key: fingerprint for fingerprint in prints}.values():
        insert_fingerprint(connection, each)
    connection.execute(insert(schema.measurements), [dict(row.columns) for row in new])
    rows = schema.measurements.c
    query = select(rows.digest, rows.id).where(rows.digest.in_([row.digest for row in new]))
    ids = {row.digest: row.id for row in connection.execute(query)}
    bursts = [
        {
            "measurement_id": ids[row.digest],
            "burst_count": len(row.measurement.bursts),
            "sample_count": row.measurement.bursts.sample_ns.size,
            "canary_count": row.measurement.bursts.canary_ns.shape[2],
            "checksum": row.samples,
            **pack_bursts(row.measurement.bursts),
        }
        for row in new
    ]
    connection.execute(insert(schema.bursts), bursts)
    return [ids[row.digest] for row in new]


def insert_fingerprint(connection: Connection, fingerprint: Fingerprint) -> str:
    """Insert a device with its facts unless it is there; its key."""
    table, key = schema.fingerprints, fingerprint.key
    if connection.scalar(select(table.c.key).where(table.c.key == key)) is None:
        facts = documents.to_json(dict(fingerprint.facts))
        values = {"key": key, "device": fingerprint.device, "facts": facts}
        connection.execute(insert(table), values)
    return key


@cache  # it never changes, and takes about a millisecond to build
def measurement_query(with_bursts: bool) -> Select[Any]:
    """All measurements with device and facts, and their packed bursts; the oldest first."""
    rows, prints, blobs = schema.measurements, schema.fingerprints, schema.bursts
    columns: list[Any] = [*rows.c, prints.c.device, prints.c.facts]
    source = rows.join(prints, rows.c.fingerprint_key == prints.c.key)
    if with_bursts:
        columns += [column for column in blobs.c if column.name != "measurement_id"]
        source = source.join(blobs, rows.c.id == blobs.c.measurement_id)
    return select(*columns).select_from(source).order_by(rows.c.created_us, rows.c.id)


def measurement_of_row(row: Row[Any], with_bursts: bool) -> Measurement:
    """The measurement of one row of :func:`measurement_query`."""
    values = row._asdict()
    try:
        for column in (*schema.JSON_COLUMNS, "facts"):
            values[column] = json.loads(values[column])
        documents.check_measurement({name: values[name] for name in documents.MEASUREMENT})
    except (TypeError, ValueError) as error:
        raise DamagedRow(f"measurement {values['id']} is damaged ({error})") from error
    bursts = _bursts_of(values) if with_bursts else empty_bursts(len(values["canaries"]))
    return documents.measurement_of(values, bursts)


def _bursts_of(values: Mapping[str, Any]) -> Bursts:
    blobs = {name: values[name] for name, _ in BURST_ARRAYS}
    counts = (values["burst_count"], values["sample_count"], values["canary_count"])
    try:
        bursts = unpack_bursts(blobs, *counts)
    except ValueError as error:
        raise DamagedRow(f"measurement {values['id']} is damaged ({error})") from error
    if bursts_checksum(bursts) != values["checksum"]:
        raise DamagedRow(f"measurement {values['id']} is damaged (its samples' checksum differs)")
    return bursts


def insert_epoch(connection: Connection, epoch: CanaryEpoch) -> None:
    """Insert an epoch whose id is new, as an imported one."""
    values = documents.epoch_document(epoch)
    values |= {name: documents.to_json(values[name]) for name in _EPOCH_LISTS}
    values["created_us"] = documents.microseconds(epoch.created)
    connection.execute(insert(schema.epochs), {**values, "imported": True})


def own_epoch(connection: Connection, epoch_id: str) -> None:
    """Have an epoch that is there be of this store's own devices."""
    columns = schema.epochs.c
    connection.execute(update(schema.epochs).where(columns.id == epoch_id).values(imported=False))


def select_epochs(connection: Connection, equal: Mapping[Column[Any], Any]) -> list[CanaryEpoch]:
    """Epochs that meet the conditions, the oldest first."""
    columns = schema.epochs.c
    query = filtered(select(schema.epochs), equal).order_by(columns.created_us, columns.id)
    return [_epoch_of(row) for row in connection.execute(query)]


def _epoch_of(row: Row[Any]) -> CanaryEpoch:
    values = row._asdict()
    del values["created_us"], values["imported"]
    try:
        for name in _EPOCH_LISTS:
            values[name] = json.loads(values[name])
        documents.check_document(values, documents.EPOCH)
        return documents.epoch_of(values)
    except (TypeError, ValueError) as error:
        raise DamagedRow(f"calibration {row.id} is damaged ({error})") from error


def insert_canary_run(connection: Connection, run: CanaryRun) -> None:
    """Insert one point of the canary's series."""
    fields = {name: getattr(run, name) for name in documents.CANARY_RUN}
    documents.check_document(fields, documents.CANARY_RUN)
    if run.values_ns.ndim not in (1, 2) or not np.isfinite(run.values_ns).all():
        raise ValueError("values_ns must be finite, of shape (n,) or (n, K)")
    values = {
        **fields,
        "created_us": documents.microseconds(run.created),
        "shape": documents.to_json(run.values_ns.shape),
        "values_ns": pack(run.values_ns),
        "checksum": checksum({"values_ns": run.values_ns}),
    }
    connection.execute(insert(schema.canary_runs), values)


def select_canary_runs(connection: Connection, equal: Mapping[Column[Any], Any]) -> list[CanaryRun]:
    """Canary runs that meet the conditions, the oldest first."""
    columns = schema.canary_runs.c
    query = filtered(select(schema.canary_runs), equal).order_by(columns.created_us, columns.id)
    return [_canary_run_of(row) for row in connection.execute(query)]


def _canary_run_of(row: Row[Any]) -> CanaryRun:
    try:
        documents.instant(row.created)
        values_ns = unpack(row.values_ns, np.dtype(np.float64), tuple(json.loads(row.shape)))
    except (TypeError, ValueError) as error:
        raise DamagedRow(f"canary run {row.id} is damaged ({error})") from error
    if checksum({"values_ns": values_ns}) != row.checksum:
        raise DamagedRow(f"canary run {row.id} is damaged (its checksum differs)")
    return CanaryRun(
        row.fingerprint_key, row.canary_key, row.threads, row.session, row.created, values_ns
    )


def insert_verdict(connection: Connection, verdict: Verdict) -> None:
    """Insert one line of the claims ledger."""
    fields = {name: getattr(verdict, name) for name in documents.VERDICT}
    documents.check_document(fields, documents.VERDICT)
    values = {
        **fields,
        "evidence": documents.to_json(dict(verdict.evidence)),
        "created_us": documents.microseconds(verdict.created),
    }
    connection.execute(insert(schema.verdicts), values)


def select_verdicts(connection: Connection, equal: Mapping[Column[Any], Any]) -> list[Verdict]:
    """Lines of the ledger that meet the conditions, the oldest first."""
    columns = schema.verdicts.c
    query = filtered(select(schema.verdicts), equal).order_by(columns.created_us, columns.id)
    return [_verdict_of(row) for row in connection.execute(query)]


def _verdict_of(row: Row[Any]) -> Verdict:
    try:
        fields = {name: getattr(row, name) for name in documents.VERDICT}
        documents.check_document(fields, documents.VERDICT)
        return Verdict(**fields, evidence=json.loads(row.evidence))
    except (TypeError, ValueError) as error:
        raise DamagedRow(f"verdict {row.id} is damaged ({error})") from error
