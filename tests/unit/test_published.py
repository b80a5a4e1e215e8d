"""Tables that others published: read as they are, refused by what is wrong with them."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwbench.cli import main
from hwbench.errors import EXIT_USAGE, PredictorError, UnknownNameError
from hwbench.predictors.published import evaluate_published, fit_published, read_published
from hwbench.spaces import get_space
from hwbench.testing.predictors import made_up_training

NB201 = get_space("nasbench201")
OPS = [f"op{i}" for i in range(6)]
DISCONNECTED = [0] * 6

Rows = Sequence[Sequence[object]]


def write(path: Path, columns: Sequence[str], rows: Rows) -> Path:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


@pytest.fixture
def table(tmp_path: Path) -> tuple[Path, Path, Mapping[int, float]]:
    """80 cells with made-up latencies, a disconnected one, and one that was not measured."""
    labels = made_up_training(NB201, 80)
    cells = [[3 * i, *code] for i, code in enumerate(labels.codes.tolist())]
    times = {3 * i: float(t) for i, t in enumerate(labels.latency_ms)}
    archs = [*cells, [1, *DISCONNECTED], [2, 3, 3, 3, 3, 3, 3]]
    # In another order than the architectures: they belong together by their index.
    measured = [[i, t, 2 * t] for i, t in reversed([*times.items(), (1, 0.001)])]
    return (
        write(tmp_path / "archs.csv.gz", ["arch_idx", *OPS], archs),
        write(tmp_path / "latency.csv", ["arch_idx", "phone", "gpu_1"], measured),
        times,
    )


class TestReading:
    def test_rows_are_joined_by_their_index(
        self, table: tuple[Path, Path, Mapping[int, float]]
    ) -> None:
        archs, latency, times = table
        found = read_published("nasbench201", archs, latency, "gpu_1")
        assert found.left_out == 1
        doubled = sorted(2 * t for t in times.values())
        assert sorted(found.labels.latency_ms) == pytest.approx(doubled)
        codes = map(tuple, found.labels.codes)
        by_code = dict(zip(codes, found.labels.latency_ms, strict=True))
        labels = made_up_training(NB201, 80)
        for code, latency_ms in zip(labels.codes, labels.latency_ms, strict=True):
            assert by_code[tuple(code)] == pytest.approx(2 * latency_ms)

    def test_what_is_not_there_is_named(
        self, table: tuple[Path, Path, Mapping[int, float]], tmp_path: Path
    ) -> None:
        archs, latency, _ = table
        with pytest.raises(UnknownNameError, match="did you mean 'phone'"):
            read_published("nasbench201", archs, latency, "phones")
        with pytest.raises(UnknownNameError, match="space of a published table 'nasbench'"):
            read_published("nasbench", archs, latency, "phone")
        with pytest.raises(PredictorError, match="has no column 'r'"):
            read_published("ofa_mbv3", archs, latency, "phone")
        with pytest.raises(PredictorError, match="cannot read"):
            read_published("nasbench201", tmp_path / "missing.csv", latency, "phone")

    @pytest.mark.parametrize(
        ("cell", "message"),
        [
            ([8, 1, 1, 1, 1, 1, 9], "a.csv: arch_idx 8 has 9 for op5 (2>3)"),
            ([8, 1, 1, 1, 1, 1, -1], "a.csv: arch_idx 8 has -1 for op5 (2>3)"),
            ([8, 1, 1, 1, 1, 1, 1.5], "a.csv: arch_idx 8 has 1.5 for op5 (2>3)"),
            ([8, 1, 1, 1, 1, 1, "$(id)"], "column 'op5' holds something that is no number"),
            ([7, 1, 1, 1, 1, 1, 1], "have no arch_idx in common"),
        ],
    )
    def test_architectures_of_another_space(
        self, tmp_path: Path, cell: Sequence[object], message: str
    ) -> None:
        archs = write(tmp_path / "a.csv", ["arch_idx", *OPS], [[5, *[1] * 6], cell])
        latency = write(tmp_path / "l.csv", ["arch_idx", "phone"], [[9, 1], [8, 1.5]])
        with pytest.raises(PredictorError) as caught:
            read_published("nasbench201", archs, latency, "phone")
        assert message in str(caught.value)

    @pytest.mark.parametrize("column", ["phone", "gpu"])
    @pytest.mark.parametrize("value", ["nan", "", "-1", "0", "inf"])
    def test_latencies_that_are_none(self, tmp_path: Path, column: str, value: str) -> None:
        """Told by file, index and column, in whichever order the files are."""
        archs = write(tmp_path / "a.csv", ["arch_idx", *OPS], [[7, *[2] * 6], [4, *[1] * 6]])
        rows = [{"arch_idx": i, "phone": 1, "gpu": 2} for i in (4, 5, 7)]
        rows[0][column] = value
        latency = write(tmp_path / "l.csv", [*rows[0]], [[*row.values()] for row in rows])
        with pytest.raises(PredictorError) as caught:
            read_published("nasbench201", archs, latency, "phone", ["gpu"])
        said = str(caught.value)
        assert said.startswith(f"{latency}: arch_idx 4 has ")
        assert said.endswith(f" for {column}: latencies are positive")

    def test_two_columns_of_one_name(self, tmp_path: Path) -> None:
        cell = [0, 1, 1, 1, 1, 1, 1]
        archs = write(tmp_path / "a.csv", ["arch_idx", *OPS], [cell])
        twice = write(tmp_path / "t.csv", ["arch_idx", *OPS, "op5"], [[*cell, 2]])
        latency = write(tmp_path / "l.csv", ["arch_idx", "phone", "phone"], [[0, 1, 2]])
        with pytest.raises(PredictorError, match=r"t\.csv has two columns 'op5'"):
            read_published("nasbench201", twice, latency, "phone")
        with pytest.raises(PredictorError, match=r"l\.csv has two columns 'phone'"):
            read_published("nasbench201", archs, latency, "phone")

    def test_a_header_of_columns_without_end_is_refused_at_once(self, tmp_path: Path) -> None:
        cell = [0, 1, 1, 1, 1, 1, 1]
        wide = write(tmp_path / "a.csv", ["arch_idx", *OPS, *map(str, range(50_000))], [cell])
        many = write(tmp_path / "m.csv", ["arch_idx", *OPS, *map(str, range(8000))], [cell])
        latency = write(tmp_path / "l.csv", ["arch_idx", "phone"], [[0, 1.5]])
        with pytest.raises(PredictorError, match=r"a\.csv: a header that is too long"):
            read_published("nasbench201", wide, latency, "phone")
        assert len(read_published("nasbench201", many, latency, "phone").labels) == 1

    def test_what_unpacks_to_more_than_a_table_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hwbench.predictors.published._MOST_BYTES", 1 << 20)
        bomb = tmp_path / "a.csv.gz"
        bomb.write_bytes(gzip.compress(b"arch_idx,op0\n" + b"0,0\n" * (1 << 18)))
        latency = write(tmp_path / "l.csv", ["arch_idx", "phone"], [[0, 1.5]])
        with pytest.raises(PredictorError) as caught:
            read_published("nasbench201", bomb, latency, "phone")
        assert str(caught.value).endswith("a.csv.gz: it holds more than 1 MiB uncompressed")

    @pytest.mark.parametrize("name", ["a.csv", "l.csv"])
    def test_an_index_that_is_empty(self, tmp_path: Path, name: str) -> None:
        """Two empty ones are not the same architecture."""
        empty = {"a.csv": (None, 1), "l.csv": (1, None)}[name]
        archs = write(tmp_path / "a.csv", ["arch_idx", *OPS], [[0, *[1] * 6], [empty[0], *[2] * 6]])
        latency = write(tmp_path / "l.csv", ["arch_idx", "phone"], [[0, 1.5], [empty[1], 2]])
        with pytest.raises(PredictorError, match=f"{name}: row 2 below the header has no arch_idx"):
            read_published("nasbench201", archs, latency, "phone")

    def test_a_table_without_rows_and_one_that_is_not_there(self, tmp_path: Path) -> None:
        empty = write(tmp_path / "a.csv", ["arch_idx", *OPS], [])
        latency = write(tmp_path / "l.csv", ["arch_idx", "phone"], [[0, 1.5]])
        with pytest.raises(PredictorError, match=r"a\.csv has no row below its header"):
            read_published("nasbench201", empty, latency, "phone")
        with pytest.raises(PredictorError) as caught:
            read_published("nasbench201", tmp_path / "no.csv", latency, "phone")
        assert str(caught.value) == f"cannot read {tmp_path / 'no.csv'}: No such file or directory"

    def test_an_index_that_is_there_twice(self, tmp_path: Path) -> None:
        archs = write(tmp_path / "a.csv", ["arch_idx", *OPS], [[5, *[1] * 6], [5, *[2] * 6]])
        latency = write(tmp_path / "l.csv", ["arch_idx", "phone"], [[5, 1.5]])
        with pytest.raises(PredictorError, match="arch_idx 5 is there twice"):
            read_published("nasbench201", archs, latency, "phone")


class TestEvaluating:
    def test_what_it_learned_is_not_what_it_is_tested_on(
        self, table: tuple[Path, Path, Mapping[int, float]]
    ) -> None:
        archs, latency, _ = table
        phone = read_published("nasbench201", archs, latency, "phone")
        found = evaluate_published(phone, train=50)
        assert (found.n_train, found.n, found.left_out) == (50, 30, 1)
        assert found.fit_seconds > 0
        assert found.us_per_query_mean > 0
        again = evaluate_published(phone, train=50)
        assert again.rmspe == found.rmspe
        assert evaluate_published(phone, train=50, seed=1).rmspe != found.rmspe
        gpu = read_published("nasbench201", archs, latency, "gpu_1")
        elsewhere = evaluate_published(phone, gpu, train=50)
        assert elsewhere.n == 30
        assert elsewhere.rmspe == pytest.approx(50, abs=10)  # half of what the other took

    def test_the_timer_is_found_on_what_is_learned_alone(
        self, table: tuple[Path, Path, Mapping[int, float]]
    ) -> None:
        archs, latency, _ = table
        phone = read_published("nasbench201", archs, latency, "phone")
        assert (phone.labels.sd_ms == 0).all()
        whole = np.maximum(np.round(10 * phone.labels.latency_ms), 1)
        before = fit_published(
            replace(phone, labels=replace(phone.labels, latency_ms=whole)), train=20
        )
        assert (before.learned.sd_ms == 1 / np.sqrt(12)).all()
        learned = {code.tobytes() for code in before.learned.codes}
        tested = np.array([code.tobytes() not in learned for code in phone.labels.codes])
        other = replace(phone.labels, latency_ms=whole + 0.123456 * np.sqrt(whole) * tested)
        after = fit_published(replace(phone, labels=other), train=20)
        codes = phone.labels.codes
        assert np.array_equal(before.predictor.upper(codes, 0.9), after.predictor.upper(codes, 0.9))

    def test_what_it_learned_comes_in_no_table_to_test_on(
        self, table: tuple[Path, Path, Mapping[int, float]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        archs, latency, _ = table
        phone = read_published("nasbench201", archs, latency, "phone")
        alone = fit_published(phone, train=50)
        same = fit_published(phone, phone, train=50)
        learned = {*map(bytes, same.learned.codes)}
        assert len(same.tested) == same.metrics.n == 30
        assert not learned & {*map(bytes, same.tested.codes)}
        assert same.metrics.rmspe == pytest.approx(alone.metrics.rmspe)
        with pytest.raises(PredictorError, match="0 of the 80 rows to test on"):
            fit_published(phone, phone, train=80)
        command = ["evaluate", "--space", "nasbench201", "--archs", str(archs)]
        command += ["--latency", str(latency), "--device", "phone", "--train", "50"]
        command += ["--test-archs", str(archs), "--test-latency", str(latency)]
        assert main(command) == 0
        assert "tested on 30 others" in capsys.readouterr().out
        command[command.index("50")] = "80"
        assert main(command) == EXIT_USAGE
        assert "0 of the 80 rows to test on" in capsys.readouterr().err.splitlines()[-1]

    def test_what_it_learned_comes_under_no_other_index(self, tmp_path: Path) -> None:
        labels = made_up_training(NB201, 40)
        cells, times = labels.codes.tolist() * 2, [*labels.latency_ms] * 2
        archs = [[i, *code] for i, code in enumerate(cells)]
        table = read_published(
            "nasbench201",
            write(tmp_path / "a.csv", ["arch_idx", *OPS], archs),
            write(tmp_path / "l.csv", ["arch_idx", "phone"], [*enumerate(times)]),
            "phone",
        )
        found = fit_published(table, train=30)
        learned = {*map(bytes, found.learned.codes)}
        assert not learned & {*map(bytes, found.tested.codes)}
        assert len(found.tested) == 80 - 2 * len(learned)

    @pytest.mark.parametrize("train", [0, 4, 79, 500])
    def test_a_sample_that_cannot_be(
        self, table: tuple[Path, Path, Mapping[int, float]], train: int
    ) -> None:
        phone = read_published("nasbench201", *table[:2], "phone")
        with pytest.raises(PredictorError, match="give 5 to 78 of 80 rows"):
            evaluate_published(phone, train=train)

    def test_the_command_prints_what_was_agreed(
        self, table: tuple[Path, Path, Mapping[int, float]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        archs, latency, _ = table
        command = ["evaluate", "--space", "nasbench201", "--archs", str(archs)]
        command += ["--latency", str(latency), "--device", "phone", "--train", "40"]
        assert main([*command, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        agreed = "spearman kendall within_5 within_10 rmspe coverage_90 width_90"
        agreed += " fit_seconds us_per_query_mean us_per_query_sd"
        assert set(agreed.split()) <= set(answer)
        assert main([*command[:-2], "--json"]) == EXIT_USAGE
        assert "--train is missing" in capsys.readouterr().err
        assert main(["evaluate", "p.hwp", "--space", "nasbench201"]) == EXIT_USAGE
        assert "leave PREDICTOR out" in capsys.readouterr().err
        for option in (["--train", "20"], ["--select", "active"], ["--sources", "gpu_1"]):
            assert main(["evaluate", "p.hwp", *option]) == EXIT_USAGE
            assert f"{option[0]} is for a published table" in capsys.readouterr().err
        assert main([*command, "--test-archs", str(archs)]) == EXIT_USAGE
        assert "go together" in capsys.readouterr().err

    def test_fits_of_several_seeds_are_each_their_own(
        self, table: tuple[Path, Path, Mapping[int, float]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        archs, latency, _ = table
        command = ["evaluate", "--space", "nasbench201", "--archs", str(archs)]
        command += ["--latency", str(latency), "--device", "phone", "--train", "25"]
        assert main([*command, "--seed", "1", "--json"]) == 0
        alone = json.loads(capsys.readouterr().out)
        assert main([*command, "--seeds", "2", "--json"]) == 0
        together = json.loads(capsys.readouterr().out)
        answers = together["runs"]
        assert [each["seed"] for each in answers] == [0, 1]
        assert answers[1]["rmspe"] == alone["rmspe"]
        assert len({each["rmspe"] for each in answers}) == 2
        assert main([*command, "--seeds", "2"]) == 0
        shown = capsys.readouterr().out
        mean = float(np.mean([each["coverage_90"] for each in answers]))
        assert together["mean"]["coverage_90"] == pytest.approx(mean)
        assert together["worse_end"]["rmspe"] == max(each["rmspe"] for each in answers)
        assert together["worse_end"]["spearman"] == min(each["spearman"] for each in answers)
        assert "2 seeds" in shown
        assert f"{mean:.1%}" in shown
        assert "worst of 2" in shown
        assert main([*command, "--seeds", "2", "-o", "x.png"]) == EXIT_USAGE
        assert "leave --seeds out" in capsys.readouterr().err

    def test_a_figure_adds_its_path_and_no_more(
        self,
        table: tuple[Path, Path, Mapping[int, float]],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        archs, latency, _ = table
        command = ["evaluate", "--space", "nasbench201", "--archs", str(archs)]
        command += ["--latency", str(latency), "--device", "phone", "--train", "25", "--json"]
        assert main(command) == 0
        without = json.loads(capsys.readouterr().out)
        path = tmp_path / "figure.svg"
        assert main([*command, "-o", str(path)]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer.pop("figure") == str(path)
        assert answer.keys() == without.keys()
        assert answer["rmspe"] == without["rmspe"]
        drawn = path.read_text()
        for text in ("phone, nasbench201", "fitted on 25", "tested on 55 others", "RMSPE, %"):
            assert text in drawn

    def test_what_is_odd_about_the_labels_is_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        labels = made_up_training(NB201, 60)
        cells = [[i, *code] for i, code in enumerate(labels.codes.tolist())]
        times = [[i, 2 + round(t)] for i, t in enumerate(4 * labels.latency_ms)]
        cells.append([99, *cells[0][1:]])
        times.append([99, 2 * times[0][1]])
        archs = write(tmp_path / "a.csv", ["arch_idx", *OPS], cells)
        latency = write(tmp_path / "l.csv", ["arch_idx", "phone"], times)
        command = ["evaluate", "--space", "nasbench201", "--archs", str(archs), "-d", "phone"]
        command += ["--latency", str(latency), "--train", "20"]
        assert main(command) == 0
        told = capsys.readouterr().err
        assert "a timer of 1 ms steps: each of the 61 latencies counts with 0.29 ms" in told
        assert (
            "1 architecture is listed more than once, with times that differ by up to 100%" in told
        )
        assert "20 samples are fewer than the 25 choices that nasbench201 has" in told

    @pytest.mark.parametrize("name", ["absent/figure.png", "figure.xyz"])
    def test_a_figure_that_cannot_be_is_one_line_at_once(
        self, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        # Before any file is read: these are not there.
        command = ["evaluate", "--space", "nasbench201", "--archs", "a.csv", "--latency", "l.csv"]
        command += ["--device", "phone", "--train", "25", "-o", str(tmp_path / name)]
        assert main(command) == EXIT_USAGE
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert name in said.err


@pytest.mark.parametrize(
    ("space", "files", "device", "least"),
    [
        ("nasbench201", "nb201_help", "gold_6240", 0.9),
        ("ofa_mbv3", "ofa_help", "v100_64", 0.98),
    ],
)
def test_real_tables(shared_data: Path, space: str, files: str, device: str, least: float) -> None:
    folder = shared_data / "latency"
    archs, latency = (folder / f"{files}_{what}.csv.gz" for what in ("archs", "latency"))
    table = read_published(space, archs, latency, device)
    found = evaluate_published(table, train=200)
    assert found.spearman is not None
    assert found.spearman > least
    assert np.isfinite(found.rmspe)
