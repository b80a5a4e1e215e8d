"""Levels combined: what is known of how they differ, and what a strange one counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.measure.combine import FAR, combine

LEVELS = st.lists(st.floats(-1, 1), min_size=1, max_size=12).map(np.array)


@given(LEVELS, st.floats(-10, 10), st.floats(1e-4, 1))
def test_it_moves_with_its_levels_and_mirrors_them(
    value: np.ndarray, by: float, prior_sd: float
) -> None:
    noise = np.full(value.shape, 1e-4)
    found = combine(value, noise, prior_sd, 2.0)
    for other, expected in [(value + by, found.mean(value) + by), (-value, -found.mean(value))]:
        again = combine(other, noise, prior_sd, 2.0)
        assert again.mean(other) == pytest.approx(expected, abs=1e-9)
        assert again.between_sd == pytest.approx(found.between_sd, rel=1e-6)
        assert again.dof == pytest.approx(found.dof, rel=1e-6)


def test_of_many_levels_the_variance_between_them_is_what_it_was_made_with() -> None:
    rng = np.random.default_rng(0)
    value, noise = rng.normal(0, 0.02, 2000), np.full(2000, 0.01**2)
    found = combine(value + rng.normal(0, 0.01, 2000), noise, 0.005, 2.0)
    assert found.between_sd == pytest.approx(0.02, rel=0.06)
    assert found.variance == pytest.approx((0.02**2 + 0.01**2) / 2000, rel=0.15)


@pytest.mark.parametrize("count", [3, 5, 8])
def test_of_few_levels_it_is_in_the_mean_too(count: int) -> None:
    """That their centre is not known either makes them look closer than they are."""
    rng = np.random.default_rng(count)
    drawn = rng.normal(0, 1, (400, count))
    found = [combine(value, np.full(count, 1e-6), 1.0, 2.0).between_sd ** 2 for value in drawn]
    assert np.mean(found) == pytest.approx(1.0, abs=0.1)


def test_a_prior_that_is_contradicted_is_known_less_well() -> None:
    value, noise = np.linspace(-1, 1, 8), np.full(8, 1e-6)
    as_likely = combine(value, noise, 0.7, 2.0)
    contradicted = combine(value, noise, 0.07, 2.0)
    assert contradicted.between_sd > 0.95 * as_likely.between_sd
    assert 7 < contradicted.dof < 7.1
    assert as_likely.dof > 8.9
    # Levels that lie closer than was likely may do so by chance: the prior stands.
    closer = combine(value / 100, noise, 0.7, 2.0)
    assert closer.dof == pytest.approx(2 + 8 - 1)
    assert closer.between_sd > 0.3


@given(st.floats(0.1, 100))
def test_one_level_far_off_moves_it_by_no_more_than_its_share_of_a_mean(far: float) -> None:
    value = np.array([-0.01, 0.0, 0.01, -0.005, 0.005, 0.002, -0.002, far])
    found = combine(value, np.full(8, 1e-5), 0.005, 2.0)
    assert 0 <= found.mean(value) < 0.8 * far / 8
    off = (far - found.mean(value)) / np.hypot(found.between_sd, 1e-5**0.5)
    assert off > FAR
    assert found.precision[-1] / found.precision[0] == pytest.approx(FAR / off, rel=0.02)
