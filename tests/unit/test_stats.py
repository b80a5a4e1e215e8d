"""Percentiles: how few samples are too few, and how often the interval holds the truth."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hwbench.measure.stats import percentile

SMALLEST = [(50.0, 6), (90.0, 29), (95.0, 59), (99.0, 299), (99.9, 2995)]

quantiles = st.floats(1.0, 99.0)
times = st.lists(st.integers(1, 10**6), min_size=1, max_size=300)


@pytest.mark.parametrize(("q", "n"), SMALLEST)
def test_the_smallest_sample_is_answered_and_one_less_refused(q: float, n: int) -> None:
    ordered = np.arange(1, n + 1)
    found = percentile(ordered, q)
    assert found.q == q
    assert found.low_ns is not None
    assert found.high_ns is not None
    refused = percentile(ordered[:-1], q)
    assert (refused.value_ns, refused.low_ns, refused.high_ns) == (None, None, None)


def test_more_confidence_needs_more_samples() -> None:
    def least(confidence: float) -> int:
        return next(n for n in range(1, 99) if percentile(np.arange(n), 50, confidence).value_ns)

    # n where 2 / 2^n first falls to the error that is left.
    assert [least(c) for c in (0.5, 0.9, 0.95, 0.99, 0.999)] == [2, 5, 6, 8, 11]


@pytest.mark.parametrize("q", [0.0, 100.0])
def test_no_sample_is_large_enough_for_the_ends(q: float) -> None:
    assert percentile(np.arange(10_000), q).value_ns is None


def test_no_samples_are_refused() -> None:
    assert percentile(np.zeros(0, np.int64), 50).value_ns is None


@pytest.mark.parametrize(("q", "smallest"), SMALLEST)
def test_the_ranks_hold_the_percentile_as_often_as_they_say(q: float, smallest: int) -> None:
    """Exactly, by the binomial law: times 1 … n are their own ranks."""
    for n in [*range(smallest, smallest + 60), 2 * smallest, 5 * smallest, 5000]:
        found = percentile(np.arange(1, n + 1), q)
        assert found.low_ns is not None
        assert found.high_ns is not None
        low, high = int(found.low_ns), int(found.high_ns)
        below = stats.binom(n, q / 100)
        held = below.cdf(high - 1) - below.cdf(low - 1)
        assert held >= 0.95 - 1e-12, n
        # No rank is given away: either end one further in, and the interval would not hold.
        assert below.cdf(high - 1) - below.cdf(low) < 0.95 or below.cdf(low) > 0.025
        assert below.cdf(high - 2) - below.cdf(low - 1) < 0.95 or below.sf(high - 2) > 0.025


@pytest.mark.parametrize(("q", "n"), [(50, 40), (90, 60), (99, 400)])
def test_it_covers_skewed_times_of_a_coarse_clock(q: float, n: int) -> None:
    """By simulation, with ties: whole microseconds of a lognormal with a median of 20."""
    rng, rounds = np.random.default_rng(0), 1500
    truth = np.round(20 * np.exp(0.3 * stats.norm.ppf(q / 100)))
    drawn = np.round(20 * np.exp(0.3 * rng.standard_normal((rounds, n)))).astype(np.int64)
    found = [percentile(row, q) for row in drawn]
    held = np.mean([p.low_ns <= truth <= p.high_ns for p in found if p.low_ns and p.high_ns])
    assert len([p for p in found if p.value_ns]) == rounds
    assert held >= 0.94


@given(times, quantiles, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_is_made_of_samples_and_holds_the_value(
    sample: list[int], q: float, confidence: float
) -> None:
    found = percentile(np.array(sample), q, confidence)
    if found.value_ns is None:
        assert found.low_ns is None
        assert found.high_ns is None
        # Even from the first to the last sample it would hold too rarely.
        assert stats.binom(len(sample), q / 100).pmf([0, len(sample)]).sum() > 1 - confidence
        return
    assert found.low_ns in sample
    assert found.high_ns in sample
    assert found.low_ns <= found.value_ns <= found.high_ns


@given(times, quantiles, st.randoms(use_true_random=False))
def test_the_order_of_the_samples_means_nothing(
    sample: list[int], q: float, dice: random.Random
) -> None:
    shuffled = dice.sample(sample, len(sample))
    assert percentile(np.array(shuffled), q) == percentile(np.array(sample), q)


@given(times, quantiles, st.integers(1, 1000))
def test_the_unit_of_time_means_nothing(sample: list[int], q: float, unit: int) -> None:
    one, other = percentile(np.array(sample), q), percentile(np.array(sample) * unit, q)
    for a, b in zip(dataclasses.astuple(one)[1:], dataclasses.astuple(other)[1:], strict=True):
        assert b == (None if a is None else pytest.approx(a * unit))


@given(st.integers(6, 400), st.integers(1, 10**9))
def test_equal_samples_are_their_own_median(n: int, time: int) -> None:
    found = percentile(np.full(n, time), 50)
    assert (found.value_ns, found.low_ns, found.high_ns) == (time, time, time)


def test_the_samples_stay_as_they_were() -> None:
    sample = np.array([5, 3, 9, 1, 7, 2, 8])
    percentile(sample, 50)
    assert sample.tolist() == [5, 3, 9, 1, 7, 2, 8]
