"""Class Store: what is kept, and how it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sqlalchemy import Connection, select

from hwbench.errors import StoreError, UsageError
from hwbench.places import store_location
from hwbench.records import CanaryEpoch, Measurement, Verdict
from hwbench.store import documents, rows, schema, sweeps
from hwbench.store.engine import Database, open_database
from hwbench.store.rows import CanaryRun, DamagedRow
from hwbench.store.sweeps import Standing, Sweep

__all__ = ["CanaryRun", "ImportReport", "Standing", "Store", "Sweep"]

#: Measurements that a merge inserts together.
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class ImportReport:
    """How many measurements an import added, and how many the store already held."""

    added: int
    known: int


class Store:
    """The results store: append-only, durable, shared by threads and processes.

    Life cycle: ``with Store.open() as store: …``. Each writing method is one transaction, on
    the disk when it returns; a process killed at any time leaves whole records only. Every
    method raises StoreError, in one line with the cure, where the database refuses.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(
        cls, where: str | Path | None = None, *, create: bool = True, foreign: bool = False
    ) -> Self:
        """Open the store at a file or a database URL; ``None`` asks :mod:`hwbench.places`.

        A store that cannot be written is opened for reading. ``create=False`` raises StoreError
        where there is none. A store of an earlier hwbench is brought up to date; a ``foreign``
        one, which another machine measured into, is read as it is. Raises StoreVersionError for
        a store of a newer hwbench.
        """
        return cls(open_database(store_location(where), create=create, foreign=foreign))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. The next call opens new ones."""
        self._database.close()

    @property
    def location(self) -> str:
        """File or URL of the store, without a password."""
        return self._database.label

    @property
    def read_only(self) -> bool:
        """Whether the store can be read only."""
        return self._database.read_only

    def add(self, measurement: Measurement, *, plan: str | None = None) -> int:
        """Store a measurement; return its row's id.

        A cell of a plan, (plan, workload key), holds one measurement. Where two processes
        resume the same plan, the first to store a cell wins: the second gets the id of the
        stored one, its own is dropped, and a warning is logged. A measurement that is already
        stored (equal content) is not stored again; its id is returned.
        """
        what = f"measurement of {measurement.workload.name!r}"
        with self._writing(what) as connection:
            return rows.insert_measurement(connection, measurement, plan)

    def merge(self, records: Iterable[Measurement | CanaryEpoch | CanaryRun]) -> ImportReport:
        """Add foreign measurements, epochs and canary runs, all or none, without doubling what is
        known.

        ``records`` is consumed inside the transaction; an exception that it raises undoes all.
        An epoch of a known id must be the same epoch, StoreError otherwise. The measurements
        belong to no plan here.
        """
        waiting: list[Measurement] = []
        count = added = 0
        with self._writing("the merged records") as connection:
            for record in records:
                if isinstance(record, CanaryEpoch):
                    _merge_epoch(connection, record)
                elif isinstance(record, CanaryRun):
                    _merge_canary_run(connection, record)
                else:
                    waiting.append(record)
                    count += 1
                if len(waiting) == _AT_ONCE:
                    added += rows.insert_measurements(connection, waiting)
                    waiting.clear()
            added += rows.insert_measurements(connection, waiting)
        return ImportReport(added=added, known=count - added)

    def measurements(
        self,
        *,
        device: str | None = None,
        space: str | None = None,
        session: str | None = None,
        plan: str | None = None,
        name: str | None = None,
        workload: str | None = None,
        fingerprint: str | None = None,
        since: str | None = None,
        with_bursts: bool = True,
    ) -> list[Measurement]:
        """Measurements that meet all conditions, the oldest first.

        ``workload`` and ``fingerprint`` are keys; ``since`` is an ISO 8601 time with its UTC
        offset (UsageError otherwise). ``with_bursts=False`` reads no samples: ``bursts`` is
        then empty, of the right width. Raises StoreError for a row that fails its checksum.
        """
        columns = schema.measurements.c
        equal = {
            schema.fingerprints.c.device: device,
            columns.space: space,
            columns.session: session,
            columns.plan: plan,
            columns.name: name,
            columns.workload_key: workload,
            columns.fingerprint_key: fingerprint,
        }
        query = rows.filtered(rows.measurement_query(with_bursts), equal)
        if since is not None:
            query = query.where(columns.created_us >= _microseconds(since))
        with self._reading() as connection:
            return [rows.measurement_of_row(row, with_bursts) for row in connection.execute(query)]

    def done(self, plan: str) -> set[str]:
        """Workload keys that a plan has measured already."""
        columns = schema.measurements.c
        with self._reading() as connection:
            return set(connection.scalars(select(columns.workload_key).where(columns.plan == plan)))

    def announce(self, sweep: Sweep) -> str:
        """Tell whoever watches the store what is going to be measured into it; its key."""
        with self._writing(f"the announcement of {sweep.what!r}") as connection:
            return sweeps.announce(connection, sweep)

    def set_back(self, sweep: str, device: str, *, failures: int, cells: int) -> None:
        """Tell whoever watches how often a device failed in a sweep, and of cells given up."""
        with self._writing("a fleet's failure") as connection:
            sweeps.set_back(connection, sweep, device, failures, cells)

    def standings(self, *, most: int = 5, cells: int = 8) -> list[Standing]:
        """How far the newest sweeps are, the newest first, each with its last few cells."""
        with self._reading() as connection:
            return sweeps.standings(connection, most, cells)

    def add_epoch(self, epoch: CanaryEpoch) -> None:
        """Store a canary epoch that was made on a device at hand.

        An id that exists is a StoreError: epochs never change. But one that was imported before,
        and is the same, anchors from now on.
        """
        columns = schema.epochs.c
        with self._writing(f"epoch {epoch.id!r}") as connection:
            if rows.select_epochs(connection, {columns.id: epoch.id, columns.imported: False}):
                raise StoreError(f"epoch {epoch.id!r} exists and never changes: give a new id")
            _merge_epoch(connection, epoch)
            rows.own_epoch(connection, epoch.id)

    def epoch(self, fingerprint_key: str, canary_key: str, threads: int) -> CanaryEpoch | None:
        """The newest epoch of a device's canaries; ``None`` where none was calibrated.

        An imported one is never the answer: before machines were told apart, it may have been
        of another one of the same make.
        """
        known = self.epochs(
            fingerprint_key=fingerprint_key,
            canary_key=canary_key,
            threads=threads,
            imported=False,
        )
        return known[-1] if known else None

    def epochs(
        self,
        *,
        id: str | None = None,
        fingerprint_key: str | None = None,
        canary_key: str | None = None,
        threads: int | None = None,
        imported: bool | None = None,
    ) -> list[CanaryEpoch]:
        """Epochs that meet all conditions, the oldest first."""
        columns = schema.epochs.c
        equal = {
            columns.id: id,
            columns.fingerprint_key: fingerprint_key,
            columns.canary_key: canary_key,
            columns.threads: threads,
            columns.imported: imported,
        }
        with self._reading() as connection:
            return rows.select_epochs(connection, equal)

    def add_canary_run(
        self,
        fingerprint_key: str,
        canary_key: str,
        threads: int,
        session: str,
        created: str,
        values_ns: ArrayLike,
    ) -> None:
        """Add a point to the watched series of the canaries' own time.

        ``values_ns``: nanoseconds, shape (n,) or (n, K) for K canaries, finite.
        """
        with self._writing(f"canary run of session {session!r}") as connection:
            values = np.array(values_ns, dtype=np.float64)
            run = CanaryRun(fingerprint_key, canary_key, threads, session, created, values)
            rows.insert_canary_run(connection, run)

    def canary_runs(
        self,
        *,
        fingerprint_key: str | None = None,
        canary_key: str | None = None,
        threads: int | None = None,
        session: str | None = None,
    ) -> list[CanaryRun]:
        """The watched series: runs that meet all conditions, the oldest first."""
        columns = schema.canary_runs.c
        equal = {
            columns.fingerprint_key: fingerprint_key,
            columns.canary_key: canary_key,
            columns.threads: threads,
            columns.session: session,
        }
        with self._reading() as connection:
            return rows.select_canary_runs(connection, equal)

    def add_verdict(self, verdict: Verdict) -> None:
        """Add a line to the claims ledger. Its evidence is kept as JSON: tuples become lists."""
        with self._writing(f"verdict on {verdict.claim!r}") as connection:
            rows.insert_verdict(connection, verdict)

    def verdicts(self, *, claim: str | None = None) -> list[Verdict]:
        """The claims ledger, or one claim's lines, the oldest first."""
        with self._reading() as connection:
            return rows.select_verdicts(connection, {schema.verdicts.c.claim: claim})

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._database.reading() as connection:
                yield connection
        except DamagedRow as error:
            raise StoreError(
                f"store {self.location}: {error}: restore a copy of it, or delete that row"
            ) from error

    @contextmanager
    def _writing(self, what: str) -> Iterator[Connection]:
        try:
            with self._database.writing() as connection:
                yield connection
        except ValueError as error:
            raise StoreError(f"{what} cannot be stored: {error}") from error


def _merge_epoch(connection: Connection, epoch: CanaryEpoch) -> None:
    known = rows.select_epochs(connection, {schema.epochs.c.id: epoch.id})
    if not known:
        rows.insert_epoch(connection, epoch)
    # One of the two stores may know since which machine it is of, the other not.
    elif known != [replace(epoch, fingerprint_key=known[0].fingerprint_key)]:
        raise StoreError(f"epoch {epoch.id!r} differs from the stored one: epochs never change")


def _merge_canary_run(connection: Connection, run: CanaryRun) -> None:
    columns = schema.canary_runs.c
    equal = {columns.session: run.session, columns.fingerprint_key: run.fingerprint_key}
    known = rows.select_canary_runs(connection, equal)
    if not any(
        (each.canary_key, each.threads, each.created) == (run.canary_key, run.threads, run.created)
        and np.array_equal(each.values_ns, run.values_ns)
        for each in known
    ):
        rows.insert_canary_run(connection, run)


def _microseconds(since: str) -> int:
    try:
        return documents.microseconds(since)
    except ValueError as error:
        raise UsageError(f"since: {error}") from error
