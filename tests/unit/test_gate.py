"""The gate: levels of a history, alarms that are measured twice, baselines of git."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.cli.gate import markdown
from hwbench.errors import InconclusiveError, NoHistoryError
from hwbench.records import Fingerprint, InputSpec, Measurement
from hwbench.watch.calibration import needed_changes, redrawn, smallest_seen
from hwbench.watch.comparison import Comparison, together
from hwbench.watch.gate import Settled, alarming, ruled, stored_level
from hwbench.watch.levels import BESIDE, GATED, against_level
from hwbench.watch.pairs import pairs_of
from hwbench.watch.segments import changes
from hwbench.watch.selection import selected
from hwbench.watch.trial import Effort
from tests.measurements import measurement
from tests.paired import KINDS, side_by_side


def made(percent: float, se: float = 0.002) -> Comparison:
    return Comparison("A", "B", math.log1p(percent / 100), se, 10.0, 0.98, processes=6)


def found_slower(drawn: Sequence[Comparison], change: float, tolerance: float = 0.01) -> list[bool]:
    """Whether the gate calls slower what has changed by so much, by comparisons with itself."""
    moved = [dataclasses.replace(c, log_ratio=c.log_ratio + math.log1p(change)) for c in drawn]
    rulings = [iter(two) for two in zip(moved[::2], moved[1::2], strict=True)]
    return [
        ruled("net", two.__next__, tolerance, joined=together).word == "slower" for two in rulings
    ]


class TestSegments:
    @pytest.mark.parametrize("step", [0.03, -0.05])
    def test_a_step_is_found_where_it_is(self, step: float) -> None:
        rng, near = np.random.default_rng(1), 0
        for _ in range(50):
            x = rng.normal(0, 0.008, 40)
            x[25:] += step
            found = changes(x)
            near += len(found) == 1 and abs(found[0].index - 25) <= 1
        assert near >= 45

    @pytest.mark.parametrize("points", [5, 7, 10])
    def test_a_short_series_has_steps_by_chance_as_seldom_as_told(self, points: int) -> None:
        series = np.random.default_rng(points).normal(0, 0.01, (1000, points))
        assert sum(bool(changes(x)) for x in series) <= 16  # 1 %, and two standard errors

    def test_noise_has_no_steps(self) -> None:
        rng = np.random.default_rng(2)
        alarms = [bool(changes(rng.standard_t(3, 40) * 0.01)) for _ in range(200)]
        assert np.mean(alarms) <= 0.05

    def test_a_machine_that_wanders_has_no_steps(self) -> None:
        """Neighbours correlate by .6: what looks like a level is the machine's mood."""
        rng, alarms = np.random.default_rng(6), 0
        for _ in range(60):
            x = rng.normal(size=150)
            for i in range(1, x.size):
                x[i] = 0.6 * x[i - 1] + 0.8 * x[i]
            x *= 0.01
            alarms += bool(changes(x))
            x[75:] += 0.08
            assert any(abs(change.index - 75) <= 3 for change in changes(x))
        assert alarms <= 12

    def test_a_spike_is_no_step(self) -> None:
        x = np.random.default_rng(3).normal(0, 0.005, 30)
        x[[7, 20]] += 0.5
        assert changes(x) == []

    def test_two_steps(self) -> None:
        x = np.random.default_rng(4).normal(0, 0.004, 45)
        x[15:] += 0.04
        x[30:] -= 0.03
        assert [change.index for change in changes(x)] == [15, 30]

    def test_a_step_that_nobody_minds_is_none(self) -> None:
        x = np.repeat([0.0, 0.002], 20) + np.random.default_rng(5).normal(0, 1e-4, 40)
        assert changes(x) == []
        assert len(changes(x, least=0.001)) == 1

    @settings(max_examples=60)
    @given(st.lists(st.floats(-5, 5), max_size=40))
    def test_any_series_has_ordered_changes(self, x: list[float]) -> None:
        found = [change.index for change in changes(x)]
        assert found == sorted(set(found))
        assert all(2 <= index <= len(x) - 2 for index in found)

    def test_what_is_not_finite_is_refused(self) -> None:
        with pytest.raises(ValueError, match="finite"):
            changes([0.0, math.nan, 0.0, 0.0])


class TestRuling:
    def test_an_alarm_is_measured_again(self) -> None:
        answers = iter([made(4.0), made(3.8)])
        ruling = ruled("net", lambda: next(answers), 0.01)
        assert ruling.word == "slower"
        assert ruling.alarm == made(4.0)

    @pytest.mark.parametrize(("second", "word"), [(0.0, "same"), (1.1, "inconclusive")])
    def test_the_second_time_says_what_holds(self, second: float, word: str) -> None:
        answers = iter([made(4.0), made(second)])
        assert ruled("net", lambda: next(answers), 0.01).word == word

    @pytest.mark.parametrize(
        ("second", "word"), [(0.0, "same"), (0.9, "inconclusive"), (1.4, "slower"), (3.8, "slower")]
    )
    def test_of_sessions_that_share_nothing_both_count(self, second: float, word: str) -> None:
        """But where the second is within the tolerance, what made the first may be no chance."""
        answers = iter([made(4.0), made(second, 0.003)])
        ruling = ruled("net", lambda: next(answers), 0.01, joined=together)
        assert ruling.word == word
        both = second > 1
        assert ruling.comparison == (
            together(made(4.0), made(second, 0.003)) if both else made(second, 0.003)
        )

    def test_joined_they_may_be_in_doubt(self) -> None:
        answers = iter([made(4.0, 0.01), made(1.05, 0.004)])
        ruling = ruled("net", lambda: next(answers), 0.01, joined=together)
        assert (ruling.word, ruling.comparison.share) == ("inconclusive", 1.0)

    @given(st.floats(-9, 9), st.floats(-9, 9), st.floats(1e-3, 0.1), st.floats(1e-3, 0.1))
    def test_together_they_know_more(self, a: float, b: float, sd: float, other: float) -> None:
        first, second = made(a, sd), made(b, other)
        both = together(first, second)
        assert both.se < min(sd, other)
        assert both.dof >= 10.0 - 1e-9
        ends = sorted((first.log_ratio, second.log_ratio))
        assert ends[0] - 1e-12 <= both.log_ratio <= ends[1] + 1e-12
        turned = together(second, first)
        assert turned.log_ratio == pytest.approx(both.log_ratio, abs=1e-12)

    @pytest.mark.parametrize(
        ("percent", "se"), [(0.0, 0.002), (-4.0, 0.002), (0.9, 0.002), (3.0, 0.02)]
    )
    def test_no_alarm_is_measured_once(self, percent: float, se: float) -> None:
        """Within the tolerance by its estimate, faster, or perhaps no change at all."""
        answers = iter([made(percent, se)])
        assert ruled("net", lambda: next(answers), 0.01).alarm is None

    @pytest.mark.parametrize(("second", "word"), [(2.6, "slower"), (1.2, "inconclusive")])
    def test_a_small_regression_is_not_given_up(self, second: float, word: str) -> None:
        """Slower beyond doubt, if not by more than the tolerance: two together may tell."""
        first = made(2.3, 0.006)
        assert first.word(0.01) == "inconclusive"
        answers = iter([first, made(second, 0.006)])
        ruling = ruled("net", lambda: next(answers), 0.01, joined=together)
        assert (ruling.word, ruling.alarm) == (word, first)

    @given(st.floats(-9, 9), st.floats(1e-3, 0.1), st.floats(0, 0.05))
    def test_what_is_slower_is_alarming(self, percent: float, se: float, tolerance: float) -> None:
        found = made(percent, se)
        if found.word(tolerance) == "slower":
            assert alarming(found, tolerance)
        if alarming(found, tolerance):
            assert found.ratio > 1 + tolerance
            assert found.interval[0] >= 1 - 1e-9


def point(number: int, latency_ms: float, **changes: object) -> Measurement:
    ns = latency_ms * 1e6
    known: dict[str, object] = {
        "work_name": "net",
        "session": f"s{number}",
        "latency_ns": ns,
        "low_ns": ns * 0.995,
        "high_ns": ns * 1.005,
    }
    return measurement(number, **{**known, **changes})


def series(*latencies_ms: float, seed: int = 0) -> list[Measurement]:
    rng = np.random.default_rng(seed)
    return [point(n, ms * math.exp(rng.normal(0, 0.003))) for n, ms in enumerate(latencies_ms)]


class TestStoredLevel:
    def test_a_regression_against_the_level(self) -> None:
        history, current = series(*[2.0] * 10), point(99, 2.1)
        level = stored_level(history, current, None)
        assert level.points == 10
        assert against_level(current, level, None).word() == "slower"

    def test_the_same_latency_is_no_alarm(self) -> None:
        current = point(99, 2.0)
        found = against_level(current, stored_level(series(*[2.0] * 10), current, None), None)
        assert found.word() in ("same", "inconclusive")

    def test_only_the_last_level_counts(self) -> None:
        history, current = series(*[2.0] * 10, *[2.4] * 10), point(99, 2.4)
        level = stored_level(history, current, None)
        assert level.points == 10
        assert math.exp(level.log_latency) == pytest.approx(2.4e6, rel=0.01)
        assert "held against the level since" in level.notes[0]

    def test_the_points_of_a_commit(self) -> None:
        history = [*series(*[2.0] * 5), point(7, 3.0, tags={"commit": "feed" * 10})]
        level = stored_level(history, point(99, 3.0), None, commit="feedfeed")
        assert level.points == 1
        assert math.exp(level.log_latency) == pytest.approx(3e6)

    def test_what_was_measured_with_changes_is_not_of_the_commit(self) -> None:
        tags = {"commit": "feed" * 10}
        dirty = point(7, 1.0, tags={**tags, "dirty": "yes"})
        level = stored_level([point(6, 3.0, tags=tags), dirty], point(99, 3.0), None, "feedfeed")
        assert level.points == 1
        assert level.notes == ("1 points left out: measured with changes that are not in it",)
        with pytest.raises(NoHistoryError, match="changes that are not in it"):
            stored_level([dirty], point(99, 3.0), None, "feedfeed")
        clean = point(6, 3.0, tags=tags)
        assert selected([clean, dirty], "commit:feedfeed") == [clean]
        assert selected([dirty], "commit:feedfeed") == [dirty]  # better than nothing, and asked for

    def test_other_inputs_are_another_series(self) -> None:
        big = (InputSpec("x", "float32", (8, 3, 224, 224)),)
        others = [
            dataclasses.replace(m, workload=dataclasses.replace(m.workload, inputs=big))
            for m in series(16.0, 16.0)
        ]
        level = stored_level([*series(2.0, 2.0), *others], point(99, 2.0), None)
        assert level.points == 2
        assert level.notes == ("2 points left out: of other inputs, threads or options",)

    def test_an_alarm_is_no_level_for_the_next_time(self) -> None:
        """Nor is the point that it was measured again with. A gate that is run again says so."""
        past = series(*[2.0] * 10)
        alarms = [point(n, 2.1, tags=GATED) for n in (20, 21)]
        current = point(99, 2.1)
        level = stored_level([*past, *alarms], current, None)
        assert level.points == 10
        assert level.notes[0].startswith("2 points left out: a gate found them slower")
        assert against_level(current, level, None).word() == "slower"
        accepted = stored_level([*past, *alarms, point(30, 2.1), point(31, 2.1)], current, None)
        assert accepted.points == 4
        assert against_level(current, accepted, None).word() != "slower"

    def test_an_alarm_that_bench_does_not_find_again_stays_no_level(self) -> None:
        """The change was thrown away, and the old level measured again."""
        alarms = [point(n, 3.2, tags=GATED) for n in (20, 21)]
        again = [point(n, 2.0) for n in (30, 31)]
        level = stored_level([*series(*[2.0] * 5), *alarms, *again], point(99, 2.0), None)
        assert level.points == 7
        assert math.exp(level.log_latency) == pytest.approx(2e6, rel=0.01)
        assert level.notes[0].startswith("2 points left out: a gate found them slower")

    def test_uncommitted_changes_beside_a_baseline_are_no_level(self) -> None:
        tried = [point(n, 3.2, tags={**BESIDE, "dirty": "yes"}) for n in (20, 21)]
        level = stored_level([*series(*[2.0] * 5), *tried], point(99, 2.0), None)
        assert level.points == 5
        assert level.notes == (
            "2 points left out: uncommitted changes that were run beside a baseline",
        )
        with pytest.raises(NoHistoryError, match="uncommitted changes"):
            stored_level(tried, point(99, 2.0), None)
        committed = [point(n, 2.0, tags={**BESIDE, "dirty": "no"}) for n in (20, 21)]
        assert stored_level(committed, point(99, 2.0), None).points == 2

    def test_an_alarm_beside_a_baseline_is_none_either(self) -> None:
        """Of a clean tree, as a build in CI has it; nor does one that ends a history's alarms."""
        past = series(*[2.0] * 10)
        for tags in (BESIDE, GATED):
            alarms = [point(n, 2.1, tags={**tags, "dirty": "no"}) for n in (20, 21)]
            beside = [point(n, 2.1, tags={**BESIDE, "dirty": "no"}) for n in (22, 23)]
            current = point(99, 2.1)
            level = stored_level([*past, *alarms, *beside], current, None)
            assert level.points == 10
            assert against_level(current, level, None).word() == "slower"
        passed = [point(n, 2.0, tags={**BESIDE, "dirty": "no"}) for n in (20, 21)]
        assert stored_level([*past, *passed], point(99, 2.0), None).points == 12

    def test_what_a_gate_passed_is_history(self) -> None:
        sound = [point(n, 2.0 + 0.001 * (n % 2), tags=GATED) for n in range(20, 26)]
        level = stored_level([*series(*[2.0] * 3), *sound], point(99, 2.0), None)
        assert (level.points, level.notes) == (9, ())
        assert stored_level(sound, point(99, 2.0), None).points == 6  # pytest's own history

    def test_a_gate_that_saw_it_faster_has_a_new_level(self) -> None:
        faster = [point(n, 1.8, tags=GATED) for n in range(20, 24)]
        level = stored_level([*series(*[2.0] * 6), *faster], point(99, 1.8), None)
        assert level.points == 4

    def test_one_point_knows_little(self) -> None:
        current = point(99, 2.03)
        one = against_level(current, stored_level(series(2.0), current, None), None)
        many = against_level(current, stored_level(series(*[2.0] * 12), current, None), None)
        assert one.se > many.se

    def test_other_machines_are_left_out_by_name(self) -> None:
        moved = Fingerprint("cpu", {"cpu_model": "Other CPU", "kernel": "6.1"})
        history = [*series(2.0, 2.0), *(point(50 + n, 9.0, fingerprint=moved) for n in range(3))]
        level = stored_level(history, point(99, 2.0), None)
        assert level.points == 2
        assert level.notes[0].startswith("3 points left out, measured elsewhere: cpu_model")

    def test_another_project_is_left_out_by_name(self) -> None:
        """What names none is of before projects were told apart, and is history."""
        other = [point(50 + n, 9.0, tags={"project": "speech"}) for n in range(3)]
        own = [point(90, 2.0, tags={"project": "vision"})]
        history = [*series(2.0, 2.0), *other, *own]
        level = stored_level(history, point(99, 2.0, tags={"project": "vision"}), None)
        assert level.points == 3
        assert level.notes == ("3 points left out, of another project: speech",)

    def test_another_calibration_is_left_out(self) -> None:
        history = [*series(2.0, 2.0), point(50, 9.0, epoch="another")]
        level = stored_level(history, point(99, 2.0), None)
        assert level.points == 2
        assert level.notes == ("1 points left out: another calibration, or no latency",)

    def test_a_clock_that_was_ahead_is_left_out(self) -> None:
        ahead = [point(n, 9.0, created="2990-01-01T00:00:00+00:00") for n in (50, 51)]
        current = point(59, 2.0)
        level = stored_level([*series(2.0, 2.0), *ahead], current, None)
        assert level.points == 2
        assert level.notes == ("2 points left out: their time is yet to come, a clock was wrong",)
        with pytest.raises(InconclusiveError, match="a clock was wrong"):
            stored_level(ahead, current, None)

    @pytest.mark.parametrize("commit", [None, "feedfeed"])
    def test_without_history_there_is_a_clear_word(self, commit: str | None) -> None:
        with pytest.raises(InconclusiveError, match="run hwbench bench on the baseline"):
            stored_level([], point(99, 2.0), None, commit)

    def test_what_has_no_latency_is_inconclusive(self) -> None:
        current = point(99, 2.0, status="observed_only")
        level = stored_level(series(2.0, 2.0), point(99, 2.0), None)
        with pytest.raises(InconclusiveError, match="run side by side"):
            against_level(current, level, None)


class TestCalibration:
    def test_the_power_of_comparisons_with_itself(self) -> None:
        rng = np.random.default_rng(0)
        drawn = [made(100 * math.expm1(rng.normal(0, 0.003)), 0.003) for _ in range(800)]
        smallest = smallest_seen(drawn, 0.01)
        assert smallest is not None
        assert np.mean(found_slower(drawn, smallest)) == pytest.approx(0.8, abs=0.01)

    @given(
        st.lists(st.tuples(st.floats(-5, 5), st.floats(1e-3, 0.05)), min_size=2, max_size=2),
        st.floats(0, 0.05),
    )
    def test_what_is_needed_is_what_the_gate_needs(
        self, two: list[tuple[float, float]], tolerance: float
    ) -> None:
        drawn = [made(percent, se) for percent, se in two]
        (needed,) = needed_changes(drawn, tolerance)
        just = math.expm1(needed + 1e-6), math.expm1(needed - 1e-6)
        assert [found_slower(drawn, by, tolerance) for by in just] == [[True], [False]]

    def test_blind_comparisons_see_nothing(self) -> None:
        assert smallest_seen([made(0.0, 0.9), made(0.0, 0.9)], 0.01) is None

    def test_comparisons_drawn_from_processes(self) -> None:
        taken = []
        for seed in range(3):
            a, b = side_by_side(seed=seed)
            pairs = {
                (0, 1): pairs_of(a, b, KINDS, anchors=True),
                (1, 0): pairs_of(b, a, KINDS, anchors=True),
            }
            taken.append(pairs)
        found = redrawn(taken, 30, Effort(processes=5, sessions=1), np.random.default_rng(0))
        assert len(found) == 30
        assert {c.processes for c in found} == {5}
        assert sum(c.word() == "slower" for c in found) == 0
        assert len({c.log_ratio for c in found}) > 20


def test_markdown_shows_hostile_names_as_they_are() -> None:
    name = "<img src=x>|`a`\n# b"
    found = dataclasses.replace(made(4.0), b=name)
    text = markdown([ruled(name, lambda: found, 0.01), Settled("a|b", "unchanged")], "main")
    assert "| a\\|b | **unchanged** | | | | the same file |" in text
    row = text.splitlines()[4]
    assert "<img" not in row
    assert row.count("|") - row.count("\\|") == 7
    assert "**slower**" in row
    assert "measured twice" in row
