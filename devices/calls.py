"""Functions of Python on this machine's CPU: what a test hands over, run in fresh processes."""

from __future__ import annotations

import hashlib
import inspect
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwbench.devices.onnx_cpu import OnnxCpu
from hwbench.errors import ModelError, UsageError
from hwbench.inputs import Stamp
from hwbench.measure.fingerprint import fingerprint_host
from hwbench.measure.jobs import Canary, Job, RunnerSpec
from hwbench.records import Fingerprint, Workload, digest

#: What a function of a file is called: FILE.py:FUNCTION.
_IN_FILE = ".py:"
_RUNNER = str(Path(__file__).resolve().parent / "runners" / "calls.py")


class Calls:
    """A target of the engine that runs functions; its canaries are those of the cpu device.

    Its fingerprint holds the interpreter's version, and no package's: an upgrade that slows a
    function down is a change of its level, not the beginning of another series.
    """

    name = "python"
    python = sys.executable

    def __init__(self) -> None:
        self._host = OnnxCpu()

    def fingerprint(self, threads: int) -> Fingerprint:
        """CPU, system, limits and Python's version; load and frequency as state."""
        facts, state = fingerprint_host()
        return Fingerprint(
            self.name, {**facts, "runtime": "python", "python": platform.python_version()}, state
        )

    def launcher(self, threads: int) -> None:
        """None: a worker runs them."""

    def canaries(self, threads: int) -> tuple[Canary, ...]:
        """Those of the cpu device."""
        return self._host.canaries(threads)

    def backdrop(self, folder: Path, threads: int) -> RunnerSpec:
        """That of the cpu device."""
        return self._host.backdrop(folder, threads)

    def job(self, function: Callable[[], Any]) -> Job:
        """The work of calling a function, by the rule of ``runners/calls.py``.

        Raises UsageError for one that a fresh process cannot import.
        """
        name, module = getattr(function, "__qualname__", ""), getattr(function, "__module__", None)
        home = sys.modules.get(module or "")
        file = getattr(home, "__file__", None)
        if not name or "<" in name or file is None:
            raise UsageError(
                f"{name or repr(function)}: latencies are measured in fresh processes, which "
                "import what they run: give a function that stands at the top of a module"
            )
        label = f"{module}.{name}"
        if not _is_same(_found(home, name), function):
            raise UsageError(
                f"{label}: a fresh process finds something else of that name, as of a method or "
                "of what functools.wraps has named: give a function that stands there itself"
            )
        args = {"module": module, "file": file, "function": name, "path": list(sys.path)}
        workload = Workload(label, f"call:{digest(label)}", ())
        return Job(workload, lambda folder: RunnerSpec(_RUNNER, args))


def _found(home: object, name: str) -> object:
    """What a fresh process finds under a dotted name; ``None`` where that is nothing."""
    for part in name.split("."):
        home = getattr(home, part, None)
    return home


def _is_same(found: object, function: object) -> bool:
    """Whether two are one; a class method is made anew each time that it is asked for."""
    return found is function or (inspect.ismethod(found) and found == function)


def is_function(text: str) -> bool:
    """Whether a text names a function of a file: ``FILE.py:FUNCTION``."""
    return _IN_FILE in text and not Path(text).exists()


def function_job(text: str) -> Job:
    """The work of calling a function of a file, as ``FILE.py:FUNCTION`` names it.

    Raises ModelError where there is no such file.
    """
    name, _, function = text.rpartition(":")
    file = Path(name).resolve()
    if not file.is_file():
        raise ModelError(f"{name}: there is no such file")
    args = {
        "module": file.stem,
        "file": str(file),
        "function": function,
        "path": [str(file.parent)],
    }
    label = f"{file.name}:{function}"
    stamp = Stamp.of(file)
    content = hashlib.sha256(file.read_bytes()).hexdigest()[:32]
    workload = Workload(label, f"call:{content}", ())
    return Job(workload, lambda folder: RunnerSpec(_RUNNER, args), (stamp,))
