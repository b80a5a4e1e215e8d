"""The tables of the store, in SQL that SQLite and PostgreSQL share.

Times of day stand twice: as the ISO 8601 text that was given, and as microseconds since 1970,
which order and filter by. Nested values are JSON text. A table's rows are never updated, but by
:mod:`.migrations`.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from hwbench.store.arrays import BURST_ARRAYS

SCHEMA_VERSION: Final = 5
VERSION_KEY: Final = "schema_version"

metadata = MetaData()

_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up in INTEGER keys only


def _time() -> list[Column[Any]]:
    return [
        Column("created", Text, nullable=False),
        Column("created_us", BigInteger, nullable=False, index=True),
    ]


meta = Table(
    "hwbench_meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

fingerprints = Table(
    "fingerprints",
    metadata,
    Column("key", Text, primary_key=True),
    Column("device", Text, nullable=False),
    Column("facts", Text, nullable=False),
)

measurements = Table(
    "measurements",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("plan", Text),
    Column("workload_key", Text, nullable=False, index=True),
    Column("fingerprint_key", ForeignKey("fingerprints.key"), nullable=False, index=True),
    Column("session", Text, nullable=False, index=True),
    *_time(),
    Column("name", Text, nullable=False),
    Column("space", Text),
    Column("arch", Text),
    Column("model_hash", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("threads", BigInteger, nullable=False),
    Column("options", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("latency_ns", Double),
    Column("low_ns", Double),
    Column("high_ns", Double),
    Column("confidence", Double, nullable=False),
    Column("canaries", Text, nullable=False),
    Column("beta", Text, nullable=False),
    Column("canary_ref_ns", Text, nullable=False),
    Column("epoch", Text),
    Column("observed", Text, nullable=False),
    Column("warmup", Text, nullable=False),
    Column("stop_reason", Text, nullable=False),
    Column("contention", Text, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("load_ns", BigInteger),
    Column("first_inference_ns", BigInteger),
    Column("footprint_bytes", BigInteger),
    Column("peak_memory_bytes", BigInteger),
    Column("session_sd", Double, nullable=False),
    Column("energy_mj", Double),
    Column("state", Text, nullable=False),
    Column("tags", Text, nullable=False),
    # One cell of a plan holds one measurement. Rows without a plan (NULL) are all distinct.
    UniqueConstraint("plan", "workload_key"),
)

#: Columns of ``measurements`` that hold JSON text.
JSON_COLUMNS: Final = (
    "inputs",
    "options",
    "canaries",
    "beta",
    "canary_ref_ns",
    "observed",
    "contention",
    "state",
    "tags",
)

#: Apart from ``measurements``, so that a list of those without samples reads no blob.
#: The counts are the B, N and K that the packed arrays' shapes are made of.
bursts = Table(
    "bursts",
    metadata,
    Column("measurement_id", _Id, ForeignKey("measurements.id"), primary_key=True),
    Column("burst_count", BigInteger, nullable=False),
    Column("sample_count", BigInteger, nullable=False),
    Column("canary_count", BigInteger, nullable=False),
    Column("checksum", Text, nullable=False),
    *(Column(name, LargeBinary, nullable=False) for name, _ in BURST_ARRAYS),
)

epochs = Table(
    "epochs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("fingerprint_key", Text, nullable=False),
    Column("canary_key", Text, nullable=False),
    Column("threads", BigInteger, nullable=False),
    Column("names", Text, nullable=False),
    Column("c0_ns", Text, nullable=False),
    Column("c0_low_ns", Text, nullable=False),
    Column("c0_high_ns", Text, nullable=False),
    Column("runs", BigInteger, nullable=False),
    Column("imported", Boolean, nullable=False),
    *_time(),
)

canary_runs = Table(
    "canary_runs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("fingerprint_key", Text, nullable=False),
    Column("canary_key", Text, nullable=False),
    Column("threads", BigInteger, nullable=False),
    Column("session", Text, nullable=False),
    *_time(),
    Column("shape", Text, nullable=False),
    Column("values_ns", LargeBinary, nullable=False),
    Column("checksum", Text, nullable=False),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("claim", Text, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("figure", Text),
    *_time(),
)
