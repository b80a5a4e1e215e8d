"""Comparisons as a whole: turned round they say the same, they seldom cry wolf, and they see."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.watch.comparison import (
    Comparison,
    Word,
    compare_pairs,
    compare_stored,
    verdicts,
)
from hwbench.watch.pairs import pairs_of
from tests.measurements import epoch, measurement
from tests.paired import KINDS, side_by_side

SESSIONS = 200
MIRROR: dict[Word, Word] = {"slower": "faster", "faster": "slower"}


def mirrored(word: Word) -> Word:
    return MIRROR.get(word, word)


def both_ways(anchors: bool, share: float = 1.0, **machine: Any) -> tuple[Comparison, Comparison]:
    a, b = side_by_side(**machine)
    there = compare_pairs(("A", "B"), pairs_of(a, b, KINDS, anchors=anchors), share=share)
    back = compare_pairs(("B", "A"), pairs_of(b, a, KINDS, anchors=anchors), share=share)
    return there, back


def assert_mirrored(there: Comparison, back: Comparison, tolerance: float) -> None:
    assert back.log_ratio == -there.log_ratio
    assert (back.se, back.dof) == (there.se, there.dof)
    assert back.interval == pytest.approx([1 / end for end in reversed(there.interval)], rel=1e-12)
    assert back.p_value(tolerance) == there.p_value(tolerance)
    assert back.word(tolerance) == mirrored(there.word(tolerance))


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**32 - 1),
    percent=st.floats(-20, 20),
    processes=st.integers(2, 8),
    rounds=st.integers(1, 12),
    burst_sd=st.floats(0, 0.1),
    process_sd=st.floats(0, 0.05),
    beta=st.tuples(st.floats(0.3, 1.5), st.floats(0.3, 1.5)),
    anchors=st.booleans(),
    share=st.sampled_from([1.0, 0.5, 0.125]),
    tolerance=st.floats(0, 0.05),
)
def test_a_against_b_is_b_against_a_turned_round(
    seed: int,
    percent: float,
    processes: int,
    rounds: int,
    burst_sd: float,
    process_sd: float,
    beta: tuple[float, float],
    anchors: bool,
    share: float,
    tolerance: float,
) -> None:
    """To the last bit: the sign of a difference decides nothing."""
    there, back = both_ways(
        anchors,
        share,
        ratio=1 + percent / 100,
        seed=seed,
        processes=processes,
        rounds=rounds,
        burst_sd=burst_sd,
        process_sd=process_sd,
        beta=beta,
    )
    assert_mirrored(there, back, tolerance)


logs = st.floats(-0.2, 0.2)
errors = st.floats(1e-4, 0.1)


@given(st.lists(st.tuples(logs, errors, st.floats(2, 40)), max_size=30), st.floats(0, 0.05))
def test_of_many_comparisons_each_is_turned_round(
    found: list[tuple[float, float, float]], tolerance: float
) -> None:
    there = [Comparison("A", "B", log, se, dof) for log, se, dof in found]
    back = [dataclasses.replace(c, a="B", b="A", log_ratio=-c.log_ratio) for c in there]
    wanted = [mirrored(word) for word in verdicts(there, tolerance)]
    assert verdicts(back, tolerance) == wanted


@given(logs, errors, errors, st.booleans())
def test_two_stored_latencies_are_turned_round(
    log: float, own: float, other: float, anchored: bool
) -> None:
    sides = []
    for number, (at, half) in enumerate([(0.0, own), (log, other)]):
        ns = 2e6 * math.exp(at)
        low, high = ns * math.exp(-half), ns * math.exp(half)
        sides.append(
            measurement(
                number,
                latency_ns=ns,
                low_ns=low,
                high_ns=high,
                epoch="e1",
                work_name="net",
                session=f"s{number}",
            )
        )
    known = epoch() if anchored else None
    there, back = (compare_stored(a, b, known) for a, b in (sides, sides[::-1]))
    assert there is not None
    assert back is not None
    assert back.log_ratio == pytest.approx(-there.log_ratio, abs=1e-12)
    assert back.se == pytest.approx(there.se, rel=1e-12)


def sessions(count: int, ratio: float = 1.0, **machine: Any) -> list[Comparison]:
    """So many comparisons of two models of that ratio, each of a session of its own."""
    found = []
    for seed in range(count):
        a, b = side_by_side(ratio, seed=seed, **machine)
        found.append(compare_pairs(("A", "B"), pairs_of(a, b, KINDS, anchors=True)))
    return found


def told(found: list[Comparison], word: Word, tolerance: float = 0.01) -> float:
    return float(np.mean([c.word(tolerance) == word for c in found]))


#: Bursts of 1 % and pairs of 1.4 %; processes and sessions differ as the priors say of such pairs.
USUAL = {"walk": 0.0, "process_sd": 0.007, "session_sd": 0.003}


class TestTheSameModelTwice:
    def test_it_differs_from_itself_as_often_as_the_error_allows(self, effort: int) -> None:
        """Without a tolerance every alarm is false: one in twenty."""
        found = sessions(2 * SESSIONS * effort, **USUAL)
        alarms = told(found, "slower", 0.0) + told(found, "faster", 0.0)
        assert 0.03 <= alarms <= 0.07

    def test_with_the_tolerance_hardly_ever(self, effort: int) -> None:
        found = sessions(SESSIONS * effort, **USUAL)
        assert told(found, "slower") + told(found, "faster") <= 0.005

    def test_a_machine_that_wanders_adds_no_alarm(self, effort: int) -> None:
        """How differently two models feel it is known beforehand to some tenths only: the interval
        allows for that, which one model twice has no need of.
        """
        found = sessions(SESSIONS * effort, **{**USUAL, "walk": 0.02})
        assert told(found, "slower", 0.0) + told(found, "faster", 0.0) <= 0.03

    def test_among_many_the_share_of_false_alarms_is_kept(self, effort: int) -> None:
        """Of forty comparisons ten are of a real change: of the alarms one in twenty is false."""
        rng, dof = np.random.default_rng(0), 10.0
        truth = np.repeat([0.04, 0.0], [10, 30])
        shares = []
        for _ in range(SESSIONS * effort):
            logs = truth + 0.01 * rng.standard_t(dof, truth.size)
            words = verdicts([Comparison("A", "B", log, 0.01, dof) for log in logs], 0.0)
            alarms = np.array([word in MIRROR for word in words])
            shares.append(alarms[10:].sum() / max(alarms.sum(), 1))
        assert np.mean(shares) <= 0.05


class TestPower:
    """On a machine at rest, whose bursts vary by 1 %, six processes of twelve pairs each."""

    REST: ClassVar[dict[str, Any]] = {"walk": 0.0, "process_sd": 0.002}

    @pytest.mark.parametrize(("percent", "least"), [(2, 0.6), (3, 0.95), (5, 1.0)])
    def test_a_regression_is_seen(self, percent: int, least: float, effort: int) -> None:
        found = sessions(SESSIONS // 2 * effort, 1 + percent / 100, **self.REST)
        assert told(found, "slower") >= least
        assert told(found, "faster") == 0

    def test_what_is_just_tolerated_is_seldom_an_alarm(self, effort: int) -> None:
        found = sessions(SESSIONS * effort, 1.01, **self.REST)
        assert told(found, "slower") <= 0.05

    def test_no_difference_is_the_same_more_often_than_anything_else(self, effort: int) -> None:
        found = sessions(SESSIONS // 2 * effort, **self.REST)
        assert told(found, "same") >= 0.5
        assert told(found, "slower") + told(found, "faster") == 0
