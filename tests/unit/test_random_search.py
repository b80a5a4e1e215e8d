"""Random search keeps to the oracle's bound and uses the budget up, near the ends too."""

from __future__ import annotations

import re
from statistics import NormalDist

import numpy as np
import pytest

from hwbench.errors import UsageError
from hwbench.search import random_search, random_search_each
from hwbench.spaces import Codes, Space, get_space
from hwbench.spaces.design import candidates

OFA = get_space("ofa_mbv3")
NB201 = get_space("nasbench201")


class Oracle:
    """Latency that MACs explain only in part: each layer costs time by its kernel too.

    The bound takes 3 % of relative standard deviation.
    """

    def __init__(self, space: Space, seed: int = 0) -> None:
        self.space = space
        self.asked: list[int] = []
        self.most_macs = np.inf
        self.overhead_ms = np.random.default_rng(seed).gamma(
            2, 0.1, (len(space.cardinalities), max(space.cardinalities))
        )

    def latency(self, codes: Codes):
        self.asked.append(len(codes))
        cost = self.overhead_ms[np.arange(codes.shape[1]), codes]
        overhead = np.where(self.space.active(codes), cost, 0).sum(axis=1)
        return 1 + self.space.macs(codes) / 30e6 + overhead

    def upper(self, codes: Codes, confidence: float):
        return self.latency(codes) * (1 + 0.03 * NormalDist().inv_cdf(confidence))

    def within_limits(self, codes: Codes, confidence: float):
        return self.space.macs(codes) <= self.most_macs


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def budgets_over_the_range(space: Space, oracle: Oracle, n: int, fixed=None) -> np.ndarray:
    """Budgets from just above the fastest of a pool to just below the slowest, geometrically."""
    bounds = oracle.upper(candidates(space, 2000, rng(99), fixed=fixed or {}), 0.98)
    return np.geomspace(1.03 * bounds.min(), 0.97 * bounds.max(), n)


def test_other_limits_hold_too() -> None:
    free, tight = Oracle(OFA), Oracle(OFA)
    budget = budgets_over_the_range(OFA, free, 3)[1]
    unlimited = random_search(OFA, free, budget, rng=rng(), n=3000)
    tight.most_macs = 0.9 * OFA.macs(unlimited.code[None])[0]
    limited = random_search(OFA, tight, budget, rng=rng(), n=3000)
    assert 0.8 * tight.most_macs < OFA.macs(limited.code[None])[0] <= tight.most_macs
    tight.most_macs = 0
    with pytest.raises(UsageError, match="keeps the other limits: relax them"):
        random_search(OFA, tight, budget, rng=rng(), n=100)


def test_every_winner_keeps_its_budget_and_says_what_it_rests_on() -> None:
    oracle = Oracle(OFA)
    budgets = budgets_over_the_range(OFA, oracle, 6)
    results = random_search_each(OFA, oracle, budgets, rng=rng(), n=3000)
    assert [r.budget_ms for r in results] == budgets.tolist()
    for r in results:
        assert r.predicted_ms < r.upper_ms <= r.budget_ms
        assert r.upper_ms == oracle.upper(r.code[None], 0.98)[0]
        assert r.predicted_ms == oracle.latency(r.code[None])[0]
        assert np.array_equal(OFA.encode([r.text])[0], r.code)
        assert r.score == OFA.macs(r.code[None])[0] == OFA.graph(r.code).macs
        assert r.objective == "MACs (capacity proxy)"
        assert r.confidence == 0.98
        assert 0 < r.feasible <= r.evaluated
        assert 3000 <= r.evaluated <= 3002
    assert sorted(r.feasible for r in results) == [r.feasible for r in results]
    assert sorted(r.score for r in results) == [r.score for r in results]


def test_budgets_are_used_up_over_the_whole_range() -> None:
    oracle = Oracle(OFA)
    budgets = budgets_over_the_range(OFA, oracle, 40)
    results = random_search_each(OFA, oracle, budgets, rng=rng(), n=20_000)
    utilisation = np.array([r.utilisation for r in results])
    assert utilisation.mean() >= 0.95
    assert utilisation.min() >= 0.85
    assert utilisation.max() <= 1


def test_a_pool_is_asked_once_for_all_budgets() -> None:
    oracle = Oracle(OFA)
    random_search_each(OFA, oracle, [12, 15, 20], rng=rng(), n=1000)
    pool, winners = oracle.asked
    assert pool >= 1000
    assert winners == 3


def test_one_budget_of_several_gives_what_it_gives_alone() -> None:
    both = random_search_each(OFA, Oracle(OFA), [14, 20], rng=rng(), n=1000)
    alone = random_search(OFA, Oracle(OFA), 20, rng=rng(), n=1000)
    assert alone.text == both[1].text
    assert alone.text != both[0].text


def test_the_winner_is_the_best_feasible_one_of_all_that_were_drawn() -> None:
    drawn: list[Codes] = []

    def few_seven_by_seven(codes: Codes):
        drawn.append(codes)
        return -(codes[:, 6:26] == 2).sum(axis=1) + OFA.macs(codes) / 1e9

    oracle = Oracle(OFA)
    result = random_search(
        OFA, oracle, 16, rng=rng(), n=2000, objective=few_seven_by_seven, confidence=0.9
    )
    (pool,) = drawn
    feasible = pool[oracle.upper(pool, 0.9) <= 16]
    assert result.objective == "few_seven_by_seven"
    assert result.feasible == len(feasible)
    assert result.score == few_seven_by_seven(feasible).max()


def test_a_higher_confidence_costs_capacity() -> None:
    scores = [
        random_search(OFA, Oracle(OFA), 16, rng=rng(), n=4000, confidence=c).score
        for c in (0.5, 0.9, 0.999)
    ]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[2]


def test_a_small_space_is_searched_exhaustively() -> None:
    oracle = Oracle(NB201)
    every = NB201.all_codes()
    bounds, macs = oracle.upper(every, 0.98), NB201.macs(every)
    budget = float(np.median(bounds))
    result = random_search(NB201, oracle, budget, rng=rng())
    assert result.evaluated == len(every)
    assert result.score == macs[bounds <= budget].max()
    assert result.upper_ms == bounds[(bounds <= budget) & (macs == result.score)].min()


def test_what_is_fixed_stays_fixed() -> None:
    oracle = Oracle(OFA)
    result = random_search(OFA, oracle, 20, rng=rng(), n=1000, fixed={"r": 224})
    assert result.text.startswith("r224 ")


def test_a_budget_that_nothing_keeps_is_answered_with_the_range() -> None:
    oracle = Oracle(OFA)
    with pytest.raises(UsageError, match=r"at most 2 ms at confidence 0\.98") as raised:
        random_search_each(OFA, oracle, [15, 2], rng=rng(), n=1000)
    low, high = map(float, re.search(r"are (\S+) to (\S+) ms", str(raised.value)).groups())
    (result,) = random_search_each(OFA, oracle, [low], rng=rng(), n=1000)
    assert result.upper_ms <= low < 1.01 * result.upper_ms
    assert random_search(OFA, oracle, high, rng=rng(), n=1000).feasible >= 1000
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budgets_ms": [0]}, "a budget of 0 ms cannot be kept"),
        ({"budgets_ms": [5, float("nan")]}, "a budget of nan ms"),
        ({"budgets_ms": []}, "no budget was given"),
        ({"n": 0}, "a search over 0 architectures"),
        ({"confidence": 1.0}, r"confidence 1\.0 is no probability"),
        ({"fixed": {"r": 7}}, "r has no value 7"),
    ],
)
def test_senseless_arguments_are_refused(change, message: str) -> None:
    arguments = {"budgets_ms": [15], "rng": rng(), "n": 100} | change
    with pytest.raises(UsageError, match=message):
        random_search_each(OFA, Oracle(OFA), **arguments)


def test_an_oracle_or_objective_out_of_order_is_named() -> None:
    class Broken(Oracle):
        def upper(self, codes: Codes, confidence: float):
            return np.where(codes[:, 0] == 3, np.nan, super().upper(codes, confidence))

    with pytest.raises(
        UsageError, match=r"\d+ of 10\d values are not finite from the oracle's bound"
    ):
        random_search(OFA, Broken(OFA), 20, rng=rng(), n=100)
    with pytest.raises(UsageError, match=r"shape \(\) for 10\d arch.* came from the objective"):
        random_search(OFA, Oracle(OFA), 20, rng=rng(), n=100, objective=np.sum)
