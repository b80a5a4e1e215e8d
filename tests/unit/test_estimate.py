"""The estimator on simulated bursts: it holds what it promises, and is moved by little.

All data are drawn with fixed seeds; the truth is a latency of ``U`` ns.
"""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.measure.estimate import (
    Evidence,
    prior_sensitivity,
    undisturbed,
)
from tests.machines import LOG_U, PRIOR, READING_NOISE, Bursts, K, Machine, U, quiet


@cache
def limit(machine: Machine) -> float:
    """What the estimate comes to with ever more processes, less the truth (log)."""
    rng, many = np.random.default_rng(99), dataclasses.replace(machine, processes=150)
    return float(np.mean([many.draw(rng).error() for _ in range(2)]))


class TestCoverage:
    """Of the nominal 95 % interval, on 150 draws of a machine.

    Judged against what the estimate comes to with ever more processes: its interval is about
    chance. How far that lies from the true level is the next test's matter.
    """

    @pytest.mark.parametrize(
        ("machine", "least", "widest"),
        [
            (Machine(), 0.90, 1.0),
            (Machine(noise="lognormal"), 0.85, 0.7),
            (Machine(noise="two modes"), 0.86, 0.8),
            (Machine(noise="delays", burst_sd=0.003), 0.90, 0.6),
            (Machine(noise="autocorrelated"), 0.85, 1.0),
            (Machine(process_sd=0.02), 0.86, 2.5),
            (Machine(processes=3), 0.90, 2.0),
            (Machine(processes=2, bursts=4), 0.90, 3.0),
            (Machine(load=0.1), 0.92, 3.0),
            (Machine(load=0.5), 0.92, 3.0),
            (Machine(load=0.3, beta=(0.9, 0.3)), 0.92, 3.0),
            (Machine(load=0.3, beta=(1.05, 0.0)), 0.92, 3.0),
            (Machine(load=0.3, share=1.0, beta=(1.05, 0.1)), 0.92, 12.0),
        ],
        ids=str,
    )
    def test_chance_is_in_the_interval(self, machine: Machine, least: float, widest: float) -> None:
        rng, centre = np.random.default_rng(0), LOG_U + limit(machine)
        found = [machine.draw(rng).estimate() for _ in range(150)]
        half = np.array([e.half_width(0.95) for e in found])
        held = np.abs([e.log_latency - centre for e in found]) <= half
        assert np.mean(held) >= least
        assert 100 * np.mean(half) <= widest

    @pytest.mark.parametrize(
        ("machine", "most"),
        [
            (Machine(burst_sd=0.004), 0.003),
            (Machine(noise="lognormal"), 0.003),
            (Machine(noise="two modes"), 0.003),
            (Machine(noise="two modes", burst_sd=0.02), 0.006),
            (Machine(noise="delays", burst_sd=0.003), 0.003),
            (Machine(load=0.3, burst_sd=0.004), 0.007),
            (Machine(load=0.3, burst_sd=0.004, beta=(0.9, 0.3)), 0.007),
        ],
        ids=str,
    )
    def test_the_level_is_the_one_without_delays(self, machine: Machine, most: float) -> None:
        """Noise that leans to neither side is taken for delays in part, and must be small here."""
        assert abs(limit(machine)) < most


class TestDelays:
    """Neighbours that the canaries beside a burst did not see."""

    def test_few_bursts_of_which_a_third_met_one(self) -> None:
        machine = Machine(noise="delays", burst_sd=0.003, processes=6, bursts=2)
        errors = [machine.draw(np.random.default_rng(seed)).error() for seed in range(60)]
        assert np.median(np.abs(errors)) < 0.003
        assert np.quantile(np.abs(errors), 0.95) < 0.01

    def test_a_process_that_was_delayed_throughout_says_next_to_nothing(self) -> None:
        drawn = quiet(np.random.default_rng(0))
        spoilt = dataclasses.replace(
            drawn, log_time=drawn.log_time + np.where(drawn.process == 3, 0.12, 0.0)
        )
        assert abs(spoilt.error() - drawn.error()) < 0.002
        assert spoilt.estimate().half_width(0.95) < 1.5 * drawn.estimate().half_width(0.95)

    @pytest.mark.parametrize(("processes", "bursts"), [(3, 1), (5, 1), (10, 1), (3, 2), (8, 10)])
    def test_even_noise_is_not_taken_for_delays(self, processes: int, bursts: int) -> None:
        """One burst a process is what a phone's launches are."""
        machine = Machine(burst_sd=0.01, process_sd=0.002, processes=processes, bursts=bursts)
        drawn = [machine.draw(np.random.default_rng(seed)) for seed in range(200)]
        found = [bursts.estimate() for bursts in drawn]
        errors = np.array([e.log_latency - LOG_U for e in found])
        assert abs(np.mean(errors)) < 0.0025
        held = np.abs(errors) <= [e.half_width(0.95) for e in found]
        assert np.mean(held) >= 0.85


class TestUndisturbed:
    def test_exact_data_give_the_plain_level(self) -> None:
        found = undisturbed(
            Evidence(np.full(20, LOG_U), np.zeros((20, K)), np.arange(20) % 4, PRIOR)
        )
        assert found.log_latency == pytest.approx(LOG_U, abs=1e-9)
        low, high = found.interval_ns(0.95)
        assert U * 0.99 < low < U < high < U * 1.01

    def test_noise_of_the_canaries_alone_moves_nothing(self) -> None:
        rng = np.random.default_rng(0)
        state = 0.02 * rng.standard_normal((80, K))
        noisy = Bursts(np.full(80, LOG_U), state, np.repeat(np.arange(8), 10), np.full(K, 0.02))
        assert abs(noisy.error()) < 0.003

    def test_quiet_data_give_the_level(self) -> None:
        errors = [quiet(np.random.default_rng(seed)).error() for seed in range(20)]
        assert np.abs(errors).max() < 0.005
        assert np.median(np.abs(errors)) < 0.003

    def test_two_bursts_are_the_least(self) -> None:
        two = undisturbed(
            Evidence(np.array([LOG_U, LOG_U + 0.01]), np.zeros((2, K)), np.array([0, 1]), PRIOR)
        )
        assert LOG_U <= two.log_latency <= LOG_U + 0.01
        with pytest.raises(ValueError, match="at least two bursts"):
            Evidence(np.array([LOG_U]), np.zeros((1, K)), np.array([0]), PRIOR)

    def test_one_process_is_enough_for_a_wide_answer(self) -> None:
        one = quiet(np.random.default_rng(0), processes=1).estimate()
        many = quiet(np.random.default_rng(0), processes=8).estimate()
        assert one.half_width(0.95) > 2 * many.half_width(0.95)

    def test_more_processes_make_it_narrower(self) -> None:
        def width(processes: int) -> float:
            draws = (quiet(np.random.default_rng(s), processes) for s in range(10))
            return float(np.mean([d.estimate().half_width(0.95) for d in draws]))

        widths = [width(p) for p in (2, 4, 8, 16)]
        assert widths == sorted(widths, reverse=True)
        assert widths[-1] < 0.3 * widths[0]


class TestNeighbours:
    def test_one_that_the_canaries_saw_all_the_time_is_removed(self) -> None:
        """No burst was quiet: only the canaries can tell."""
        machine = Machine(load=0.3, share=1.0, burst_sd=0.005)
        for seed in range(10):
            bursts = machine.draw(np.random.default_rng(seed))
            assert np.median(bursts.log_time) > LOG_U + 0.15
            assert abs(bursts.error()) < 0.015

    @pytest.mark.parametrize(
        ("beta", "footprint"),
        [((0.6, 0.0), 1e6), ((1.0, 0.05), 1e6), ((1.0, 0.2), 1e6), ((1.3, 0.5), 4e6)],
    )
    def test_where_some_bursts_were_quiet_they_decide(
        self, beta: tuple[float, float], footprint: int
    ) -> None:
        """Whatever the model's sensitivity to the neighbour, far from its prior."""
        machine = Machine(load=0.4, share=0.6, beta=beta, burst_sd=0.005)
        for seed in range(10):
            drawn = machine.draw(np.random.default_rng(seed))
            bursts = dataclasses.replace(drawn, prior=prior_sensitivity(footprint, U))
            assert np.mean(bursts.log_time) > LOG_U + 0.05
            assert abs(bursts.error()) < 0.015

    def test_bursts_far_from_the_canonical_state_widen_the_interval(self) -> None:
        bursts = quiet(np.random.default_rng(0))
        widths = []
        for away in (0.0, 0.05, 0.1, 0.2, 0.4, 0.8):
            shift = np.full(K, away)
            moved = Bursts(
                bursts.log_time + shift @ PRIOR.mean,
                bursts.state + shift,
                bursts.process,
                bursts.noise_sd,
            )
            estimate = moved.estimate()
            widths.append(estimate.half_width(0.95))
            assert abs(estimate.log_latency - LOG_U) < widths[-1] + 0.003
        assert widths == sorted(widths)
        assert widths[0] < 0.01
        assert widths[-1] > 0.05

    def test_a_slow_clock_that_all_bursts_shared_is_removed_despite_noisy_canaries(self) -> None:
        """A plain regression would find no sensitivity in the noise, and keep the 4 %."""
        rng = np.random.default_rng(0)
        drift = np.repeat(rng.uniform(0.02, 0.06, 8), 10)
        state = drift[:, None] + 0.02 * rng.standard_normal((80, K))
        log_time = LOG_U + PRIOR.mean.sum() * drift + 0.003 * rng.standard_normal(80)
        slow = Bursts(log_time, state, np.repeat(np.arange(8), 10), np.full(K, 0.02))
        assert np.median(log_time) > LOG_U + 0.03
        assert abs(slow.error()) < 0.01

    def test_the_uncertainty_of_the_canonical_times_is_added(self) -> None:
        bursts = quiet(np.random.default_rng(0))
        plain, state_se = bursts.estimate(), np.linspace(0.01, 0.02, K)
        anchored = undisturbed(
            Evidence(
                bursts.log_time,
                bursts.state,
                bursts.process,
                PRIOR,
                noise_sd=bursts.noise_sd,
                state_se=state_se,
            )
        )
        added = (anchored.beta * state_se) ** 2
        assert anchored.log_latency == plain.log_latency
        assert anchored.se**2 == pytest.approx(plain.se**2 + added.sum())


class TestPrior:
    """What a model's footprint and pace say of its sensitivity to memory and shared cache."""

    MEGABYTES = (0, 1, 4, 10, 1000)

    @pytest.mark.parametrize(("kind", "most"), [(1, 0.5), (2, 0.7)])
    def test_the_larger_the_footprint_the_more_is_felt_up_to_a_limit(
        self, kind: int, most: float
    ) -> None:
        means = [prior_sensitivity(int(mb * 1e6), 1e6).mean[kind] for mb in self.MEGABYTES]
        assert means[0] == 0
        assert means == sorted(set(means))
        assert prior_sensitivity(10**10, 1e6).mean[kind] == means[-1] < most

    def test_what_goes_through_its_memory_faster_feels_the_cache_more(self) -> None:
        means = [prior_sensitivity(40_000_000, ms * 1e6).mean for ms in (100, 10, 3, 1, 0.1)]
        assert [m[2] for m in means] == sorted(m[2] for m in means)
        assert means[0][2] < 0.3 * means[-1][2]
        assert len({m[1] for m in means}) == 1

    @pytest.mark.parametrize("kind", [1, 2])
    def test_a_prior_that_says_more_is_less_sure(self, kind: int) -> None:
        small, large = prior_sensitivity(100_000, U), prior_sensitivity(30_000_000, U)
        assert large.sd[kind] > 3 * small.sd[kind]
        assert large.wander[kind] > small.wander[kind]
        assert small.mean[0] == large.mean[0] == 1

    def test_an_unknown_footprint_is_taken_for_a_middling_one(self) -> None:
        unknown, small = prior_sensitivity(None, U), prior_sensitivity(1_000_000, U)
        assert (small.mean[1:] < unknown.mean[1:]).all()
        assert (unknown.sd[1:] > small.sd[1:]).all()


class TestRobustness:
    @pytest.mark.parametrize("seed", range(5))
    def test_delays_that_no_canary_saw_move_it_little(self, seed: int) -> None:
        """A fifth of the bursts take up to three times as long: less than one per cent."""
        rng = np.random.default_rng(seed)
        bursts = quiet(rng)
        hit = rng.random(80) < 0.2
        delayed = bursts.log_time + hit * rng.uniform(0.1, np.log(3), 80)
        found = dataclasses.replace(bursts, log_time=delayed).estimate()
        assert abs(found.log_latency - bursts.estimate().log_latency) < 0.008
        assert np.mean(delayed) > LOG_U + 0.05

    @pytest.mark.parametrize("by", [0.05, 0.2, 1.0])
    @pytest.mark.parametrize("seed", range(3))
    def test_a_process_that_was_slow_throughout_counts_less(self, by: float, seed: int) -> None:
        """Than it would in a mean over the eight; and the interval owns up to it."""
        bursts = quiet(np.random.default_rng(seed))
        slow = bursts.log_time + by * (bursts.process == 3)
        found = dataclasses.replace(bursts, log_time=slow).estimate()
        plain = bursts.estimate()
        assert -0.002 < found.log_latency - plain.log_latency < 0.8 * by / 8
        half = found.half_width(0.95)
        assert half > plain.half_width(0.95)
        assert abs(found.log_latency - LOG_U) < half

    def test_a_model_in_two_layouts_takes_their_mean_whatever_their_shares(self) -> None:
        """Of each process's bursts 9 met a copy of the model that is 4 % slower than the other."""
        rng = np.random.default_rng(0)
        layout = np.tile([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1], 8)
        process = np.repeat(np.arange(8), 12)
        log_time = LOG_U + 0.04 * (layout == 0) + 0.003 * rng.standard_normal(96)
        found = undisturbed(Evidence(log_time, np.zeros((96, K)), process, PRIOR, layout=layout))
        assert found.log_latency == pytest.approx(LOG_U + 0.02, abs=0.006)


class TestInvariance:
    @given(st.integers(0, 2**32 - 1), st.permutations(range(24)))
    def test_the_order_of_the_bursts_means_nothing(self, seed: int, order: list[int]) -> None:
        bursts = Machine(processes=4, bursts=6, load=0.1).draw(np.random.default_rng(seed))
        one, other = (
            undisturbed(
                Evidence(bursts.log_time[rows], bursts.state[rows], bursts.process[rows], PRIOR)
            )
            for rows in (np.arange(24), order)
        )
        assert other.log_latency == pytest.approx(one.log_latency, abs=1e-9)
        assert other.se == pytest.approx(one.se, rel=1e-6)
        assert other.beta == pytest.approx(one.beta, abs=1e-9)

    @given(st.integers(0, 2**32 - 1), st.permutations(range(4)))
    def test_the_names_of_the_processes_mean_nothing(self, seed: int, names: list[int]) -> None:
        bursts = Machine(processes=4, bursts=6, load=0.1).draw(np.random.default_rng(seed))
        renamed = Bursts(
            bursts.log_time, bursts.state, 7 * np.array(names)[bursts.process], READING_NOISE
        )
        one, other = bursts.estimate(), renamed.estimate()
        assert other.log_latency == pytest.approx(one.log_latency, abs=1e-9)
        assert other.se == pytest.approx(one.se, rel=1e-6)

    @given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
    def test_the_unit_of_time_means_nothing(self, seed: int, unit: float) -> None:
        bursts = Machine(processes=4, bursts=6, load=0.1).draw(np.random.default_rng(seed))
        scaled = Bursts(bursts.log_time + np.log(unit), bursts.state, bursts.process, READING_NOISE)
        one, other = bursts.estimate(), scaled.estimate()
        assert other.log_latency - np.log(unit) == pytest.approx(one.log_latency, abs=1e-7)
        assert other.interval_ns(0.95) == pytest.approx(
            [unit * end for end in one.interval_ns(0.95)], rel=1e-6
        )

    @given(
        seed=st.integers(0, 2**32 - 1),
        count=st.integers(2, 30),
        processes=st.integers(1, 5),
        spread=st.floats(0, 3),
        away=st.floats(-1, 5),
    )
    def test_any_bursts_get_a_finite_answer(
        self, seed: int, count: int, processes: int, spread: float, away: float
    ) -> None:
        rng = np.random.default_rng(seed)
        log_time = LOG_U + spread * rng.standard_normal(count)
        state = away + spread * rng.standard_normal((count, K))
        bursts = Bursts(log_time, state, rng.integers(0, processes, count), READING_NOISE)
        found = bursts.estimate()
        assert np.isfinite(found.log_latency)
        assert 0 < found.se < np.inf
        low, high = found.interval_ns(0.95)
        assert 0 < low < high
        assert found.half_width(0.99) > found.half_width(0.95) > found.half_width(0.5) > 0
