"""`hwbench export` and `hwbench import`: what leaves one store arrives in another."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from hwbench.cli import main
from hwbench.records import CanaryEpoch, Measurement
from hwbench.store import Store
from tests.measurements import epoch, measurement, same

MADE = [
    measurement(0),
    measurement(1, work_space="nasbench201"),
    measurement(2, session="session-2"),
]
USED, UNUSED = epoch(1), epoch(2)


@pytest.fixture
def filled(own_store: Path) -> Path:
    with Store.open() as store:
        store.merge([USED, UNUSED, *MADE])
    return own_store


def contents(path: Path) -> tuple[list[Measurement], list[CanaryEpoch]]:
    with Store.open(path, create=False) as store:
        return store.measurements(), store.epochs()


@pytest.mark.usefixtures("filled")
def test_an_archive_carries_measurements_and_the_epochs_they_rest_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, other = tmp_path / "all.jsonl.gz", tmp_path / "other.db"
    assert main(["export", str(archive), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "path": str(archive),
        "format": "archive",
        "measurements": 3,
        "left_out": [],
    }
    assert main(["import", str(archive), "--store", str(other), "--json"]) == 0
    assert main(["import", str(archive), "--store", str(other), "--json"]) == 0
    first, second = capsys.readouterr().out.split("}\n{")
    assert json.loads(first + "}")["files"] == [{"file": str(archive), "added": 3, "known": 0}]
    assert json.loads("{" + second)["files"] == [{"file": str(archive), "added": 0, "known": 3}]
    measurements, epochs = contents(other)
    assert all(same(a, b) for a, b in zip(measurements, MADE, strict=True))
    assert epochs == [USED]


@pytest.mark.usefixtures("filled")
def test_a_file_that_is_refused_keeps_no_other_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a script is told which is which."""
    good, bad, other = tmp_path / "good.jsonl", tmp_path / "bad.jsonl", tmp_path / "other.db"
    assert main(["export", str(good)]) == 0
    bad.write_bytes(good.read_bytes()[:-40])
    capsys.readouterr()
    assert main(["import", str(bad), str(good), "--store", str(other), "--json"]) == 2
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["files"] == [{"file": str(good), "added": 3, "known": 0}]
    (error,) = found["errors"]
    assert error["file"] == str(bad)
    assert error["error"] in said.err
    assert main(["import", str(good), str(bad), "--store", str(other)]) == 2
    assert "good.jsonl" in "".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["net0", "net1", "net2"]),
        (["-s", "nasbench201"], ["net1"]),
        (["--session", "session-2"], ["net2"]),
        (["--name", "net0"], ["net0"]),
        (["--since", "2026-01-31T12:00:01Z"], ["net1", "net2"]),
        (["-d", "cpu", "-s", "ofa_mbv3"], ["net0", "net2"]),
    ],
)
def test_options_select(options: list[str], names: list[str], tmp_path: Path) -> None:
    out = tmp_path / "chosen.csv"
    assert main(["export", str(out), *options]) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == names
    assert all(int(row["samples"]) > 0 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["export", "x.unknown"], 2, "does not tell the format"),
        (["export", "x.csv", "--format", "parket"], 2, "did you mean 'parquet'?"),
        (["export", "x.csv", "-d", "nothing"], 2, "no measurement to export"),
        (["export", "absent/x.csv"], 2, "absent/x.csv: there is no folder absent: make it first"),
        (["export", "x.csv", "--since", "yesterday"], 2, "since"),
        (["export", "x.csv", "--store", "absent.db"], 4, "no store at"),
        (["import", "absent.jsonl"], 2, "absent.jsonl"),
        (["import", "damaged.jsonl"], 2, "damaged.jsonl"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    code: int,
    words: str,
    filled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("damaged.jsonl").write_text('{"format": "hwbench-archive", "vers')
    assert main([*arguments, "--json"]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert words in said.err
    assert {p.name for p in tmp_path.iterdir()} <= {filled.name, "damaged.jsonl"} | {
        f"{filled.name}-{suffix}" for suffix in ("wal", "shm")
    }
