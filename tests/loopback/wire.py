"""The device side of adb's transport: packets, and the streams multiplexed over a connection.

The format is that of AOSP's ``adb/protocol.txt``: a header of six little-endian words (command,
two arguments, length, checksum, command inverted), then the payload. A stream is opened by the
host, carries one unacknowledged WRTE each way, and is closed by CLSE from either side, which the
other answers with its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Callable, Coroutine

from tests.loopback.faults import Faults

VERSION = 0x01000001  # from here on payloads go without a checksum
MAX_PAYLOAD = 1 << 20
TOKEN_BYTES = 20
POLL_S = 0.02
_AUTH_TOKEN, _AUTH_SIGNATURE = 1, 2
_WORD = 0xFFFFFFFF
_HEADER = struct.Struct("<6I")


def _word(name: bytes) -> int:
    return int.from_bytes(name, "little")


CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = map(
    _word, (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)


class ClosedError(Exception):
    """The host closed the stream, or the connection is gone."""


class Stream:
    """One service that the host opened: a two-way stream of bytes."""

    def __init__(self, connection: Connection, local: int, remote: int) -> None:
        self.connection = connection
        self.remote = remote
        self._local = local
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._buffer = b""
        self._acknowledged = asyncio.Event()
        self._accepted = self._closed = False

    async def accept(self) -> None:
        """Tell the host that the service exists."""
        self._accepted = True
        await self.connection.send(OKAY, self._local, self.remote)

    async def write(self, data: bytes) -> None:
        """All of ``data``, each packet acknowledged; `ClosedError` when the host went away."""
        step = self.connection.max_payload
        for start in range(0, len(data), step):
            self._acknowledged.clear()
            if self._closed:
                raise ClosedError
            await self.connection.send(WRTE, self._local, self.remote, data[start : start + step])
            await self._acknowledged.wait()
            if self._closed:
                raise ClosedError

    async def read_some(self) -> bytes:
        """What has come, at least one byte."""
        if not self._buffer:
            data = await self._incoming.get()
            if data is None:
                raise ClosedError
            # Acknowledged when consumed, not when received: that is the flow control.
            await self.connection.send(OKAY, self._local, self.remote)
            self._buffer = data
        data, self._buffer = self._buffer, b""
        return data

    async def read_exactly(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        parts, missing = [], count
        while missing > 0:
            data = await self.read_some()
            parts.append(data[:missing])
            self._buffer = data[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    async def close(self) -> None:
        """Send CLSE, once. Before `accept` it is a refusal, which has no local id."""
        if not self._closed:
            self.end()
            local = self._local if self._accepted else 0
            await self.connection.send(CLSE, local, self.remote)

    def end(self) -> None:
        """Wake up whoever reads or writes: nothing more comes or goes."""
        self._closed = True
        self.connection.streams.pop(self._local, None)
        self._acknowledged.set()
        self._incoming.put_nowait(None)

    def receive(self, data: bytes) -> None:
        self._incoming.put_nowait(data)

    def acknowledge(self, remote: int) -> None:
        self.remote = remote
        self._acknowledged.set()


Serve = Callable[[Stream, str], Coroutine[None, None, None]]


class Connection:
    """One host's connection; ``serve`` runs each service that it opens."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        banner: str,
        serve: Serve,
        faults: Faults,
    ) -> None:
        self.streams: dict[int, Stream] = {}
        self.max_payload = 4096
        self._reader, self._writer = reader, writer
        self._banner, self._serve, self._faults = banner, serve, faults
        self._version = 0x01000000
        self._line = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened = 0

    async def run(self) -> None:
        """Answer packets until the connection ends."""
        try:
            while True:
                await self._answer(*await self._receive())
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            for stream in list(self.streams.values()):
                stream.end()
            self.abort()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def abort(self) -> None:
        """Break the connection at once, as a pulled cable does."""
        self._writer.transport.abort()

    async def send(self, command: int, first: int, second: int, payload: bytes = b"") -> None:
        """One packet; at the pace of the link, and not while the phone is mute."""
        old = command == CNXN or self._version < VERSION
        checksum = sum(payload) & _WORD if old else 0
        header = _HEADER.pack(command, first, second, len(payload), checksum, ~command & _WORD)
        async with self._line:
            while self._faults.mute and not self._writer.is_closing():
                await asyncio.sleep(POLL_S)
            await asyncio.sleep(len(payload) / self._faults.bytes_per_s)
            if not self._writer.is_closing():
                self._writer.write(header + payload)
                with contextlib.suppress(OSError):
                    await self._writer.drain()

    async def _receive(self) -> tuple[int, int, int, bytes]:
        header = await self._reader.readexactly(_HEADER.size)
        command, first, second, length, _, inverted = _HEADER.unpack(header)
        if ~command & _WORD != inverted or length > MAX_PAYLOAD:
            raise ConnectionError("not a packet of adb")
        payload = await self._reader.readexactly(length)
        await asyncio.sleep(length / self._faults.bytes_per_s)
        return command, first, second, payload

    async def _answer(self, command: int, first: int, second: int, payload: bytes) -> None:
        if command == CNXN:
            self._version = min(first, VERSION)
            self.max_payload = min(second, MAX_PAYLOAD)
            await (self._welcome() if self._faults.authorised else self._challenge())
        elif command == AUTH and first == _AUTH_SIGNATURE:
            await self._challenge()  # no key is known: the host offers its next one
        elif command == AUTH:
            self._start(self._await_owner())
        elif command == OPEN:
            self._open(first, payload.rstrip(b"\0").decode(errors="surrogateescape"))
        elif stream := self.streams.get(second):
            if command == OKAY:
                stream.acknowledge(first)
            elif command == WRTE:
                stream.receive(payload)
            elif command == CLSE:
                await stream.close()

    def _open(self, remote: int, service: str) -> None:
        self._opened += 1
        stream = self.streams[self._opened] = Stream(self, self._opened, remote)
        self._start(self._run_service(stream, service))

    async def _run_service(self, stream: Stream, service: str) -> None:
        with contextlib.suppress(ClosedError, OSError):
            await self._serve(stream, service)
        await stream.close()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _welcome(self) -> None:
        await self.send(CNXN, VERSION, MAX_PAYLOAD, self._banner.encode())

    async def _challenge(self) -> None:
        await self.send(AUTH, _AUTH_TOKEN, 0, os.urandom(TOKEN_BYTES))

    async def _await_owner(self) -> None:
        """The host sent its public key: the owner has to tap on "allow"."""
        while not self._faults.authorised:
            if self._writer.is_closing():
                return
            await asyncio.sleep(POLL_S)
        await self._welcome()
