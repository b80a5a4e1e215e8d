"""The worker and its parent's side, for real: what runners do well, and whatever else they do."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hwbench.devices import get_device
from hwbench.errors import ModelError, WorkerError
from hwbench.measure import process, worker
from hwbench.measure.process import WorkerProcess
from hwbench.measure.worker import NOTE_BYTES
from tests.targets import leaves_nothing, runner, runner_file, tiny_net

NO_CANARIES: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with leaves_nothing(tmp_path, monkeypatch):
        yield


def refusal(caught: pytest.ExceptionInfo[Exception]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


_MEETING = """
import os, time

{word}

class Runner:
    def run(self, n):
        return [1000] * n

def load(args):
    if args.get("refused"):
        raise ValueError("refused by its runner")
    open(args["own"], "w").close()
    end = time.monotonic() + args["patience"]
    while not os.path.exists(args["other"]):
        if time.monotonic() > end:
            raise ValueError("nobody came")
        time.sleep(0.001)
    return Runner()
"""


class TestLoadingTogether:
    """Two runners that each wait, while they are loaded, until the other one is loaded too."""

    @staticmethod
    def pair(folder: Path, word: str, patience: float, **more: object) -> list[tuple[str, Any]]:
        source = _MEETING.format(word=word)
        files = [str(folder / name) for name in "ab"]
        return [
            (name, runner_file(folder, source, own=own, other=other, patience=patience, **more))
            for name, own, other in zip("ab", files, files[::-1], strict=True)
        ]

    def test_at_once_where_the_runtime_allows_it(self, tmp_path: Path) -> None:
        with WorkerProcess(sys.executable) as opened:
            found = opened.load_together(self.pair(tmp_path, "LOADS_TOGETHER = True", 60))
            for slot in "ab":
                assert found[slot]["load_ns"] > 0
                assert opened.ask("warm", slot, 0.0, 2, 2)["ns"] == [1000, 1000]

    def test_one_after_the_other_where_it_does_not(self, tmp_path: Path) -> None:
        with (
            WorkerProcess(sys.executable) as opened,
            pytest.raises(ModelError, match="nobody came"),
        ):
            opened.load_together(self.pair(tmp_path, "", 0.1))

    def test_a_refusal_is_told_and_the_worker_lives(self, tmp_path: Path) -> None:
        sound = self.pair(tmp_path, "LOADS_TOGETHER = True", 60)
        refused = self.pair(tmp_path, "LOADS_TOGETHER = True", 60, refused=True)
        with WorkerProcess(sys.executable) as opened:
            for pair in ([sound[0], refused[1]], [refused[0], sound[1]]):
                (tmp_path / "a").touch()
                (tmp_path / "b").touch()
                with pytest.raises(ModelError, match="refused by its runner"):
                    opened.load_together(pair)
            opened.load_together(sound)


class TestOnnxruntime:
    @pytest.fixture
    def loaded(self, tmp_path: Path) -> Iterator[tuple[WorkerProcess, dict[str, Any]]]:
        spec = get_device("cpu").job(tiny_net(), 1).build(tmp_path)
        with WorkerProcess(sys.executable) as opened:
            yield opened, opened.load("net", spec)

    def test_loading_tells_its_times_and_the_memory_before(
        self, loaded: tuple[WorkerProcess, dict[str, Any]]
    ) -> None:
        _, answer = loaded
        assert answer["load_ns"] > 0
        assert answer["first_ns"] > 0
        assert 1 << 20 < answer["resident"] < 1 << 34

    def test_a_round_times_bursts_between_readings(
        self, loaded: tuple[WorkerProcess, dict[str, Any]]
    ) -> None:
        opened, _ = loaded
        began = time.perf_counter_ns()
        canaries = [["net", 4, 1, 0], ["net", 2, 0, 0]]
        answer = opened.ask("round", [["net", 7, 2], ["net", 3, 0]], canaries)
        bursts = answer["bursts"]
        assert [len(b["ns"]) for b in bursts] == [7, 3]
        assert all(isinstance(t, int) and t > 0 for b in bursts for t in b["ns"])
        assert [len(reading) for reading in answer["readings"]] == [2, 2, 2]
        # One clock for all processes of a machine, so that bursts can be put on a time line.
        assert began < bursts[0]["start"] < bursts[1]["start"] < time.perf_counter_ns()
        assert all(b["preemptions"] >= 0 and b["steal_ns"] >= 0 for b in bursts)
        assert all(isinstance(b["migrated"], bool) for b in bursts)

    def test_a_round_of_nothing_reads_the_canaries_once(
        self, loaded: tuple[WorkerProcess, dict[str, Any]]
    ) -> None:
        answer = loaded[0].ask("round", [], [["net", 2, 0, 0]])
        assert answer["bursts"] == []
        assert len(answer["readings"]) == 1

    def test_a_reading_stands_for_as_long_as_it_was_told(
        self, loaded: tuple[WorkerProcess, dict[str, Any]], tmp_path: Path
    ) -> None:
        opened, _ = loaded
        opened.load("slow", get_device("cpu").job(tiny_net(8), 1).build(tmp_path))
        steps, canaries = [["net", 3, 0]] * 20, [["slow", 1, 0, 3600], ["net", 1, 0, 0]]
        first, second = (opened.ask("round", steps, canaries)["readings"] for _ in "ab")
        kept = {slow for slow, _ in first + second}
        assert len(kept) == 1
        assert len({net for _, net in first}) > 1
        anew = [opened.ask("round", [], [["slow", 1, 0, 0]])["readings"][0][0] for _ in range(20)]
        assert len(set(anew)) > 1

    def test_warming_keeps_to_its_bounds(
        self, loaded: tuple[WorkerProcess, dict[str, Any]]
    ) -> None:
        opened, _ = loaded
        assert len(opened.ask("warm", "net", 0.0, 5, 60)["ns"]) == 5
        assert len(opened.ask("warm", "net", 9.0, 5, 60)["ns"]) == 60

    def test_the_profile_names_the_operators(
        self, loaded: tuple[WorkerProcess, dict[str, Any]]
    ) -> None:
        profile = loaded[0].ask("profile", "net", 20)["ops"]
        kinds = [node["kind"] for node in profile["nodes"]]
        assert any("Conv" in kind for kind in kinds)
        assert 0 < sum(node["ns"] for node in profile["nodes"]) <= 1.05 * profile["whole_ns"]

    def test_the_model_is_alone_in_the_process(
        self, loaded: tuple[WorkerProcess, dict[str, Any]]
    ) -> None:
        """No pool of numpy's, no uploader of onnxruntime's telemetry."""
        assert psutil.Process(loaded[0].pid).num_threads() == 1

    def test_memory_has_a_peak(self, loaded: tuple[WorkerProcess, dict[str, Any]]) -> None:
        memory = loaded[0].ask("memory")
        assert 0 < memory["now"] <= memory["peak"]

    def test_a_model_that_was_never_loaded_is_an_error(
        self, loaded: tuple[WorkerProcess, dict[str, Any]]
    ) -> None:
        with pytest.raises(ModelError, match="KeyError: 'other'") as caught:
            loaded[0].ask("check", "other")
        refusal(caught)

    def test_a_file_that_is_no_model_is_refused(
        self, loaded: tuple[WorkerProcess, dict[str, Any]], tmp_path: Path
    ) -> None:
        opened, _ = loaded
        spec = get_device("cpu").job(tiny_net(), 1).build(tmp_path)
        Path(spec.args["model"]).write_bytes(b"no model")
        with pytest.raises(ModelError, match=r"\.onnx: onnxruntime cannot load it") as caught:
            opened.load("other", spec)
        refusal(caught)
        opened.ask("check", "net")  # and the worker lives on


class TestBadRunners:
    """What a runner does on its fifth run (``at``), and what its parent is told."""

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            ("raise ValueError('bad\\n\\n  weights')", r"^bad weights$"),
            ("raise KeyError('weights')", r"^KeyError: 'weights'$"),
            ("raise RuntimeError", r"^RuntimeError$"),
            ("raise MemoryError('x' * 9999)", r"^MemoryError: x{487}$"),
            ("return []", r"^the runner answered run\(1\) with 0 times: \[\]$"),
            ("return [1, 2]", r"^the runner answered run\(1\) with 2 times: \[1, 2\]$"),
            ("return [-1]", r"^the runner answered run\(1\) with 1 times: \[-1\]$"),
            ("return ['soon']", r"invalid literal for int"),
            ("return [float('nan')]", r"cannot convert float NaN to integer"),
        ],
    )
    def test_an_exception_is_an_answer(self, tmp_path: Path, fault: str, message: str) -> None:
        with WorkerProcess(sys.executable) as opened:
            opened.load("bad", runner(tmp_path, fault, at=5, us=0))
            with pytest.raises(ModelError, match=message) as caught:
                opened.ask("warm", "bad", 0.0, 10, 10)
            refusal(caught)
            # The worker lives, and so does the runner: the fault was its own, and is over.
            assert len(opened.ask("warm", "bad", 0.0, 3, 3)["ns"]) == 3

    @pytest.mark.parametrize(
        ("fault", "cause"),
        [
            ("ctypes.string_at(0)", "SIGSEGV"),
            ("os.abort()", "SIGABRT"),
            ("os.kill(os.getpid(), signal.SIGKILL)", r"SIGKILL \(out of memory\?\)"),
            ("os.kill(os.getpid(), signal.SIGRTMIN + 1)", r"signal \d+"),
            ("raise SystemExit(3)", "exit code 3"),
            ("os._exit(0)", "exit code 0"),
            ("print('out of cheese', file=sys.stderr); os._exit(7)", "exit code 7: out of cheese"),
        ],
    )
    def test_a_death_is_told_with_its_cause(self, tmp_path: Path, fault: str, cause: str) -> None:
        with WorkerProcess(sys.executable) as opened:
            opened.load("good", runner(tmp_path))
            opened.load("bad", runner(tmp_path, fault, at=5, us=0))
            with pytest.raises(WorkerError, match=rf"died while it did 'round', {cause}") as caught:
                opened.ask("round", [["good", 3, 1], ["bad", 9, 0], ["good", 3, 1]], NO_CANARIES)
            refusal(caught)
            assert opened.turn == "bad"
            with pytest.raises(WorkerError, match="died while it did 'memory'"):
                opened.ask("memory")

    def test_a_hang_is_ended(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with WorkerProcess(sys.executable) as opened:
            opened.load("bad", runner(tmp_path, "time.sleep(60)", at=5))
            monkeypatch.setattr(process, "GRACE_S", 0.3)
            with pytest.raises(WorkerError, match="no answer to 'warm' within 1 s") as caught:
                opened.ask("warm", "bad", 0.0, 10, 10, expect_s=0.5)
            refusal(caught)
            assert opened.turn == "bad"

    def test_a_long_run_is_no_hang(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with WorkerProcess(sys.executable) as opened:
            opened.load("slow", runner(tmp_path, "time.sleep(0.6)", at=5))
            monkeypatch.setattr(process, "GRACE_S", 0.3)
            assert len(opened.ask("warm", "slow", 0.0, 10, 10, expect_s=5)["ns"]) == 10

    def test_what_it_prints_does_not_become_an_answer(self, tmp_path: Path) -> None:
        chatter = 'print("{}"); sys.__stdout__.flush(); os.write(1, b"{}\\n"); os.system("echo {}")'
        with WorkerProcess(sys.executable) as opened:
            opened.load("loud", runner(tmp_path, chatter, at=2))
            assert len(opened.ask("warm", "loud", 0.0, 3, 3)["ns"]) == 3

    def test_a_flood_of_text_does_not_stop_it(self, tmp_path: Path) -> None:
        with WorkerProcess(sys.executable) as opened:
            opened.load("loud", runner(tmp_path, 'os.write(1, b"x" * (4 << 20))', at=2))
            assert len(opened.ask("warm", "loud", 0.0, 3, 3)["ns"]) == 3

    def test_a_child_that_it_leaves_behind_ends_with_it(self, tmp_path: Path) -> None:
        leave = "os.fork() or (time.sleep(60), os._exit(0))"
        with WorkerProcess(sys.executable) as opened:
            opened.load("parent", runner(tmp_path, leave, at=1))
            (child,) = psutil.Process(opened.pid).children()
        _, alive = psutil.wait_procs([child], timeout=5)
        assert not alive

    def test_a_worker_that_closes_its_pipe_and_stays_is_ended(self, tmp_path: Path) -> None:
        with WorkerProcess(sys.executable) as opened:
            opened.load("deaf", runner(tmp_path, "os.closerange(3, 99); time.sleep(60)", at=2))
            with pytest.raises(WorkerError, match="died while it did 'warm'"):
                opened.ask("warm", "deaf", 0.0, 3, 3)

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("def load(args:\n", "'\\(' was never closed"),
            ("import stats\n", "No module named 'stats'"),  # though it lies beside worker.py
            ("", "AttributeError: .* no attribute 'load'"),
            ("def load(args): return None\n", "AttributeError: .* no attribute 'run'"),
        ],
    )
    def test_a_file_that_is_no_runner_is_refused(
        self, tmp_path: Path, source: str, message: str
    ) -> None:
        with WorkerProcess(sys.executable) as opened:
            with pytest.raises(ModelError, match=message) as caught:
                opened.load("bad", runner_file(tmp_path, source))
            refusal(caught)

    def test_an_absent_file_is_refused(self, tmp_path: Path) -> None:
        with WorkerProcess(sys.executable) as opened:
            spec = runner(tmp_path)
            Path(spec.file).unlink()
            with pytest.raises(ModelError, match=r"FileNotFoundError: .*runner_.*\.py") as caught:
                opened.load("bad", spec)
            refusal(caught)

    def test_a_runner_needs_no_check(self, tmp_path: Path) -> None:
        with WorkerProcess(sys.executable) as opened:
            opened.load("plain", runner(tmp_path))
            assert opened.ask("check", "plain") == {}


class TestTheProcess:
    def test_it_dies_with_its_parent_in_the_middle_of_a_run(self, tmp_path: Path) -> None:
        spec = runner(tmp_path, "time.sleep(60)", at=2)
        program = (
            "import sys\n"
            "from hwbench.measure.process import WorkerProcess\n"
            "from hwbench.measure.jobs import RunnerSpec\n"
            "opened = WorkerProcess(sys.executable)\n"
            f"opened.load('slow', RunnerSpec({spec.file!r}, {dict(spec.args)!r}))\n"
            "print(opened.pid, flush=True)\n"
            "opened.ask('warm', 'slow', 0.0, 3, 3)\n"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
            assert parent.stdout is not None
            orphan = psutil.Process(int(parent.stdout.readline()))
            time.sleep(0.1)
            parent.kill()
        gone, alive = psutil.wait_procs([orphan], timeout=10)
        assert gone
        assert not alive

    def test_it_ends_when_its_input_does(self) -> None:
        done = subprocess.run(
            [sys.executable, worker.__file__],
            input='{"op": "memory"}\n',
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert json.loads(done.stdout)["peak"] > 0
        assert done.stderr == ""

    def test_it_imports_nothing_of_ours(self) -> None:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", worker.__file__],
            input="",
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert not re.search(r"\| +(hwbench|numpy)\b", done.stderr)

    def test_an_interrupt_of_the_terminal_does_not_reach_it(self) -> None:
        with WorkerProcess(sys.executable) as opened:
            opened.ask("memory")
            assert os.getpgid(opened.pid) != os.getpgid(0)

    def test_closing_in_the_middle_of_a_run_takes_no_patience(self, tmp_path: Path) -> None:
        opened = WorkerProcess(sys.executable)
        opened.load("slow", runner(tmp_path, "time.sleep(60)", at=2))
        previous = signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(KeyboardInterrupt), opened:
                opened.ask("warm", "slow", 0.0, 3, 3)
        finally:
            signal.signal(signal.SIGALRM, previous)
        assert not psutil.pid_exists(opened.pid)

    def test_it_runs_on_the_cores_of_its_parent(self) -> None:
        with WorkerProcess(sys.executable) as opened:
            opened.ask("memory")
            assert os.sched_getaffinity(opened.pid) == os.sched_getaffinity(0)

    def test_an_interpreter_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(WorkerError, match=r"cannot start .*no-python") as caught:
            WorkerProcess(str(tmp_path / "no-python"))
        refusal(caught)

    def test_half_an_answer_is_none(self, tmp_path: Path) -> None:
        python = tmp_path / "python"
        python.write_text("#!/bin/sh\nread line\nprintf '{\"now\": 1'\n")
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        told = "died while it did 'memory', exit code 0"
        with WorkerProcess(str(python)) as opened, pytest.raises(WorkerError, match=told):
            opened.ask("memory")

    def test_the_note_holds_any_slot(self, tmp_path: Path) -> None:
        with WorkerProcess(sys.executable) as opened:
            assert opened.turn == ""
            for slot in ("w0", "a slot of a name that is longer " * 4, "naïve"):
                opened.load(slot, runner(tmp_path))
                assert opened.turn == slot.encode()[:NOTE_BYTES].decode().strip()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
