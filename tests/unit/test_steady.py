"""The warm-up label: each on series that deserve it, and none that breaks it."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from hwbench.measure.steady import LEAST_RUNS, SAME_LEVEL, Label, classify

Times = NDArray[np.int64]

SEEDS = range(10)


def series(seed: int, *parts: tuple[int, float], noise: float = 0.01) -> Times:
    """Runs of 1 ms times a level: ``(runs, level)`` one part after the other."""
    rng = np.random.default_rng(seed)
    level = np.concatenate([np.full(runs, level) for runs, level in parts])
    return (1e6 * level * np.exp(noise * rng.standard_normal(level.size))).astype(np.int64)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("label", "parts"),
    [
        ("flat", [(60, 1.0)]),
        ("flat", [(30, 1.0), (30, 1.0 + SAME_LEVEL / 3)]),
        ("warm-up", [(1, 4.0), (40, 1.0)]),
        ("warm-up", [(10, 1.5), (40, 1.0)]),
        ("warm-up", [(5, 3.0), (10, 1.5), (30, 1.0)]),
        ("slowdown", [(20, 1.0), (40, 1.4)]),
        ("slowdown", [(3, 2.0), (15, 1.0), (40, 1.3)]),
        ("unsteady", [(40, 1.0), (15, 1.4)]),
        ("unsteady", [(40, 1.4), (15, 1.0)]),
        ("unsteady", [(12, 1.0), (12, 1.5)] * 3),
        ("unsteady", [(4, 1.05**step) for step in range(15)]),
    ],
)
def test_each_label_on_series_that_deserve_it(
    label: Label, parts: list[tuple[int, float]], seed: int
) -> None:
    assert classify(series(seed, *parts)) == label


@pytest.mark.parametrize("seed", SEEDS)
def test_lone_spikes_are_no_change_of_level(seed: int) -> None:
    times = series(seed, (60, 1.0))
    times[5::9] *= 8
    assert classify(times) == "flat"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_noisy_series_is_not_cut_into_levels(seed: int) -> None:
    assert classify(series(seed, (60, 1.0), noise=0.1)) == "flat"


def test_a_few_runs_say_nothing() -> None:
    times = series(0, (1, 4.0), (LEAST_RUNS - 1, 1.0))
    assert classify(times[:-1]) == "too short"
    assert classify(times[:0]) == "too short"
    assert classify(times) == "warm-up"


@given(hnp.arrays(np.int64, st.integers(0, 80)))
def test_any_numbers_get_a_label(times: Times) -> None:
    label = classify(times)
    assert label in get_args(Label)
    assert (label == "too short") == (times.size < LEAST_RUNS)


@given(st.integers(1, 10**12), st.integers(LEAST_RUNS, 80))
def test_a_constant_is_flat(time: int, runs: int) -> None:
    assert classify(np.full(runs, time)) == "flat"


@given(
    st.lists(st.integers(10**3, 10**6), min_size=LEAST_RUNS, max_size=60), st.sampled_from([10, 64])
)
def test_the_unit_of_time_means_nothing(times: list[int], unit: int) -> None:
    assert classify(np.array(times) * unit) == classify(np.array(times))
