"""The store keeps what it was given, all of it, and nothing twice."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_mock_engine, event
from sqlalchemy.pool import Pool

from hwbench.errors import EXIT_USAGE, StoreError, StoreVersionError, UsageError
from hwbench.records import Fingerprint, Measurement, Percentile, Verdict
from hwbench.store import CanaryRun, ImportReport, Store, schema
from tests.measurements import bursts, epoch, measurement, random_measurements, same


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    with Store.open(place) as opened:
        yield opened


def sql(path: Path, statement: str, *values: object) -> None:
    """Change the file behind the store's back."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement, values)
    connection.close()


class TestMeasurements:
    @given(random_measurements)
    @settings(max_examples=40)
    def test_whatever_is_stored_comes_back_equal(self, given_one: Measurement) -> None:
        with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder, "s.db")) as store:
            store.add(given_one)
            (stored,) = store.measurements()
            assert same(stored, given_one)
            assert stored.workload.key == given_one.workload.key
            assert stored.fingerprint.key == given_one.fingerprint.key
            assert store.merge([stored]) == ImportReport(added=0, known=1)

    def test_they_survive_the_store(self, path: Path) -> None:
        with Store.open(path) as store:
            first = store.add(measurement(0))
            second = store.add(measurement(1))
        with Store.open(path) as store:
            found = store.measurements()
        assert first != second
        assert [same(m, measurement(i)) for i, m in enumerate(found)] == [True, True]

    def test_the_oldest_comes_first_whatever_the_time_zone(self, store: Store) -> None:
        late, early = "2026-01-31T12:00:01+00:00", "2026-01-31T20:00:00+08:00"
        store.add(measurement(0, created=late))
        store.add(measurement(1, created=early))
        assert [m.created for m in store.measurements()] == [early, late]

    def test_filters_select_and_combine(self, store: Store) -> None:
        phone = Fingerprint("pixel", {"soc": "x"})
        store.add(measurement(0, session="a"), plan="p")
        store.add(measurement(1, session="b", work_space="nasbench201"))
        store.add(measurement(2, session="b", fingerprint=phone), plan="p")

        def numbers(**conditions: str) -> list[int]:
            return [int(m.workload.model_hash, 16) for m in store.measurements(**conditions)]

        assert numbers(device="pixel") == [2]
        assert numbers(space="ofa_mbv3") == [0, 2]
        assert numbers(session="b") == [1, 2]
        assert numbers(plan="p") == [0, 2]
        assert numbers(name="net1") == [1]
        assert numbers(workload=measurement(1).workload.key) == [1]
        assert numbers(fingerprint=phone.key) == [2]
        assert numbers(since="2026-01-31T12:00:01Z") == [1, 2]
        assert numbers(since="2026-01-31T12:00:01Z", session="b", plan="p") == [2]
        assert numbers(device="toaster") == []

    def test_without_bursts_they_are_empty_and_the_rest_is_there(self, store: Store) -> None:
        store.add(measurement(0))
        (found,) = store.measurements(with_bursts=False)
        assert len(found.bursts) == 0
        assert found.bursts.canary_ns.shape == (0, 2, 2)
        assert same(dataclasses.replace(found, bursts=bursts(0)), measurement(0))

    def test_since_needs_its_offset(self, store: Store) -> None:
        with pytest.raises(UsageError, match="UTC offset"):
            store.measurements(since="2026-01-31T12:00:00")


class TestNothingTwice:
    def test_an_equal_measurement_is_the_same_row(self, store: Store) -> None:
        assert store.add(measurement(0)) == store.add(measurement(0))
        assert len(store.measurements()) == 1

    def test_one_other_sample_makes_another_measurement(self, store: Store) -> None:
        store.add(measurement(0))
        store.add(measurement(0, bursts=bursts(99)))
        assert len(store.measurements()) == 2

    def test_a_plans_cell_keeps_the_first(
        self, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = store.add(measurement(0), plan="p")
        assert store.add(measurement(0, session="later"), plan="p") == first
        (kept,) = store.measurements(plan="p")
        assert kept.session == "session-1"
        assert "the first stands" in caplog.text

    def test_the_same_cell_of_another_plan_is_another(self, store: Store) -> None:
        store.add(measurement(0), plan="p")
        store.add(measurement(0, session="later"), plan="q")
        store.add(measurement(0, session="third"))
        assert len(store.measurements()) == 3

    def test_done_names_the_plans_workloads(self, store: Store) -> None:
        store.add(measurement(0), plan="p")
        store.add(measurement(1), plan="q")
        store.add(measurement(2))
        assert store.done("p") == {measurement(0).workload.key}
        assert store.done("nothing") == set()

    def test_merge_is_all_or_nothing(self, store: Store) -> None:
        def records() -> Iterator[Measurement]:
            yield measurement(0)
            raise UsageError("the file broke off")

        with pytest.raises(UsageError, match="broke off"):
            store.merge(records())
        assert store.measurements() == []
        assert store.merge([measurement(0), epoch(0), measurement(0)]) == ImportReport(1, 1)
        assert store.epochs() == [epoch(0)]

    def test_a_large_merge_takes_few_statements(self, place: str) -> None:
        """A server is far away, and whoever else writes waits for its end."""
        statements: list[str] = []

        def note(connection: object, cursor: object, statement: str, *_: object) -> None:
            statements.append(statement)

        many = [measurement(i % 450, seconds=1.0 + i % 450) for i in range(500)]
        with Store.open(place) as store:
            event.listen(Engine, "before_cursor_execute", note)
            try:
                assert store.merge(many) == ImportReport(450, 50)
            finally:
                event.remove(Engine, "before_cursor_execute", note)
            assert len(statements) < 40
            assert [m.workload.name for m in store.measurements()] == [
                m.workload.name for m in many[:450]
            ]
            assert all(map(same, store.measurements(), many))
            assert store.merge(many) == ImportReport(0, 500)


def _with_bad_burst(**arrays: object) -> Measurement:
    return measurement(0, bursts=dataclasses.replace(bursts(0), **arrays))


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)  # it gets to no database
@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (measurement(0, latency_ns=float("nan")), "latency_ns"),
        (measurement(0, seconds=float("inf")), "seconds"),
        (measurement(0, confidence="0.95"), "confidence"),
        (measurement(0, load_ns=1.5), "load_ns"),
        (measurement(0, load_ns=2**63), "64 bits"),
        (measurement(0, created="yesterday"), "created"),
        (measurement(0, created="2026-01-31T12:00:00"), "UTC offset"),
        (measurement(0, status="fine"), "status"),
        (measurement(0, session=None), "session"),
        (measurement(0, work_name="caf\udce9"), "Unicode"),
        (measurement(0, tags={"n": 1}), "tags"),
        (measurement(0, contention={"steal": float("nan")}), "contention"),
        (measurement(0, observed=(Percentile(0.5, float("nan"), None, None),)), "observed"),
        (_with_bad_burst(sample_ns=np.ones(30)), "sample_ns"),
        (_with_bad_burst(sample_ns=np.ones(29, np.int64)), "29"),
        (_with_bad_burst(round=np.ones(5, np.int32)), "round"),
        (_with_bad_burst(canary_ns=np.ones(6, np.int64)), "canary_ns"),
        (_with_bad_burst(canary_ns=np.ones((6, 3, 2), np.int64)), "canary_ns"),
        (_with_bad_burst(canary_ns=np.ones((6, 2, 2))), "canary_ns"),
        (_with_bad_burst(cause=np.full(6, 99, np.uint8)), "cause"),
        (_with_bad_burst(length=np.array([-1, 11, 5, 5, 5, 5], np.int32)), "negative"),
    ],
)
def test_what_cannot_be_kept_exactly_is_refused(store: Store, bad: Measurement, word: str) -> None:
    with pytest.raises(StoreError, match=word) as caught:
        store.add(bad)
    assert "\n" not in str(caught.value)
    assert store.measurements() == []


def test_numpy_scalars_are_numbers(store: Store) -> None:
    store.add(measurement(0, latency_ns=np.float64(3e6), load_ns=np.int64(40_000_000)))
    assert store.add(measurement(0)) == 1
    assert len(store.measurements()) == 1


class TestEpochs:
    def test_the_newest_of_its_series_is_the_epoch(self, store: Store) -> None:
        for made in (epoch(2), epoch(1), epoch(3, threads=2), epoch(4, canary_key="other")):
            store.add_epoch(made)
        assert store.epoch("f" * 32, "c" * 32, 1) == epoch(2)
        assert store.epoch("f" * 32, "c" * 32, 8) is None
        assert store.epochs(threads=1, canary_key="c" * 32) == [epoch(1), epoch(2)]
        assert store.epochs(id="epoch-3") == [epoch(3, threads=2)]

    def test_an_imported_epoch_anchors_nothing(self, store: Store) -> None:
        """It may be of another machine of the same make."""
        store.add_epoch(epoch(1))
        store.merge([epoch(2)])
        assert store.epochs() == [epoch(1), epoch(2)]
        assert store.epoch("f" * 32, "c" * 32, 1) == epoch(1)

    def test_an_imported_one_anchors_once_it_is_made_here(self, store: Store) -> None:
        store.merge([epoch(1)])
        with pytest.raises(StoreError, match="differs"):
            store.add_epoch(epoch(1, c0_ns=(1e6, 3e6)))
        assert store.epoch("f" * 32, "c" * 32, 1) is None
        store.add_epoch(epoch(1))
        assert store.epoch("f" * 32, "c" * 32, 1) == epoch(1)
        assert store.epochs(imported=True) == []

    def test_an_epoch_never_changes(self, store: Store) -> None:
        store.add_epoch(epoch(1))
        with pytest.raises(StoreError, match="never changes"):
            store.add_epoch(epoch(1))
        with pytest.raises(StoreError, match="differs"):
            store.merge([epoch(1, c0_ns=(1e6, 3e6))])
        store.merge([epoch(1)])
        assert store.epochs() == [epoch(1)]


class TestCanaryRuns:
    def test_the_series_comes_back(self, store: Store) -> None:
        values = np.array([[1e6, 2e6], [1.1e6, 2.1e6], [1.2e6, 2.2e6]])
        store.add_canary_run("f", "c", 1, "s2", "2026-01-31T12:00:01+00:00", values)
        store.add_canary_run("f", "c", 1, "s1", "2026-01-31T12:00:00+00:00", [5.0, 6.0])
        store.add_canary_run("g", "c", 2, "s3", "2026-01-31T12:00:02+00:00", [7.0])
        first, second = store.canary_runs(fingerprint_key="f")
        assert isinstance(first, CanaryRun)
        assert (first.session, first.values_ns.tolist()) == ("s1", [5.0, 6.0])
        assert (second.session, second.values_ns.tolist()) == ("s2", values.tolist())
        assert [run.session for run in store.canary_runs(threads=2)] == ["s3"]

    @pytest.mark.parametrize("values", [[1.0, float("nan")], 3.0, [[[1.0]]], ["fast"]])
    def test_only_finite_rows_of_numbers(self, store: Store, values: object) -> None:
        with pytest.raises(StoreError, match="canary run"):
            store.add_canary_run("f", "c", 1, "s", "2026-01-31T12:00:00+00:00", values)
        assert store.canary_runs() == []


def test_the_ledger_keeps_verdicts_in_order(store: Store) -> None:
    evidence = {"median_pct": 0.4, "by_class": {"conv": [0.1, None]}}
    late = Verdict("dash", "d", "refuted", {}, None, "2026-02-01T00:00:00Z")
    early = Verdict("repeatability", "r", "confirmed", evidence, "f.png", "2026-01-01T00:00:00Z")
    store.add_verdict(late)
    store.add_verdict(early)
    assert store.verdicts() == [early, late]
    assert store.verdicts(claim="dash") == [late]


@pytest.mark.parametrize(
    ("evidence", "outcome"),
    [({"pct": float("nan")}, "refuted"), ({"x": np.ones(2)}, "refuted"), ({}, "perhaps")],
)
def test_a_verdict_is_plain(store: Store, evidence: dict[str, object], outcome: str) -> None:
    with pytest.raises(StoreError, match="verdict on 'c'"):
        store.add_verdict(Verdict("c", "p", outcome, evidence, None, "2026-01-01T00:00:00Z"))
    assert store.verdicts() == []


class TestOpening:
    def test_a_newer_store_says_update(self, path: Path) -> None:
        Store.open(path).close()
        sql(path, f"UPDATE hwbench_meta SET value = '{schema.SCHEMA_VERSION + 1}'")
        with pytest.raises(StoreVersionError, match="update hwbench") as caught:
            Store.open(path)
        assert caught.value.exit_code == EXIT_USAGE

    def test_a_store_from_before_the_first_release_says_so(self, path: Path) -> None:
        Store.open(path).close()
        sql(path, "UPDATE hwbench_meta SET value = '1'")
        with pytest.raises(StoreVersionError, match=r"first release .* --store") as caught:
            Store.open(path)
        assert caught.value.exit_code == EXIT_USAGE

    @pytest.mark.parametrize("version", ["0", "one", ""])
    def test_a_version_that_is_none(self, path: Path, version: str) -> None:
        Store.open(path).close()
        sql(path, "UPDATE hwbench_meta SET value = ?", version)
        with pytest.raises(StoreError, match="schema version"):
            Store.open(path)

    def test_a_file_that_is_no_database(self, path: Path) -> None:
        path.write_text("latency,ms\n" * 1000)
        with pytest.raises(StoreError, match="no SQLite database"):
            Store.open(path)
        assert path.read_text() == "latency,ms\n" * 1000

    def test_another_programs_database_is_left_alone(self, path: Path) -> None:
        sql(path, "CREATE TABLE bookmarks (url TEXT)")
        before = path.read_bytes()
        with pytest.raises(StoreError, match="another program"):
            Store.open(path)
        assert path.read_bytes() == before

    def test_an_empty_file_becomes_a_store(self, path: Path) -> None:
        path.touch()
        with Store.open(path) as store:
            store.add(measurement(0))
            assert len(store.measurements()) == 1

    def test_a_folder_is_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="is a folder"):
            Store.open(tmp_path)

    def test_a_missing_store_is_made_with_its_folder_or_reported(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "store.db"
        with pytest.raises(StoreError, match="there is no store"):
            Store.open(path, create=False)
        assert not path.parent.exists()
        Store.open(path).close()
        Store.open(path, create=False).close()

    def test_a_file_in_the_way_of_its_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreError, match="cannot make the folder"):
            Store.open(tmp_path / "file" / "store.db")

    def test_by_url_and_by_name(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with Store.open(f"sqlite:///{path}") as store:
            store.add(measurement(0))
        with Store.open(str(path)) as store:
            assert len(store.measurements()) == 1
        monkeypatch.setenv("HWBENCH_STORE", str(path))
        with Store.open() as store:
            assert store.location == str(path)

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://me:sec@cret@host/db",
            "postgresql://me:secret@host:port/db",
            "postgresql://me:secret@[::1",
            "postgre-sql://me:secret@host/db",
        ],
    )
    def test_a_url_that_cannot_be_read_gives_no_password_away(self, url: str) -> None:
        with pytest.raises(UsageError) as caught:
            Store.open(url)
        assert "cret" not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "://", "x y://"])
    def test_a_url_that_cannot_be(self, url: str) -> None:
        with pytest.raises(UsageError):
            Store.open(url)

    def test_an_unknown_database_hides_the_password(self) -> None:
        with pytest.raises(StoreError, match="driver") as caught:
            Store.open("nosuchdb://me:secret@host/db")
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("name", ["a b?mode=ro#x%41.db", "naïve-ü.db", "-rf.db"])
    def test_odd_file_names(self, tmp_path: Path, name: str) -> None:
        with Store.open(tmp_path / name) as store:
            store.add(measurement(0))
        assert (tmp_path / name).stat().st_size > 0
        with Store.open(tmp_path / name) as store:
            assert len(store.measurements()) == 1


class TestDamage:
    def test_a_changed_sample_names_its_row(self, path: Path) -> None:
        with Store.open(path) as store:
            store.add(measurement(0))
            row = store.add(measurement(1))
        sql(
            path,
            "UPDATE bursts SET process = ? WHERE measurement_id = ?",
            b"\x00" + bytes(12),
            row,
        )
        with Store.open(path) as store:
            with pytest.raises(StoreError, match=f"measurement {row} is damaged.*checksum"):
                store.measurements()
            assert len(store.measurements(with_bursts=False)) == 2

    @pytest.mark.parametrize("blob", [b"", b"\x07abc", b"\x01abc", b"\x00abc"])
    def test_a_torn_array_names_its_row(self, path: Path, blob: bytes) -> None:
        with Store.open(path) as store:
            store.add(measurement(0))
        sql(path, "UPDATE bursts SET sample_ns = ?", blob)
        with Store.open(path) as store, pytest.raises(StoreError, match="measurement 1 is damaged"):
            store.measurements()

    def test_a_changed_canary_run_names_its_row(self, path: Path) -> None:
        with Store.open(path) as store:
            store.add_canary_run("f", "c", 1, "s", "2026-01-31T12:00:00+00:00", [1.0])
        sql(path, "UPDATE canary_runs SET values_ns = ?", b"\x00" + bytes(8))
        with Store.open(path) as store, pytest.raises(StoreError, match="canary run 1 is damaged"):
            store.canary_runs()

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ("tags = '{'", ""),
            ("observed = '[[1]]'", "observed must be a list of 4"),
            ("beta = 'null'", "beta must be a list"),
            ("latency_ns = 'abc'", "latency_ns must be a finite number"),
            ("latency_ns = 0", "latency_ns 0.0 must be a time within its interval"),
            ("threads = 'x'", "threads must be an integer"),
            ("created = 'xx'", "created"),
            ("status = 'weird'", "status must be one of"),
            ("confidence = 1", "confidence 1.0 of an interval cannot be"),
        ],
    )
    def test_a_changed_value_names_its_row(self, path: Path, change: str, word: str) -> None:
        with Store.open(path) as store:
            store.add(measurement(0))
        sql(path, f"UPDATE measurements SET {change}")
        with (
            Store.open(path) as store,
            pytest.raises(
                StoreError, match=rf"measurement 1 is damaged \(.*{word}.*restore a copy"
            ),
        ):
            store.measurements(with_bursts=False)

    def test_a_changed_device_epoch_or_verdict_is_named(self, path: Path) -> None:
        with Store.open(path) as store:
            store.add(measurement(0))
            store.add_epoch(epoch(1))
            store.add_verdict(Verdict("a", "b", "confirmed", {}, None, "2026-01-31T12:00:00Z"))
        sql(path, "UPDATE fingerprints SET facts = '[]'")
        sql(path, "UPDATE epochs SET names = '5'")
        sql(path, "UPDATE verdicts SET evidence = '{'")
        with Store.open(path) as store:
            with pytest.raises(StoreError, match=r"measurement 1 is damaged \(facts must be"):
                store.measurements()
            with pytest.raises(StoreError, match=r"calibration .* is damaged \(names must be"):
                store.epochs()
            with pytest.raises(StoreError, match="verdict 1 is damaged"):
                store.verdicts()

    def test_half_a_file(self, path: Path) -> None:
        with Store.open(path) as store:
            for number in range(20):
                store.add(measurement(number))
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(StoreError, match="damaged") as caught, Store.open(path) as store:
            store.measurements()
        assert "\n" not in str(caught.value)


class TestSharing:
    def test_threads_share_one_store(self, store: Store) -> None:
        def work(start: int) -> None:
            for number in range(start, start + 10):
                store.add(measurement(number), plan="p")
                store.measurements(with_bursts=False)

        threads = [threading.Thread(target=work, args=(i * 5,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.measurements(plan="p")) == 45

    def test_a_fork_takes_connections_of_its_own(self, store: Store) -> None:
        store.add(measurement(0))
        child = os.fork()
        if child == 0:
            connects: list[object] = []
            event.listen(Pool, "connect", lambda *_: connects.append(1))
            status = 1
            try:
                store.add(measurement(1))
                status = 0 if connects else 2  # SQLite forbids the parent's
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        store.add(measurement(2))
        assert len(store.measurements()) == 3


def test_the_tables_are_sql_that_postgresql_takes() -> None:
    statements: list[str] = []
    engine = create_mock_engine(
        "postgresql+psycopg://", lambda ddl, *_: statements.append(str(ddl.compile(engine)))
    )
    schema.metadata.create_all(engine, checkfirst=False)
    measurements = next(s for s in statements if "CREATE TABLE measurements" in s)
    assert "id BIGSERIAL" in measurements
    assert "latency_ns DOUBLE PRECISION" in measurements
    assert "UNIQUE (plan, workload_key)" in measurements


def test_the_codecs_load_no_database() -> None:
    code = "import sys, hwbench.store.documents; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.integers(0, 2**31), st.sampled_from(["<i8", ">i8", "<f8", "u1", "i2"]))
def test_packed_arrays_are_small_and_exact(seed: int, kind: str) -> None:
    from hwbench.store.arrays import pack, unpack

    rng = np.random.default_rng(seed)
    array = (3e6 + rng.normal(0, 1e4, int(rng.integers(0, 400)))).astype(kind)
    blob = pack(array)
    native = array.dtype.newbyteorder("=")
    assert len(blob) <= array.nbytes + 1
    assert np.array_equal(unpack(blob, native, array.shape), array)
    with pytest.raises(ValueError, match=r"bytes|inflate"):
        unpack(blob, native, (array.size + 1,))
