"""The shell services: a command run by /bin/sh, its output carried to the host.

``shell,v2`` frames the streams (AOSP's ``shell_protocol.h``: an id, a length, the bytes), so the
two outputs stay apart and the exit code comes last. ``shell`` and ``exec`` mix the outputs and
have no exit code.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import struct
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.loopback.faults import DieInShell, Faults, Hang, TruncateShell
from tests.loopback.wire import ClosedError, Stream

_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_FRAME = struct.Struct("<BI")
_CHUNK = 1 << 16


class _CutError(Exception):
    """The fault that was ordered for this command strikes now."""


@dataclass
class _Output:
    """Where the two outputs go, up to the limit that a fault set."""

    stream: Stream
    framed: bool
    left: float = math.inf

    async def write(self, kind: int, data: bytes) -> None:
        if len(data) > self.left:
            data = data[: int(self.left)]
            self.left = 0
        else:
            self.left -= len(data)
        if data:
            await self.frame(kind, data)
        if self.left == 0:
            raise _CutError

    async def frame(self, kind: int, data: bytes) -> None:
        await self.stream.write(_FRAME.pack(kind, len(data)) + data if self.framed else data)


class ShellService:
    """Runs commands in ``folder``; calls ``ended`` after each, before the host learns of it."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        faults: Faults,
        ended: Callable[[], None],
    ) -> None:
        self._folder, self._environment, self._faults = folder, environment, faults
        self._ended = ended
        self._groups: set[int] = set()
        self._drains: set[asyncio.Task[None]] = set()

    async def run(self, stream: Stream, command: str, *, framed: bool) -> None:
        """Run ``command`` to its end, to the host's hang-up, or to the ordered fault.

        After a hang-up adbd tells the shell that it started, and no child of it.
        """
        if hang := self._faults.take(Hang, command):
            self._faults.go_mute(hang.seconds)
        death = self._faults.take(DieInShell, command)
        fault = death or self._faults.take(TruncateShell, command)
        limit = fault.after_bytes if fault and fault.after_bytes is not None else math.inf
        process = await self._start(command, framed)
        feeding = asyncio.create_task(_feed(stream, process, framed))
        spared = False
        try:
            async with asyncio.timeout(death.after_s if death else None):
                await self._carry(process, _Output(stream, framed, limit), whole=fault is None)
        except (_CutError, TimeoutError):
            if death:
                spared = not death.kill_child
                self._die(stream, process, death)
        except ClosedError:
            spared = True
            self._let_be(process)
            raise
        finally:
            feeding.cancel()
            if not spared:
                _kill(process)
            self._forget_if_gone(process.pid)

    async def kill_all(self) -> None:
        """End every child, and every child of theirs."""
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._groups.clear()  # their numbers may soon be somebody else's
        await asyncio.gather(*self._drains)
        self._drains.clear()

    async def _start(self, command: str, framed: bool) -> Process:
        # A phone's shell hears a hang-up, also where these tests were started to outlive one.
        shell = ("/usr/bin/env", "--default-signal=HUP", "/bin/sh")
        process = await asyncio.create_subprocess_exec(
            *(*shell, "-c", command) if command else shell,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE if framed else STDOUT,
            cwd=self._folder,
            env=self._environment,
            start_new_session=True,
        )
        self._groups.add(process.pid)
        return process

    async def _carry(self, process: Process, output: _Output, *, whole: bool) -> None:
        """Both outputs, then the exit code, which a command that is to be cut never gets to."""
        assert process.stdout is not None
        pumps = [asyncio.create_task(_pump(process.stdout, output, _STDOUT))]
        if process.stderr is not None:
            pumps.append(asyncio.create_task(_pump(process.stderr, output, _STDERR)))
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
        code = await process.wait()
        self._ended()
        if not whole:
            raise _CutError
        if output.framed:
            # A child that a signal ended is told as a shell does.
            await output.frame(_EXIT, bytes([code if code >= 0 else 128 - code]))

    def _die(self, stream: Stream, process: Process, death: DieInShell) -> None:
        if death.offline_s:
            self._faults.go_offline(death.offline_s)
        stream.connection.abort()
        if not death.kill_child:
            self._let_be(process)

    def _let_be(self, process: Process) -> None:
        """Let children outlive their connection."""
        self._drains.add(asyncio.create_task(_drain(process)))

    def _forget_if_gone(self, group: int) -> None:
        """A command may leave children in the background: those are remembered."""
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            self._groups.discard(group)


async def _pump(pipe: asyncio.StreamReader, output: _Output, kind: int) -> None:
    while data := await pipe.read(_CHUNK):
        await output.write(kind, data)


async def _drain(process: Process) -> None:
    """Let children that outlive their connection write into the void."""
    for pipe in (process.stdout, process.stderr):
        while pipe is not None and await pipe.read(_CHUNK):
            pass


async def _feed(stream: Stream, process: Process, framed: bool) -> None:
    """Carry the host's input; when the host hangs up, tell the command's shell."""
    assert process.stdin is not None
    try:
        while True:
            kind, data = _STDIN, b""
            if framed:
                kind, length = _FRAME.unpack(await stream.read_exactly(_FRAME.size))
                data = await stream.read_exactly(length)
            else:
                data = await stream.read_some()
            with contextlib.suppress(OSError):
                if kind == _STDIN:
                    process.stdin.write(data)
                    await process.stdin.drain()
                elif kind == _CLOSE_STDIN:
                    process.stdin.close()
    except ClosedError:
        _send(signal.SIGHUP, process)


def _send(number: int, process: Process) -> None:
    if process.returncode is None:
        process.send_signal(number)


def _kill(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
