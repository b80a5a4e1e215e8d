"""A predictor's figure, and the figures that it shows: errors by latency, coverage, cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hwbench.errors import UsageError
from hwbench.predictors import (
    LatencyPredictor,
    Provenance,
    TrainingSet,
    evaluate,
    fit_predictor,
    training_set,
)
from hwbench.predictors.diagnostics import (
    LearningPoint,
    coverage,
    errors_by_latency,
    learning_curve,
    sizes_below,
)
from hwbench.spaces import get_space
from hwbench.testing.predictors import made_up_training
from hwbench.watch.predictor_figure import Shown, draw_predictor, require_writable

SPACE = get_space("nasbench201")


@pytest.fixture(scope="module")
def labels() -> TrainingSet:
    return made_up_training(SPACE, 120)


@pytest.fixture(scope="module")
def test_rows(labels: TrainingSet) -> TrainingSet:
    return labels[np.arange(60, 120)]


@pytest.fixture(scope="module")
def predictor(labels: TrainingSet) -> LatencyPredictor:
    nowhere = Provenance("phone", "", "", 1)
    return fit_predictor(SPACE, labels[np.arange(60)], nowhere, kind="macs-line")


class TestErrorsByLatency:
    def test_each_bin_has_its_own_errors(self) -> None:
        whole = np.repeat(np.arange(1.0, 11.0), 20)
        measured = whole + np.tile(np.linspace(0, 0.5, 20), 10)
        found = errors_by_latency(measured, measured * (1 + whole / 100))
        assert found.median == pytest.approx(np.arange(1, 11) / 100)
        assert found.edges_ms == pytest.approx([*range(1, 11), 10.5])

    @given(st.lists(st.integers(1, 12), min_size=2, max_size=120), st.integers(0, 2**32 - 1))
    def test_equal_latencies_leave_no_bin_empty(self, whole_ms: list[int], seed: int) -> None:
        measured = np.array(whole_ms, dtype=np.float64)
        errors = np.random.default_rng(seed).normal(0, 0.1, len(measured))
        found = errors_by_latency(measured, measured * (1 + errors))
        assert len(found.edges_ms) == len(found.median) + 1
        assert len(found.median) <= min(10, len(measured))
        assert (found.edges_ms[0], found.edges_ms[-1]) == (measured.min(), measured.max())
        assert (np.diff(found.edges_ms[:-1]) > 0).all()
        assert (found.low <= found.median).all()
        assert (found.median <= found.high).all()
        assert found.low.min() >= errors.min() - 1e-9
        assert found.high.max() <= errors.max() + 1e-9


def test_coverage_at_90_is_that_of_the_metrics(
    predictor: LatencyPredictor, test_rows: TrainingSet
) -> None:
    found = coverage(predictor, test_rows, [0.5, 0.9])
    metrics = evaluate(predictor, test_rows)
    assert found.held[1] == pytest.approx(metrics.coverage_90)
    assert found.width[1] == pytest.approx(metrics.width_90)
    assert found.held[0] <= found.held[1]
    assert found.width[0] < found.width[1]


class TestLearningCurve:
    @pytest.mark.parametrize(
        ("n", "sizes"),
        [(5, []), (10, []), (11, [10]), (100, [10, 20, 50]), (900, [10, 20, 50, 100, 200, 500])],
    )
    def test_sizes(self, n: int, sizes: list[int]) -> None:
        assert sizes_below(n) == sizes

    def test_a_point_is_a_fit_on_the_first_rows(
        self, labels: TrainingSet, test_rows: TrainingSet, predictor: LatencyPredictor
    ) -> None:
        spent = np.arange(120.0)
        curve = learning_curve(
            SPACE, labels, test_rows, [10, 60], kind="macs-line", label_seconds=spent
        )
        assert [point.samples for point in curve] == [10, 60]
        assert [point.measure_seconds for point in curve] == [spent[:10].sum(), spent[:60].sum()]
        assert curve[1].metrics == evaluate(predictor, test_rows)
        assert all(point.fit_seconds > 0 for point in curve)

    def test_equal_readings_of_a_coarse_timer_have_no_point(
        self, labels: TrainingSet, test_rows: TrainingSet
    ) -> None:
        coarse = np.where(np.arange(120) < 10, 3.0, labels.latency_ms)
        stuck = replace(labels, latency_ms=coarse)
        curve = learning_curve(SPACE, stuck, test_rows, [10, 20], kind="macs-line")
        assert [point.samples for point in curve] == [20]


class TestFigure:
    def points(self, predictor: LatencyPredictor, test: TrainingSet) -> list[LearningPoint]:
        found = evaluate(predictor, test)
        return [LearningPoint(10, found, 0.5, 12.0), LearningPoint(60, found, 1.5, 70.0)]

    @pytest.mark.parametrize("spread", [1.0, 40.0], ids=["linear", "logarithmic"])
    def test_four_panels_on_one_page(
        self, predictor: LatencyPredictor, test_rows: TrainingSet, tmp_path: Path, spread: float
    ) -> None:
        wide = test_rows.latency_ms * np.linspace(1, spread, len(test_rows))
        test = replace(test_rows, latency_ms=wide)
        path = tmp_path / "figure.png"
        # A device may be called anything, TeX's own characters included.
        curve = self.points(predictor, test)
        draw_predictor(Shown(r"$\frac{ phone_1", predictor, test, curve), path)
        with Image.open(path) as image:
            assert image.format == "PNG"
            wide_px, high_px = image.size
            assert wide_px / high_px == pytest.approx(10 / 8, abs=0.01)
            # White paper, black text, and not a blank panel among the four.
            grey = np.asarray(image.convert("L"))
        assert (grey == 255).mean() > 0.5
        for rows in np.array_split(grey, 2):
            for panel in np.array_split(rows, 2, axis=1):
                assert (panel < 128).mean() > 0.005

    @pytest.mark.parametrize("count", [2, 12])
    def test_few_measurements_and_no_curve(
        self, predictor: LatencyPredictor, test_rows: TrainingSet, tmp_path: Path, count: int
    ) -> None:
        path = tmp_path / "few.svg"
        few = test_rows[np.arange(count)]
        draw_predictor(Shown("cpu", predictor, few, no_curve="no labels"), path)
        text = path.read_text()
        assert "no labels" in text
        assert f"tested on {count} others" in text

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("figure.xyz", "ends in .jpg, .pdf, .png, .svg or .webp"),
            ("figure", "ends in"),
            ("absent/figure.png", "there is no folder"),
        ],
    )
    def test_where_no_figure_can_be_written(self, tmp_path: Path, name: str, words: str) -> None:
        with pytest.raises(UsageError, match=words) as caught:
            require_writable(tmp_path / name)
        assert "\n" not in str(caught.value)

    def test_the_other_kinds_that_are_named_can_be_written(
        self, predictor: LatencyPredictor, test_rows: TrainingSet, tmp_path: Path
    ) -> None:
        for ending in ("jpg", "pdf", "webp"):
            path = tmp_path / f"figure.{ending}"
            draw_predictor(Shown("cpu", predictor, test_rows, no_curve="none"), path)
            assert path.stat().st_size > 5000


def test_predictions_that_are_not_positive_are_shown_on_a_plain_scale(
    labels: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A family of somebody's own may fall below zero, as a line without an end; a logarithm not."""
    monkeypatch.setattr("hwbench.predictors.baselines._FLOOR", -np.inf)
    falling = training_set(SPACE, labels.codes[:60], 1e3 / SPACE.macs(labels.codes[:60]))
    predictor = fit_predictor(SPACE, falling, Provenance("x", "", "", 1), kind="macs-line")
    assert (predictor.predict(labels.codes[60:]).mean_ms <= 0).any()
    path = tmp_path / "figure.png"
    draw_predictor(Shown("cpu", predictor, labels[np.arange(60, 120)], no_curve=""), path)
    assert path.exists()
