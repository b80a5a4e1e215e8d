"""adbd on loopback: accepts connections and hands services out, in a thread of its own.

Whoever can connect to 127.0.0.1 may run commands as this user while it serves: a test's tool.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from tests.loopback.faults import Faults
from tests.loopback.shell import ShellService
from tests.loopback.sync import SyncService
from tests.loopback.wire import POLL_S, ClosedError, Connection, Stream

FEATURES = "shell_v2,stat_v2,ls_v2,sendrecv_v2,fixed_push_mkdir"
_START_S = 10


class Daemon:
    """Serves ``folder`` on 127.0.0.1 until `stop`. ``port`` 0 takes a free one.

    ``ended`` is called, in the daemon's thread, after each shell command.
    """

    def __init__(
        self,
        folder: Path,
        model: str,
        environment: dict[str, str],
        faults: Faults,
        ended: Callable[[], None],
        port: int = 0,
    ) -> None:
        self.errors: list[Exception] = []  # defects of this daemon, for its owner to raise
        self._banner = (
            f"device::ro.product.name=loopback;ro.product.model={model};"
            f"ro.product.device=loopback;features={FEATURES}"
        )
        self._faults = faults
        self._shell = ShellService(folder, environment, faults, ended)
        self._sync = SyncService(folder, faults)
        self._connections: set[Connection] = set()
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started: Future[int] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(port)), name="adbd", daemon=True
        )

    def start(self) -> int:
        """The port that it listens on; OSError when that is taken."""
        self._thread.start()
        return self._started.result(_START_S)

    def end_children(self) -> None:
        """End all that commands left running."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._shell.kill_all(), self._loop).result(_START_S)

    def stop(self) -> None:
        """Break all connections and end all children."""
        self._stopping.set()
        self._thread.join()

    async def _serve(self, port: int) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        except OSError as error:
            self._started.set_exception(error)
            return
        self._started.set_result(server.sockets[0].getsockname()[1])
        while not self._stopping.is_set():
            if self._faults.offline:
                self._break_all()
            await asyncio.sleep(POLL_S)
        server.close()
        self._break_all()
        while self._connections:  # each ends when its commands did
            await self._shell.kill_all()
            await asyncio.sleep(POLL_S)
        await self._shell.kill_all()

    def _break_all(self) -> None:
        for connection in self._connections:
            connection.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._faults.offline:
            writer.transport.abort()
            return
        connection = Connection(reader, writer, self._banner, self._run_service, self._faults)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def _run_service(self, stream: Stream, service: str) -> None:
        try:
            await self._dispatch(stream, service)
        except (ClosedError, OSError):
            raise
        except Exception as error:
            self.errors.append(error)
            raise

    async def _dispatch(self, stream: Stream, service: str) -> None:
        """A service that is not here is refused: the stream is closed before it was accepted."""
        kind, _, argument = service.partition(":")
        name, *options = kind.split(",")
        if name in ("shell", "exec"):
            await stream.accept()
            await self._shell.run(stream, argument, framed="v2" in options)
        elif name == "sync":
            await stream.accept()
            await self._sync.run(stream)
