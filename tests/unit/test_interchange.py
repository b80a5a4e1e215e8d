"""What goes out as an archive comes back equal; CSV, Parquet and pyperf hold what they can."""

from __future__ import annotations

import base64
import csv
import dataclasses
import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pyperf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwbench.errors import ImportFileError, StoreError, UsageError
from hwbench.interchange import archive, export, format_of, import_archive, import_results
from hwbench.interchange.archive import VERSION
from hwbench.records import Fingerprint, Measurement
from hwbench.store import ImportReport, Store
from hwbench.store.arrays import empty_bursts
from tests.measurements import (
    KEPT,
    WARMUP,
    bursts,
    epoch,
    measurement,
    random_measurements,
    same,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store.db") as opened:
        yield opened


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """An archive of three measurements and an epoch."""
    path = tmp_path / "whole.jsonl"
    export([measurement(i) for i in range(3)], path, epochs=[epoch(1)])
    return path


class TestArchive:
    @given(st.lists(random_measurements, min_size=1, max_size=3), st.booleans())
    @settings(max_examples=25)
    def test_the_round_trip_is_exact(self, made: list[Measurement], zipped: bool) -> None:
        with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder, "s.db")) as store:
            path = Path(folder, "a.jsonl.gz" if zipped else "a.jsonl")
            export(made, path)
            import_archive(path, store)
            stored = store.measurements()
            assert all(any(same(m, one) for one in stored) for m in made)
            assert all(any(same(m, one) for m in made) for one in stored)
            assert import_archive(path, store) == ImportReport(added=0, known=len(made))

    def test_what_the_store_holds_is_not_doubled(self, store: Store, whole: Path) -> None:
        store.add(measurement(1), plan="mine")
        assert import_archive(whole, store) == ImportReport(added=2, known=1)
        assert import_archive(whole, store) == ImportReport(added=0, known=3)
        assert len(store.measurements()) == 3
        assert store.done("mine") == {measurement(1).workload.key}
        assert store.epochs() == [epoch(1)]

    def test_it_is_the_same_from_store_to_store(self, store: Store, tmp_path: Path) -> None:
        for number in range(3):
            store.add(measurement(number))
        export(store.measurements(), tmp_path / "one.jsonl")
        with Store.open(tmp_path / "other.db") as other:
            import_archive(tmp_path / "one.jsonl", other)
            export(other.measurements(), tmp_path / "two.jsonl")
        assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()

    def test_a_compressed_one_is_known_by_its_bytes(
        self, store: Store, whole: Path, tmp_path: Path
    ) -> None:
        packed = gzip.compress(whole.read_bytes())
        for name in ("renamed", "renamed.json.gz", "renamed.json"):
            (tmp_path / name).write_bytes(packed)
        assert import_results(tmp_path / "renamed.json.gz", store)[0].added == 3
        assert import_results(tmp_path / "renamed.json", store)[0].known == 3
        assert import_archive(tmp_path / "renamed", store).known == 3

    def test_another_epoch_under_a_known_id_stops_the_import(
        self, store: Store, whole: Path
    ) -> None:
        store.add_epoch(epoch(1, runs=99))
        with pytest.raises(StoreError, match="epoch-1"):
            import_archive(whole, store)
        assert store.measurements() == []


def refused(path: Path, store: Store, match: str = "cannot import|no hwbench archive") -> None:
    """The import fails in one line, and the store is as it was."""
    with pytest.raises(ImportFileError, match=match) as caught:
        import_archive(path, store)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert store.measurements() == []
    assert store.epochs() == []


class TestBadArchives:
    @given(data=st.data())
    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_no_changed_byte_gets_in(self, data: st.DataObject, store: Store, whole: Path) -> None:
        path = whole.with_name("changed.jsonl")
        content = bytearray(whole.read_bytes())
        where = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["change", "cut", "insert", "drop"]))
        if kind == "change":
            content[where] ^= data.draw(st.integers(1, 255))
        elif kind == "cut":
            del content[where:]
        elif kind == "insert":
            content[where:where] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            del content[where]
        path.write_bytes(content)
        refused(path, store)

    def test_cut_off_at_each_line(self, store: Store, whole: Path) -> None:
        lines = whole.read_bytes().splitlines(keepends=True)
        for count in range(1, len(lines)):
            whole.write_bytes(b"".join(lines[:count]))
            refused(whole, store, "cut off")

    def test_cut_off_when_compressed(self, store: Store, whole: Path) -> None:
        zipped = gzip.compress(whole.read_bytes())
        whole.write_bytes(zipped[: len(zipped) // 2])
        refused(whole, store)

    def test_a_space_more_at_the_end(self, store: Store, whole: Path) -> None:
        whole.write_bytes(whole.read_bytes().replace(b'{"records":', b'{ "records":'))
        refused(whole, store, "checksum")

    def test_a_line_left_out_or_put_twice(self, store: Store, whole: Path) -> None:
        lines = whole.read_bytes().splitlines(keepends=True)
        for changed in (lines[:2] + lines[3:], lines[:2] + lines[1:], [*lines, lines[-2]]):
            whole.write_bytes(b"".join(changed))
            refused(whole, store, "checksum|after the archive's end")

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\n",
            b"name,latency_ms\nnet,3.0\n",
            b'{"benchmarks": [], "version": "1.0"}\n',
            b"[1, 2]\n",
            b"SQLite format 3\0" + bytes(100),
            b"\x1f\x8b" + bytes(100),
            gzip.compress(b"no archive\n", mtime=0),
            b"[" * 100_000 + b"\n",
            b'{"format": NaN}\n',
            b'{"format": "hwbench-archive", "version": true}\n',
            '{"format": "hwbench-archive"}\n'.encode("utf-16"),
        ],
    )
    def test_foreign_files(self, store: Store, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "foreign.jsonl"
        path.write_bytes(content)
        refused(path, store, "is no hwbench archive")

    def test_missing_and_unreadable(self, store: Store, tmp_path: Path) -> None:
        refused(tmp_path / "absent.jsonl", store, "No such file")
        refused(tmp_path, store, "Is a directory")

    def test_a_newer_version(self, store: Store, tmp_path: Path) -> None:
        path = tmp_path / "new.jsonl"
        path.write_text(f'{{"format": "hwbench-archive", "version": {VERSION + 1}}}\n')
        refused(path, store, "update hwbench")

    def test_too_large_in_all(self, store: Store, whole: Path) -> None:
        with pytest.raises(ImportFileError, match="too large"):
            import_archive(whole, store, limit_bytes=whole.stat().st_size - 1)
        assert store.measurements() == []
        whole.write_bytes(gzip.compress(whole.read_bytes() + bytes(10_000_000)))
        with pytest.raises(ImportFileError, match="too large"):
            import_archive(whole, store, limit_bytes=10_000)

    def test_too_long_a_line(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(archive, "MAX_LINE_BYTES", 1000)
        path = tmp_path / "long.jsonl"
        export([measurement(0)], path)
        refused(path, store, "too large")


Edit = Callable[[dict[str, Any]], object]


def _set(*keys: str, to: Any) -> Edit:
    def edit(record: dict[str, Any]) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = to

    return edit


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (_set("measurement", "latency_ns", to="fast"), "latency_ns must be a finite number"),
        (_set("measurement", "latency_ns", to=1e999), "not JSON|no JSON|finite"),
        (_set("measurement", "latency_ns", to=-3e6), "latency_ns must not be negative"),
        (_set("measurement", "latency_ns", to=None), "belong together"),
        (_set("measurement", "low_ns", to=5e-324), "must be a time"),
        (_set("measurement", "low_ns", to=9e9), "within its interval"),
        (_set("measurement", "confidence", to=-5.0), "confidence must lie between 0 and 1"),
        (_set("measurement", "confidence", to=0.0), "of an interval cannot be"),
        (_set("measurement", "seconds", to=-1.0), "seconds must not be negative"),
        (_set("measurement", "footprint_bytes", to=-1), "footprint_bytes must not be negative"),
        (_set("measurement", "observed", to=[[-50.0, 1.0, 1.0, 1.0]]), "between 0 and 100"),
        (_set("measurement", "threads", to=-4), "threads must be 1 or more"),
        (_set("measurement", "threads", to=True), "threads must be an integer"),
        (_set("measurement", "threads", to=10**30), "64 bits"),
        (_set("measurement", "created", to="2026-01-31"), "UTC offset"),
        (_set("measurement", "inputs", to=[["x", "float32", [1, "3"]]]), "inputs"),
        (_set("measurement", "tags", to=[["a", "b"]]), "tags must be an object"),
        (_set("measurement", "status", to={}), "status must be one of"),
        (_set("measurement", "surprise", to=1), "unknown field surprise"),
        (lambda r: r["measurement"].pop("name"), "lacks field name"),
        (_set("measurement", to=None), "not an object"),
        (_set("bursts", "sample_ns", to="AAAA!"), "base64|data"),
        (_set("bursts", "sample_ns", to=base64.b64encode(b"\x09").decode()), "codec"),
        (_set("bursts", "sample_count", to=2**40), "arrays of more than 256 MiB"),
        (_set("bursts", "sample_count", to=-1), "negative"),
        (_set("bursts", "sample_count", to=29), "sample_ns"),
        (_set("bursts", "burst_count", to=7), "length"),
        (_set("extra", to=1), "neither an epoch nor a measurement"),
    ],
)
def test_a_well_made_lie_is_named(store: Store, whole: Path, edit: Edit, word: str) -> None:
    """Files whose checksum is right and whose content is not."""
    lines = [json.loads(line) for line in whole.read_text().splitlines()]
    edit(lines[3])
    body = "".join(json.dumps(line) + "\n" for line in lines[:-1])
    end = {"records": len(lines) - 2, "sha256": hashlib.sha256(body.encode()).hexdigest()}
    whole.write_text(body + json.dumps(end, separators=(",", ":")) + "\n")
    refused(whole, store, f"line 4: .*({word})")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"c0_ns": (1e6,)}, "differ in length"),
        ({"c0_low_ns": (0.0, 1.98e6)}, "must lie above 0"),
        ({"c0_high_ns": (1.01e6, 1.99e6)}, "within its interval"),
    ],
)
def test_an_epoch_that_could_anchor_nothing_is_refused(
    store: Store, tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    path = tmp_path / "a.jsonl"
    export([measurement(0)], path, epochs=[epoch(1, **changes)])
    refused(path, store, word)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


HOSTILE = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'quoted", "\n=2"]


class TestTables:
    def test_one_row_a_measurement(self, tmp_path: Path) -> None:
        none = {"latency_ns": None, "low_ns": None, "high_ns": None}
        made = [measurement(0), measurement(1, status="inconclusive", **none)]
        export(made, tmp_path / "a.csv")
        export(made, tmp_path / "a.parquet")
        first, second = read_csv(tmp_path / "a.csv")
        parquet = pq.read_table(tmp_path / "a.parquet").to_pylist()
        assert (first["name"], first["latency_ms"], first["p50_ms"]) == ("net0", "3", "3")
        assert (first["samples"], first["rejected"], first["p99_ms"]) == ("20", "10", "")
        assert (second["status"], second["latency_ms"]) == ("inconclusive", "")
        assert [row["latency_ms"] for row in parquet] == [3.0, None]
        assert [row["rejected"] for row in parquet] == [10, 10]
        assert json.loads(parquet[0]["facts"]) == {"cpu_model": "Test CPU", "kernel": "6.1"}
        assert list(first) == list(parquet[0])

    @given(made=random_measurements)
    @settings(max_examples=25)
    def test_csv_and_parquet_say_the_same(
        self, made: Measurement, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.mktemp("tables")
        export([made], folder / "a.csv")
        export([made], folder / "a.parquet")
        (row,) = read_csv(folder / "a.csv")
        (exact,) = pq.read_table(folder / "a.parquet").to_pylist()
        for name, value in exact.items():
            if isinstance(value, str):
                assert row[name].removeprefix("'") == value
            else:
                assert (type(value)(row[name]) if row[name] else None) == value

    @pytest.mark.parametrize("name", HOSTILE)
    def test_a_spreadsheet_runs_no_name(self, tmp_path: Path, name: str) -> None:
        export([measurement(0, work_name=name)], tmp_path / "a.csv")
        export([measurement(0, work_name=name)], tmp_path / "s.csv", samples=True)
        export([measurement(0, work_name=name)], tmp_path / "a.parquet")
        assert read_csv(tmp_path / "a.csv")[0]["name"] == "'" + name
        assert read_csv(tmp_path / "s.csv")[0]["name"] == "'" + name
        assert pq.read_table(tmp_path / "a.parquet")["name"].to_pylist() == [name]

    def test_negative_numbers_stay_numbers(self, tmp_path: Path) -> None:
        export([measurement(0, energy_mj=-1.5)], tmp_path / "a.csv")
        assert read_csv(tmp_path / "a.csv")[0]["energy_mj"] == "-1.5"

    def test_samples_not_loaded_are_not_counted_as_none(self, tmp_path: Path) -> None:
        export([measurement(0, bursts=empty_bursts(2))], tmp_path / "a.csv")
        (row,) = read_csv(tmp_path / "a.csv")
        assert (row["samples"], row["rejected"]) == ("", "")

    def test_one_row_a_sample(self, tmp_path: Path) -> None:
        one = measurement(0, bursts=bursts(0, count=3, runs=2))
        other = measurement(1, canaries=("memory", "gpu"))
        export([one, other], tmp_path / "a.parquet", samples=True)
        rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
        mine, theirs = rows[:6], rows[6:]
        assert [row["sample_ns"] for row in mine] == one.bursts.sample_ns.tolist()
        assert [row["burst"] for row in mine] == [0, 0, 1, 1, 2, 2]
        assert [row["run"] for row in mine] == [0, 1] * 3
        assert [row["cause"] for row in mine] == ["warmup"] * 2 + ["preempted"] * 2 + ["kept"] * 2
        assert [row["process"] for row in mine] == [0, 0, 1, 1, 0, 0]
        assert [row["burst_start_ns"] for row in mine] == [0, 0, 10**8, 10**8, 2 * 10**8, 2 * 10**8]
        for side, when in enumerate(("before", "after")):
            conv, gpu = f"canary_conv_{when}_ns", f"canary_gpu_{when}_ns"
            assert [r[conv] for r in mine[::2]] == one.bursts.canary_ns[:, side, 0].tolist()
            assert [r[gpu] for r in theirs[::5]] == other.bursts.canary_ns[:, side, 1].tolist()
            assert {row[gpu] for row in mine} == {None}
            assert {row[conv] for row in theirs} == {None}


def pyperf_says(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pyperf", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def suite_of(path: Path) -> dict[str, Any]:
    suite = pyperf.BenchmarkSuite.load(str(path))
    return {benchmark.get_name(): benchmark for benchmark in suite}


class TestPyperf:
    def test_its_own_commands_open_it(self, tmp_path: Path) -> None:
        before, after = tmp_path / "before.json", tmp_path / "after.json.gz"
        export([measurement(0), measurement(1)], before)
        slow = bursts(0)
        slow = dataclasses.replace(slow, sample_ns=slow.sample_ns * 2)
        export([measurement(0, bursts=slow), measurement(1)], after)
        assert "net0" in pyperf_says("hist", before)
        stats = pyperf_says("stats", before)
        assert "Number of benchmarks: 2" in stats
        assert "Number of value per run: 10" in stats
        assert "2.0" in pyperf_says("compare_to", before, after, "--table")
        pyperf_says("show", "--metadata", after)

    def test_a_run_a_process_and_a_value_a_kept_sample(self, tmp_path: Path) -> None:
        made = measurement(0)
        export([made], tmp_path / "a.json")
        benchmark = suite_of(tmp_path / "a.json")["net0"]
        cause = np.repeat(made.bursts.cause, made.bursts.length)
        process = np.repeat(made.bursts.process, made.bursts.length)
        runs = benchmark.get_runs()
        for number, run in enumerate(runs):
            kept = made.bursts.sample_ns[(cause == KEPT) & (process == number)]
            warm = made.bursts.sample_ns[(cause == WARMUP) & (process == number)]
            assert np.allclose(run.values, kept / 1e9, rtol=1e-15)
            assert np.allclose([value for _, value in run.warmups], warm / 1e9, rtol=1e-15)
        metadata = benchmark.get_metadata()
        assert len(runs) == 2
        assert metadata["undisturbed_s"] == 3e-3
        assert (metadata["undisturbed_low_s"], metadata["undisturbed_high_s"]) == (2.9e-3, 3.1e-3)
        assert metadata["cpu_model_name"] == "Test CPU"
        assert metadata["rejected_samples"] == 10
        assert benchmark.get_unit() == "second"

    def test_measurements_of_one_workload_are_one_benchmark(self, tmp_path: Path) -> None:
        later = measurement(0, session="later", bursts=bursts(7), latency_ns=3.1e6)
        export([measurement(0), later], tmp_path / "a.json")
        benchmark = suite_of(tmp_path / "a.json")["net0"]
        runs = benchmark.get_runs()
        assert [run.get_metadata()["undisturbed_s"] for run in runs] == [3e-3, 3e-3, 3.1e-3, 3.1e-3]

    def test_names_are_told_apart(self, tmp_path: Path) -> None:
        arm = Fingerprint("cpu", {"cpu_model": "Other CPU"})
        made = [
            measurement(0, work_name="net"),
            measurement(1, work_name="net"),
            measurement(1, work_name="net", fingerprint=arm),
            measurement(2, work_name="single"),
        ]
        keys = [m.workload.key for m in made]
        made.append(measurement(3, work_name=f"net #{keys[0][:8]}"))
        export(made, tmp_path / "a.json")
        names = set(suite_of(tmp_path / "a.json"))
        assert len(names) == 5
        assert "single" in names

    @given(made=st.lists(random_measurements, min_size=1, max_size=3))
    @settings(max_examples=25)
    def test_whatever_was_measured_loads_or_is_left_out(
        self, made: list[Measurement], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = tmp_path_factory.mktemp("pyperf") / "a.json"
        made = [*made, measurement(0)]
        report = export(made, path)
        assert report.measurements + len(report.left_out) == len(made)
        assert 1 <= len(suite_of(path)) <= report.measurements

    def test_no_kept_sample_is_said(self, tmp_path: Path) -> None:
        none_kept = measurement(1, bursts=bursts(0, count=2))
        report = export([measurement(0), none_kept], tmp_path / "a.json")
        assert (report.measurements, report.left_out) == (1, ("net1",))
        with pytest.raises(UsageError, match="no kept sample"):
            export([none_kept], tmp_path / "b.json")
        assert not (tmp_path / "b.json").exists()


class TestExport:
    @pytest.mark.parametrize(
        ("name", "format"),
        [
            ("a.jsonl", "archive"),
            ("a.JSONL.GZ", "archive"),
            ("a.json", "pyperf"),
            ("a.json.gz", "pyperf"),
            ("a.csv", "csv"),
            ("a.b.parquet", "parquet"),
        ],
    )
    def test_the_suffix_tells_the_format(self, name: str, format: str) -> None:
        assert format_of(Path(name)) == format
        assert format_of(Path(name), "csv") == "csv"

    def test_unknown_formats_name_the_known(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"\.parquet"):
            export([measurement(0)], tmp_path / "a.xlsx")
        with pytest.raises(UsageError, match="did you mean 'parquet'"):
            export([measurement(0)], tmp_path / "a", "parket")

    def test_a_moment_that_utc_lacks_is_refused(self, tmp_path: Path) -> None:
        early = dataclasses.replace(measurement(0), created="0001-01-01T00:00:00+02:34")
        with pytest.raises(UsageError, match="created lies beyond the calendar"):
            export([early], tmp_path / "a.jsonl")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
    def test_a_failure_leaves_the_old_file(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_text("old")
        bad = measurement(1, tags={"x": float("nan")}, work_name="caf\udce9")
        with pytest.raises(UsageError, match=r"cannot export|no measurement") as caught:
            export([measurement(0), bad], path)
        assert "\n" not in str(caught.value)
        with pytest.raises(UsageError, match="no measurement"):
            export([], path)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_link_stays_and_its_file_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        real, link = tmp_path / "real" / "a.csv", tmp_path / "a.csv"
        link.symlink_to(real)
        for _ in range(2):  # a link to nothing, then to a file
            export([measurement(0)], link)
            assert link.is_symlink()
            assert real.read_text().count("\n") == 2
        assert {path.name for path in tmp_path.rglob("*")} == {"real", "a.csv"}

    def test_a_pipe_is_written_to_itself(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with ThreadPoolExecutor(1) as pool:
            read = pool.submit(pipe.read_text)
            export([measurement(0)], pipe, "csv")
        assert read.result().count("\n") == 2
        assert list(tmp_path.iterdir()) == [pipe]
        assert pipe.is_fifo()

    @pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
    def test_a_folder_that_is_not_there(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError, match=r"cannot write .*No such file"):
            export([measurement(0)], tmp_path / "absent" / name)

    def test_what_a_format_cannot_hold(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no table of samples"):
            export([measurement(0)], tmp_path / "a.json", samples=True)
        with pytest.raises(UsageError, match="holds no epochs"):
            export([measurement(0)], tmp_path / "a.csv", epochs=[epoch(1)])


def test_an_import_loads_neither_pyarrow_nor_pyperf() -> None:
    code = (
        "import sys, hwbench.interchange;"
        "sys.exit(any(m in sys.modules for m in ('pyarrow', 'pyperf', 'sqlalchemy', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
