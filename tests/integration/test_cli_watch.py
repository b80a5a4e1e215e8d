"""`hwbench compare`, `gate` and `report`, from the command line to the exit code."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hwbench import GraphBuilder
from hwbench.cli import main
from hwbench.cli.compare import show
from hwbench.cli.gate import calibration_json
from hwbench.devices import get_device
from hwbench.devices.models import read_model_file
from hwbench.errors import (
    DeviceError,
    HwbenchError,
    InconclusiveError,
)
from hwbench.lower import random_weights, to_onnx
from hwbench.store import Store
from hwbench.watch import gate, trial
from hwbench.watch.calibration import calibrate_gate
from hwbench.watch.comparison import Comparison, compare_pairs
from hwbench.watch.gate import GATE
from hwbench.watch.trial import Effort, compare_live
from tests.measurements import epoch_on
from tests.stores import device, filled, history
from tests.targets import LocalTarget, job, leaves_nothing, runner, with_light_canaries

QUICK = Effort(processes=2, seconds=0.2, sessions=2)


def convs(path: Path, depth: int) -> Path:
    """So many convolutions one after the other."""
    builder = GraphBuilder("net")
    x = builder.input("image", (1, 3, 32, 32))
    for _ in range(depth):
        x = builder.activation(builder.conv(x, 16), "relu")
    graph = builder.build(x)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(to_onnx(graph, random_weights(graph, 0)).bytes)
    return path


def git(folder: Path, *what: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *who, *what], cwd=folder, check=True)


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


class TestLive:
    def test_what_takes_twice_as_long_is_slower(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = []
        with leaves_nothing(tmp_path, monkeypatch):
            a, b = (job(name, runner(tmp_path, us=us)) for name, us in (("a", 100), ("b", 200)))
            (found,) = compare_live(LocalTarget(tmp_path), [(a, b)], QUICK, None, keep=kept.append)
        assert isinstance(found, Comparison)
        assert found.word() == "slower"
        assert found.ratio == pytest.approx(2, rel=0.2)
        assert {m.workload.name for m in kept} == {"a", "b"}

    def test_a_model_against_itself_is_told_apart_by_its_turns(self, tmp_path: Path) -> None:
        own = job("a", runner(tmp_path, us=100))
        (found,) = compare_live(LocalTarget(tmp_path), [(own, own)], QUICK, None)
        assert isinstance(found, Comparison)
        assert found.word() != "slower"
        assert found.ratio == pytest.approx(1, rel=0.1)

    def test_a_broken_model_leaves_the_other_pair_its_answer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a, b = (job(name, runner(tmp_path, us=us)) for name, us in (("a", 100), ("b", 200)))
        broken = job("c", runner(tmp_path, fault="raise ValueError('no')", at=1))
        monkeypatch.setattr(trial, "MOST_PAIRS", 1)  # in sessions of their own
        lost, found = compare_live(LocalTarget(tmp_path), [(a, broken), (a, b)], QUICK, None)
        assert isinstance(lost, HwbenchError)
        assert str(lost) == "c: no"
        assert isinstance(found, Comparison)


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    return convs(tmp_path / "before" / "net.onnx", 4), convs(tmp_path / "after" / "net.onnx", 8)


FAST = ("--seconds", "0.4", "--sessions", "1", "--json")


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few as can tell how they differ: for differences that are unmistakable, or none."""
    monkeypatch.setattr(gate, "GATE", dataclasses.replace(GATE, processes=2))


@pytest.fixture
def light_canaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_light_canaries(tmp_path, monkeypatch)


class TestCompare:
    def test_files_of_one_name(
        self,
        models: tuple[Path, Path],
        own_store: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """They are taken for versions of one model."""
        asked = []

        def compared(*args: Any, versions: bool, **more: Any) -> Comparison:
            asked.append(versions)
            return compare_pairs(*args, versions=versions, **more)

        monkeypatch.setattr(trial, "compare_pairs", compared)
        assert main(["compare", *map(str, models), *FAST]) == 1
        (entry,) = printed(capsys)["comparisons"]
        assert (entry["a"], entry["b"]) == ("net.onnx (A)", "net.onnx (B)")
        assert entry["verdict"] == "slower"
        assert entry["change_pct_low"] <= entry["change_pct"] <= entry["change_pct_high"]
        assert asked == [True]
        with Store.open(own_store) as store:
            assert len(store.measurements()) == 2

    def test_commits_of_the_store(
        self, own_store: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        filled(own_store.parent).rename(own_store)
        assert main(["compare", "commit:000000", "commit:001d001d"]) == 1
        out = capsys.readouterr().out
        assert "resnet18.onnx" in out
        assert "slower" in out
        assert max(map(len, out.splitlines())) <= 80

    @pytest.mark.parametrize(
        ("sides", "words"),
        [
            (("x.onnx", "commit:abcd"), "two models, two folders, or two selections"),
            (("commit:ab", "commit:cd"), "session:ID"),
            (("no.onnx", "none.onnx"), "no.onnx"),
        ],
    )
    def test_what_cannot_be_compared(
        self,
        sides: tuple[str, str],
        words: str,
        own_store: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        Store.open(own_store).close()
        assert main(["compare", *sides]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("errors", "change", "code"),
    [((), 10.0, 1), ((3,), 10.0, 1), ((4, 3), 10.0, 1), ((3,), 0.0, 3), ((3, 4), 0.0, 4)],
)
def test_a_regression_is_not_hidden_by_a_failure_beside_it(
    errors: tuple[int, ...], change: float, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = {3: InconclusiveError, 4: DeviceError}
    failures = [kinds[n](f"net{n}: no") for n in errors]
    found = Comparison("A", "B", change / 100, 0.001, 10.0)
    assert show([*failures, found], 0.01, as_json=True) == code
    said = capsys.readouterr()
    assert json.loads(said.out)["errors"] == [str(failure) for failure in failures]
    assert all(str(failure) in said.err for failure in failures)


class TestGate:
    def test_a_folder_of_baselines(
        self,
        models: tuple[Path, Path],
        own_store: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        short, long = models
        summary = tmp_path / "summary.md"
        told = ("--baseline", str(long.parent), "--summary", str(summary))
        assert main(["gate", str(short), *told, *FAST]) == 0
        (entry,) = printed(capsys)["gate"]
        assert entry["verdict"] == "faster"
        assert (entry["a"], entry["b"]) == ("net.onnx (baseline)", "net.onnx")
        assert "| net.onnx | **faster** |" in summary.read_text()

    def test_history_on_this_device(
        self, models: tuple[Path, Path], own_store: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cpu, model = get_device("cpu"), str(models[0])
        known = epoch_on(cpu)
        with Store.open(own_store) as store:
            store.add_epoch(known)
        assert main(["gate", model, "--baseline", "history"]) == 3
        assert "the store has nothing of it" in capsys.readouterr().err
        assert main(["gate", model, "--baseline", "history", "--allow-inconclusive"]) == 0
        assert "the store has nothing of it" in capsys.readouterr().err
        slow = history("net.onnx", cpu.fingerprint(1), [1e4] * 6)
        work = dataclasses.replace(slow[0].workload, inputs=read_model_file(models[0]).inputs)
        changes = {"workload": work, "epoch": known.id, "beta": (1.0,) * len(known.names)}
        with Store.open(own_store) as store:
            store.merge(dataclasses.replace(m, **changes) for m in slow)
        assert main(["gate", model, "--baseline", "history"]) == 0
        out = capsys.readouterr().out
        assert out.startswith("FASTER: net.onnx is ")
        assert "faster than its level (6 stored)" in out

    @pytest.mark.usefixtures("two_processes", "light_canaries")
    def test_a_regression_fails_the_build(
        self, models: tuple[Path, Path], own_store: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Twice the work, measured twice."""
        short, long = models
        assert main(["gate", str(long), "--baseline", str(short), *FAST]) == 1
        (entry,) = printed(capsys)["gate"]
        assert entry["verdict"] == "slower"
        assert entry["change_pct_low"] > 1
        assert entry["first_alarm_pct"] > 1
        with Store.open(own_store) as store:
            stored = store.measurements()
        assert len({m.session for m in stored}) == 2
        assert {m.tags["gate"] for m in stored} == {"baseline"}

    @pytest.mark.usefixtures("two_processes", "light_canaries")
    def test_what_cannot_be_told_is_neither(
        self, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A model against its copy, where nothing would be called the same."""
        sure, copy = ("--tolerance", "0", "--confidence", "0.9999"), models[0].with_name("b.onnx")
        copy.write_bytes(models[0].read_bytes())
        asked = ["gate", str(models[0]), "--baseline", str(copy), *sure, *FAST]
        assert main(asked) == 3
        (entry,) = printed(capsys)["gate"]
        assert entry["verdict"] == "inconclusive"
        assert main([*asked, "--allow-inconclusive"]) == 0
        (entry,) = printed(capsys)["gate"]
        assert entry["verdict"] == "inconclusive"

    def test_what_is_the_same_in_git_or_new_there_needs_no_measurement(
        self,
        models: tuple[Path, Path],
        tmp_path: Path,
        own_store: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """As in a pull request that touches no model, and adds one; whatever the store has."""
        same = models[0]
        new = convs(same.with_name("new.onnx"), 1)
        for what in (("init", "-q"), ("add", same.name), ("commit", "-q", "-m", "one")):
            git(same.parent, *what)
        git(same.parent, "add", new.name)
        summary = tmp_path / "summary.md"
        asked = ("gate", str(same), str(new), "--baseline", "HEAD")
        assert main([*asked, "--summary", str(summary)]) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"UNCHANGED: {same.name} is the file that HEAD has: nothing to measure",
            f"NEW: {new.name} is no file that HEAD has: nothing to measure",
        ]
        assert f"| {same.name} | **unchanged** | | | | the same file |" in summary.read_text()
        assert f"| {new.name} | **new** | | | | no such file there |" in summary.read_text()
        assert main([*asked, "--json"]) == 0
        found = printed(capsys)
        assert found == {"gate": [], "unchanged": [same.name], "new": [new.name], "errors": []}
        with Store.open(own_store) as store:
            assert store.measurements() == []

    def test_what_git_does_not_know_is_not_taken_for_new(
        self, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A build has made it, and its baseline was never measured: that fails."""
        other = models[0]
        made = convs(other.with_name("made.onnx"), 1)
        for what in (("init", "-q"), ("add", other.name), ("commit", "-q", "-m", "one")):
            git(other.parent, *what)
        assert main(["gate", str(made), "--baseline", "HEAD"]) == 3
        assert "the store has nothing of it as of commit" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("summary", "words"),
        [
            ("", "is a folder, or was empty"),
            ("no/such/file.md", "cannot be written, or is not there"),
        ],
    )
    def test_a_summary_that_cannot_be_is_told_before_anything_is_measured(
        self,
        summary: str,
        words: str,
        models: tuple[Path, Path],
        own_store: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        asked = ("gate", str(models[0]), "--baseline", str(models[1]))
        assert main([*asked, "--summary", summary]) == 2
        assert words in capsys.readouterr().err
        assert not own_store.exists()

    @pytest.mark.parametrize("verb", ["bench", "gate"])
    def test_models_of_one_name_would_have_one_history(
        self, verb: str, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        more = ("--baseline", "history") if verb == "gate" else ()
        assert main([verb, *map(str, models), *more]) == 2
        assert "are both called net.onnx" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("baseline", "words"),
        [
            ("", "the baseline is empty"),
            ("net.onnx", "is the model itself"),
            (".", "is the model itself"),
            ("nonsense", "no file, folder, or commit of git"),
        ],
    )
    def test_what_is_no_baseline(
        self,
        baseline: str,
        words: str,
        models: tuple[Path, Path],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(models[0].parent)
        assert main(["gate", "net.onnx", "--baseline", baseline]) == 2
        assert words in capsys.readouterr().err

    def test_a_folder_without_the_baseline(
        self, models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        assert main(["gate", str(models[0]), "--baseline", str(empty)]) == 3
        assert f"net.onnx: {empty} has no file of that name" in capsys.readouterr().err

    @pytest.mark.usefixtures("two_processes", "light_canaries")
    def test_calibrate_by_the_command(
        self, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = ("--runs", "1", "--draws", "10", "--seconds", "0.2", "--json")
        assert main(["gate", "calibrate", str(models[0]), *asked]) == 0
        (entry,) = printed(capsys)["calibration"]
        assert (entry["name"], entry["live"], entry["drawn"]) == ("net.onnx", 2, 10)

    def test_calibrate(self, tmp_path: Path) -> None:
        own, target = job("a", runner(tmp_path, us=100)), LocalTarget(tmp_path)
        effort = dataclasses.replace(QUICK, sessions=1, seed=0)
        entry = calibration_json("a", calibrate_gate(target, own, 2, 10, effort, None))
        assert (entry["live"], entry["drawn"]) == (4, 10)
        assert 0 < entry["again_rate_at_most"] <= 1


class TestStores:
    def test_log_tells_the_newest_first(
        self, own_store: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        filled(own_store.parent).rename(own_store)
        assert main(["log", "-n", "3", "--json"]) == 0
        found = printed(capsys)["sessions"]
        assert [entry["created"][:10] for entry in found] == ["2026-01-30"] * 3
        assert found[0]["tags"] == {"team": "vision"}
        assert main(["log", "-n", "3"]) == 0
        out = capsys.readouterr().out
        assert "001d001d00" in out
        assert max(map(len, out.splitlines())) <= 80

    def test_stores_are_joined_without_doubling(
        self, own_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = str(filled(tmp_path))
        assert main(["store", "merge", other]) == 0
        assert main(["store", "merge", other, "--json"]) == 0
        said = capsys.readouterr()
        first, second = said.out.split("\n", 1)
        assert first == "120 measurements added, 0 known already"
        assert "1 verdict on claims left out, of that machine" in said.err
        assert json.loads(second) == {"added": 0, "known": 120}
        with Store.open(own_store) as store, Store.open(other) as source:
            assert len(store.epochs(imported=True)) == 2
            assert len(store.canary_runs()) == len(source.canary_runs()) > 0
            assert store.verdicts() == []

    def test_half_a_store_is_no_store(
        self, own_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        torn = tmp_path / "torn.db"
        torn.write_bytes(filled(tmp_path).read_bytes()[:5000])
        assert main(["store", "merge", str(torn)]) == 4
        assert capsys.readouterr().err.startswith("hwbench: ")
        with Store.open(own_store) as store:
            assert store.measurements() == []


class TestReport:
    def test_a_page_and_its_figures(
        self, own_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        filled(own_store.parent, ("</script>", "=cmd()")).rename(own_store)
        out = tmp_path / "site"
        assert main(["report", "-o", str(out), "--json"]) == 0
        found = printed(capsys)
        assert (found["measurements"], found["series"], found["devices"]) == (120, 4, 2)
        (change,) = found["changes"]
        assert change["change_pct"] == pytest.approx(5, abs=1)
        assert (change["project"], change["dirty"]) == (None, False)
        csv = (out / "measurements.csv").read_text()
        assert "'=cmd()" in csv
        page = (out / "index.html").read_text()
        assert "&lt;/script&gt;" in page
        assert {path.name for path in out.iterdir()} == {
            "index.html", "measurements.csv", "page.js", "plotly.min.js", "report.css",
            "report.js", "style.css",
        }  # fmt: skip

    def test_nobody_elses_page_is_written_over(
        self, own_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Store.open(own_store).close()
        page = tmp_path / "site" / "index.html"
        page.parent.mkdir()
        page.write_text("<html>mine</html>")
        assert main(["report", "-o", str(page.parent)]) == 2
        assert "index.html, which no earlier report wrote" in capsys.readouterr().err
        assert page.read_text() == "<html>mine</html>"
        page.unlink()
        for _ in range(2):  # its own it may renew
            assert main(["report", "-o", str(page.parent)]) == 0

    def test_an_empty_store_says_so(
        self, own_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Store.open(own_store).close()
        assert main(["report", "-o", str(tmp_path / "site")]) == 0
        assert "no measurement yet" in capsys.readouterr().err
        assert "hwbench bench makes the first" in (tmp_path / "site" / "index.html").read_text()

    def test_one_run_and_a_clock_ahead(
        self, own_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from datetime import UTC, datetime

        with Store.open(own_store) as store:
            store.merge(history("net", device(0), [2.0], began=datetime(2990, 1, 1, tzinfo=UTC)))
        assert main(["report", "-o", str(tmp_path / "site")]) == 0
        said = capsys.readouterr().err
        assert "no history yet" in said
        assert "a time that is yet to come" in said

    def test_without_a_store(self, own_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["report"]) == 4
        assert capsys.readouterr().err.startswith("hwbench: ")
