"""A PostgreSQL server of the tests' own: on a socket in a temporary folder, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: A server refuses to run as root; Debian's package brings this user.
_USER = "postgres"


class Server:
    """One server, reached by URL over a socket: it listens on no port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._places = folder, 0
        self._bin = _programs()
        self._run("initdb", "--pgdata", folder / "data", "--auth=trust", "--no-sync", "-U", _USER)

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-c listen_addresses='' -c fsync=off -k {self.folder}"
        log = self.folder / "log"
        self._run("pg_ctl", "start", "--wait", "-D", self.folder / "data", "-l", log, "-o", options)

    def stop(self) -> None:
        """End it at once, with all that it was doing."""
        self._run("pg_ctl", "stop", "--wait", "-D", self.folder / "data", "-m", "immediate")

    def place(self) -> str:
        """URL of a place for a new store: a schema of its own, which takes a tenth of the time
        of a database.
        """
        self._places += 1
        url = f"postgresql://{_USER}@/postgres?host={self.folder}"
        sql(url, f"CREATE SCHEMA place{self._places}")
        return f"{url}&options=-csearch_path%3Dplace{self._places}"

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [self._bin / program, *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", _USER, "--", *command]
        # What the server says goes into a file: a pipe would stay open as long as it runs.
        with (self.folder / "said").open("w+") as said:
            done = subprocess.run(command, stdout=said, stderr=said, cwd="/", check=False)
            said.seek(0)
            assert done.returncode == 0, said.read()


def sql(url: str, statement: str) -> None:
    """Run a statement behind the store's back."""
    from sqlalchemy import create_engine, text

    engine = create_engine(url.replace(":", "+psycopg:", 1), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _programs() -> Path:
    """Where initdb is: Debian keeps it off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        pytest.skip(
            "NOT TESTED: no PostgreSQL server is installed (Debian: apt install postgresql)"
        )
    return (found[-1] if found else Path(str(on_path)).resolve()).parent


@contextmanager
def running_server() -> Iterator[Server]:
    """A server, started; skips where none is installed."""
    with tempfile.TemporaryDirectory(prefix="hwbench-pg-", dir="/tmp") as name:
        folder = Path(name)
        if os.getuid() == 0:
            user = pwd.getpwnam(_USER)
            os.chown(folder, user.pw_uid, user.pw_gid)
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The server of all tests of this process."""
    with running_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new store can be made: a file, or a schema on a real server."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    server: Server = request.getfixturevalue("postgres")
    return server.place()
