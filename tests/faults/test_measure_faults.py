"""Sessions in which models, canaries and workers fail, or the session itself: real processes."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwbench.errors import EXIT_DEVICE, DeviceError, ModelError, WorkerError
from hwbench.measure import process
from hwbench.measure.jobs import Canary, Job, RunnerSpec
from hwbench.measure.plan import Failure, Plan
from hwbench.measure.session import measure
from hwbench.records import Measurement
from tests.targets import LocalTarget, job, leaves_nothing, runner

PLAN = Plan(processes=2, seconds=1e-3)

#: A runner is run once when loaded, 60 times to warm up, then 10 and 20 times in a round.
IN_LOAD, IN_WARM_UP, IN_ROUNDS = 1, 20, 80


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with leaves_nothing(tmp_path, monkeypatch):
        yield


def assert_fails_alone(target: LocalTarget, good: list[Job], bad: Job) -> Failure:
    """The others are measured as if it had never been there."""
    failure, *others = measure(target, [good[0], bad, good[1]], PLAN, None)
    assert isinstance(failure, Failure)
    assert failure.workload == bad.workload
    assert str(failure.error).startswith("bad: ")
    assert "\n" not in str(failure.error)
    assert {o.workload.name for o in others} == {"good0", "good1"}
    for other in others:
        assert isinstance(other, Measurement)
        # A worker that the other one ended is a process of its own, where it measured anything.
        assert set(other.bursts.process) in ({0, 1}, {1, 2}, {0, 1, 2})
        assert set(other.bursts.round) >= {0, 1}
        assert other.canary_ref_ns
    return failure


@pytest.mark.parametrize("at", [IN_LOAD, IN_WARM_UP, IN_ROUNDS])
class TestAModelFailsAlone:
    @pytest.mark.parametrize(
        ("fault", "cause"),
        [
            ("ctypes.string_at(0)", "SIGSEGV"),
            ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL (out of memory?)"),
            ("sys.exit('no licence')", "exit code 1: no licence"),
        ],
    )
    def test_when_it_ends_the_worker(
        self, tmp_path: Path, target: LocalTarget, good: list[Job], fault: str, cause: str, at: int
    ) -> None:
        bad = job("bad", runner(tmp_path, fault, at=at, us=10))
        error = assert_fails_alone(target, good, bad).error
        assert isinstance(error, WorkerError)
        assert str(error).endswith(cause)

    @pytest.mark.parametrize(
        ("fault", "cause"),
        [
            ("raise ValueError('no such\\n weights')", "no such weights"),
            ("return [1] * (n + 1)", "the runner answered run("),
        ],
    )
    def test_when_it_refuses(
        self, tmp_path: Path, target: LocalTarget, good: list[Job], fault: str, cause: str, at: int
    ) -> None:
        bad = job("bad", runner(tmp_path, fault, at=at, us=10))
        error = assert_fails_alone(target, good, bad).error
        assert isinstance(error, ModelError)
        assert cause in str(error)


def test_a_model_that_takes_all_memory_fails_alone(
    tmp_path: Path, target: LocalTarget, good: list[Job]
) -> None:
    """What the system refuses it; where it kills instead, that is a death, above."""
    bad = job("bad", runner(tmp_path, "bytearray(1 << 60)", at=IN_ROUNDS, us=10))
    assert str(assert_fails_alone(target, good, bad).error) == "bad: MemoryError"


def test_a_model_that_hangs_fails_alone(
    tmp_path: Path, target: LocalTarget, good: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE_S", 2.0)
    bad = job("bad", runner(tmp_path, "time.sleep(600)", at=IN_ROUNDS, us=10))
    error = assert_fails_alone(target, good, bad).error
    assert isinstance(error, WorkerError)
    assert "gave no answer to 'round' within 2 s" in str(error)


class TestModels:
    def test_one_that_fails_in_a_later_process_fails(
        self, tmp_path: Path, target: LocalTarget, good: list[Job]
    ) -> None:
        """In the first, all was well."""
        first = str(tmp_path / "first")
        fault = f"open({first!r}, 'x').close() if self.at == 1 else None"
        assert_fails_alone(target, good, job("bad", runner(tmp_path, fault, at=1)))

    def test_all_may_fail(self, tmp_path: Path, target: LocalTarget) -> None:
        bad = [
            job(f"bad{at}", runner(tmp_path, "os._exit(9)", at=at, us=10))
            for at in (IN_LOAD, IN_WARM_UP, IN_ROUNDS)
        ]
        results = list(measure(target, bad, PLAN, None))
        assert len(results) == 3
        assert all(isinstance(r, Failure) for r in results)

    def test_a_clock_that_stands_still_is_no_latency(
        self, tmp_path: Path, target: LocalTarget, good: list[Job]
    ) -> None:
        still = "self.run = lambda n: [0] * n; return [0] * n"
        failure = assert_fails_alone(target, good, job("bad", runner(tmp_path, still, at=1)))
        assert "the clock gave 0 ns" in str(failure.error)

    def test_a_measurement_stands_without_its_peak_memory(
        self, tmp_path: Path, target: LocalTarget
    ) -> None:
        """That is a pass of its own, in a third process here."""
        folder = tmp_path / "processes"
        folder.mkdir()
        fault = (
            f"open(os.path.join({str(folder)!r}, str(os.getpid())), 'w').close(); "
            f"len(os.listdir({str(folder)!r})) > 2 and os._exit(9)"
        )
        plan = dataclasses.replace(PLAN, memory=True)
        (result,) = measure(target, [job("net", runner(tmp_path, fault, at=1))], plan, None)
        assert isinstance(result, Measurement)
        assert len(list(folder.iterdir())) == 3
        assert result.peak_memory_bytes is None


class TestCanaries:
    """One that fails is the device's fault, and no model is blamed."""

    def target(self, folder: Path, fault: str, at: int) -> LocalTarget:
        class Ill(LocalTarget):
            def canaries(self, threads: int) -> tuple[Canary, ...]:
                *others, last = super().canaries(threads)
                ill = runner(folder, fault, at=at, us=10)
                return (*others, dataclasses.replace(last, name="ill", runner=ill))

        return Ill(folder)

    @pytest.mark.parametrize("at", [1, 20, 205])  # when loaded, warmed, in rounds
    def test_death(self, tmp_path: Path, good: list[Job], at: int) -> None:
        with pytest.raises(WorkerError, match="the worker died while it did"):
            list(measure(self.target(tmp_path, "os._exit(9)", at), good, PLAN, None))

    @pytest.mark.parametrize("at", [1, 20])
    def test_refusal(self, tmp_path: Path, good: list[Job], at: int) -> None:
        with pytest.raises(DeviceError, match="canary ill: not today"):
            list(
                measure(
                    self.target(tmp_path, "raise ValueError('not today')", at), good, PLAN, None
                )
            )


def test_a_device_that_cannot_run_its_own_network_is_ill(tmp_path: Path, good: list[Job]) -> None:
    class Ill(LocalTarget):
        def backdrop(self, folder: Path, threads: int) -> RunnerSpec:
            return runner(tmp_path, "raise ValueError('not today')", at=1)

    with pytest.raises(DeviceError, match="network of hwbench's own: not today") as caught:
        list(measure(Ill(tmp_path), good, PLAN, None))
    assert caught.value.exit_code == EXIT_DEVICE


class TestInterrupts:
    def test_one_in_the_middle_of_a_block_comes_through(
        self, target: LocalTarget, good: list[Job]
    ) -> None:
        def interrupt(share: float) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(measure(target, good, PLAN, None, progress=interrupt))

    def test_what_two_processes_measured_is_not_lost(
        self, target: LocalTarget, good: list[Job]
    ) -> None:
        def interrupt(share: float) -> None:
            if share > 0.75:
                raise KeyboardInterrupt

        plan = dataclasses.replace(PLAN, processes=4)
        found: list[Measurement | Failure] = []
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - what came before it is the point
            for result in measure(target, good, plan, None, progress=interrupt):
                found.append(result)
        assert {r.workload.name for r in found} == {"good0", "good1"}
        for result in found:
            assert isinstance(result, Measurement)
            assert result.stop_reason == "interrupted"
            assert 2 <= len(set(result.bursts.process)) <= 4

    def test_one_of_a_worker_at_work_is_not_waited_out(
        self, tmp_path: Path, target: LocalTarget
    ) -> None:
        def interrupt(number: int, frame: object) -> None:
            raise KeyboardInterrupt

        jobs = [job("slow", runner(tmp_path, "time.sleep(600)", at=IN_ROUNDS, us=10))]
        previous = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 1.5)
        try:
            with pytest.raises(KeyboardInterrupt):
                list(measure(target, jobs, PLAN, None))
        finally:
            signal.signal(signal.SIGALRM, previous)
