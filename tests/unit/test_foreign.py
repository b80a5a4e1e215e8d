"""What pytest-benchmark and pyperf measured comes in as theirs, and pyperf's goes out as it was."""

from __future__ import annotations

import copy
import gzip
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyperf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwbench.cli import main
from hwbench.errors import ImportFileError
from hwbench.interchange import export, import_results
from hwbench.interchange.foreign import IMPORTED, read_foreign
from hwbench.store import ImportReport, Store
from hwbench.watch.selection import selected
from tests.measurements import KEPT, WARMUP, bursts, measurement


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store.db") as opened:
        yield opened


MACHINE = {
    "node": "runner7",
    "machine": "x86_64",
    "python_build": ["main", "Apr  2 2024"],
    "python_version": "3.12.4",
    "cpu": {
        "brand_raw": "Some CPU @ 3 GHz",
        "flags": ["sse", "avx"],
        "hz_actual_friendly": "2.8 GHz",
        "count": 4,
    },
}


def saved(day: int, *medians_s: float, **changes: Any) -> dict[str, Any]:
    """A file of pytest-benchmark of a day of January, a benchmark each median."""
    return {
        "machine_info": copy.deepcopy(MACHINE),
        "commit_info": {
            "id": f"{day:02x}" * 20,
            "time": f"2026-01-{day:02}T08:00:00+01:00",
            "dirty": day % 2 == 0,
            "project": "nets",
            "branch": "main",
        },
        "benchmarks": [
            {
                "group": None,
                "name": f"test_{number}",
                "fullname": f"tests/test_nets.py::test_{number}",
                "params": {"batch": 8},
                "extra_info": {"note": "é"},
                "stats": {"median": median, "min": median * 0.9, "rounds": 7, "iterations": 3},
            }
            for number, median in enumerate(medians_s)
        ],
        "datetime": f"2026-01-{day:02}T12:00:00.5",
        "version": "5.0.0",
        **changes,
    }


def written(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


class TestPytestBenchmark:
    def test_a_folder_is_a_history(self, store: Store, tmp_path: Path) -> None:
        folder = tmp_path / ".benchmarks"
        for number, day in enumerate((9, 3, 6)):
            written(folder / "Linux-64bit" / f"{number:04}_x.json", saved(day, 0.25, 2e-9))
        assert import_results(folder, store) == (ImportReport(added=6, known=0), ())
        assert import_results(folder, store) == (ImportReport(added=0, known=6), ())
        stored = store.measurements(name="tests/test_nets.py::test_0")
        assert [m.created for m in stored] == [
            f"2026-01-{day:02}T12:00:00.500000+00:00" for day in (3, 6, 9)
        ]
        assert [m.tags["commit"] for m in stored] == ["03" * 20, "06" * 20, "09" * 20]
        assert [m.tags["dirty"] for m in stored] == ["no", "yes", "no"]
        assert {m.tags["branch"] for m in stored} == {"main"}
        assert len({m.session for m in store.measurements()}) == 3
        assert len(selected(store.measurements(), "commit:0606")) == 2

    def test_figures_stay_as_they_were_said(self, store: Store, tmp_path: Path) -> None:
        content = saved(1, 0.1 + 0.2)
        import_results(written(tmp_path / "a.json", content), store)
        (found,) = store.measurements()
        assert json.loads(found.fingerprint.state[IMPORTED]) == content["benchmarks"][0]
        assert (found.status, found.latency_ns, len(found.bursts)) == ("observed_only", None, 0)
        assert [(p.q, p.value_ns) for p in found.observed] == [(50.0, (0.1 + 0.2) * 1e9)]

    def test_a_machine_is_known_by_what_does_not_vary(self, store: Store, tmp_path: Path) -> None:
        other, busy = saved(2, 1.0), saved(3, 1.0)
        other["machine_info"]["cpu"]["flags"].append("avx512")
        busy["machine_info"]["cpu"]["hz_actual_friendly"] = "1.2 GHz"
        for number, content in enumerate((saved(1, 1.0), other, busy)):
            import_results(written(tmp_path / f"{number}.json", content), store)
        one, two, three = (m.fingerprint for m in store.measurements())
        assert one.key == three.key != two.key
        assert one.device == "pytest-benchmark"
        assert one.facts["cpu_model"] == "Some CPU @ 3 GHz"
        assert one.facts["python_build"] == "main, Apr  2 2024"

    def test_without_version_control(self, store: Store, tmp_path: Path) -> None:
        none = {"id": "unversioned", "dirty": False, "branch": "(unknown)", "project": "nets"}
        import_results(written(tmp_path / "a.json", saved(1, 1.0, commit_info=none)), store)
        assert store.measurements()[0].tags == {"project": "nets"}

    def test_its_own_file(self, store: Store, tmp_path: Path) -> None:
        """What the installed pytest-benchmark writes itself."""
        code = "def test_it(benchmark):\n    benchmark(sum, range(100))\n"
        (tmp_path / "test_it.py").write_text(code)
        # Not those of a worker of xdist, beside which nothing is timed.
        own = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
        done = subprocess.run(
            [
                sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.",
                "-p", "pytest_benchmark.plugin", "--benchmark-save-data", "--benchmark-save=one",
                "--benchmark-max-time=0.01", "--benchmark-min-rounds=5", "test_it.py",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**own, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert import_results(tmp_path / ".benchmarks", store)[0].added == 1
        (found,) = store.measurements()
        said = json.loads(found.fingerprint.state[IMPORTED])
        assert said["stats"]["median"] == pytest.approx(statistics.median(said["stats"]["data"]))
        assert found.observed[0].value_ns == said["stats"]["median"] * 1e9


times = st.one_of(st.floats(1e-12, 1e6, allow_subnormal=False), st.integers(1, 10**6))
words = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)
#: Of every kind that pyperf lets metadata be.
metadata = st.dictionaries(
    words.map(lambda word: f"x{word}"),
    st.one_of(words, st.integers(-(10**18), 10**18), st.floats(allow_nan=False, width=64).filter(
        lambda value: abs(value) < 1e300)),
    max_size=3,
)  # fmt: skip
warmups = st.lists(st.tuples(st.integers(1, 2**40), st.floats(0, 1e6)), max_size=3)
calibrating = st.sampled_from(
    ["calibrate_loops", "recalibrate_loops", "calibrate_warmups", "recalibrate_warmups"]
)


@st.composite
def suites(draw: st.DrawFn) -> pyperf.BenchmarkSuite:
    """Of several benchmarks with several runs, some of which calibrate."""
    benchmarks = []
    for name in draw(st.lists(words, min_size=1, max_size=3, unique=True)):
        same: dict[str, Any] = {"name": name, "unit": "second", "hostname": "h"}
        if draw(st.booleans()):
            same["inner_loops"] = draw(st.integers(1, 9))
        runs = []
        for _ in range(draw(st.integers(0, 2))):
            own = {**draw(metadata), **same, draw(calibrating): draw(st.integers(1, 99))}
            runs.append(pyperf.Run([], [(1, draw(times))], own, collect_metadata=False))
        for number in range(draw(st.integers(1, 3))):
            own = {**draw(metadata), **same, "date": f"2026-01-0{number + 1} 10:00:00.000001"}
            own["loops"] = draw(st.integers(1, 2**30))
            values = draw(st.lists(times, min_size=1, max_size=4))
            runs.append(pyperf.Run(values, draw(warmups), own, collect_metadata=False))
        benchmarks.append(pyperf.Benchmark(runs))
    return pyperf.BenchmarkSuite(benchmarks)


def dumped(suite: pyperf.BenchmarkSuite) -> str:
    out = io.StringIO()
    suite.dump(out)
    return out.getvalue()


class TestPyperf:
    @given(suite=suites(), zipped=st.booleans())
    @settings(max_examples=25)
    def test_the_round_trip_is_exact_to_the_byte(
        self, suite: pyperf.BenchmarkSuite, zipped: bool
    ) -> None:
        with tempfile.TemporaryDirectory() as name, Store.open(Path(name, "s.db")) as store:
            came, went = Path(name, "came.json"), Path(name, "went.json")
            text = dumped(suite)
            came.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
            report, left_out = import_results(came, store)
            assert (report.added, left_out) == (len(suite), ())
            export(store.measurements(), went)
            assert went.read_text(encoding="utf-8") == text
            assert import_results(went, store)[0] == ImportReport(added=0, known=len(suite))

    def test_what_we_measured_comes_back_as_it_went(self, store: Store, tmp_path: Path) -> None:
        made = [
            measurement(n, bursts=bursts(n, count=8), tags={"commit": "feed" * 10})
            for n in range(2)
        ]
        export(made, tmp_path / "one.json")
        import_results(tmp_path / "one.json", store)
        stored = store.measurements()
        assert [m.workload.name for m in stored] == [m.workload.name for m in made]
        for back, own in zip(stored, made, strict=True):
            assert back.fingerprint.key != own.fingerprint.key
            assert back.fingerprint.device == "pyperf"
            assert back.tags["commit"] == "feed" * 10
            cause, process = (
                np.repeat(a, own.bursts.length) for a in (own.bursts.cause, own.bursts.process)
            )
            for number, run in enumerate(json.loads(back.fingerprint.state[IMPORTED])):
                seconds = {KEPT: run["values"], WARMUP: [v for _, v in run["warmups"]]}
                for kind, said in seconds.items():
                    ours = own.bursts.sample_ns[(cause == kind) & (process == number)]
                    assert np.rint(np.array(said) * 1e9).astype(np.int64).tolist() == ours.tolist()
        export(stored, tmp_path / "two.json")
        assert (tmp_path / "two.json").read_bytes() == (tmp_path / "one.json").read_bytes()

    def test_its_time_and_its_middle(self, store: Store, tmp_path: Path) -> None:
        runs = [
            pyperf.Run(
                [value],
                metadata={"name": "net", "date": date, "cpu_model_name": "Some CPU"},
                collect_metadata=False,
            )
            for value, date in ((3.0, "2026-01-02 10:00:00"), (1.0, "2026-01-01 10:00:00"))
        ]
        pyperf.Benchmark(runs).dump(str(tmp_path / "a.json"))
        import_results(tmp_path / "a.json", store)
        (found,) = store.measurements()
        assert found.created == "2026-01-01T10:00:00+00:00"
        assert found.observed[0].value_ns == 2e9
        assert found.fingerprint.facts == {"cpu_model": "Some CPU"}

    def test_a_copy_of_a_file_without_a_date_is_known(self, store: Store, tmp_path: Path) -> None:
        for number, name in enumerate(("a.json", "b.json")):
            (tmp_path / name).write_bytes(_PYPERF % b"1.5")
            os.utime(tmp_path / name, (1e9 + number, 1e9 + number))
        assert import_results(tmp_path / "a.json", store)[0].added == 1
        report, _ = import_results(tmp_path / "b.json", store)
        assert (report.added, report.known) == (0, 1)

    def test_what_is_no_time_is_left_out(self, store: Store, tmp_path: Path) -> None:
        kinds = [("memory", "byte"), ("net", "second")]
        benchmarks = [
            pyperf.Benchmark(
                [pyperf.Run([1024], metadata={"name": n, "unit": u}, collect_metadata=False)]
            )
            for n, u in kinds
        ]
        pyperf.BenchmarkSuite(benchmarks).dump(str(tmp_path / "a.json"))
        report, left_out = import_results(tmp_path / "a.json", store)
        assert (report.added, left_out) == (1, ("memory",))

    def test_beside_one_of_ours_of_the_same_name(self, store: Store, tmp_path: Path) -> None:
        export([measurement(0)], tmp_path / "a.json")
        import_results(tmp_path / "a.json", store)
        export([measurement(0), *store.measurements()], tmp_path / "b.json")
        suite = pyperf.BenchmarkSuite.load(str(tmp_path / "b.json"))
        ours, theirs = suite.get_benchmarks()
        assert ours.get_name() != theirs.get_name()
        assert ours.get_values() == theirs.get_values()


def _set(*keys: str | int, to: Any) -> Callable[[Any], None]:
    def edit(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    return edit


_PYPERF = (
    b'{"version": "1.0", "metadata": {"name": "a"}, "benchmarks": [{"runs": [{"values": [%s]}]}]}'
)


class TestBadFiles:
    @pytest.mark.parametrize(
        ("edit", "word"),
        [
            (_set("benchmarks", 0, "stats", "median", to="fast"), "median is no time"),
            (_set("benchmarks", 0, "stats", "median", to=float("nan")), "NaN is no number"),
            (_set("benchmarks", 0, "stats", "median", to=-1.0), "median is no time"),
            (_set("benchmarks", 0, "stats", to={}), "lacks 'median'"),
            (_set("benchmarks", 0, "stats", "median", to=True), "median is no time: True"),
            (_set("benchmarks", 0, "stats", "median", to=10**4000), "000… is no number"),
            (_set("benchmarks", 0, to=7), "not as pytest-benchmark or pyperf writes one .*int"),
            (_set("datetime", to="yesterday"), "yesterday"),
            (_set("datetime", to="0001-01-01T00:00:00+23:59"), "beyond the calendar"),
            (_set("datetime", to="9999-12-31T23:59:59-23:59"), "beyond the calendar"),
            (_set("machine_info", to=[]), "list"),
            (_set("commit_info", "branch", to="\ud800"), "Unicode"),
            (_set("commit_info", "id", to={"a": 1}), "its id is no text, but dict"),
            (_set("commit_info", "project", to=["x"]), "its project is no text, but list"),
            (_set("commit_info", "dirty", to="no"), "its dirty is no truth value, but str"),
            (_set("commit_info", to=[]), "not as pytest-benchmark or pyperf writes one .*list"),
            (_set("datetime", to=20260101), "its datetime is no text, but int"),
            (_set("benchmarks", to={}), "its benchmarks are no list"),
            (_set("benchmarks", 0, "fullname", to={"a": 1}), "its fullname is no text, but dict"),
            (_set("benchmarks", 0, to={"name": None, "fullname": None}), "has no name"),
        ],
    )
    def test_a_lie_is_named(
        self, store: Store, tmp_path: Path, edit: Callable[[Any], None], word: str
    ) -> None:
        content = saved(1, 1.0)
        edit(content)
        self.refused(written(tmp_path / "bad.json", content), store, word)

    @pytest.mark.parametrize(
        ("content", "word"),
        [
            (b"", "no JSON, or not all of it"),
            (b'{"benchmarks": [{"runs"', "no JSON, or not all of it"),
            (b"[1]", "neither pytest-benchmark nor pyperf"),
            (b"{}", "neither pytest-benchmark nor pyperf"),
            (b'{"version": "9", "benchmarks": []}', "version '9' not supported"),
            (b'{"version": "1.0", "benchmarks": []}', "non-empty"),
            (b'{"version": [], "benchmarks": []}', "list"),
            (b'{"version": "1.0", "benchmarks": [{"runs": [{"values": [-1]}]}]}', "number > 0"),
            (_PYPERF % b"true", "truth value is no time"),
            (b"\xff\xfe", "utf-8"),
            (b"\x1f\x8b" + bytes(40), "compress|method"),
            (b"[" * 100_000, "nested too deeply"),
        ],
    )
    def test_what_is_foreign_or_half_written(
        self, store: Store, tmp_path: Path, content: bytes, word: str
    ) -> None:
        (tmp_path / "bad.json").write_bytes(content)
        self.refused(tmp_path / "bad.json", store, word)

    def test_one_half_of_a_history_keeps_all_of_it_out(self, store: Store, tmp_path: Path) -> None:
        written(tmp_path / "h" / "1.json", saved(1, 1.0))
        half = json.dumps(saved(2, 1.0))
        (tmp_path / "h" / "2.json").write_text(half[: len(half) // 2])
        self.refused(tmp_path / "h", store, "2.json: it is no JSON, or not all of it")

    def test_too_large(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_bytes(gzip.compress(b" " * 3_000_000))
        with pytest.raises(ImportFileError, match="more than 1 MiB"):
            read_foreign(path, limit_bytes=1 << 20)

    def test_a_pipe_is_not_waited_for(self, store: Store, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.json")
        self.refused(tmp_path / "pipe.json", store, "a pipe or a device")

    def test_nothing_there(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        self.refused(tmp_path / "empty", store, r"no \.json file")
        self.refused(tmp_path / "absent.json", store, "No such file")

    @given(cut=st.integers(0, 700), insert=st.binary(max_size=3))
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_whatever_is_changed_is_read_or_refused(
        self, cut: int, insert: bytes, tmp_path: Path
    ) -> None:
        path = tmp_path / "changed.json"
        content = json.dumps(saved(1, 1.0)).encode()
        path.write_bytes(content[:cut] + insert + content[cut + 1 :])
        said = ""
        try:
            read_foreign(path)
        except ImportFileError as error:
            said = str(error)
        assert "\n" not in said

    @staticmethod
    def refused(path: Path, store: Store, word: str) -> None:
        with pytest.raises(ImportFileError, match=word) as caught:
            import_results(path, store)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert store.measurements() == []


def test_the_command_takes_files_and_folders(
    own_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / ".benchmarks" / "0001_a.json", saved(1, 1.0, 2.0))
    export([measurement(0)], tmp_path / "ours.jsonl")
    export([measurement(1)], tmp_path / "named.json", "archive")
    names = (".benchmarks", "ours.jsonl", "named.json")
    assert main(["import", *(str(tmp_path / name) for name in names), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["added"] for entry in found["files"]] == [2, 1, 1]
    assert found["left_out"] == []


def test_the_command_says_what_went_in_and_what_did_not(
    own_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = written(tmp_path / "good.json", saved(1, 1.0))
    bad = written(tmp_path / "bad.json", {})
    worse = tmp_path / "absent.json"
    later = written(tmp_path / "later.json", saved(2, 1.0))
    given = [str(file) for file in (bad, good, worse, later)]
    assert main(["import", *given, "--json"]) == 2
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [(entry["file"], entry["added"]) for entry in found["files"]] == [
        (str(good), 1),
        (str(later), 1),
    ]
    assert [entry["file"] for entry in found["errors"]] == [str(bad), str(worse)]
    assert [str(bad) in err, str(worse) in err, err.count("\n")] == [True, True, 2]
    assert main(["import", *given]) == 2
    out, _ = capsys.readouterr()
    assert "good.json" in out.replace("\n", "")


def test_what_cannot_be_imported_makes_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export([measurement(0), measurement(1)], tmp_path / "ours.jsonl")
    whole = (tmp_path / "ours.jsonl").read_bytes()
    (tmp_path / "cut.jsonl").write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    written(tmp_path / "bad.json", {})
    store = tmp_path / "new.db"
    bad = [str(tmp_path / name) for name in ("cut.jsonl", "bad.json")]
    assert main(["import", *bad, "--store", str(store)]) == 2
    assert not store.exists()
    assert main(["import", *bad, str(tmp_path / "ours.jsonl"), "--store", str(store)]) == 2
    with Store.open(store) as opened:
        assert len(opened.measurements()) == 2
