"""`hwbench fit`, `evaluate` and `predict`: from stored measurements to upper bounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hwbench.cli import main
from hwbench.predictors import Provenance, fit_predictor, load_predictor, training_set
from hwbench.spaces import get_space

SPACE = get_space("mbv3_small")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    codes = SPACE.sample(60, rng)
    latency_ms = (0.1 + SPACE.macs(codes) / 1e7) * rng.normal(1, 0.01, 60)
    training = training_set(SPACE, codes, latency_ms, 0.01 * latency_ms)
    path = tmp_path_factory.mktemp("predictor") / "p.hwp"
    fit_predictor(SPACE, training, Provenance("cpu", "f" * 32, "onnxruntime", 1)).save(path)
    return path


@pytest.fixture(scope="module")
def architectures() -> list[str]:
    return SPACE.decode(SPACE.sample(3, np.random.default_rng(1)))


def test_predict_answers_in_order_with_mean_sd_and_bound(
    predictor: Path, architectures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", str(predictor), *architectures, "--confidence", "0.9", "--json"]
    assert main(arguments) == 0
    answer = json.loads(capsys.readouterr().out)
    loaded, codes = load_predictor(predictor), SPACE.encode(architectures)
    assert [row["architecture"] for row in answer["results"]] == architectures
    assert [row["mean_ms"] for row in answer["results"]] == [*loaded.predict(codes).mean_ms]
    assert [row["upper_ms"] for row in answer["results"]] == [*loaded.upper(codes, 0.9)]
    assert (answer["device"], answer["space"], answer["confidence"]) == ("cpu", "mbv3_small", 0.9)


@pytest.mark.parametrize("file", ["a file", "standard input"])
def test_predict_reads_architectures_from_a_file(
    file: str,
    predictor: Path,
    architectures: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "architectures.txt"
    path.write_text("\n".join(["", *architectures, ""]))
    with path.open() as opened:
        monkeypatch.setattr("sys.stdin", opened)
        name = str(path) if file == "a file" else "-"
        assert main(["predict", str(predictor), "--file", name, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    assert [row["architecture"] for row in rows] == architectures


def test_predict_shows_a_table(
    predictor: Path, architectures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(predictor), *architectures]) == 0
    shown = capsys.readouterr().out
    assert "upper ms (0.98)" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.hwp", "x"], "absent.hwp"),
        (["binary", "x"], "binary"),
        (["{predictor}"], "no architecture given"),
        (["{predictor}", "nonsense"], "nonsense"),
        (["{predictor}", "{arch}", "--confidence", "1"], "confidence 1"),
        (["{predictor}", "--file", "binary"], "binary is not a text file"),
    ],
)
def test_a_mistake_is_one_line_and_2(
    arguments: list[str],
    words: str,
    predictor: Path,
    architectures: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("binary").write_bytes(b"\xff\xfe\x00\x80")
    filled = [a.format(predictor=predictor, arch=architectures[0]) for a in arguments]
    assert main(["predict", *filled, "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert words in said.err
