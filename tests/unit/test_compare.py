"""Comparisons: pairs of bursts, verdicts, and what a store holds of two commits."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.errors import InconclusiveError, UsageError
from hwbench.records import Measurement
from hwbench.watch.comparison import (
    TOLERANCE,
    Comparison,
    compare_pairs,
    compare_stored,
    sentence,
    verdicts,
)
from hwbench.watch.pairs import pairs_of, pooled
from hwbench.watch.selection import compare_selections, selected
from hwbench.watch.sides import BASELINE
from hwbench.watch.trial import _Trial, _undecided
from tests.measurements import epoch, measurement
from tests.paired import KINDS, side_by_side


def compared(ratio: float, *, sessions: int = 1, seed: int = 0, **machine: object) -> Comparison:
    parts = [
        pairs_of(*side_by_side(ratio, seed=seed * 100 + s, **machine), KINDS, anchors=True)  # type: ignore[arg-type]
        for s in range(sessions)
    ]
    return compare_pairs(("A", "B"), pooled(parts))


def made(percent: float, se: float = 0.002, **changes: object) -> Comparison:
    found = Comparison("A", "B", math.log1p(percent / 100), se, 10.0)
    return dataclasses.replace(found, **changes)  # type: ignore[arg-type]


def test_models_are_looked_at_again_by_the_verdict_on_all() -> None:
    """One of thirty that is slower beyond doubt by itself is not yet, among thirty."""
    one = made(3.0, se=0.0086)
    others = [made(0.0, se=0.02) for _ in range(29)]
    trials = [_Trial((), outcome=found) for found in (one, *others)]
    assert one.word() == "slower"
    assert verdicts([one, *others])[0] == "inconclusive"
    assert _undecided(trials, TOLERANCE) == trials
    assert _undecided(trials[:1], TOLERANCE) == []
    trials[0].outcome = made(3.0, se=0.002)
    assert _undecided(trials, TOLERANCE) == trials[1:]


class TestPairs:
    @pytest.mark.parametrize("percent", [0.0, 3.0, -3.0, 40.0])
    def test_the_machine_cancels(self, percent: float) -> None:
        found = [compared(1 + percent / 100, seed=s).log_ratio for s in range(20)]
        assert np.mean(found) == pytest.approx(math.log1p(percent / 100), abs=0.002)

    @pytest.mark.parametrize("beta", [(1.0, 1.0), (1.0, 1.1), (0.8, 0.8)])
    def test_intervals_hold(self, beta: tuple[float, float]) -> None:
        truth = 1.02
        held = []
        for seed in range(60):
            low, high = compared(truth, seed=seed, beta=beta).interval
            held.append(low <= truth <= high)
        assert np.mean(held) >= 0.9

    def test_a_slow_machine_adds_no_false_alarm(self) -> None:
        words = [compared(1.0, seed=seed, slow=0.4).word() for seed in range(40)]
        assert not {"slower", "faster"} & set(words)

    def test_more_sessions_know_more(self) -> None:
        one, three = compared(1.01), compared(1.01, sessions=3)
        assert three.se < one.se
        assert (one.processes, three.processes) == (6, 18)
        assert three.pairs == 3 * one.pairs

    def test_swapping_the_two_turns_the_ratio_round(self) -> None:
        a, b = side_by_side(1.03)
        there = compare_pairs(("A", "B"), pairs_of(a, b, KINDS, anchors=True))
        back = compare_pairs(("B", "A"), pairs_of(b, a, KINDS, anchors=True))
        assert there.ratio * back.ratio == pytest.approx(1, abs=0.002)

    def test_a_rejected_burst_takes_its_partner_along(self) -> None:
        a, b = side_by_side()
        cause = b.bursts.cause.copy()
        cause[[3, 7]] = 1
        b = dataclasses.replace(b, bursts=dataclasses.replace(b.bursts, cause=cause))
        pairs = pairs_of(a, b, KINDS, anchors=True)
        assert pairs.rejected == 2
        assert pairs.log_ratio.size == len(a.bursts) - 2

    def test_nothing_in_common_is_inconclusive(self) -> None:
        a, b = side_by_side()
        later = dataclasses.replace(b.bursts, round=b.bursts.round + 1000)
        with pytest.raises(InconclusiveError, match="0 of 0 pairs"):
            pairs_of(a, dataclasses.replace(b, bursts=later), KINDS, anchors=True)

    def test_without_anchors_no_canary_is_believed(self) -> None:
        a, b = side_by_side(1.05)
        mad = dataclasses.replace(b.bursts, canary_ns=b.bursts.canary_ns * 3)
        pairs = pairs_of(a, dataclasses.replace(b, bursts=mad), KINDS, anchors=False)
        assert compare_pairs(("A", "B"), pairs).ratio == pytest.approx(1.05, abs=0.01)


class TestVerdicts:
    @pytest.mark.parametrize(
        ("percent", "se", "word"),
        [
            (3.0, 0.002, "slower"),
            (-3.0, 0.002, "faster"),
            (0.1, 0.002, "same"),
            (1.2, 0.002, "inconclusive"),
            (0.1, 0.02, "inconclusive"),
            (30.0, 0.2, "inconclusive"),
        ],
    )
    def test_three_ways(self, percent: float, se: float, word: str) -> None:
        assert made(percent, se).word() == word

    @given(st.floats(-50, 50), st.floats(1e-4, 0.1), st.floats(0, 0.2))
    def test_words_follow_the_interval(self, percent: float, se: float, tolerance: float) -> None:
        found = made(percent, se)
        (low, high), word = found.interval, found.word(tolerance)
        margin = 1e-9
        if word == "slower":
            assert low >= 1 + tolerance - margin
        elif word == "faster":
            assert high <= 1 / (1 + tolerance) + margin
        elif word == "same":
            assert low > 1 / (1 + tolerance) - margin
            assert high < 1 + tolerance + margin

    def test_a_look_that_may_spend_less_needs_more(self) -> None:
        assert made(1.0, 0.002).word(0.005) == "slower"
        assert made(1.0, 0.002, share=0.25).word(0.005) == "inconclusive"

    def test_many_comparisons_raise_the_bar(self) -> None:
        doubtful = made(1.5, 0.002)
        assert doubtful.word() == "slower"
        crowd = [doubtful, *[made(0.0, 0.002)] * 30]
        assert verdicts(crowd)[0] == "inconclusive"
        assert set(verdicts(crowd)[1:]) == {"same"}
        assert verdicts([]) == []

    def test_one_honest_line(self) -> None:
        line = sentence(made(-1.8, 0.002, processes=8), "faster")
        assert line.startswith("B is 1.8 % faster than A (95 %: 1.4 to 2.2")
        assert line.endswith("8 processes, nothing rejected)")
        assert "cannot be told from A: +0.5 % (95 %: " in sentence(made(0.5), "inconclusive")
        assert "3 rejected" in sentence(made(3, rejected=3), "slower")


def stored(number: int, latency_ms: float, half: float = 0.004, **changes: object) -> Measurement:
    ns = latency_ms * 1e6
    known: dict[str, object] = {
        "latency_ns": ns,
        "low_ns": ns * math.exp(-half),
        "high_ns": ns * math.exp(half),
        "epoch": "e1",
        "work_name": "net",
    }
    return measurement(number, **{**known, **changes})


class TestStored:
    def test_of_two_latencies(self) -> None:
        a, b = stored(0, 2.0, session="s1"), stored(1, 2.1, session="s2")
        found = compare_stored(a, b, None)
        assert found is not None
        assert found.ratio == pytest.approx(1.05)
        assert found.word() == "slower"
        assert not found.paired

    @pytest.mark.parametrize(
        "changes",
        [{"epoch": "e2"}, {"status": "observed_only"}, {"latency_ns": None}],
        ids=str,
    )
    def test_milliseconds_that_do_not_mix(self, changes: dict[str, object]) -> None:
        b = stored(1, 2.1, **{"session": "s2", **changes})
        assert compare_stored(stored(0, 2.0), b, None) is None

    def test_what_both_share_cancels(self) -> None:
        a, b = (stored(n, 2.0, 0.01, beta=(1.0, 0.2), session=f"s{n}") for n in range(2))
        e1 = dataclasses.replace(
            epoch(),
            c0_ns=(1e6, 1e6),
            c0_low_ns=(0.993e6, 1e6),
            c0_high_ns=(1.007e6, 1e6),
        )
        alone, cancelled = compare_stored(a, b, None), compare_stored(a, b, e1)
        assert alone is not None
        assert cancelled is not None
        assert cancelled.se < alone.se

    def test_selections_by_commit_and_session(self) -> None:
        before = stored(0, 2.0, session="s1", tags={"commit": "abcd1234"})
        after = stored(1, 2.2, session="s2", tags={"commit": "beef5678"})
        everything = [before, after]
        a, b = selected(everything, "commit:abcd"), selected(everything, "session:s2")
        (found,), notes = compare_selections(a, b, {})
        assert found.ratio == pytest.approx(1.1)
        assert notes == []

    def test_sides_of_comparisons_are_of_no_commit(self) -> None:
        """They were run at it, and are of another one."""
        own = stored(0, 1, tags={"commit": "abcdef"})
        sides = [
            stored(n, 1, work_name=f"net{suffix}", session=f"s{n}", tags=own.tags)
            for n, suffix in ((2, BASELINE), (3, " (A)"))
        ]
        assert selected([own, *sides], "commit:abcdef") == [own]
        assert selected(sides, "session:s2") == sides[:1]

    @pytest.mark.parametrize("text", ["commit:ab", "session:", "tag:nothing"])
    def test_a_selection_that_says_nothing(self, text: str) -> None:
        with pytest.raises(UsageError, match="write session:ID"):
            selected([stored(0, 1)], text)

    def test_nothing_selected(self) -> None:
        with pytest.raises(InconclusiveError, match="no measurement of commit:ffff"):
            selected([stored(0, 1)], "commit:ffff")

    def test_another_project_is_named_and_left_out(self) -> None:
        one, other = (stored(0, 2.0, tags={"project": name}) for name in ("vision", "speech"))
        with pytest.raises(InconclusiveError, match="of other projects: vision against speech"):
            compare_selections([one], [other], {})
        (found,), notes = compare_selections([one], [stored(0, 2.2, tags={})], {})
        assert (found.ratio, notes) == (pytest.approx(1.1), [])

    def test_other_hardware_is_named_and_left_out(self) -> None:
        before, after = stored(0, 2.0), stored(1, 2.2)
        moved = dataclasses.replace(
            after,
            fingerprint=dataclasses.replace(after.fingerprint, facts={"cpu_model": "Other CPU"}),
        )
        with pytest.raises(InconclusiveError, match="cpu_model Test CPU to Other CPU"):
            compare_selections([before], [moved], {})
