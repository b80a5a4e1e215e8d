"""Bounds hold as often as they say, whatever the errors are like, and metrics are what they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hwbench.errors import PredictorError, UsageError
from hwbench.predictors.calibration import Calibration
from hwbench.predictors.metrics import metrics

ERRORS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "outliers": lambda rng, shape: rng.standard_t(1.5, shape),
    "lopsided": lambda rng, shape: rng.lognormal(0, 1, shape),
    "off": lambda rng, shape: 3 + 0.1 * rng.standard_normal(shape),
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize(("n", "level"), [(300, 0.98), (100, 0.9), (60, 0.5), (300, 0.02)])
def test_a_new_error_stays_below_the_bound_as_often_as_promised(
    kind: str, n: int, level: float
) -> None:
    rng = np.random.default_rng(0)
    errors, new = ERRORS[kind](rng, (600, n)), ERRORS[kind](rng, (600, 50))
    bounds = [Calibration(np.sort(row)).quantile(level) for row in errors]
    held = np.mean(new <= np.array(bounds)[:, None])
    # A rank among n is in steps of 1 / (n + 1); upper bounds err upwards, lower ones downwards.
    outwards = 1 if level >= 0.5 else -1
    assert -0.005 <= outwards * (held - level) <= 1 / (n + 1) + 0.006


def test_beyond_the_sample_it_widens_by_students_t() -> None:
    rng = np.random.default_rng(1)
    held = []
    for _ in range(3000):
        errors = np.sort(rng.standard_normal(8))
        held.append(rng.standard_normal() <= Calibration(errors).quantile(0.98))
    assert 0.97 <= np.mean(held) <= 0.995


@given(
    hnp.arrays(np.float64, st.integers(2, 40), elements=st.floats(-1e3, 1e3)),
    st.floats(0.001, 0.999),
    st.floats(0.001, 0.999),
)
def test_bounds_rise_with_the_level(errors: np.ndarray, one: float, other: float) -> None:
    calibration = Calibration(np.sort(errors))
    low, high = sorted((one, other))
    assert calibration.quantile(low) <= calibration.quantile(high)


@pytest.mark.parametrize("n", [5, 49, 50, 400])
def test_a_confidence_next_to_1_still_has_an_end(n: int) -> None:
    calibration = Calibration(np.sort(np.random.default_rng(n).standard_normal(n)))
    near = [1 - 10.0**-k for k in range(2, 16)]
    bounds = np.array([calibration.quantile(level) for level in near])
    assert np.isfinite(bounds).all()
    assert (np.diff(bounds) > 0).sum() >= len(near) - 3
    assert np.isfinite([calibration.quantile(10.0**-k) for k in range(2, 16)]).all()


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1.5, float("nan"), 1e-17])
def test_a_confidence_that_is_none_is_refused(level: float) -> None:
    with pytest.raises(UsageError, match="not between 0 and 1"):
        Calibration(np.array([-1.0, 1.0])).quantile(level)


@pytest.mark.parametrize(
    "errors", [np.array([2.0, 1.0]), np.ones((2, 2)), np.array([1.0]), np.array([1, 2])]
)
def test_a_calibration_that_is_none_is_not_restored(errors: np.ndarray) -> None:
    with pytest.raises(ValueError, match="calibration"):
        Calibration.restored(errors)


def test_metrics_of_four_predictions_by_hand() -> None:
    measured = np.array([10.0, 20.0, 30.0, 40.0])
    predicted = np.array([10.4, 17.8, 33.6, 40.0])
    found = metrics(measured, predicted, predicted - 2.3, predicted + 2.3)
    assert (found.n, found.spearman, found.kendall) == (4, pytest.approx(1), pytest.approx(1))
    assert (found.within_5, found.within_10) == (0.5, 0.5)  # 4, 11, 12 and 0 % off
    assert found.rmspe == pytest.approx(100 * np.sqrt((0.04**2 + 0.11**2 + 0.12**2) / 4))
    assert found.coverage_90 == 0.75
    assert found.width_90 == pytest.approx(np.mean(4.6 / predicted))


def test_equal_predictions_have_no_rank() -> None:
    found = metrics(np.array([1.0, 2.0, 3.0]), np.full(3, 2.0), np.zeros(3), np.full(3, 4.0))
    assert (found.spearman, found.kendall) == (None, None)


def test_one_architecture_is_no_test() -> None:
    with pytest.raises(PredictorError, match="needs at least 2"):
        metrics(np.ones(1), np.ones(1), np.ones(1), np.ones(1))
