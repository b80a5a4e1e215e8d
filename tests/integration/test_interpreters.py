"""`hwbench compare --python-a --python-b`: one model, or one function, under two interpreters."""

from __future__ import annotations

import functools
import json
import sysconfig
import venv
from pathlib import Path

import pytest

from hwbench.cli import main
from hwbench.devices.calls import function_job
from hwbench.errors import ModelError
from hwbench.lower import random_weights, to_onnx
from hwbench.watch import trial
from hwbench.watch.trial import Effort
from tests.targets import leaves_nothing, tiny_net

FAST = ("--seconds", "0.3", "--sessions", "1", "--json")
#: Three times the work in an environment of this name.
WORK = """
import os
import sys

def work():
    sum(range(60_000 if sys.prefix.endswith("slow") else 20_000))

def broken():
    raise RuntimeError("not here")

def dies():
    os._exit(3)

async def lazy():
    sum(range(60_000))

def items():
    yield from range(60_000)
"""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that finds our packages, says that its runtime is another, and no hwbench."""
    place = tmp_path_factory.mktemp("interpreters") / "slow"
    venv.create(place, with_pip=False, symlinks=True)
    (site,) = (place / "lib").glob("python*/site-packages")
    (site / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    known = site / "onnxruntime-0.0.1.dist-info"
    known.mkdir()
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime\nVersion: 0.0.1\n")
    return place / "bin" / "python"


@pytest.fixture(autouse=True)
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of six: these tests ask for no small difference."""
    monkeypatch.setattr(trial, "Effort", functools.partial(Effort, processes=2))


def test_a_function_that_is_slower_there(
    slow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "work.py").write_text(WORK)
    with leaves_nothing(tmp_path, monkeypatch):
        code = main(["compare", f"{tmp_path}/work.py:work", "--python-b", str(slow), *FAST])
    assert code == 1
    (entry,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert entry["b"] == "work.py:work (onnxruntime 0.0.1)"
    assert entry["change_pct"] == pytest.approx(200, abs=80)
    assert (entry["processes"], entry["paired"]) == (2, True)


def test_a_model_runs_where_hwbench_is_not(
    slow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], own_store: Path
) -> None:
    net = tiny_net().graph
    to_onnx(net, random_weights(net)).save(tmp_path / "net.onnx")
    named = ("--python-a", str(slow), "--python-b", str(slow))
    assert main(["compare", str(tmp_path / "net.onnx"), *named, *FAST]) in (0, 1, 3)
    (entry,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert (entry["a"], entry["b"]) == ("net.onnx (A)", "net.onnx (B)")
    assert entry["pairs"] >= 4
    assert not own_store.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["net.onnx"], 2, "name B, or two interpreters"),
        (["work.py:work", "--python-b", "absent/python"], 2, "absent/python does not run"),
        (["work.py:work", "--python-b", "work.py"], 2, "name a Python 3.11 or newer"),
        (["absent.py:work", "--python-b", "{slow}"], 2, "absent.py: there is no such file"),
        (["work.py:broken", "--python-b", "{slow}"], 2, "RuntimeError: not here"),
        (["work.py:absent", "--python-b", "{slow}"], 2, "absent"),
        (["work.py:dies", "--python-b", "{slow}"], 4, "work.py:dies (onnxruntime "),
        (["commit:abcd", "--python-b", "{slow}"], 2, "not what the store has"),
        (["work.py:lazy", "--python-b", "{slow}"], 2, "a call runs none of its code"),
        (["work.py:items", "--python-b", "{slow}"], 2, "a call runs none of its code"),
        (["work.py:work", "net.onnx", "--python-b", "{slow}"], 2, "a function with a function"),
        (["work.py:work", "--python-b", ""], 2, "an interpreter is empty"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    code: int,
    words: str,
    slow: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.py").write_text(WORK)
    given = [argument.replace("{slow}", str(slow)) for argument in arguments]
    assert main(["compare", *given, *FAST[:-1]]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words.lower() in err.lower()
    assert [line for line in err.splitlines() if line.startswith("hwbench: ")] == [
        err.splitlines()[-1]
    ]


def test_a_function_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "work.py"
    path.write_text(WORK)
    job = function_job(f"{path}:work")
    job.require_unchanged()
    path.write_text(WORK + "\n# another\n")
    with pytest.raises(ModelError, match=r"work\.py changed while it was measured"):
        job.require_unchanged()
