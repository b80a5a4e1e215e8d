"""Models of one space tell each other what they feel of the machine, and how noisy they are."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest

from hwbench.measure.estimate import Estimate, Evidence, prior_sensitivity, undisturbed
from hwbench.measure.family import LEAST_MODELS, Family, learned
from tests.machines import LOG_U, Machine, U

#: What a profile makes: two bursts in each of three processes, of models far from their prior.
FEW = Machine(processes=3, bursts=2, beta=(0.7, 0.03))
PRIOR = prior_sensitivity(8_000_000, U)
MACHINES = {
    "noise": dataclasses.replace(FEW, burst_sd=0.03, process_sd=0.0),
    "processes differ": dataclasses.replace(FEW, burst_sd=0.02, process_sd=0.02),
    "a neighbour": dataclasses.replace(FEW, load=0.2),
    "quiet": dataclasses.replace(FEW, burst_sd=0.003, process_sd=0.002, beta=(1.0, 0.1)),
}


def drawn(machine: Machine, models: int, beta_sd: float = 0.03, seed: int = 0) -> list[Evidence]:
    """Bursts of models whose first sensitivity differs by so much."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(models):
        beta = (machine.beta[0] + beta_sd * rng.standard_normal(), machine.beta[1])
        bursts = dataclasses.replace(machine, beta=beta).draw(rng)
        found.append(dataclasses.replace(bursts, prior=PRIOR).evidence)
    return found


@dataclasses.dataclass(frozen=True)
class Answers:
    """Estimates of models whose truth is known."""

    estimates: list[Estimate]

    @property
    def errors(self) -> np.ndarray:
        return np.array([e.log_latency - LOG_U for e in self.estimates])

    @property
    def half_widths(self) -> np.ndarray:
        return np.array([e.half_width(0.95) for e in self.estimates])

    @property
    def held(self) -> float:
        return float(np.mean(np.abs(self.errors) <= self.half_widths))


@cache
def answers(name: str) -> tuple[Answers, Answers]:
    """Of 120 models, each by itself and as a family."""
    evidence = drawn(MACHINES[name], 120)
    family = learned(evidence)
    alone = [undisturbed(each) for each in evidence]
    return Answers(alone), Answers([undisturbed(family.of(each)) for each in evidence])


class TestOneSpace:
    @pytest.mark.parametrize(
        ("name", "most"),
        [("noise", 0.9), ("processes differ", 1.0), ("a neighbour", 0.9), ("quiet", 0.9)],
    )
    def test_intervals_are_narrower_and_hold(self, name: str, most: float) -> None:
        alone, family = answers(name)
        assert np.median(family.half_widths) < most * np.median(alone.half_widths)
        assert family.held >= 0.90
        assert family.errors.std() <= 1.05 * alone.errors.std()

    def test_what_all_feel_is_removed_from_each(self) -> None:
        alone, family = answers("a neighbour")
        assert abs(np.mean(alone.errors)) > 0.03
        assert abs(np.mean(family.errors)) < 0.012
        assert family.errors.std() < 0.5 * alone.errors.std()

    def test_the_sensitivity_is_found_far_from_the_prior(self) -> None:
        evidence = drawn(dataclasses.replace(FEW, load=0.2, burst_sd=0.005), 60)
        member = learned(evidence).of(evidence[0]).prior
        assert member.mean[0] == pytest.approx(0.7, abs=0.06)
        assert member.sd[0] < PRIOR.sd[0]

    def test_a_slow_change_of_the_machine_is_known_no_better(self) -> None:
        evidence = drawn(MACHINES["a neighbour"], 30)
        member = learned(evidence).of(evidence[0]).prior
        assert member.lasting_sd.tolist() == PRIOR.lasting_sd.tolist()

    def test_models_that_differ_keep_their_own(self) -> None:
        """They are known as well as their bursts tell, and no better for the others."""
        machine = dataclasses.replace(FEW, load=0.3, share=0.6, bursts=6, burst_sd=0.005)
        alike, apart = (learned(drawn(machine, 40, sd)).spread[0] for sd in (0.01, 0.4))
        assert apart > 3.0 > 0.5 > alike

    def test_the_noise_is_that_of_all(self) -> None:
        noise = learned(drawn(MACHINES["noise"], 60)).noise.even
        assert noise.sd == pytest.approx(0.03, rel=0.3)
        assert noise.weight > 8
        assert noise.group_share < 0.5
        apart = learned(drawn(MACHINES["processes differ"], 60)).noise.even
        assert apart.group_share > noise.group_share + 0.2


class TestLearned:
    def test_the_order_of_the_models_means_nothing(self) -> None:
        evidence = drawn(MACHINES["a neighbour"], LEAST_MODELS)
        one, other = learned(evidence), learned(evidence[::-1])
        assert one.offset == pytest.approx(other.offset)
        assert one.spread == pytest.approx(other.spread)
        assert one.noise.even.sd == pytest.approx(other.noise.even.sd)

    def test_bursts_that_were_never_disturbed_leave_the_prior(self) -> None:
        """There is nothing to learn a sensitivity from."""
        level = np.full(6, LOG_U)
        process = np.repeat(np.arange(3), 2)
        evidence = [Evidence(level, np.zeros((6, 3)), process, PRIOR)] * 20
        family = learned(evidence)
        assert isinstance(family, Family)
        assert family.offset == pytest.approx(np.zeros(3))
        assert undisturbed(family.of(evidence[0])).log_latency == pytest.approx(LOG_U)
