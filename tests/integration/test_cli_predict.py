"""`hwbench fit`, `evaluate` and `predict`: from stored measurements to upper bounds."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwbench.cli import main
from hwbench.devices import get_device
from hwbench.predictors import Provenance, fit_predictor, load_predictor, training_set
from hwbench.records import Fingerprint, Measurement, digest
from hwbench.spaces import get_space
from hwbench.store import Store
from tests.measurements import measurement

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


def test_a_predictor_of_here_answers_for_the_device_and_options_it_learned(
    architectures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = SPACE.sample(20, np.random.default_rng(0))
    here = get_device("litert").fingerprint(1)
    place = Provenance("litert", here.key, "LiteRT", 1, options=(("xnnpack", "off"),))
    path = tmp_path / "p.hwp"
    fit_predictor(SPACE, training_set(SPACE, codes, true_ms(codes)), place).save(path)
    command = ["predict", str(path), *architectures, "-d", "litert"]
    assert main(command) == 0
    for word in ("off", "false", "no"):
        assert main([*command, "--option", f"xnnpack={word}"]) == 0
    capsys.readouterr()
    assert main([*command, "--option", "xnnpack=on"]) == 2
    assert "learned latencies with xnnpack=off, not on" in capsys.readouterr().err


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
        (["{predictor}", "{arch}", "-d", "cpu"], "fitted on another device"),
        (["{predictor}", "{arch}", "-d", "cpu", "--option", "foo=bar"], "foo"),
        (["{predictor}", "{arch}", "--measure"], "--measure is for ONNX files"),
        (["{predictor}", "{arch}", "--shape", "x=1"], "--shape is for ONNX files"),
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


FITTED_AT = "2026-01-31T12:00:00+00:00"


def stored(code: np.ndarray, latency_ms: float, **changes: Any) -> Measurement:
    (arch,) = SPACE.decode(code[None])
    changes = {"epoch": "epoch-1", "session": "learned", "created": FITTED_AT} | changes
    return measurement(
        work_name=arch,
        work_arch=arch,
        work_space=SPACE.name,
        work_model_hash=digest(arch),
        latency_ns=latency_ms * 1e6,
        low_ns=latency_ms * 0.99e6,
        high_ns=latency_ms * 1.01e6,
        **changes,
    )


def true_ms(codes: np.ndarray) -> np.ndarray:
    return np.asarray(0.1 + SPACE.macs(codes) / 1e7)


@pytest.fixture
def profiled(own_store: Path) -> Path:
    """A store with 60 measured architectures, and five of an older environment."""
    codes = SPACE.sample(65, np.random.default_rng(2))
    elsewhere = Fingerprint("cpu", {"cpu_model": "another"})
    with Store.open() as store:
        for code, latency in zip(codes[60:], true_ms(codes[60:]), strict=True):
            store.add(stored(code, 5 * latency, fingerprint=elsewhere, created="2026-01-30T00:00Z"))
        for code, latency in zip(codes[:60], true_ms(codes[:60]), strict=True):
            store.add(stored(code, latency))
    return own_store


def test_fit_then_evaluate_on_what_it_never_saw(
    profiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cpu.hwp"
    assert main(["fit", "-s", SPACE.name, "-o", str(path), "--json"]) == 0
    said = capsys.readouterr()
    fitted = json.loads(said.out)
    assert "5 measurements of other environments left out" in said.err
    assert fitted["predictor"] == str(path)
    assert fitted["n_train"] == load_predictor(path).meta.n_train == 60
    scores = fitted["cross_validated"]
    assert list(scores) == ["predictor", "MACs line", "constant"]
    assert scores["predictor"]["within_10"] > scores["constant"]["within_10"]

    assert main(["evaluate", str(path), "--json"]) == 2
    assert "nothing was measured since" in capsys.readouterr().err

    seen = SPACE.sample(65, np.random.default_rng(2))[:1]
    fresh = SPACE.sample(12, np.random.default_rng(3))
    later = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    with Store.open() as store:
        for code, latency in zip([*seen, *fresh], true_ms([*seen, *fresh]), strict=True):
            store.add(stored(code, latency, session="later", created=later))
    assert main(["evaluate", str(path), "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert (evaluated["n_train"], evaluated["n_test"]) == (60, 12)
    assert list(evaluated["results"]) == ["predictor", "MACs line", "constant"]
    assert evaluated["results"]["predictor"]["n"] == 12
    assert evaluated["results"]["constant"]["spearman"] is None  # nothing to rank, and no NaN
    assert evaluated["results"]["predictor"]["within_10"] > 0.5

    assert main(["evaluate", str(path), "--session", "learned"]) == 2
    assert main(["evaluate", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "On 12 architectures that it never saw" in shown
    assert max(map(len, shown.splitlines())) <= 80

    figure = tmp_path / "cpu.svg"
    assert main(["evaluate", str(path), "-o", str(figure), "--json"]) == 0
    assert json.loads(capsys.readouterr().out).pop("figure") == str(figure)
    drawn = figure.read_text()
    # The store has what it learned from, with what measuring that took.
    for text in ("cpu, mbv3_small", "fitted on 60", "tested on 12 others", "measure"):
        assert text in drawn

    # One that was measured again counts only in the session that is asked for.
    with Store.open() as store:
        for code, latency in zip(fresh, true_ms(fresh), strict=True):
            store.add(stored(code, 3 * latency, session="again", created=later))
    assert main(["evaluate", str(path), "--session", "later", "--json"]) == 0
    of_one_session = json.loads(capsys.readouterr().out)
    assert of_one_session["results"] == evaluated["results"]
    assert main(["evaluate", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_test"] == 12


@pytest.mark.usefixtures("own_store")
def test_without_what_it_learned_from_a_figure_has_no_learning_curve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = SPACE.sample(72, np.random.default_rng(5))
    here = Fingerprint("cpu", {"cpu_model": "Test CPU"})
    source = Provenance("cpu", here.key, "onnxruntime", 1, epoch="epoch-1")
    path, figure = tmp_path / "cpu.hwp", tmp_path / "cpu.svg"
    training = training_set(SPACE, codes[:60], true_ms(codes[:60]))
    fit_predictor(SPACE, training, source, kind="macs-line").save(path)
    later = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    with Store.open() as store:
        for code, latency in zip(codes[60:], true_ms(codes[60:]), strict=True):
            store.add(stored(code, latency, created=later, fingerprint=here))
    assert main(["evaluate", str(path), "-o", str(figure)]) == 0
    assert "Written to" in capsys.readouterr().out
    assert "no curve" in figure.read_text()


def test_fit_prefers_what_was_measured_here(
    profiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Newer measurements may have been imported from elsewhere."""
    here = get_device("cpu").fingerprint(1)
    codes = SPACE.sample(100, np.random.default_rng(4))[:30]
    with Store.open() as store:
        for code, latency in zip(codes, true_ms(codes), strict=True):
            store.add(stored(code, latency, fingerprint=here, created="2026-01-30T00:00Z"))
    assert main(["fit", "-s", SPACE.name, "-o", str(tmp_path / "p.hwp"), "--json"]) == 0
    fitted = json.loads(capsys.readouterr().out)
    assert fitted["provenance"]["fingerprint_key"] == here.key
    assert fitted["n_train"] == 30


def test_an_evaluation_on_another_store_says_what_it_lacks(
    profiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, other = tmp_path / "cpu.hwp", tmp_path / "other.db"
    assert main(["fit", "-s", SPACE.name, "-o", str(path), "--kind", "macs-line"]) == 0
    (code,) = SPACE.sample(1, np.random.default_rng(6))
    with Store.open(other) as store:
        pass
    for missing in ("environment", "canary epoch", "canary epoch"):
        assert main(["evaluate", str(path), "--store", str(other)]) == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert f"{other} holds no measurement of {SPACE.name} on cpu" in told
        assert f"of the predictor's {missing}: name the one" in told
        with Store.open(other) as store:
            store.add(stored(code, 1.0, epoch=f"after {missing}"))


def test_fit_says_how_many_are_inconclusive(
    profiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = SPACE.sample(65, np.random.default_rng(2))[:3]
    with Store.open() as store:
        for code, latency in zip(codes, true_ms(codes), strict=True):
            store.add(stored(code, latency, status="inconclusive", session="busy"))
    command = ["fit", "-s", SPACE.name, "-o", str(tmp_path / "p.hwp"), "--kind", "macs-line"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "on 60 architectures (63 measurements)" in shown
    assert "3 of the 63 measurements are inconclusive: each counts with its own wide" in shown
    assert "Measured in 2 sessions: what generate --measure and verify measured" in shown
    ends = re.search(r"the fastest keeps ([\d.]+) ms, the slowest ([\d.]+) ms", shown)
    assert ends is not None
    assert main([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    low, high = answer["range_ms"]
    assert low <= float(ends[1]) < float(ends[2]) <= high
    assert (answer["measurements"], answer["inconclusive"]) == (63, 3)


def test_evaluate_says_the_same_of_measurements_and_of_a_line_on_macs(
    profiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MACs are all there is to these latencies, so that nothing beats the line."""
    path = tmp_path / "cpu.hwp"
    assert main(["fit", "-s", SPACE.name, "-o", str(path)]) == 0
    fresh = SPACE.sample(12, np.random.default_rng(3))
    later = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    with Store.open() as store:
        for code, latency in zip(fresh, true_ms(fresh), strict=True):
            store.add(stored(code, latency, created=later, status="inconclusive"))
    capsys.readouterr()
    assert main(["evaluate", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "12 of the 12 measurements are inconclusive: what they are off themselves" in out
    assert "no better than a MACs line" in err
    assert "hwbench profile -d cpu -s mbv3_small -n 120 adds more" in err
    assert main(["evaluate", str(path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["measurements"], answer["inconclusive"]) == (12, 12)


@pytest.mark.usefixtures("own_store")
def test_fit_names_the_epoch_where_that_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = SPACE.sample(20, np.random.default_rng(2))
    with Store.open() as store:
        for epoch, half in (("epoch-1", codes[:8]), ("epoch-2", codes[8:])):
            for code, latency in zip(half, true_ms(half), strict=True):
                store.add(stored(code, latency, epoch=epoch))
    assert main(["fit", "-s", SPACE.name, "-o", str(tmp_path / "p.hwp")]) == 0
    out, err = capsys.readouterr()
    assert "on 12 architectures" in out
    words = "8 measurements of other canary epochs left out, kept are those with canary epoch"
    assert f"{words} epoch-2" in err
    assert "12 samples are fewer than the 92 choices that mbv3_small has" in err


@pytest.mark.usefixtures("own_store")
def test_fit_names_the_next_step_where_there_are_too_few(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = SPACE.sample(6, np.random.default_rng(2))
    path = tmp_path / "p.hwp"
    with Store.open() as store:
        for code in codes[:4]:
            store.add(stored(code, 1.0))
    assert main(["fit", "-s", SPACE.name, "-o", str(path)]) == 2
    told = capsys.readouterr().err
    assert "4 measured architectures of mbv3_small are too few" in told
    assert "run hwbench profile -d cpu -s mbv3_small -n 100 first" in told
    assert not path.exists()


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize("by_macs", [True, False])
def test_fit_says_where_a_line_on_macs_does_as_well(
    by_macs: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It does where MACs are all there is to a latency, but not where the resolution alone is."""
    codes = SPACE.sample(30, np.random.default_rng(7))
    times = true_ms(codes) if by_macs else 1.0 + codes[:, 0]
    with Store.open() as store:
        for code, latency in zip(codes, times, strict=True):
            store.add(stored(code, latency))
    path = str(tmp_path / "p.hwp")
    assert main(["fit", "-s", SPACE.name, "-o", path]) == 0
    told = "hwbench profile -d cpu -s mbv3_small -n 100 adds more"
    assert (told in capsys.readouterr().err) == by_macs
    assert main(["fit", "-s", SPACE.name, "-o", path, "--kind", "macs-line"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("profiled")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-s", "nasbench201"], "run hwbench profile -d cpu -s nasbench201 first"),
        (
            ["-s", SPACE.name, "-d", "adb:1@desk", "--option", "a=b"],
            "run hwbench profile --fleet ADDRESS -d adb -s mbv3_small first",
        ),
        (["-s", SPACE.name, "--threads", "2"], "with 2 threads"),
        (["-s", SPACE.name, "--session", "nothing"], "hwbench profile"),
        (["-s", SPACE.name, "--kind", "cost-regresion"], "did you mean 'cost-regression'?"),
        (["-s", SPACE.name, "-o", "absent/p.hwp"], "absent/p.hwp"),
        (["-s", SPACE.name, "--since", "yesterday"], "write 2026-01-31T12:00:00+00:00"),
    ],
)
def test_fit_says_what_is_missing(
    options: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *options, "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err.splitlines()[-1]
