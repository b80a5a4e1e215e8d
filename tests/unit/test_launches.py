"""Sessions of launches, against a device that does what a script tells: faults, heat, drift."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.errors import (
    DeviceError,
    DeviceOfflineError,
    GraphError,
    HwbenchError,
    InconclusiveError,
    ModelError,
    NoSpaceError,
    PushError,
    ShellError,
    ShellTimeoutError,
    ToolOutputError,
    UsageError,
)
from hwbench.inputs import Stamp
from hwbench.measure import launches
from hwbench.measure.estimate import NEEDED_KINDS
from hwbench.measure.jobs import Canary, Job, Launched, Profiled, RunnerSpec, Script
from hwbench.measure.launches import LEAST, calibrate_launches, measure_launches
from hwbench.measure.plan import Failure, Plan
from hwbench.measure.rig import MOST_BROKEN
from hwbench.records import CAUSES, CanaryEpoch, Fingerprint, InputSpec, Measurement, Workload
from tests.measurements import epoch as any_epoch

CRASH = ToolOutputError("the tool crashed")
OFFLINE = DeviceOfflineError("the phone is offline")
HOT = ("thermal status 2",)
CANARY_NS = 150e3


class Phone:
    """A device and its launcher at once. Its clock wanders by ``walk`` (log) from launch to launch.

    ``script`` is asked at each launch, by the workload's name and its number (all launches
    counted): it answers None, an error to give as the outcome, or ``Break(error)``. ``states``
    are what `disturbed` answers, one a call, then ``()``.
    """

    name, python = "simulated", "python"
    drift, patience_s = 0.05, 600.0

    def __init__(self, *, seed: int = 0, walk: float = 0.0) -> None:
        self._rng, self._walk, self._level = random.Random(seed), walk, 0.0
        self.script: Any = lambda name, number: None
        self.states: Iterator[Any] = iter(())
        self.push: Any = lambda name: None
        self.back: Any = lambda: None
        self.times_ns: dict[str, float] = {}
        self.loaded: dict[str, str] = {}
        self.launched: list[str] = []
        self.scripts: list[list[str]] = []
        self.recoveries = 0
        self.left = False

    def launcher(self, threads: int) -> Self:
        return self

    def fingerprint(self, threads: int) -> Fingerprint:
        return Fingerprint(self.name, {"model": "simulated"})

    def canaries(self, threads: int) -> tuple[Canary, ...]:
        return tuple(
            Canary(f"canary_{kind}", "1", RunnerSpec("tool", {"model": kind}), 1, 0, kind)
            for kind in NEEDED_KINDS
        )

    def backdrop(self, folder: Path, threads: int) -> RunnerSpec:
        raise AssertionError("launches need no backdrop")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.left = True

    def load(self, runner: RunnerSpec) -> str:
        name = str(runner.args["model"])
        if error := self.push(name):
            raise error
        handle = f"{name} {len(self.loaded)}"
        self.loaded[handle] = name
        return handle

    def unload(self, handle: str) -> None:
        del self.loaded[handle]

    def run(self, handles: Sequence[str], seconds: float) -> Script:
        assert seconds > 0
        names = [self.loaded[handle] for handle in handles]
        self.scripts.append(names)
        outcomes: list[Launched | HwbenchError] = []
        for name in names:
            self.launched.append(name)
            self._level += self._rng.gauss(0, self._walk)
            fault = self.script(name, len(self.launched))
            if isinstance(fault, Break):
                return Script(tuple(outcomes), fault.error)
            if isinstance(fault, BaseException) and not isinstance(fault, HwbenchError):
                raise fault
            outcomes.append(fault or self._launch(name))
        return Script(tuple(outcomes))

    def _launch(self, name: str) -> Launched:
        clock = 0.0 if name == "memory" else self._level  # memory has a clock of its own
        factor = math.exp(clock + self._rng.gauss(0, 0.001))
        ns = self.times_ns.get(name, CANARY_NS) * factor
        return Launched(ns, 1e6, 2 * ns, 1 << 20, (("delegated", "1.000"),))

    def disturbed(self) -> tuple[str, ...]:
        state = next(self.states, ())
        if isinstance(state, HwbenchError):
            raise state
        return tuple(state)

    def recover(self) -> None:
        self.recoveries += 1
        if error := self.back():
            raise error

    def profile(self, handle: str, seconds: float) -> Profiled:
        raise AssertionError("not in a session")


@dataclasses.dataclass(frozen=True)
class Break:
    """The device breaks off at this launch."""

    error: DeviceError


class Clock:
    """Sleeps for no time, and notes how long."""

    def __init__(self) -> None:
        self.naps: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.naps.append(seconds)


def job(name: str, error: Exception | None = None) -> Job:
    inputs = (InputSpec("x", "float32", (1,)),)

    def build(folder: Path) -> RunnerSpec:
        assert folder.is_dir()
        if error is not None:
            raise error
        return RunnerSpec("tool", {"model": name})

    return Job(Workload(name, name, inputs, 1), build)


def jobs_of(phone: Phone, count: int) -> list[Job]:
    """Jobs net0, net1, … of 1, 2, … ms."""
    for index in range(count):
        phone.times_ns[f"net{index}"] = (index + 1) * 1e6
    return [job(f"net{index}") for index in range(count)]


def epoch_of(phone: Phone) -> CanaryEpoch:
    return dataclasses.replace(
        any_epoch(),
        names=tuple(f"canary_{kind}" for kind in NEEDED_KINDS),
        c0_ns=(CANARY_NS,) * 2,
        c0_low_ns=(0.999 * CANARY_NS,) * 2,
        c0_high_ns=(1.001 * CANARY_NS,) * 2,
    )


def run(
    phone: Phone, jobs: list[Job], sleep: Clock | None = None, **plan: Any
) -> dict[str, Measurement | Failure]:
    """A session to its end; its answers by name."""
    nap = sleep or Clock()
    answers = list(measure_launches(phone, phone, jobs, Plan(**plan), None, sleep=nap))
    assert phone.left
    found = {answer.workload.name: answer for answer in answers}
    assert len(found) == len(answers)
    return found


def measured(answer: Measurement | Failure) -> Measurement:
    assert isinstance(answer, Measurement), answer
    return answer


def causes(answer: Measurement | Failure) -> list[str]:
    return [CAUSES[cause] for cause in measured(answer).bursts.cause]


class TestAnswers:
    def test_each_workload_gets_its_own_latency(self) -> None:
        phone = Phone()
        found = run(phone, jobs_of(phone, 8), processes=4)
        for index in range(8):
            result = measured(found[f"net{index}"])
            assert result.status == "ok"
            assert result.latency_ns == pytest.approx((index + 1) * 1e6, rel=0.01)
            assert result.stop_reason == "time"
            assert causes(result) == ["kept"] * 4
            assert len(set(result.bursts.process)) == 4
            assert result.load_ns == 1_000_000
            assert result.peak_memory_bytes == 1 << 20
            assert result.tags == {"delegated": "1.000"}

    @pytest.mark.parametrize("seed", range(5))
    def test_what_moves_canaries_and_model_together_is_taken_out(self, seed: int) -> None:
        """The machine gets slower by a random walk: neither level nor trend is the model's."""
        phone = Phone(seed=seed, walk=0.01)
        jobs, anchor = jobs_of(phone, 5), epoch_of(phone)
        plan = Plan(processes=8, seed=seed)
        answers = list(measure_launches(phone, phone, jobs, plan, anchor, sleep=Clock()))
        held = 0
        for answer in answers:
            result, truth = measured(answer), phone.times_ns[answer.workload.name]
            assert result.low_ns is not None
            assert result.high_ns is not None
            held += result.low_ns <= truth <= result.high_ns
        assert held >= 4
        assert len(answers) == 5

    def test_canaries_stand_on_both_sides_of_every_launch(self) -> None:
        phone = Phone()
        run(phone, jobs_of(phone, 3), processes=2)
        pair = [f"{kind}" for kind in NEEDED_KINDS]
        for names in phone.scripts:
            for at, name in enumerate(names):
                if name.startswith("net"):
                    assert names[at - 2 : at] == names[at + 1 : at + 3] == pair

    def test_models_leave_the_device_when_their_block_is_done(self) -> None:
        phone = Phone()
        most = 0

        def note(name: str, number: int) -> None:
            nonlocal most
            most = max(most, len(phone.loaded))

        phone.script = note
        run(phone, jobs_of(phone, 9), processes=2, loaded=3)
        assert most == len(NEEDED_KINDS) + 3
        assert sorted(phone.loaded.values()) == sorted(NEEDED_KINDS)

    def test_precision_ends_it_early(self) -> None:
        phone = Phone()
        (result,) = run(phone, jobs_of(phone, 1), processes=30, precision=0.05).values()
        assert measured(result).stop_reason == "precision"
        assert len(measured(result).bursts) == 3

    def test_each_look_spends_its_error_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A launch that was rejected after a look is no reason for another."""
        looked: list[tuple[int, float]] = []
        conclude = launches.conclude

        def note(log: Any, context: Any, confidence: float, *rest: Any) -> Any:
            looked.append((len(log.rows), confidence))
            return conclude(log, context, confidence, *rest)

        monkeypatch.setattr(launches, "conclude", note)
        phone = Phone()
        states: list[tuple[str, ...]] = [()] * 6  # three launches count, each read twice
        states += [(), HOT, (), HOT]  # two do not
        phone.states = iter(states)
        run(phone, jobs_of(phone, 1), processes=6, precision=1e-9)
        assert [rows for rows, _ in looked] == [3, 7, 8]
        assert sum(1 - confidence for _, confidence in looked) == pytest.approx(0.05)

    def test_the_session_tells_its_progress_and_its_own_canary_times(self) -> None:
        phone, shares, floors = Phone(), list[float](), list[Any]()
        jobs = jobs_of(phone, 4)
        plan = Plan(processes=3, loaded=2)
        list(
            measure_launches(
                phone, phone, jobs, plan, None, progress=shares.append, watch=floors.append
            )
        )
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
        assert floors[0] == pytest.approx([CANARY_NS] * 2, rel=0.01)

    def test_one_number_of_threads_at_a_time(self) -> None:
        other = dataclasses.replace(job("b").workload, threads=2)
        mixed = [job("a"), Job(other, job("b").build)]
        with pytest.raises(UsageError, match="sessions of their own"):
            list(measure_launches(Phone(), Phone(), mixed, Plan(), None))


class TestRejection:
    def test_what_ran_while_the_device_throttled_does_not_count(self) -> None:
        phone, clock = Phone(), Clock()
        phone.states = iter([(), HOT, HOT, HOT])
        (result,) = run(phone, jobs_of(phone, 1), clock, processes=3).values()
        assert causes(result) == ["throttled", "kept", "kept", "kept"]
        assert clock.naps == [2.0, 4.0]

    def test_a_canary_that_moved_spoils_its_launch_alone(self) -> None:
        phone = Phone()
        phone.drift = 0.2

        def jump(name: str, number: int) -> None:
            """Twice the canaries, the net, and then they are slow."""
            phone.times_ns[NEEDED_KINDS[0]] = CANARY_NS * (1.3 if number in (6, 7) else 1)

        phone.script = jump
        found = run(phone, jobs_of(phone, 1), processes=3)
        assert causes(found["net0"]) == ["canary_unstable", "kept", "kept", "kept"]

    def test_launches_after_a_rest_do_not_count(self) -> None:
        """At the start the canaries are launched one by one, later in the script that follows."""
        phone = Phone()
        phone.states = iter([HOT, (), (), HOT, (), (), (), ()])
        run(phone, jobs_of(phone, 1), processes=3)
        whole = 2 * len(NEEDED_KINDS) + 1
        started = [1] * len(NEEDED_KINDS)
        assert [len(names) for names in phone.scripts] == [
            *started,
            whole,
            len(NEEDED_KINDS) + whole,
            whole,
        ]

    def test_a_device_that_stays_hot_gives_no_number(self) -> None:
        phone, clock = Phone(), Clock()
        phone.states = iter([HOT] * 1000)
        found = run(phone, jobs_of(phone, 4), clock, processes=2, loaded=2)
        assert len(found) == 4
        for answer in found.values():
            assert isinstance(answer, Failure)
            assert isinstance(answer.error, InconclusiveError)
            assert "thermal status 2" in str(answer.error)
            assert str(answer.error).startswith(answer.workload.name)
        assert sum(clock.naps) <= phone.patience_s
        assert clock.naps[:6] == [2, 4, 8, 16, 32, 60]
        assert max(clock.naps) == 60
        assert phone.launched == []

    def test_patience_is_for_the_whole_time_in_which_nothing_counts(self) -> None:
        """It is cool after each rest, and hot again after each script."""
        phone, clock = Phone(), Clock()
        phone.states = iter([(), HOT, HOT] * 1000)
        found = run(phone, jobs_of(phone, 20), clock, processes=30, loaded=20)
        assert all(isinstance(answer, Failure) for answer in found.values())
        assert sum(clock.naps) <= phone.patience_s

    def test_what_counted_before_it_got_hot_is_kept(self) -> None:
        phone = Phone()
        phone.states = iter([*[()] * 4, *[HOT] * 1000])
        (result,) = run(phone, jobs_of(phone, 1), processes=6).values()
        assert measured(result).stop_reason == "interrupted"
        assert causes(result) == ["kept", "kept"]

    def test_canaries_that_never_stand_still_end_in_no_number(self) -> None:
        phone, clock = Phone(walk=0.5), Clock()
        (answer,) = run(phone, jobs_of(phone, 1), clock, processes=3).values()
        assert isinstance(answer, Failure)
        assert isinstance(answer.error, InconclusiveError)
        assert "canaries moved by more than 5%" in str(answer.error)
        assert clock.naps
        assert sum(clock.naps) <= phone.patience_s


class TestModelsThatFail:
    def test_one_that_crashes_twice_fails_alone(self) -> None:
        phone = Phone()
        phone.script = lambda name, number: CRASH if name == "net1" else None
        found = run(phone, jobs_of(phone, 4), processes=3)
        failure = found.pop("net1")
        assert isinstance(failure, Failure)
        assert isinstance(failure.error, ToolOutputError)
        assert str(failure.error) == "net1: the tool crashed"
        assert phone.launched.count("net1") == launches.STRIKES
        assert all(len(measured(other).bursts) == 3 for other in found.values())

    def test_one_that_crashes_once_is_measured(self) -> None:
        phone = Phone()
        crashes = iter([CRASH])
        phone.script = lambda name, number: next(crashes, None) if name == "net0" else None
        (result,) = run(phone, jobs_of(phone, 1), processes=3).values()
        assert causes(result) == ["kept"] * 3

    def test_one_that_takes_the_device_down_fails_alone(self) -> None:
        phone = Phone()
        phone.script = lambda name, number: Break(OFFLINE) if name == "net1" else None
        found = run(phone, jobs_of(phone, 4), processes=3)
        failure = found.pop("net1")
        assert isinstance(failure, Failure)
        assert isinstance(failure.error, DeviceOfflineError)
        assert phone.recoveries == launches.STRIKES
        assert all(len(measured(other).bursts) == 3 for other in found.values())

    def test_breaks_that_pass_cost_no_launch_that_counted(self) -> None:
        phone, own = Phone(), iter(range(100))
        phone.script = lambda name, number: (
            Break(OFFLINE) if name == "net0" and next(own) in (2, 4, 6) else None
        )
        (result,) = run(phone, jobs_of(phone, 1), processes=5).values()
        assert causes(result) == ["kept"] * 5
        assert phone.recoveries == 3

    def test_many_that_take_it_down_do_not_give_the_device_up(self) -> None:
        phone = Phone()
        phone.script = lambda name, number: (
            Break(OFFLINE) if name.startswith("net") and name != "net0" else None
        )
        found = run(phone, jobs_of(phone, 6), processes=3)
        assert isinstance(found.pop("net0"), Measurement)
        assert all(isinstance(answer, Failure) for answer in found.values())

    @pytest.mark.parametrize("error", [GraphError("no such op"), ModelError("refused")])
    def test_one_that_cannot_be_built_fails_alone(self, error: HwbenchError) -> None:
        phone = Phone()
        found = run(phone, [*jobs_of(phone, 2), job("bad", error)], processes=2)
        failure = found.pop("bad")
        assert isinstance(failure, Failure)
        assert failure.error is error
        assert all(isinstance(other, Measurement) for other in found.values())

    def test_one_that_cannot_be_read_fails_alone(self) -> None:
        phone = Phone()
        phone.push = lambda name: UsageError("cannot read net1") if name == "net1" else None
        found = run(phone, jobs_of(phone, 2), processes=2)
        assert isinstance(found["net1"], Failure)
        assert isinstance(found["net0"], Measurement)

    def test_one_that_changed_before_it_was_sent_fails_alone(self, tmp_path: Path) -> None:
        path, phone = tmp_path / "net1.tflite", Phone()
        path.write_bytes(b"one")
        jobs = jobs_of(phone, 2)
        jobs[1] = dataclasses.replace(jobs[1], files=(Stamp.of(path),))
        path.write_bytes(b"another")
        found = run(phone, jobs, processes=2)
        assert isinstance(found["net1"], Failure)
        assert "net1.tflite changed while it was measured" in str(found["net1"].error)
        assert isinstance(found["net0"], Measurement)


class TestDevicesThatBreak:
    def ended(self, phone: Phone, jobs: list[Job], **plan: Any) -> tuple[Any, Any]:
        """A session that raises: what it yielded before, and the error."""
        found: list[Measurement | Failure] = []
        try:
            for answer in measure_launches(phone, phone, jobs, Plan(**plan), None, sleep=Clock()):
                found.append(answer)
        except (HwbenchError, KeyboardInterrupt) as error:
            assert phone.left
            return found, error
        raise AssertionError("it ended well")

    def test_finished_launches_of_a_broken_script_count(self) -> None:
        phone = Phone()
        breaks = iter([Break(OFFLINE)])
        phone.script = lambda name, number: next(breaks, None) if number == 9 else None
        found = run(phone, jobs_of(phone, 3), processes=3)
        assert phone.recoveries == 1
        # After it came back, the device is warmed up again: no launch is made twice but that.
        again = sum(phone.launched.count(f"net{i}") for i in range(3))
        assert again - 9 in (0, 1)
        assert all(causes(answer) == ["kept"] * 3 for answer in found.values())

    def test_one_that_does_not_come_back_leaves_what_two_launches_measured(self) -> None:
        phone = Phone()
        jobs = jobs_of(phone, 4)
        phone.script = lambda name, number: Break(OFFLINE) if number == 36 else None
        phone.back = lambda: DeviceOfflineError("did not come back")
        found, error = self.ended(phone, jobs, processes=5)
        assert str(error) == "did not come back"
        assert len(found) == 4
        for answer in found:
            assert measured(answer).stop_reason == "interrupted"
            assert LEAST <= len(measured(answer).bursts) < 5

    def test_an_interrupt_leaves_the_same(self) -> None:
        phone = Phone()
        jobs = jobs_of(phone, 4)
        phone.script = lambda name, number: KeyboardInterrupt() if number == 36 else None
        found, error = self.ended(phone, jobs, processes=5)
        assert isinstance(error, KeyboardInterrupt)
        assert [measured(answer).stop_reason for answer in found] == ["interrupted"] * 4

    def test_before_two_launches_there_is_nothing_to_leave(self) -> None:
        phone = Phone()
        phone.script = lambda name, number: KeyboardInterrupt() if number == 18 else None
        found, _ = self.ended(phone, jobs_of(phone, 4), processes=5)
        assert found == []

    def test_one_that_breaks_at_its_own_canaries_is_given_up(self) -> None:
        phone = Phone()
        phone.script = lambda name, number: Break(OFFLINE) if name == NEEDED_KINDS[1] else None
        found, error = self.ended(phone, jobs_of(phone, 2), processes=2)
        assert (found, error) == ([], OFFLINE)
        assert phone.launched.count(NEEDED_KINDS[1]) == MOST_BROKEN

    def test_one_whose_canaries_do_not_run_is_given_up(self) -> None:
        phone = Phone()
        phone.script = lambda name, number: CRASH if name == NEEDED_KINDS[1] else None
        found, error = self.ended(phone, jobs_of(phone, 2), processes=9)
        assert found == []
        assert str(error) == "simulated: a canary does not run: the tool crashed"
        assert phone.launched.count(NEEDED_KINDS[1]) == MOST_BROKEN

    def test_a_tool_that_hangs_is_found_by_its_first_launch(self) -> None:
        """A script is waited for as long as all its launches may take."""
        phone = Phone()
        phone.script = lambda name, number: Break(ShellTimeoutError("not done within 10 s"))
        found, error = self.ended(phone, jobs_of(phone, 4), processes=2)
        assert found == []
        assert isinstance(error, ShellTimeoutError)
        assert phone.scripts == [[NEEDED_KINDS[0]]] * MOST_BROKEN

    def test_a_canary_that_crashes_once_costs_no_more_than_its_neighbours(self) -> None:
        phone = Phone()
        phone.script = lambda name, number: CRASH if number == 6 else None
        (result,) = run(phone, jobs_of(phone, 1), processes=3).values()
        assert causes(result) == ["kept"] * 3
        assert phone.launched.count("net0") == 4

    @pytest.mark.parametrize("error", [PushError("damaged"), OFFLINE])
    def test_a_push_that_fails_is_done_again(self, error: DeviceError) -> None:
        phone = Phone()
        errors = iter([error, None, error, error, None])
        phone.push = lambda name: next(errors, None)
        found = run(phone, jobs_of(phone, 2), processes=2)
        assert all(isinstance(answer, Measurement) for answer in found.values())
        assert phone.recoveries == 3

    def test_a_push_that_always_fails_ends_the_session(self) -> None:
        phone = Phone()
        phone.push = lambda name: PushError("damaged") if name == "net0" else None
        found, error = self.ended(phone, jobs_of(phone, 2), processes=2)
        assert found == []
        assert isinstance(error, PushError)
        assert phone.recoveries == MOST_BROKEN - 1

    def test_a_full_device_ends_the_session_at_once(self) -> None:
        phone = Phone()
        phone.push = lambda name: NoSpaceError("full") if name == "net1" else None
        found, error = self.ended(phone, jobs_of(phone, 2), processes=2)
        assert found == []
        assert isinstance(error, NoSpaceError)
        assert phone.recoveries == 0

    def test_a_state_that_cannot_be_read_is_a_break_too(self) -> None:
        phone = Phone()
        gone = ShellError("no answer")
        phone.states = iter([gone, (), gone])
        found = run(phone, jobs_of(phone, 2), processes=2)
        assert all(causes(answer) == ["kept"] * 2 for answer in found.values())
        assert phone.recoveries == 2

    def test_a_state_that_can_never_be_read_ends_the_session(self) -> None:
        phone = Phone()
        phone.states = iter([ShellError("no answer")] * 100)
        _, error = self.ended(phone, jobs_of(phone, 2), processes=2)
        assert str(error) == "no answer"


class TestCalibration:
    def test_it_finds_the_canonical_times(self) -> None:
        phone, shares = Phone(), list[float]()
        phone.times_ns = {NEEDED_KINDS[0]: 2e5, NEEDED_KINDS[1]: 7e5}
        found = calibrate_launches(phone, phone, 1, progress=shares.append, sleep=Clock())
        assert found.c0_ns == pytest.approx((2e5, 7e5), rel=0.005)
        assert all(
            low <= c0 <= high
            for low, c0, high in zip(found.c0_low_ns, found.c0_ns, found.c0_high_ns, strict=True)
        )
        assert found.runs == launches.CALIBRATION_SCRIPTS
        assert shares[-1] == 1.0
        assert phone.left

    def test_it_waits_for_rest_and_leaves_hot_runs_out(self) -> None:
        phone, clock = Phone(), Clock()
        phone.states = iter([HOT, HOT, (), HOT, ()])
        found = calibrate_launches(phone, phone, 1, sleep=clock)
        assert found.runs == launches.CALIBRATION_SCRIPTS
        first = len(NEEDED_KINDS)  # launches that prove the tool
        assert len(phone.scripts) == first + launches.CALIBRATION_SCRIPTS + 1
        assert clock.naps == [2.0, 4.0]

    def test_without_rest_there_is_none(self) -> None:
        phone = Phone()
        phone.states = iter([HOT] * 1000)
        with pytest.raises(InconclusiveError, match="thermal status 2"):
            calibrate_launches(phone, phone, 1, sleep=Clock())

    def test_it_goes_on_after_a_break(self) -> None:
        phone = Phone()
        phone.script = lambda name, number: Break(OFFLINE) if number == 20 else None
        assert calibrate_launches(phone, phone, 1, sleep=Clock()).runs == 8
        assert phone.recoveries == 1

    @pytest.mark.parametrize("fault", [CRASH, Break(OFFLINE)])
    def test_a_canary_that_does_not_run_is_the_devices_fault(self, fault: Any) -> None:
        phone = Phone()
        phone.script = lambda name, number: fault
        with pytest.raises(DeviceError):
            calibrate_launches(phone, phone, 1, sleep=Clock())
        assert len(phone.scripts) == MOST_BROKEN


_faults = st.sampled_from(
    [None] * 12 + [CRASH, Break(OFFLINE), Break(ShellError("cut")), KeyboardInterrupt()]
)
_states = st.sampled_from([(), (), (), (), HOT, ShellError("no answer")])
_pushes = st.sampled_from([None] * 6 + [PushError("damaged"), NoSpaceError("full"), OFFLINE])


@settings(max_examples=300)
@given(
    faults=st.lists(_faults, max_size=120),
    states=st.lists(_states, max_size=30),
    pushes=st.lists(_pushes, max_size=8),
    backs=st.lists(st.sampled_from([None, None, None, OFFLINE]), max_size=6),
    count=st.integers(1, 5),
    loaded=st.integers(1, 3),
    walk=st.sampled_from([0.0, 0.01, 0.05]),
    seed=st.integers(0, 99),
)
def test_whatever_fails_every_job_gets_one_answer_or_the_session_says_why(
    faults: list[Any],
    states: list[Any],
    pushes: list[Any],
    backs: list[Any],
    count: int,
    loaded: int,
    walk: float,
    seed: int,
) -> None:
    phone, clock = Phone(seed=seed, walk=walk), Clock()
    jobs = jobs_of(phone, count)
    ordered, pushed, back = iter(faults), iter(pushes), iter(backs)
    phone.script = lambda name, number: next(ordered, None)
    phone.states = iter(states)
    phone.push = lambda name: next(pushed, None)
    phone.back = lambda: next(back, None)
    plan = Plan(processes=3, loaded=loaded, seed=seed)
    answers: list[Measurement | Failure] = []
    ended: BaseException | None = None
    try:
        for answer in measure_launches(phone, phone, jobs, plan, None, sleep=clock):
            answers.append(answer)
    except (HwbenchError, KeyboardInterrupt) as error:
        ended = error
    assert phone.left
    names = [answer.workload.name for answer in answers]
    assert len(set(names)) == len(names)
    if ended is None:
        assert sorted(names) == sorted(j.workload.name for j in jobs)
    for answer in answers:
        if isinstance(answer, Measurement):
            kept = causes(answer).count("kept")
            assert LEAST <= kept <= plan.processes
            assert kept == plan.processes or answer.stop_reason in ("interrupted", "time")
    canaries = len(NEEDED_KINDS)
    assert len(phone.launched) <= 3 * 3 * count * (3 * canaries + 1) + 60
