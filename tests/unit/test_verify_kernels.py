"""What the claim about kernels makes of its numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwbench.predictors.metrics import Metrics
from hwbench.verify import get_claim
from hwbench.verify.figures import kernels_figure
from hwbench.verify.kernels import FileResult, file_name, installed_files, summarise


def metrics(within_10: float, coverage_90: float, n: int = 20) -> Metrics:
    return Metrics(n, None, None, within_10 / 2, within_10, 5.0, coverage_90, 0.4)


def file(predicted_ms: float, measured_ms: float = 10.0) -> FileResult:
    return FileResult("a.onnx", predicted_ms, 9.0, 11.0, measured_ms, "ok")


GOOD = {"one": metrics(0.9, 0.9), "two": metrics(0.8, 0.9), "all": metrics(0.1, 0.1, 40)}


def test_families_count_alike_and_all_of_them_not_at_all() -> None:
    found = summarise({**GOOD, "large": metrics(0.7, 0.9, 2000)}, [])
    assert found["within_10"] == pytest.approx(0.8)
    assert found["coverage_90"] == pytest.approx(0.9)
    assert all(found["bars"].values())
    assert set(found["families"]) == {"one", "two", "large", "all"}


@pytest.mark.parametrize("coverage", [0.80, 0.99])
def test_intervals_that_hold_too_rarely_or_too_often_miss_their_bar(coverage: float) -> None:
    found = summarise({"one": metrics(0.9, coverage), "two": metrics(0.9, coverage)}, [])
    assert [*found["bars"].values()] == [True, False]


def test_files_have_bars_where_there_are_any() -> None:
    near, far = file(10.5), file(11.5)
    found = summarise(GOOD, [near] * 9 + [far])
    assert len(found["bars"]) == 4
    assert all(found["bars"].values())
    assert found["files_within_10"] == "9 of 10"
    assert [*summarise(GOOD, [near, far])["bars"].values()] == [True, True, False, True]
    assert [*summarise(GOOD, [file(10, 12)])["bars"].values()][2:] == [False, False]
    assert len(summarise(GOOD, [])["bars"]) == 2


def test_a_file_is_off_by_its_share_and_held_by_its_interval() -> None:
    assert file(11.0).error == pytest.approx(0.1)
    assert file(11.0).held
    assert not file(11.0, 11.01).held
    assert file(9.0, 10.0).row()["error_pct"] == -10.0


def test_the_files_of_others_are_found_in_their_packages() -> None:
    found = [path for path, _ in installed_files()]
    assert {path.suffix for path in found} == {".onnx"}
    assert all(path.is_file() for path in found)
    assert sum("light" in path.name for path in found) == 9  # those of onnx itself, always here


@pytest.mark.parametrize("files", [[], [file(10.5), file(12.0)]])
def test_the_figure_is_drawn(tmp_path: Path, files: list[FileResult]) -> None:
    kernels_figure(GOOD, files, tmp_path / "kernels.png")
    assert (tmp_path / "kernels.png").read_bytes().startswith(b"\x89PNG")


def test_it_is_in_the_ledger_by_its_name() -> None:
    assert get_claim("kernels").name == "kernels"


def test_a_file_called_model_has_the_name_of_its_folder() -> None:
    assert file_name(Path("zoo/standard_v3/model.onnx")) == "standard_v3.onnx"
    assert file_name(Path("zoo/light.onnx")) == "light.onnx"
