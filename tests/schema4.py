"""A store as hwbench wrote it before machines were told apart: its tables, word for word."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import create_engine, text

from hwbench.store import Store, schema

#: As SQLite has them; PostgreSQL has other names for some types.
TABLES = """
CREATE TABLE hwbench_meta (key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key));
CREATE TABLE fingerprints (key TEXT NOT NULL, device TEXT NOT NULL, facts TEXT NOT NULL, PRIMARY
    KEY (key));
CREATE TABLE epochs (id TEXT NOT NULL, fingerprint_key TEXT NOT NULL, canary_key TEXT NOT NULL,
    threads BIGINT NOT NULL, names TEXT NOT NULL, c0_ns TEXT NOT NULL, c0_low_ns TEXT NOT NULL,
    c0_high_ns TEXT NOT NULL, runs BIGINT NOT NULL, imported BOOLEAN NOT NULL, created TEXT NOT
    NULL, created_us BIGINT NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_epochs_created_us ON epochs (created_us);
CREATE TABLE canary_runs (id INTEGER NOT NULL, fingerprint_key TEXT NOT NULL, canary_key TEXT
    NOT NULL, threads BIGINT NOT NULL, session TEXT NOT NULL, created TEXT NOT NULL, created_us
    BIGINT NOT NULL, shape TEXT NOT NULL, values_ns BLOB NOT NULL, checksum TEXT NOT NULL,
    PRIMARY KEY (id));
CREATE INDEX ix_canary_runs_created_us ON canary_runs (created_us);
CREATE TABLE verdicts (id INTEGER NOT NULL, claim TEXT NOT NULL, protocol TEXT NOT NULL, outcome
    TEXT NOT NULL, evidence TEXT NOT NULL, figure TEXT, created TEXT NOT NULL, created_us BIGINT
    NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_verdicts_created_us ON verdicts (created_us);
CREATE TABLE measurements (id INTEGER NOT NULL, digest TEXT NOT NULL, "plan" TEXT, workload_key
    TEXT NOT NULL, fingerprint_key TEXT NOT NULL, session TEXT NOT NULL, created TEXT NOT NULL,
    created_us BIGINT NOT NULL, name TEXT NOT NULL, space TEXT, arch TEXT, model_hash TEXT NOT
    NULL, inputs TEXT NOT NULL, threads BIGINT NOT NULL, options TEXT NOT NULL, status TEXT NOT
    NULL, latency_ns DOUBLE, low_ns DOUBLE, high_ns DOUBLE, confidence DOUBLE NOT NULL, canaries
    TEXT NOT NULL, beta TEXT NOT NULL, canary_ref_ns TEXT NOT NULL, epoch TEXT, observed TEXT
    NOT NULL, warmup TEXT NOT NULL, stop_reason TEXT NOT NULL, contention TEXT NOT NULL, seconds
    DOUBLE NOT NULL, load_ns BIGINT, first_inference_ns BIGINT, footprint_bytes BIGINT,
    peak_memory_bytes BIGINT, session_sd DOUBLE NOT NULL, energy_mj DOUBLE, state TEXT NOT NULL,
    tags TEXT NOT NULL, PRIMARY KEY (id), UNIQUE ("plan", workload_key), UNIQUE (digest),
    FOREIGN KEY(fingerprint_key) REFERENCES fingerprints (key));
CREATE INDEX ix_measurements_workload_key ON measurements (workload_key);
CREATE INDEX ix_measurements_session ON measurements (session);
CREATE INDEX ix_measurements_created_us ON measurements (created_us);
CREATE INDEX ix_measurements_fingerprint_key ON measurements (fingerprint_key);
CREATE TABLE bursts (measurement_id INTEGER NOT NULL, burst_count BIGINT NOT NULL, sample_count
    BIGINT NOT NULL, canary_count BIGINT NOT NULL, checksum TEXT NOT NULL, sample_ns BLOB NOT
    NULL, length BLOB NOT NULL, start_ns BLOB NOT NULL, process BLOB NOT NULL, copy BLOB NOT
    NULL, round BLOB NOT NULL, canary_ns BLOB NOT NULL, preemptions BLOB NOT NULL, steal_ns BLOB
    NOT NULL, cause BLOB NOT NULL, PRIMARY KEY (measurement_id), FOREIGN KEY(measurement_id)
    REFERENCES measurements (id));
"""
_ON_A_SERVER = {
    "measurement_id INTEGER": "measurement_id BIGINT",
    "INTEGER": "BIGSERIAL",
    "BLOB": "BYTEA",
    "DOUBLE": "DOUBLE PRECISION",
    '"plan"': "plan",
}


def old_store(place: str, fill: Callable[[Store], None]) -> None:
    """Make one at a new place, filled by way of the present code: the tables are the same."""
    tables = TABLES
    if "://" in place:
        for name, other in _ON_A_SERVER.items():
            tables = tables.replace(name, other)
    statements = [each for each in tables.split(";") if each.strip()]
    now = schema.SCHEMA_VERSION
    run(place, *statements, f"INSERT INTO hwbench_meta VALUES ('schema_version', '{now}')")
    with Store.open(place) as store:
        fill(store)
    run(place, "UPDATE hwbench_meta SET value = '4' WHERE key = 'schema_version'")


def run(place: str, *statements: str) -> list[str]:
    """Run statements behind the store's back; the first column of what the last one answers."""
    url = place.replace("postgresql:", "postgresql+psycopg:", 1)
    engine = create_engine(url if "://" in place else f"sqlite:///{place}")
    with engine.begin() as connection:
        for statement in statements:
            answer = connection.execute(text(statement))
        found = [str(row[0]) for row in answer] if answer.returns_rows else []
    engine.dispose()
    return found
