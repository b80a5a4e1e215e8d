"""The store under kill -9, a crowd of writers, a full disk, a read-only one, a server that ends.

All on real processes, real SQLite, a real PostgreSQL server and real mounts.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hwbench.errors import StoreError
from hwbench.store import Store
from tests.disks import fill, mount
from tests.measurements import epoch, measurement, same
from tests.postgres import Server
from tests.stores import integrity

Writer = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def writer(root: Path) -> Iterator[Writer]:
    """Start tests/store_writer.py; it waits for a line."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.store_writer", *map(str, arguments)],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_killed_at_any_time_it_keeps_all_that_was_acknowledged(writer: Writer, place: str) -> None:
    path, plan, cells = Path(place), "sweep", 400  # no path that exists where it is a URL
    acknowledged: set[int] = set()
    dice = random.Random(1)
    for struck in range(4 if "://" in place else 6):
        process = writer(place, plan, cells, 1)
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout is not None
        if struck % 2:  # after the store was opened, or made
            acknowledged.add(int(process.stdout.readline()))
        time.sleep(dice.uniform(0.0, 0.15))
        os.killpg(process.pid, signal.SIGKILL)
        acknowledged |= {int(line) for line in process.stdout if line.endswith("\n")}
        if path.exists():
            assert integrity(path) == "ok"
    with Store.open(place) as store:
        found = store.measurements(plan=plan)  # checks each row's samples
        done = store.done(plan)
    numbers = [int(m.workload.model_hash, 16) for m in found]
    assert acknowledged
    assert acknowledged <= set(numbers)
    assert len(numbers) == len(set(numbers)) == len(done)
    assert all(
        same(m, measurement(n, session="session-0")) for m, n in zip(found, numbers, strict=True)
    )


def test_twenty_writers_make_one_store(writer: Writer, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    process = writer(path, "-", 6, 20)
    output, _ = process.communicate("go\n", timeout=120)
    assert process.returncode == 0
    assert len(output.split()) == 120
    assert integrity(path) == "ok"
    with Store.open(path) as store:
        found = store.measurements()
    assert len({(m.session, m.workload.key) for m in found}) == len(found) == 120


def test_twenty_writers_of_one_plan_fill_each_cell_once(writer: Writer, place: str) -> None:
    cells = 8 if "://" in place else 60  # a server is asked over a socket, many times a cell
    process = writer(place, "sweep", cells, 20)
    process.communicate("go\n", timeout=120)
    assert process.returncode == 0
    with Store.open(place) as store:
        found = store.measurements(plan="sweep")
        assert len(found) == len(store.done("sweep")) == len(store.measurements()) == cells
    assert len({m.session for m in found}) > 1, "the writers did not meet"


def test_a_server_that_ends_and_comes_back_has_lost_nothing(
    writer: Writer, postgres: Server
) -> None:
    place = postgres.place()
    process = writer(place, "sweep", 100_000, 1)
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout is not None
    acknowledged = {int(process.stdout.readline()) for _ in range(20)}
    with Store.open(place) as store:
        before = len(store.done("sweep"))
        postgres.stop()
        try:
            acknowledged |= {int(line) for line in process.stdout}
            assert process.wait() != 0
            with pytest.raises(StoreError, match=r"check its URL.*--store") as caught:
                store.done("sweep")
            assert "\n" not in str(caught.value)
        finally:
            postgres.start()
        held = store.measurements(plan="sweep")  # by the same store, opened before the end
        assert len(held) >= before
        assert acknowledged <= {int(m.workload.model_hash, 16) for m in held}
        again = writer(place, "sweep", len(held) + 5, 1)
        again.communicate("go\n", timeout=120)
        assert len(store.measurements(plan="sweep")) == len(store.done("sweep")) == len(held) + 5


def test_a_new_store_waits_for_another_who_is_making_it(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")  # to which a switch to WAL answers "locked" at once
    timer = threading.Timer(0.3, other.execute, ["COMMIT"])
    timer.start()
    try:
        with Store.open(path) as store:
            store.add(measurement(0))
            assert len(store.measurements()) == 1
    finally:
        timer.join()
        other.close()


def test_a_full_disk_loses_nothing_and_says_what_to_do(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    stored = 0

    def write(store: Store) -> None:
        nonlocal stored
        for number in range(10_000):
            store.add(measurement(number), plan="sweep")
            stored += 1

    with Store.open(small_disk / "store.db") as store:
        with pytest.raises(StoreError, match=r"disk is full.*--store") as caught:
            write(store)
        assert "\n" not in str(caught.value)
        assert stored > 10
        assert [same(m, measurement(i)) for i, m in enumerate(store.measurements())] == (
            [True] * stored
        )
        ballast.unlink()
        store.add(measurement(stored), plan="sweep")
        assert len(store.done("sweep")) == stored + 1
    assert integrity(small_disk / "store.db") == "ok"


def test_no_room_for_a_new_store(small_disk: Path) -> None:
    ballast = fill(small_disk)
    with pytest.raises(StoreError, match="disk is full") as caught:
        Store.open(small_disk / "store.db")
    assert "\n" not in str(caught.value)
    ballast.unlink()
    with Store.open(small_disk / "store.db") as store:
        store.add(measurement(0))
        assert len(store.measurements()) == 1


class TestReadOnly:
    def test_a_closed_store_is_read_and_not_written(self, small_disk: Path) -> None:
        path = small_disk / "store.db"
        with Store.open(path) as store:
            store.add(measurement(0))
        mount("-o", "remount,ro", small_disk)
        with Store.open(path) as store:
            assert store.read_only
            assert same(store.measurements()[0], measurement(0))
            for write in (
                lambda: store.add(measurement(1)),
                lambda: store.add_epoch(epoch()),
                lambda: store.merge([measurement(1)]),
            ):
                with pytest.raises(StoreError, match=r"read-only.*--store"):
                    write()

    def test_a_store_in_use_shows_its_newest_rows(self, small_disk: Path, tmp_path: Path) -> None:
        view = tmp_path / "view"
        view.mkdir()
        with Store.open(small_disk / "store.db") as store:
            store.add(measurement(0))
            mount("--bind", small_disk, view)
            mount("-o", "remount,ro,bind", view)
            try:
                with Store.open(view / "store.db") as reader:
                    assert len(reader.measurements()) == 1
                    store.add(measurement(1))
                    assert len(reader.measurements()) == 2
            finally:
                subprocess.run(["umount", "--lazy", view], check=True)

    def test_rows_left_in_the_wal_are_never_left_out(
        self, small_disk: Path, tmp_path: Path
    ) -> None:
        with Store.open(tmp_path / "store.db") as store:
            store.add(measurement(0))
            for suffix in ("", "-wal"):  # as a killed process leaves it, less its -shm
                shutil.copy(tmp_path / f"store.db{suffix}", small_disk)
        mount("-o", "remount,ro", small_disk)
        with pytest.raises(StoreError, match="-wal file: copy both"):
            Store.open(small_disk / "store.db")

    def test_there_is_nothing_in_an_empty_one(self, small_disk: Path) -> None:
        (small_disk / "store.db").touch()
        mount("-o", "remount,ro", small_disk)
        with pytest.raises(StoreError, match="empty and read-only"):
            Store.open(small_disk / "store.db")
        with pytest.raises(StoreError, match="there is no store"):
            Store.open(small_disk / "other.db", create=False)
