"""The database under the store: how it is opened, its transactions, and its errors in words.

SQLite runs in WAL mode with ``synchronous=FULL``: a commit is on the disk when it returns, and
a killed process leaves whole transactions only. Writers queue up by ``BEGIN IMMEDIATE`` and
the busy timeout instead of failing half-way; readers are never blocked. On PostgreSQL a lock of
the writers' own, held to the end of the transaction, does what ``BEGIN IMMEDIATE`` does there.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

from hwbench.errors import StoreError, StoreVersionError, UsageError
from hwbench.store import migrations, schema

#: How long a writer waits for the others.
BUSY_S: Final = 60.0

_ELSEWHERE: Final = "or name another place with --store or HWBENCH_STORE"
_NEARLY_FULL_BYTES: Final = 1 << 16  # SQLite's smallest step is its 32 KiB -shm file
#: How long a server that does not answer is waited for, unless its URL says.
_CONNECT_S: Final = 10
#: Key of the writers' advisory lock in a PostgreSQL database.
_WRITERS: Final = 0x68776273


class Database:
    """One open database: ``reading()`` and ``writing()`` are its only two doors.

    Safe for threads (a connection each) and for a fork (the child takes connections of its own).
    """

    def __init__(self, where: str | Path) -> None:
        self.path = _sqlite_path(where)
        self.label = str(self.path) if self.path else _url_label(_parsed(str(where)))
        self.read_only = self.path is not None and not _writable(self.path)
        self._engine = self._sqlite_engine(self.path) if self.path else _server_engine(str(where))
        self._process = os.getpid()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view of the database. Raises StoreError."""
        with self._errors("read"), self._own_engine().connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: durable after the block, undone if the block raises. StoreError."""
        if self.read_only:
            raise StoreError(f"store {self.label} is read-only: make it writable, {_ELSEWHERE}")
        engine = self._own_engine().execution_options(hwbench_writes=True)
        with self._errors("write"), engine.begin() as connection:
            yield connection

    def may_write(self) -> bool:
        """Whether this user may change the store. Raises StoreError."""
        if self.path is not None:
            return not self.read_only
        asked = f"has_table_privilege('{schema.meta.name}', 'UPDATE')"
        open_ = "NOT current_setting('transaction_read_only')::boolean"
        with self.reading() as connection:
            return bool(connection.scalar(text(f"SELECT {asked} AND {open_}")))

    def close(self) -> None:
        """Close the connections; the last one to close folds SQLite's WAL into the file."""
        self._own_engine().dispose()

    def _own_engine(self) -> Engine:
        if os.getpid() != self._process:
            self._engine.dispose(close=False)  # they are the parent's, which goes on using them
            self._process = os.getpid()
        return self._engine

    def _sqlite_engine(self, path: Path) -> Engine:
        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(
                self._sqlite_uri(path),
                uri=True,
                timeout=BUSY_S,
                isolation_level=None,  # the "begin" event below says BEGIN
                check_same_thread=False,  # the pool lends a connection to one thread at a time
            )
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            return connection

        if self.read_only:
            engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
        else:
            engine = create_engine(
                "sqlite://", creator=connect, poolclass=QueuePool, max_overflow=-1
            )
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _sqlite_uri(self, path: Path) -> str:
        if not self.read_only:
            return f"file:{quote(str(path))}?mode=rwc"
        # Without a -wal file nobody has the store open, and SQLite could not make one here:
        # "immutable" reads the file alone. With one, only SQLite's own recovery sees all rows.
        wal = Path(f"{path}-wal")
        pending = wal.exists() and wal.stat().st_size > 0
        return f"file:{quote(str(path))}?mode=ro{'' if pending else '&immutable=1'}"

    @contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise StoreError(self.explain(verb, error.orig)) from error
        except SQLAlchemyError as error:
            raise StoreError(f"cannot {verb} store {self.label}: {_one_line(error)}") from error

    def explain(self, verb: str, error: BaseException | None) -> str:
        """One line: what the database refused, and what to do about it."""
        start = f"cannot {verb} store {self.label}: "
        if self.path is None:
            return start + _explain_server(error)
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL or (
            code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and self._disk_is_full()
        ):
            return f"{start}the disk is full: free space under {self.path.parent}, {_ELSEWHERE}"
        if code == sqlite3.SQLITE_NOTADB:
            return f"{start}the file is no SQLite database: name another with --store"
        if code == sqlite3.SQLITE_CORRUPT:
            return f"{start}the file is damaged: restore a copy, or try `sqlite3 FILE .recover`"
        if code == sqlite3.SQLITE_READONLY:
            return f"{start}it is read-only: make it writable, {_ELSEWHERE}"
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return f"{start}locked by another process for {BUSY_S:.0f} s: end that, then try again"
        if code == sqlite3.SQLITE_CANTOPEN and self.read_only:
            return f"{start}unsaved changes lie in its -wal file: copy both to a writable folder"
        return f"{start}{_one_line(error)}: check the disk and the permissions, {_ELSEWHERE}"

    def _disk_is_full(self) -> bool:
        if self.path is None or self.read_only:
            return False
        return shutil.disk_usage(self.path.parent).free < _NEARLY_FULL_BYTES


def open_database(where: str | Path, *, create: bool, foreign: bool = False) -> Database:
    """Open the store at ``where``, ready for use; ``create`` makes it where there is none.

    A ``foreign`` one, of another machine, is read as it is.

    Raises StoreVersionError for a newer schema; StoreError for a missing store, a file that is
    no store, or what else the disk or the server refuses; UsageError for an impossible URL.
    """
    path = _sqlite_path(where)
    if path is not None:
        _check_file(path, create=create)
    database = Database(where)
    try:
        _prepare(database, create=create, foreign=foreign)
    except BaseException:
        database.close()
        raise
    return database


def _check_file(path: Path, *, create: bool) -> None:
    if path.is_dir():
        raise StoreError(f"store {path} is a folder: name a file, as in {path / 'hwbench.db'}")
    if not path.exists():
        if not create:
            raise _missing(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot make the folder of store {path}: {error.strerror}: {_ELSEWHERE[3:]}"
            ) from error


def _missing(where: str | Path) -> StoreError:
    return StoreError(f"there is no store at {where}: measure something first, {_ELSEWHERE}")


def _prepare(database: Database, *, create: bool, foreign: bool) -> None:
    """Make the tables of a new store, or bring an old one to the present schema.

    Raises StoreVersionError for a newer schema, StoreError for another program's database, or
    for one without a store where none may be made.
    """
    found = schema.SCHEMA_VERSION
    with database.reading() as connection:
        tables = set(inspect(connection).get_table_names())
        if schema.meta.name in tables:
            found = _checked_version(connection, database.label)
            fresh = False
        elif tables:
            raise StoreError(
                f"{database.label} is another program's database: name another with --store"
            )
        else:
            fresh = True
    if fresh and database.read_only:
        raise StoreError(f"store {database.label} is empty and read-only: there is nothing to read")
    if fresh and not create:
        raise _missing(database.label)
    if fresh:
        _create(database)
    if found < schema.SCHEMA_VERSION and not foreign and database.may_write():
        _upgrade(database)


def _upgrade(database: Database) -> None:
    """Bring a store to the present schema. Who may only read it reads it as it is."""
    with database.writing() as connection:
        # Another process may have been first.
        found = _checked_version(connection, database.label)
        if found < schema.SCHEMA_VERSION:
            migrations.migrate(connection, found)


def _create(database: Database) -> None:
    if database.path:
        _switch_to_wal(database)
    with database.writing() as connection:
        schema.metadata.create_all(connection)
        # Another process may have been first: BEGIN IMMEDIATE let it finish before us.
        if _version(connection) is None:
            version = {"key": schema.VERSION_KEY, "value": str(schema.SCHEMA_VERSION)}
            connection.execute(insert(schema.meta), version)


def _switch_to_wal(database: Database) -> None:
    """Set WAL mode, which the file then keeps.

    SQLite answers "locked" at once, without its busy timeout, while others open the same new
    file: so we wait here.
    """
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            with database.reading() as connection:
                driver: Any = connection.connection.driver_connection
                driver.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise StoreError(database.explain("create", error)) from error
            time.sleep(0.01)
        else:
            return


def _checked_version(connection: Connection, label: str) -> int:
    """The schema's version. Raises StoreVersionError for one that this hwbench cannot read."""
    found = _version(connection)
    if found is None or not found.isdecimal() or int(found) < 1:
        raise StoreError(f"store {label} has no valid schema version ({found!r}): restore a copy")
    if int(found) > schema.SCHEMA_VERSION:
        raise StoreVersionError(
            f"store {label} was written by a newer hwbench (schema {found}, this one reads "
            f"{schema.SCHEMA_VERSION}): update hwbench, {_ELSEWHERE}"
        )
    if int(found) < migrations.OLDEST:
        raise StoreVersionError(
            f"store {label} was written before hwbench's first release (schema {found}, this one "
            f"reads {schema.SCHEMA_VERSION}): its measurements cannot be brought over, {_ELSEWHERE}"
        )
    return int(found)


def _version(connection: Connection) -> str | None:
    meta = schema.meta.c
    return connection.scalar(select(meta.value).where(meta.key == schema.VERSION_KEY))


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("hwbench_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _sqlite_path(where: str | Path) -> Path | None:
    """File of an SQLite store; ``None`` for another database's URL."""
    if isinstance(where, Path):
        return where
    url = _parsed(where)
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise UsageError(f"{where!r} names no file: a store outlives its process")
    return Path(url.database).absolute()


def _parsed(where: str) -> URL:
    """A database's URL. UsageError for a text that is none, which does not repeat a password."""
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):  # the latter: of a port that is no number
        raise UsageError(
            "the store's URL cannot be read: write it as postgresql://USER@HOST:PORT/DATABASE"
        ) from None
    if "@" in (url.host or ""):
        raise UsageError("an @ in the password of the store's URL is written as %40")
    return url


def _server_engine(where: str) -> Engine:
    """Engine of a PostgreSQL server; a connection that it lost is replaced between transactions."""
    url = _parsed(where)
    start = f"cannot open store {_url_label(url)}: "
    if url.get_backend_name() not in ("postgres", "postgresql"):
        raise StoreError(
            f"{start}there is no driver for {url.get_backend_name()!r}: a store is a file or "
            "postgresql://USER@HOST/DATABASE"
        )
    query = {"connect_timeout": str(_CONNECT_S), **url.query}
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg", query=query),
            isolation_level="READ COMMITTED",  # what others stored before we got the lock is seen
            pool_pre_ping=True,
            max_overflow=-1,
        )
    except ImportError as error:
        raise StoreError(
            f"{start}{_one_line(error)}: pip install 'hwbench[team]', or name a file with --store"
        ) from error
    event.listen(engine, "begin", _begin_server)
    return engine


def _begin_server(connection: Connection) -> None:
    if connection.get_execution_options().get("hwbench_writes", False):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_S * 1000:.0f}ms'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")


def _explain_server(error: BaseException | None) -> str:
    """What a PostgreSQL server refused, by its SQLSTATE, and what to do about it."""
    match getattr(error, "sqlstate", None):
        case "53100":
            return f"the server's disk is full: free space there, {_ELSEWHERE}"
        case "25006":
            return f"the server takes no writes (a standby?): ask its primary, {_ELSEWHERE}"
        case "55P03":
            return f"locked by another writer for {BUSY_S:.0f} s: end that, then try again"
        case _:
            return f"{_one_line(error)}: check its URL, the server and your rights, {_ELSEWHERE}"


def _url_label(url: URL) -> str:
    """The URL without a password, which may stand in its query too."""
    query = {name: value for name, value in url.query.items() if "password" not in name}
    return url.set(query=query).render_as_string(hide_password=True)


def _writable(path: Path) -> bool:
    """Whether SQLite may change the file and make its -wal beside it."""
    if path.exists() and not os.access(path, os.W_OK):
        return False
    return os.access(path.parent, os.W_OK)


def _one_line(error: BaseException | None) -> str:
    return " ".join(str(error).split())
