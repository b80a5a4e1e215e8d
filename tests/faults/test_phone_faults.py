"""Sessions on a phone that drops, dies, hangs, lies, fills up or gets hot: real adb clients."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hwbench.errors import (
    EXIT_DEVICE,
    EXIT_INCONCLUSIVE,
    DeviceError,
    DeviceOfflineError,
    HwbenchError,
    InconclusiveError,
    NoSpaceError,
    PushError,
    ShellError,
    ShellTimeoutError,
    ToolOutputError,
    UnauthorisedError,
)
from hwbench.lower import to_tflite
from hwbench.measure.campaign import record
from hwbench.measure.launches import LEAST, measure_launches
from hwbench.measure.plan import Failure, Plan
from hwbench.measure.rig import MOST_BROKEN
from hwbench.records import CAUSES, Measurement
from hwbench.store import Store
from tests.loopback import (
    CorruptPush,
    DieInShell,
    DropPush,
    Hang,
    NoSpace,
    TruncateShell,
)
from tests.loopback.faults import Fault
from tests.phones import Lent, anchored, with_patience
from tests.targets import tiny_net

#: For phones that hang or stay away; what passes is waited for as long as users wait, since on a
#: busy machine a sound launch may take longer than a test would wait for one that hangs.
impatient = pytest.mark.usefixtures("impatient")

#: One workload on the phone at a time: between two there are pushes.
PLAN = Plan(processes=2, seconds=0.02, loaded=1)
NAMES = {"tiny4", "tiny5"}
#: In a script of launches, and in a push.
LAUNCH, PUSH = "--graph", ".part"
Answers = list[Measurement | Failure]


def sweep(
    lent: Lent, store: Path, midway: Callable[[], None] = lambda: None, *, nets: int = 2
) -> tuple[Answers, HwbenchError | None]:
    """A campaign of some nets, with ``midway`` called after the first one's answer.

    Its answers, and the error that ended it early.
    """
    device, answers = lent.device(), Answers()
    jobs = [device.job(tiny_net(4 + index), 1) for index in range(nets)]
    with Store.open(store) as opened:
        try:
            for answer in record(device, jobs, PLAN, opened, None, campaign="sweep"):
                answers.append(answer)
                if len(answers) == 1:
                    midway()
        except HwbenchError as error:
            return answers, error
    return answers, None


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what comes by itself; what never comes fails."""
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)  # a look at all processes takes its time


def stored(store: Path) -> set[str]:
    """The names of what the campaign holds; each of launches that came to their end."""
    with Store.open(store) as opened:
        held = opened.measurements(plan="sweep")
    for result in held:
        kept = [cause for cause in result.bursts.cause if CAUSES[cause] == "kept"]
        assert LEAST <= len(kept) <= PLAN.processes
        assert (result.bursts.sample_ns > 0).all()
    names = [result.workload.name for result in held]
    assert len(set(names)) == len(names)
    return set(names)


def goes_on(lent: Lent, store: Path) -> None:
    """Whatever was wrong is over: the same command completes the set."""
    lent.phone.faults.clear()
    lent.phone.set_tool("sound")
    lent.phone.connect(lent.client)
    with pytest.MonkeyPatch.context() as patch:
        # A short patience was for the fault: what is sound takes its time on a busy machine.
        with_patience(patch, launch_s=60.0, canary_s=10.0, back_within_s=120.0, patience_s=60.0)
        answers, error = sweep(lent, store)
    assert error is None
    assert all(isinstance(answer, Measurement) for answer in answers)
    assert stored(store) == NAMES
    assert lent.left_over() == []


#: In the first script, in which the net's launch is the fifth.
EVERY_CLIENT = [
    pytest.param(DropPush(PUSH, after_bytes=100), id="drop in mid-push"),
    pytest.param(DieInShell(LAUNCH, after_bytes=6500), id="death in mid-shell"),
    pytest.param(TruncateShell(LAUNCH, after_bytes=8000), id="truncated output"),
]
ANY_CLIENT = [
    pytest.param(CorruptPush(PUSH), id="damaged push"),
    pytest.param(DieInShell(LAUNCH, after_bytes=6500, offline_s=0.5), id="some time offline"),
    pytest.param(
        DieInShell(LAUNCH, after_bytes=3000, kill_child=False), id="a tool that outlives its shell"
    ),
]


class TestFaultsThatPass:
    def goes_on_by_itself(self, lent: Lent, store: Path, fault: Fault) -> None:
        lent.phone.faults.order(fault)
        answers, error = sweep(lent, store, nets=1)
        assert error is None
        assert lent.phone.faults.pending() == ()  # it did strike
        (result,) = answers
        assert isinstance(result, Measurement)
        assert [CAUSES[cause] for cause in result.bursts.cause] == ["kept"] * PLAN.processes
        assert stored(store) == {"tiny4"}
        assert lent.left_over() == []

    @pytest.mark.parametrize("fault", EVERY_CLIENT)
    def test_the_session_goes_on(self, lent: Lent, own_store: Path, fault: Fault) -> None:
        """With adb 29 too, whose shell says 0 when the phone died."""
        self.goes_on_by_itself(lent, own_store, fault)

    @pytest.mark.parametrize("fault", ANY_CLIENT)
    def test_whichever_the_client(self, one: Lent, own_store: Path, fault: Fault) -> None:
        self.goes_on_by_itself(one, own_store, fault)

    def test_a_death_while_the_state_is_read(self, one: Lent, own_store: Path) -> None:
        death = DieInShell("thermalservice", after_s=0.0)
        _, error = sweep(one, own_store, lambda: one.phone.faults.order(death))
        assert error is None
        assert one.phone.faults.pending() == ()
        assert stored(own_store) == NAMES

    @impatient
    def test_a_phone_that_hangs_is_given_up_in_time_and_waited_for(
        self, one: Lent, own_store: Path
    ) -> None:
        one.phone.faults.order(Hang(LAUNCH, seconds=2))  # of which a launch is given about 1
        (result,), error = sweep(one, own_store, nets=1)
        assert error is None
        assert isinstance(result, Measurement)
        assert stored(own_store) == {"tiny4"}

    def test_an_adb_server_that_is_killed_in_mid_run_is_started_again(
        self, one: Lent, own_store: Path
    ) -> None:
        (server,) = one.servers()
        killer = threading.Timer(0.4, server.kill)
        _, error = sweep(one, own_store, killer.start)
        assert error is None
        killer.join()
        assert one.servers() not in ([], [server])
        assert stored(own_store) == NAMES
        assert one.left_over() == []

    def test_a_slow_link_takes_longer(self, one: Lent, own_store: Path) -> None:
        with one.phone.faults.slow_link(200_000):
            _, error = sweep(one, own_store, nets=1)
        assert error is None
        assert stored(own_store) == {"tiny4"}


LASTING = [
    pytest.param(DropPush(PUSH, after_bytes=100), (PushError, ShellError), id="drop in mid-push"),
    pytest.param(NoSpace(PUSH), NoSpaceError, id="full"),
    pytest.param(DieInShell(LAUNCH, after_bytes=100), ShellError, id="death in mid-shell"),
]


class TestFaultsThatStay:
    @pytest.mark.parametrize(("fault", "kind"), LASTING)
    def test_they_end_the_session_and_what_was_measured_stays(
        self, one: Lent, own_store: Path, fault: Fault, kind: type[HwbenchError]
    ) -> None:
        answers, error = sweep(one, own_store, lambda: one.phone.faults.order(fault, times=99))
        assert isinstance(error, kind)
        assert error.exit_code == EXIT_DEVICE
        assert "\n" not in str(error)
        assert len(stored(own_store)) == len(answers) == 1
        goes_on(one, own_store)

    def test_a_phone_that_stays_away(
        self, one: Lent, own_store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with_patience(monkeypatch, back_within_s=2.0)  # its launches are sound
        answers, error = sweep(one, own_store, one.phone.faults.go_offline)
        assert isinstance(error, DeviceOfflineError)
        assert any("files were left" in note for note in error.__notes__)
        assert len(stored(own_store)) == len(answers) == 1
        shutil.rmtree(one.folder)
        goes_on(one, own_store)

    @impatient
    def test_a_phone_that_hangs_for_good(self, one: Lent, own_store: Path) -> None:
        def hang() -> None:
            one.phone.faults.order(Hang(LAUNCH, seconds=9))  # longer than it is waited for

        answers, error = sweep(one, own_store, hang)
        assert isinstance(error, DeviceOfflineError | ShellTimeoutError)
        assert len(stored(own_store)) == len(answers) == 1

    @impatient
    def test_trust_that_was_withdrawn(self, one: Lent, own_store: Path) -> None:
        def withdraw() -> None:
            one.phone.faults.authorise(False)
            one.phone.faults.order(DieInShell(LAUNCH, after_bytes=100))

        answers, error = sweep(one, own_store, withdraw)
        assert isinstance(error, UnauthorisedError)
        assert "unlock it" in str(error)
        assert len(stored(own_store)) == len(answers) == 1

    def test_a_phone_that_was_cleaned_up_gets_its_files_again(
        self, one: Lent, own_store: Path
    ) -> None:
        """Somebody removed the folder between two launches."""
        device = one.device()
        jobs = [device.job(tiny_net(4), 1)]
        plan = dataclasses.replace(PLAN, processes=4)

        cleaned = list[float]()

        def clean(share: float) -> None:
            if not cleaned:
                shutil.rmtree(one.folder)
            cleaned.append(share)

        found = list(
            measure_launches(
                device,
                device.launcher(1),
                jobs,
                plan,
                None,
                progress=clean,
            )
        )
        assert isinstance(found[0], Measurement)
        assert one.left_over() == []


class TestTheTool:
    @pytest.mark.parametrize("modes", [("crash", "nan"), ("warmup_only", "blank")])
    def test_a_launch_that_died_is_no_number(
        self, one: Lent, own_store: Path, modes: tuple[str, str]
    ) -> None:
        """One of each net: its two launches that count are others."""
        one.phone.set_tool(modes[0], after=4, launches=1)
        answers, error = sweep(
            one, own_store, lambda: one.phone.set_tool(modes[1], after=2, launches=1)
        )
        assert error is None
        for answer in answers:
            assert isinstance(answer, Measurement)
            assert answer.bursts.round.tolist() == [2, 3]  # of three launches
        assert stored(own_store) == NAMES

    def test_one_that_never_works_is_the_devices_error(self, one: Lent, own_store: Path) -> None:
        answers, error = sweep(one, own_store, lambda: one.phone.set_tool("crash"))
        assert isinstance(error, DeviceError)
        assert "a canary does not run: benchmark_model gave no latency" in str(error)
        assert len(stored(own_store)) == len(answers) == 1
        goes_on(one, own_store)

    @impatient
    def test_one_that_always_hangs_is_found_by_its_first_launch(
        self, one: Lent, own_store: Path
    ) -> None:
        """The script of it is given the time of one launch of a canary."""
        one.phone.set_tool("hang")
        answers, error = sweep(one, own_store)
        assert answers == []
        assert isinstance(error, ShellTimeoutError)
        assert "not done within 0.82 s" in str(error)
        assert len(one.phone.masks()) == MOST_BROKEN  # launches
        assert one.left_over() == []
        wait_until(lambda: not one.running())

    @impatient
    def test_one_that_hangs_is_ended_on_the_phone(self, one: Lent, own_store: Path) -> None:
        one.phone.set_tool("hang", after=4, launches=1)
        (result,), error = sweep(one, own_store, nets=1)
        assert error is None
        assert isinstance(result, Measurement)
        assert stored(own_store) == {"tiny4"}
        assert one.left_over() == []

    def test_a_model_that_it_refuses_fails_alone(self, one: Lent, tmp_path: Path) -> None:
        device = one.device()
        good = device.job(tiny_net(4), 1)
        broken = tmp_path / "broken.tflite"
        to_tflite(tiny_net(6).graph).save(broken)
        bad = dataclasses.replace(
            device.job(tiny_net(6), 1),
            build=lambda folder: dataclasses.replace(
                good.build(folder), args={"model": str(broken)}
            ),
        )
        broken.write_bytes(broken.read_bytes()[:500])
        plan = dataclasses.replace(PLAN, loaded=2)
        found = list(measure_launches(device, device.launcher(1), [good, bad], plan, None))
        by_name = {answer.workload.name: answer for answer in found}
        assert isinstance(by_name["tiny4"], Measurement)
        failure = by_name["tiny6"]
        assert isinstance(failure, Failure)
        assert isinstance(failure.error, ToolOutputError)
        assert "Failed to" in str(failure.error)


class TestHeat:
    def test_what_ran_hot_does_not_count_and_is_measured_again(self, one: Lent) -> None:
        device, naps, told = one.device(), list[float](), list[float]()
        jobs = [device.job(tiny_net(4), 1)]

        def cool_down(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) == 2:
                one.phone.set_state("cool")

        def heat_up(share: float) -> None:
            told.append(share)
            if len(told) == 1:  # from the look before the next script on
                one.phone.set_state("cool", reads=1, then="throttling")

        launcher = device.launcher(1)
        launcher.patience_s = 60.0
        (result,) = measure_launches(
            device, launcher, jobs, PLAN, None, progress=heat_up, sleep=cool_down
        )
        assert isinstance(result, Measurement)
        causes = [CAUSES[cause] for cause in result.bursts.cause]
        assert causes == ["kept", "throttled", "kept"]
        assert naps == [2.0, 4.0]

    @impatient
    def test_a_phone_that_is_never_fit_gives_no_number(self, one: Lent, own_store: Path) -> None:
        answers, error = sweep(one, own_store, lambda: one.phone.set_state("capped"))
        assert error is None
        failure = answers[1]
        assert isinstance(failure, Failure)
        assert isinstance(failure.error, InconclusiveError)
        assert "capped cores" in str(failure.error)
        assert len(stored(own_store)) == 1
        one.phone.set_state("cool")
        goes_on(one, own_store)

    @impatient
    def test_the_command_says_inconclusive(
        self, one: Lent, own_store: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        anchored(one.device(), own_store)
        one.phone.set_state("throttling")
        assert one.main("profile", "-s", "mbv3_small", "-n", "2") == EXIT_INCONCLUSIVE
        assert "thermal status 2" in capsys.readouterr().err
        with Store.open(own_store) as store:
            assert store.measurements() == []


@impatient
def test_an_interrupt_is_not_waited_out_and_leaves_nothing(one: Lent, own_store: Path) -> None:
    one.phone.set_tool("hang", after=4)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 2.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            sweep(one, own_store, nets=1)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert one.left_over() == []
    wait_until(lambda: not one.running())
    goes_on(one, own_store)


@impatient
def test_what_a_killed_session_left_on_the_phone_goes_with_the_next(
    one: Lent, own_store: Path
) -> None:
    """The adb client that outlives it, too, has a tool running there."""
    one.phone.set_tool("hang")
    given = [f"--option={name}={value}" for name, value in one.options.items()]
    command = ["profile", "-d", f"adb:{one.phone.serial}", "-s", "mbv3_small", "-n", "2", *given]
    with subprocess.Popen([sys.executable, "-m", "hwbench", *command]) as killed:
        wait_until(lambda: len(one.running()) > 0)
        killed.kill()
    assert one.running()
    assert len(one.left_over()) >= 2  # the tool and a canary
    goes_on(one, own_store)
    wait_until(lambda: not one.running())
