"""From bursts to a Measurement, on made-up bursts: what counts, what is told, what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.errors import DeviceError, InconclusiveError
from hwbench.measure.estimate import KINDS, Estimate, prior_sensitivity
from hwbench.measure.jobs import Canary, RunnerSpec
from hwbench.measure.result import WIDEST, BurstLog, Context, Result, burst_times, conclude
from hwbench.records import CAUSES, CanaryEpoch, Fingerprint
from tests.measurements import bursts as any_bursts
from tests.measurements import epoch as any_epoch
from tests.measurements import measurement

MS = 1_000_000
SPEC = RunnerSpec("runner.py", {})
#: Two of the first kind, and one of each other.
CANARIES = tuple(
    Canary(f"{kind}{i}", "1", SPEC, 2, 1, kind) for i, kind in enumerate((KINDS[0], *KINDS))
)
C0 = (100_000, 100_000, *[1_000_000] * (len(CANARIES) - 2))  # ns
CONTEXT = Context(
    session="s1",
    created="2026-01-31T12:00:00+00:00",
    fingerprint=Fingerprint("cpu", {"cpu_model": "Test CPU"}),
    canaries=CANARIES,
    epoch=None,
    anchors=True,
    tags={"commit": "abc"},
)
REFERENCE = np.array(C0, float)


def burst(ns: list[int], **changes: Any) -> dict[str, Any]:
    plain = {
        "ns": ns,
        "start": 5,
        "preemptions": 0,
        "waited_ns": 0,
        "migrated": False,
        "steal_ns": 0,
    }
    return {**plain, **changes}


def filled(
    *,
    processes: int = 4,
    rounds: int = 6,
    slow: float = 1.0,
    spread: float = 0.003,
    **changes: Any,
) -> BurstLog:
    """Bursts of 5 runs near 3 ms; the machine, canaries and model alike, slower by ``slow``."""
    rng = np.random.default_rng(0)
    log = BurstLog(measurement().workload, footprints=[1_500_000])
    for process in range(processes):
        for index in range(rounds):
            times = 3 * MS * slow * np.exp(spread * rng.standard_normal(5))
            before, after = (
                [int(c * slow * np.exp(0.003 * rng.standard_normal())) for c in C0] for _ in "ab"
            )
            log.add(process, 0, index, burst([int(t) for t in times], **changes), before, after)
    return log


def concluded(log: BurstLog, **changes: Any) -> Result:
    context = dataclasses.replace(CONTEXT, **changes)
    return conclude(log, context, 0.95, 0.95, None if context.epoch else REFERENCE)


def an_epoch(spread: float, times_ns: tuple[float, ...] = C0) -> CanaryEpoch:
    return dataclasses.replace(
        any_epoch(),
        names=tuple(c.name for c in CANARIES),
        c0_ns=times_ns,
        c0_low_ns=tuple(t * np.exp(-spread) for t in times_ns),
        c0_high_ns=tuple(t * np.exp(spread) for t in times_ns),
    )


class TestMixing:
    def test_canaries_of_a_kind_are_averaged(self) -> None:
        mixing = CONTEXT.mixing(launch_bound=False)
        assert mixing.sum(axis=0).tolist() == [1.0] * len(KINDS)
        assert mixing[:2, 0].tolist() == [0.5, 0.5]

    def test_without_a_canary_of_the_shared_cache_it_passes_for_undisturbed(self) -> None:
        without = tuple(c for c in CANARIES if c.kind != "cache")
        mixing = dataclasses.replace(CONTEXT, canaries=without).mixing(launch_bound=False)
        assert mixing.shape == (len(CANARIES) - 1, len(KINDS))
        assert mixing[:, KINDS.index("cache")].tolist() == [0.0] * (len(CANARIES) - 1)

    def test_a_canary_of_launches_is_heard_by_what_waits_for_them_alone(self) -> None:
        launches = Canary("launch", "1", SPEC, 2, 1, "launch")
        context = dataclasses.replace(CONTEXT, canaries=(*CANARIES, launches))
        for bound, compute in ((False, [0.5, 0.5, 0.0]), (True, [0.0, 0.0, 1.0])):
            mixing = context.mixing(launch_bound=bound)
            assert mixing[[0, 1, -1], KINDS.index("compute")].tolist() == compute
            assert mixing.sum(axis=0).tolist() == [1.0] * len(KINDS)

    def test_where_no_launches_are_watched_computing_stands_for_itself(self) -> None:
        ours, theirs = (CONTEXT.mixing(launch_bound=bound) for bound in (False, True))
        assert ours.tolist() == theirs.tolist()

    @pytest.mark.parametrize("kind", ["compute", "memory"])
    def test_the_other_kinds_are_needed(self, kind: str) -> None:
        without = tuple(c for c in CANARIES if c.kind != kind)
        with pytest.raises(DeviceError, match="a canary of each kind: compute, memory"):
            _ = dataclasses.replace(CONTEXT, canaries=without).mixing(launch_bound=False)


class TestSlowCanary:
    """One that is read now and then: the same reading before and after most bursts."""

    CACHE = CANARIES.index(next(c for c in CANARIES if c.kind == "cache"))

    def estimate(self, readings: Callable[[int, int], float], *, after: int = 0) -> Estimate:
        """Of a large model of 3 ms; ``readings`` by process and round (log).

        ``after``: by so many ns the canary was read anew after each burst but every third.
        """
        log = filled()
        log.footprints = [60_000_000]
        for row, (process, _, index, _) in enumerate(log.rows):
            reading = int(C0[self.CACHE] * np.exp(readings(process, index)))
            pair = tuple(list(r) for r in log.readings[row])
            pair[0][self.CACHE] = reading
            pair[1][self.CACHE] = reading + after * (row % 3 > 0)
            log.readings[row] = pair
        return concluded(log).estimate

    @pytest.mark.parametrize("after", [0, 1])
    def test_its_noise_moves_nothing(self, after: int) -> None:
        """Taken for the machine's state, it would say that the model feels nothing of it."""
        noise = 0.06 * np.random.default_rng(1).standard_normal((4, 6))
        noise -= noise.mean(axis=1, keepdims=True)
        noisy = self.estimate(lambda p, i: float(noise[p, i]), after=after)
        still = self.estimate(lambda p, i: 0.0)
        assert abs(noisy.log_latency - still.log_latency) < 0.002
        assert noisy.beta == pytest.approx(still.beta, abs=0.05)

    def test_what_it_says_all_the_time_is_taken_off(self) -> None:
        taken, still = self.estimate(lambda p, i: 0.1), self.estimate(lambda p, i: 0.0)
        assert -0.06 < taken.log_latency - still.log_latency < -0.02


class TestBursts:
    def test_they_are_kept_as_they_came(self) -> None:
        log = BurstLog(measurement().workload)
        log.add(0, 2, 5, burst([3, 1, 2], start=7, preemptions=1), [100, 400, 9], [400, 100, 8])
        log.add(1, 0, 6, burst([5], start=9, steal_ns=2), [1, 1, 1], [1, 1, 1])
        found = log.bursts()
        assert found.sample_ns.tolist() == [3, 1, 2, 5]
        assert found.length.tolist() == [3, 1]
        assert found.start_ns.tolist() == [7, 9]
        assert found.process.tolist() == [0, 1]
        assert found.copy.tolist() == [2, 0]
        assert found.round.tolist() == [5, 6]
        assert found.preemptions.tolist() == [1, 0]
        assert found.steal_ns.tolist() == [0, 2]
        assert found.canary_ns[0].tolist() == [[100, 400, 9], [400, 100, 8]]  # before, after
        kinds = (found.sample_ns, found.length, found.process, found.canary_ns, found.cause)
        assert [a.dtype.name for a in kinds] == ["int64", "int32", "int16", "int64", "uint8"]

    @pytest.mark.parametrize(
        ("changes", "cause"),
        [
            ({}, "kept"),
            (
                {"preemptions": 2, "waited_ns": 10 * MS},
                "kept",
            ),  # of five runs: the median never met one
            ({"preemptions": 3, "waited_ns": 10 * MS}, "preempted"),
            ({"preemptions": 3, "waited_ns": 0}, "kept"),  # away for no time worth a word
            ({"steal_ns": 7 * MS}, "kept"),
            ({"steal_ns": 8 * MS}, "stolen"),  # half of the burst
            ({"migrated": True}, "kept"),
        ],
    )
    def test_one_is_rejected_only_for_a_recorded_cause(
        self, changes: dict[str, Any], cause: str
    ) -> None:
        log = filled(processes=1, rounds=1, **changes)
        assert [CAUSES[c] for c in log.bursts().cause] == [cause]

    @given(st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=6), min_size=1))
    def test_a_bursts_time_is_that_of_a_run_which_a_quarter_are_faster_than(
        self, times: list[list[int]]
    ) -> None:
        found = dataclasses.replace(
            any_bursts(),
            sample_ns=np.concatenate([np.array(t, np.int64) for t in times]),
            length=np.array([len(t) for t in times], np.int32),
        )
        for own, time in zip(times, burst_times(found), strict=True):
            assert time in own
            assert sum(t < time for t in own) <= (len(own) - 1) // 4 < sum(t <= time for t in own)


class TestConclude:
    def test_a_quiet_machine_gives_the_plain_time(self) -> None:
        found = concluded(filled()).measurement("time")
        assert found.latency_ns == pytest.approx(3 * MS, rel=0.003)
        assert found.low_ns < 3 * MS < found.high_ns
        assert found.status == "ok"
        assert found.contention["slowdown"] == pytest.approx(1, abs=0.003)

    def test_a_machine_slower_throughout_gives_the_same(self) -> None:
        """But less surely: how the model feels it was not seen."""
        quiet = concluded(filled())
        slow = concluded(filled(slow=1.1))
        latency = slow.measurement("time").latency_ns
        assert latency == pytest.approx(3 * MS, rel=0.02)
        assert slow.relative_half_width > 2 * quiet.relative_half_width
        assert slow.measurement("time").contention["slowdown"] == pytest.approx(1.1, abs=0.03)

    def test_the_record_says_what_it_rests_on(self) -> None:
        log = filled()
        log.load_ns, log.first_ns, log.seconds, log.peak_memory = 40, 50, 1.5, 1 << 20
        log.warm_ns = np.array([9 * MS] + [3 * MS] * 20)
        found = log.complete(concluded(log).measurement("time"))
        assert found.workload == log.workload
        assert (found.session, found.created, found.tags) == ("s1", CONTEXT.created, CONTEXT.tags)
        assert found.fingerprint == CONTEXT.fingerprint
        assert found.canaries == tuple(c.name for c in CANARIES)
        assert (found.load_ns, found.first_inference_ns, found.seconds) == (40, 50, 1.5)
        assert (found.peak_memory_bytes, found.energy_mj) == (1 << 20, None)
        assert (found.warmup, found.stop_reason) == ("warm-up", "time")
        assert len(found.bursts) == 24

    def test_canaries_of_one_kind_share_its_sensitivity(self) -> None:
        """So that a latency can be restated for other canonical times, canary by canary."""
        found = concluded(filled()).measurement("time")
        prior = prior_sensitivity(1_500_000, 3 * MS)
        one, two, *others = found.beta
        assert one == two == pytest.approx(prior.mean[0] / 2, abs=0.1)
        assert others == pytest.approx(prior.mean[1:], abs=0.1)

    def test_percentiles_are_of_all_runs_or_refused(self) -> None:
        few = concluded(filled(rounds=2, processes=2)).measurement("time").observed
        assert [p.q for p in few] == [50, 90, 99]
        assert [p.value_ns is None for p in few] == [False, True, True]
        log = filled(processes=10)
        # Rejected for the estimate, they were met all the same.
        log.rows = [
            (p, c, i, {**b, "preemptions": 5 * (p < 8), "waited_ns": 90 * MS})
            for p, c, i, b in log.rows
        ]
        many = concluded(log).measurement("time").observed
        assert [p.value_ns is None for p in many] == [False, False, False]

    def test_contention_tells_shares_of_the_bursts(self) -> None:
        log = filled(processes=2, rounds=5)
        changes = [
            {"preemptions": 5, "waited_ns": 90 * MS},
            {"preemptions": 1},
            {"steal_ns": 20 * MS},
            *[{}] * 7,
        ]
        log.rows = [
            (p, c, i, {**b, **change})
            for (p, c, i, b), change in zip(log.rows, changes, strict=True)
        ]
        found = concluded(log).measurement("time").contention
        assert found["preempted"] == pytest.approx(0.2)
        assert found["stolen"] == pytest.approx(0.1)
        assert found["rejected"] == pytest.approx(0.2)

    def test_rejected_bursts_do_not_move_it(self) -> None:
        log = filled()
        log.rows[::3] = [
            (p, c, i, burst([30 * MS] * 5, preemptions=5, waited_ns=90 * MS))
            for p, c, i, _ in log.rows[::3]
        ]
        found = concluded(log).measurement("time")
        assert found.latency_ns == pytest.approx(3 * MS, rel=0.005)
        assert found.bursts.sample_ns.max() == 30 * MS

    @pytest.mark.parametrize(
        ("spread", "status"), [(0.003, "ok"), (0.5, "inconclusive")], ids=["narrow", "wide"]
    )
    def test_a_wide_interval_is_no_answer(self, spread: float, status: str) -> None:
        found = concluded(filled(spread=spread))
        assert (found.relative_half_width > WIDEST) == (status == "inconclusive")
        assert found.status == status

    def test_more_threads_are_observed_only(self) -> None:
        assert concluded(filled(), anchors=False).status == "observed_only"

    def test_a_look_that_spends_less_error_has_a_wider_interval(self) -> None:
        log = filled()
        early = conclude(log, CONTEXT, 0.99, 0.95, REFERENCE).measurement("precision")
        late = conclude(log, CONTEXT, 0.95, 0.95, REFERENCE).measurement("time")
        assert early.low_ns < late.low_ns < late.high_ns < early.high_ns
        assert early.confidence == late.confidence == 0.95


class TestReference:
    def test_an_epoch_anchors(self) -> None:
        """Canonical times a tenth lower: the machine is a tenth slower than it can be."""
        times = tuple(c / 1.1 for c in C0)
        found = concluded(filled(), epoch=an_epoch(0.001, times)).measurement("time")
        assert found.latency_ns == pytest.approx(3 * MS / 1.1, rel=0.02)
        assert (found.epoch, found.canary_ref_ns) == ("epoch-0", times)

    def test_without_one_the_session_itself_does(self) -> None:
        found = concluded(filled()).measurement("time")
        assert (found.epoch, found.canary_ref_ns) == (None, C0)

    def test_its_uncertainty_is_counted_once_for_each_kind(self) -> None:
        """Two conv canaries of ± 4 % make one of ± 2.8 %; the sensitivity to it is about 1."""
        sure = concluded(filled(), epoch=an_epoch(1e-6)).estimate
        unsure = concluded(filled(), epoch=an_epoch(0.04)).estimate
        added = np.sqrt(unsure.se**2 - sure.se**2)
        compute, *others = unsure.beta
        wanted = 0.04 / 1.96 * np.linalg.norm([compute / np.sqrt(2), *others])
        assert added == pytest.approx(wanted, rel=1e-3)
        assert unsure.log_latency == sure.log_latency


class TestTooLittle:
    def test_no_bursts(self) -> None:
        with pytest.raises(InconclusiveError, match="net0: no worker lived long enough"):
            concluded(BurstLog(measurement().workload))

    @pytest.mark.parametrize("kept", [0, 1])
    def test_too_few_that_count(self, kept: int) -> None:
        log = filled(processes=1, rounds=6, preemptions=5, waited_ns=90 * MS)
        log.rows[:kept] = [(p, c, i, burst(b["ns"])) for p, c, i, b in log.rows[:kept]]
        message = rf"^net0: {kept} of 6 bursts count, too few \(preempted\); leave .* a free core"
        with pytest.raises(InconclusiveError, match=message) as caught:
            concluded(log)
        assert "\n" not in str(caught.value)

    def test_a_single_good_one(self) -> None:
        with pytest.raises(InconclusiveError, match="1 of 1 bursts count, too few; leave"):
            concluded(filled(processes=1, rounds=1))
