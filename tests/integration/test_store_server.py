"""The store of a team, on a real PostgreSQL server. What it shares with SQLite is tested with it,
in tests/unit/test_store.py and tests/faults/test_store_faults.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from hwbench.cli import main
from hwbench.errors import EXIT_DEVICE, EXIT_USAGE, StoreError, StoreVersionError
from hwbench.records import Measurement
from hwbench.store import Store, Sweep, engine, schema
from tests.measurements import epoch, measurement, random_measurements, same
from tests.postgres import Server, sql


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.place()


@given(random_measurements)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_stored_comes_back_equal(url: str, given_one: Measurement) -> None:
    with Store.open(url) as store:
        try:
            store.add(given_one)
        except StoreError as error:
            if "NUL" not in str(error):  # the only character that such a server does not hold
                raise
            return
        assert [m for m in store.measurements() if same(m, given_one)]


class TestOpening:
    def test_a_newer_store_says_update(self, url: str) -> None:
        Store.open(url).close()
        newer = schema.SCHEMA_VERSION + 1
        sql(url, f"UPDATE hwbench_meta SET value = '{newer}'")
        with pytest.raises(StoreVersionError, match="update hwbench") as caught:
            Store.open(url)
        assert caught.value.exit_code == EXIT_USAGE

    def test_another_programs_database_is_left_alone(self, url: str) -> None:
        sql(url, "CREATE TABLE measurements (reading REAL)")
        with pytest.raises(StoreError, match="another program"):
            Store.open(url)

    def test_a_missing_store_is_reported_where_none_may_be_made(self, url: str) -> None:
        for _ in range(2):
            with pytest.raises(StoreError, match="there is no store at postgresql://"):
                Store.open(url, create=False)
        Store.open(url).close()
        Store.open(url, create=False).close()

    @pytest.mark.parametrize(
        ("wrong", "word"),
        [
            ("postgresql://me:secret@127.0.0.1:1/x?password=secret", "Connection refused"),
            ("postgres://nobody@/postgres?host={folder}", 'role "nobody" does not exist'),
            ("postgresql://postgres@/nowhere?host={folder}", 'database "nowhere" does not exist'),
        ],
    )
    def test_one_that_cannot_be_reached_says_why_and_no_password(
        self, postgres: Server, wrong: str, word: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        place = wrong.format(folder=postgres.folder)
        assert main(["log", "--store", place]) == EXIT_DEVICE
        said = capsys.readouterr().err
        assert word in said
        assert "--store" in said
        assert said.count("\n") == 1
        assert "secret" not in said


def test_who_may_only_read_reads(url: str) -> None:
    with Store.open(url) as store:
        store.add(measurement(0))
    for statement in (
        "DROP ROLE IF EXISTS guest",
        "CREATE ROLE guest LOGIN",
        "GRANT pg_read_all_data TO guest",
    ):
        sql(url, statement)
    with Store.open(url.replace("postgres@", "guest@")) as store:
        assert same(store.measurements()[0], measurement(0))
        with pytest.raises(StoreError, match=r"permission denied .*your rights"):
            store.add(measurement(1))
        assert len(store.measurements()) == 1


def test_a_server_that_takes_no_writes_says_so(url: str) -> None:
    with Store.open(url) as store:
        store.add(measurement(0))
    with Store.open(f"{url}%20-cdefault_transaction_read_only%3Don") as store:
        assert same(store.measurements()[0], measurement(0))
        with pytest.raises(StoreError, match=r"takes no writes .*--store"):
            store.add(measurement(1))


def test_a_writer_that_does_not_end_is_not_waited_for_for_ever(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(url) as store, Store.open(url) as other:

        def records() -> Iterator[Measurement]:
            yield measurement(0)
            with pytest.raises(StoreError, match=r"locked by another writer for 0 s: end that"):
                other.add(measurement(1))
            assert other.measurements() == []  # who reads waits for nobody
            yield measurement(2)

        monkeypatch.setattr(engine, "BUSY_S", 0.1)
        store.merge(records())
        assert len(other.measurements()) == 2


def test_who_watches_it_sees_a_sweep(url: str) -> None:
    with Store.open(url) as store:
        store.add(measurement(0), plan="p")
        key = measurement(0).fingerprint.key
        for second, what in enumerate(("before", "now")):
            created = f"2026-01-31T12:00:0{second}+00:00"
            store.announce(Sweep(what, "cpu", key, "p", 2, 1, created))
        store.add(measurement(1), plan="p")
        (newest, _) = store.standings()
    assert newest.sweep.what == "now"
    assert (newest.done, [cell.name for cell in newest.last]) == (1, ["net1"])


def test_a_laptops_store_goes_into_the_teams_and_back(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.open(tmp_path / "laptop.db") as store:
        store.merge([epoch(0), *(measurement(i) for i in range(3))])
    for known in (0, 3):
        assert main(["store", "merge", str(tmp_path / "laptop.db"), "--store", url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"added": 3 - known, "known": known}
    assert main(["store", "merge", url, "--store", str(tmp_path / "other.db"), "--json"]) == 0
    with Store.open(tmp_path / "other.db") as store:
        found = store.measurements()
        assert store.epochs() == [epoch(0)]
    assert [same(m, measurement(i)) for i, m in enumerate(found)] == [True] * 3
