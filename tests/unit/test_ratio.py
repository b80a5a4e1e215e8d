"""The ratio of two models from made-up pairs: its interval holds, and is no wider than it must."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy import stats

from hwbench.watch import ratio as ratio_module
from hwbench.watch.pairs import Pairs, pairs_of
from hwbench.watch.ratio import Ratio, undisturbed_ratio
from tests.paired import KINDS, side_by_side

TRUTH = math.log(1.02)


def pairs(seed: int = 0, ratio: float = 1.02, **machine: Any) -> Pairs:
    return pairs_of(*side_by_side(ratio, seed=seed, **machine), KINDS, anchors=True)


def held(found: Ratio, truth: float = TRUTH) -> bool:
    return abs(found.log_ratio - truth) <= float(stats.t.ppf(0.975, found.dof)) * found.se


class TestCopies:
    LUCKY: ClassVar[dict[str, Any]] = {
        "processes": 3,
        "rounds": 24,
        "copies": 8,
        "copy_sd": 0.03,
        "walk": 0.0,
    }

    def test_intervals_hold_where_each_copy_has_a_luck_of_its_own(self) -> None:
        found = [undisturbed_ratio(pairs(seed, **self.LUCKY)) for seed in range(100)]
        assert np.mean([held(each) for each in found]) >= 0.9

    def test_bursts_of_one_copy_are_not_taken_for_so_many_copies(self) -> None:
        """The error is that of 24 copies of each, not of 72 pairs."""
        found = [undisturbed_ratio(pairs(seed, **self.LUCKY)) for seed in range(40)]
        by_copies = 0.03 * math.sqrt(2 / 24)
        assert np.median([each.se for each in found]) >= by_copies

    def test_more_copies_know_more(self) -> None:
        few, many = (
            np.median([undisturbed_ratio(pairs(seed, **machine)).se for seed in range(20)])
            for machine in ({**self.LUCKY, "copies": 2}, {**self.LUCKY, "copies": 12})
        )
        assert many < 0.7 * few

    def test_labels_do_not_matter(self) -> None:
        one = pairs(**self.LUCKY)
        other = dataclasses.replace(one, copy=one.copy * 7 + 3, process=one.process + 5)
        assert undisturbed_ratio(other).log_ratio == undisturbed_ratio(one).log_ratio


class TestNeighbours:
    MET: ClassVar[dict[str, Any]] = {"rounds": 60, "burst_sd": 0.01, "delay": 0.3, "walk": 0.0}

    def test_intervals_hold(self) -> None:
        found = [undisturbed_ratio(pairs(seed, **self.MET)) for seed in range(60)]
        assert np.mean([held(each) for each in found]) >= 0.9

    def test_calm_pairs_count_for_more(self) -> None:
        """The same differences, of which nobody knows any more which were calm."""
        rng, told, untold = np.random.default_rng(0), [], []
        for seed in range(20):
            known = pairs(seed, **self.MET)
            told.append(undisturbed_ratio(known).se)
            mixed = dataclasses.replace(known, slowdown=rng.permutation(known.slowdown))
            untold.append(undisturbed_ratio(mixed).se)
        assert np.median(told) < 0.85 * np.median(untold)

    def test_where_all_are_alike_none_is_calmer(self) -> None:
        found = pairs(rounds=40, walk=0.0, burst_sd=0.02)
        unrest = ratio_module._unrest(ratio_module._variance(found))
        assert (unrest == 0).mean() >= 0.8


class TestKinship:
    @pytest.mark.parametrize("feels", [0.4, 0.7])
    def test_models_that_feel_a_machine_differently(self, feels: float) -> None:
        """On one that is slow throughout, the raw ratio would be 20 or 10 % off."""
        machine = {"beta": (1.0, feels), "slow": 0.3, "walk": 0.03}
        every = [pairs(seed, **machine) for seed in range(30)]
        raw = np.median([np.median(each.log_ratio) for each in every])
        found = [undisturbed_ratio(each) for each in every]
        assert raw < TRUTH - 0.3 * (1 - feels)
        assert np.mean([held(each) for each in found]) >= 0.9
        if feels > 0.5:  # no canary's prior thinks that a model feels so little
            assert np.median([each.log_ratio for each in found]) == pytest.approx(TRUTH, abs=0.02)

    def test_versions_of_one_model_gain_by_being_alike(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        every = [pairs(seed, walk=0.03) for seed in range(20)]
        alike = np.median([undisturbed_ratio(each).se for each in every])
        monkeypatch.setattr(ratio_module, "KINSHIPS", ratio_module.KINSHIPS[-1:])
        strangers = np.median([undisturbed_ratio(each).se for each in every])
        assert alike < 0.8 * strangers

    def test_versions_gain_by_being_known_for_them(self) -> None:
        every = [pairs(seed, walk=0.03) for seed in range(20)]
        told = np.median([undisturbed_ratio(each, versions=True).se for each in every])
        untold = np.median([undisturbed_ratio(each).se for each in every])
        assert told < 0.95 * untold

    def test_what_is_wrongly_called_a_version_is_found_out(self) -> None:
        """Twice as much of a neighbour, on a machine that was never quiet."""
        machine = {"beta": (1.0, 0.5), "slow": 0.3, "walk": 0.03}
        found = [undisturbed_ratio(pairs(seed, **machine), versions=True) for seed in range(30)]
        assert np.mean([held(each) for each in found]) >= 0.9

    def test_noise_that_grows_with_the_slowdown_makes_no_strangers(self) -> None:
        """As on the host of a GPU, whose clock wandered by a quarter: what came and went within
        pairs passed for models that feel it differently, and intervals were six times as wide.
        """
        found = []
        for seed in range(20):
            rng = np.random.default_rng(seed)
            slowdown = np.abs(rng.normal(0.25, 0.18, 120))
            noise = 0.004 + 0.08 * slowdown
            log_ratio = TRUTH + noise * rng.standard_normal(120)
            process, copy = np.repeat([0, 1, 2], 40), np.tile(np.repeat(np.arange(20), 2), 3)
            found.append(undisturbed_ratio(Pairs(log_ratio, slowdown, process, copy, 0.03)))
        assert max(each.se for each in found) < 0.01
        assert np.mean([held(each) for each in found]) >= 0.9

    def test_a_doubtful_quiet_level_matters_only_where_they_feel_it_differently(self) -> None:
        alike, strangers = (
            pairs(walk=0.05, rounds=40, beta=beta) for beta in ((1.0, 1.0), (1.0, 0.3))
        )
        grown = []
        for known in (alike, strangers):
            doubtful = dataclasses.replace(known, quiet_se=0.05)
            grown.append(undisturbed_ratio(doubtful).se / undisturbed_ratio(known).se)
        assert grown[0] < 1.5 < grown[1]
