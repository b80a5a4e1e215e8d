"""Run a program of this machine, within a bound of time and of output."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from hwbench.errors import ShellError

#: A block of launches prints some hundred kilobytes.
MOST_OUTPUT = 16 << 20
#: After its group was killed, a program has this long to let go of its pipes.
_LETTING_GO_S = 2.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A process of this machine that is gone; ``code`` is None where its time was up."""

    code: int | None
    output: bytes
    errors: bytes


def call(arguments: Sequence[str], timeout_s: float) -> Ended:
    """Run a program of this machine; when its time is up, its whole process group is killed.

    Raises ShellError where it cannot be started, and where it prints without end.
    """
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise ShellError(f"cannot start {arguments[0]!r}: {error.strerror}") from error
    assert process.stdout is not None
    assert process.stderr is not None
    pipes = _Pipe(process.stdout, process), _Pipe(process.stderr, process)
    try:
        in_time = _drained(pipes, timeout_s)
    except BaseException:  # an interrupt, which the group does not see by itself
        _kill_group(process)
        process.wait()
        raise
    if not in_time:
        _kill_group(process)
        _drained(pipes, _LETTING_GO_S)  # a child that left the group may hold the pipes
    code = process.wait()
    if any(pipe.full for pipe in pipes):
        raise ShellError(
            f"{arguments[0]!r} printed more than {MOST_OUTPUT >> 20} MiB and was ended: look"
            " at what runs there"
        )
    output, errors = (bytes(pipe.content) for pipe in pipes)
    return Ended(code if in_time else None, output, errors)


class _Pipe(threading.Thread):
    """Reads a process's pipe to its end; a process that prints too much is killed."""

    def __init__(self, stream: IO[bytes], process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self._stream, self._process = stream, process
        self.content, self.full = bytearray(), False
        self.start()

    def run(self) -> None:
        with self._stream:
            while chunk := os.read(self._stream.fileno(), 1 << 16):
                if len(self.content) + len(chunk) > MOST_OUTPUT:
                    self.full = True
                    _kill_group(self._process)
                    return
                self.content += chunk


def _drained(pipes: Iterable[_Pipe], timeout_s: float) -> bool:
    """Whether both pipes came to their end in time."""
    until = time.monotonic() + timeout_s
    for pipe in pipes:
        pipe.join(max(until - time.monotonic(), 0))
    return not any(pipe.is_alive() for pipe in pipes)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
