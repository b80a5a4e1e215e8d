"""The parent's side of a worker process: start it, ask it, and survive whatever it does."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hwbench.errors import ModelError, WorkerError
from hwbench.measure.jobs import RunnerSpec
from hwbench.measure.scratch import prefix
from hwbench.measure.worker import NOTE_BYTES

_WORKER = Path(__file__).with_name("worker.py")
#: A request that takes longer than its own expected time plus this is a hang.
GRACE_S = 60.0
#: Loading a model of gigabytes, and its first run.
LOAD_S = 240.0
#: No library may start threads of its own beside the model: neither numpy's pool, nor the
#: uploader of onnxruntime's telemetry (on by default on Linux since 1.29).
QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
_IMPORTS_FROM = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV")


class WorkerProcess:
    """A running worker. Use it as a context manager; leaving it ends the process.

    Every request has a bound in time. A worker that dies or hangs raises
    :class:`~hwbench.errors.WorkerError`; a runner that refuses its model raises
    :class:`~hwbench.errors.ModelError` and the worker lives on. The worker also ends with the
    thread that started it. It runs on the cores that its parent may use.
    """

    def __init__(self, python: str) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes both
        self._note = tempfile.TemporaryFile()  # noqa: SIM115
        self._make_room()
        # A runner's temporary folders bear our name: a later run finds those of a killed one.
        env = {**os.environ, **QUIET, "HWBENCH_SCRATCH": prefix()}
        if python != sys.executable:  # what this interpreter imports from is not for another
            env = {name: value for name, value in env.items() if name not in _IMPORTS_FROM}
        try:
            self._process = subprocess.Popen(
                [python, "-u", str(_WORKER), str(self._note.fileno())],
                pass_fds=(self._note.fileno(),),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                env=env,
                start_new_session=True,
            )
        except OSError as error:
            self._close_files()
            raise WorkerError(f"cannot start a worker with {python!r}: {error}") from error
        self._answers: queue.Queue[str] = queue.Queue()
        self._waiting = False
        self._reader = threading.Thread(target=self._pump, daemon=True)
        self._reader.start()

    def _make_room(self) -> None:
        """A worker that notes its turn where the disk has no room would die of it."""
        try:
            os.posix_fallocate(self._note.fileno(), 0, NOTE_BYTES)
        except OSError as error:
            self._close_files()
            folder = tempfile.gettempdir()
            raise WorkerError(
                f"no room for a worker's files: {error.strerror}: free some under {folder}, or set "
                "TMPDIR"
            ) from error

    def _pump(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    @property
    def turn(self) -> str:
        """The slot of the runner that worked last, also when the worker has died of it."""
        return os.pread(self._note.fileno(), NOTE_BYTES, 0).strip(b" \0").decode(errors="replace")

    def close(self) -> None:
        """End the worker: politely, or by force where it is at work or does not listen."""
        if self._waiting:
            self._process.kill()
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except OSError:
                self._process.kill()
        self._end(2)
        with suppress(ProcessLookupError):  # what a runner may have started beside itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._close_files()

    def _close_files(self) -> None:
        self._stderr.close()
        self._note.close()

    def _end(self, patience_s: float) -> int:
        try:
            return self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def ask(self, op: str, *args: Any, expect_s: float = 0.0) -> dict[str, Any]:
        """Send one request and wait for its answer, at most ``expect_s`` plus a grace."""
        assert self._process.stdin is not None
        self._waiting = True  # an interrupt leaves it so
        try:
            self._process.stdin.write(json.dumps({"op": op, "args": args}) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=expect_s + GRACE_S)
        except queue.Empty:
            self._process.kill()
            limit_s = expect_s + GRACE_S
            raise WorkerError(
                f"the worker gave no answer to {op!r} within {limit_s:.0f} s and was ended"
            ) from None
        except OSError:
            line = ""
        if not line.endswith("\n"):  # nothing, or what it could still say when it died
            raise WorkerError(self._obituary(op))
        self._waiting = False
        try:
            answer: Any = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise WorkerError(f"the worker answered nonsense to {op!r}: is it a Python?")
        if "error" in answer:
            kind = WorkerError if answer["type"] == "DeviceError" else ModelError
            raise kind(str(answer["error"]))
        return answer

    def load(self, slot: str, runner: RunnerSpec) -> dict[str, Any]:
        """Load a runner under the name ``slot``."""
        return self.ask("load", slot, runner.file, dict(runner.args), expect_s=LOAD_S)

    def load_together(self, runners: Sequence[tuple[str, RunnerSpec]]) -> dict[str, dict[str, Any]]:
        """Load several by their slots, at once where that can be; each one's answer."""
        loads = [(slot, runner.file, dict(runner.args)) for slot, runner in runners]
        return self.ask("load_together", loads, expect_s=LOAD_S * len(loads))

    def _obituary(self, op: str) -> str:
        code = self._end(2)
        cause = f"exit code {code}" if code >= 0 else f"signal {-code}"
        if -code in set(signal.Signals):  # real-time signals have no names
            cause = signal.Signals(-code).name
        if -code == signal.SIGKILL:
            cause += " (out of memory?)"
        self._stderr.seek(0)
        tail = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = f": {tail[-1][:200]}" if tail else ""
        return f"the worker died while it did {op!r}, {cause}{last}"


class Workers:
    """Fresh workers, one after the other.

    What a process has in memory takes a fifth of a second to be taken apart: where all went well
    the next one begins meanwhile.
    """

    def __init__(self) -> None:
        self._ending: list[threading.Thread] = []

    @contextmanager
    def fresh(self, python: str) -> Iterator[WorkerProcess]:
        """A fresh worker of an interpreter."""
        worker = WorkerProcess(python)
        try:
            yield worker
        except BaseException:
            worker.close()
            raise
        self._ending.append(threading.Thread(target=worker.close))
        self._ending[-1].start()

    def end(self) -> None:
        """Wait until all have ended."""
        for thread in self._ending:
            thread.join()
        self._ending.clear()
