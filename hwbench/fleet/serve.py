"""The two processes of a fleet that run until they are ended: the scheduler, a host's worker."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hwbench.errors import DeviceError, UsageError
from hwbench.fleet.common import forget_with_clients
from hwbench.fleet.link import (
    CONNECT_S,
    PAGES,
    SPARE_THREADS,
    host_of,
    is_loopback,
    require_dask,
    security,
    unusable,
    worker_options,
)

if TYPE_CHECKING:
    from hwbench.fleet.seats import Seats  # knows all kinds of devices: a scheduler needs none

#: Of what Dask's scheduler answers to a worker whose name another one has.
_TAKEN = "name taken"
#: Of an address to listen at: another machine's, or a name that nobody knows.
_NOT_OURS = (errno.EADDRNOTAVAIL, socket.EAI_NONAME)


def run_scheduler(address: str, tls: Path | None, ready: Callable[[str], None]) -> None:
    """Listen at an address until this is ended. ``ready`` is told the address that it became.

    Raises UsageError for an address that nothing guards or that is taken, DeviceError where
    nothing can listen at it.
    """
    require_dask()
    _tell_in_lines()
    from distributed import Scheduler

    guarded = security(address, tls)
    scheme, host = host_of(address)
    port = int(address.rpartition(":")[2])

    async def serve() -> None:
        async with Scheduler(
            host=host,
            port=port,
            protocol=f"{scheme}://",
            security=guarded,
            dashboard=False,
            dashboard_address=PAGES,
        ) as scheduler:
            forget_with_clients(scheduler)
            ready(scheduler.address)
            await scheduler.finished()

    try:
        asyncio.run(serve())
    except (OSError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) else error  # in Dask's wrapping
        if not isinstance(cause, OSError):
            raise
        if cause.errno == errno.EADDRINUSE:
            raise UsageError(f"{address} is in use: name another port") from error
        raise DeviceError(f"cannot listen at {address}: {cause.strerror or cause}") from error


def run_worker(
    address: str,
    tls: Path | None,
    seats: Seats,
    *,
    name: str,
    computes: bool = False,
    listen: str | None,
    ready: Callable[[str], None],
) -> None:
    """Lend devices, and the host's cores where it ``computes``, until this is ended.
    ``listen`` is this machine's address that the scheduler reaches it at; without it nothing
    listens beyond loopback. Raises UsageError where that cannot do or the name is another
    worker's, DeviceError where the scheduler does not answer or goes away.
    """
    require_dask()
    _tell_in_lines()
    from distributed import Worker

    guarded = security(address, tls)
    scheme, host = host_of(address)
    if listen is None and not is_loopback(host):
        raise UsageError(
            "nothing listens beyond this machine unless told: name by --listen ADDRESS the "
            f"address of this machine that {host} reaches it at"
        )
    own = listen or "127.0.0.1"
    if scheme == "tcp" and not is_loopback(own):
        raise UsageError(f"--listen {own} needs a scheduler at tls://…, and --tls FOLDER")

    async def serve() -> None:
        async with Worker(
            address,
            host=own,
            protocol=f"{scheme}://",
            security=guarded,
            name=name,
            nthreads=int(sum(seats.resources.values())) + SPARE_THREADS,
            death_timeout=CONNECT_S,
            **worker_options(seats, computes=computes),
        ) as worker:
            ready(worker.address)
            await worker.finished()

    try:
        asyncio.run(serve())
    except ssl.SSLError as error:
        raise unusable(tls, error) from error
    except (OSError, TimeoutError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) else error  # in Dask's wrapping
        if isinstance(cause, ValueError) and _TAKEN in str(cause):
            raise UsageError(
                f"the fleet at {address} has a worker called {name}: give this one another --name, "
                "or wait for five minutes if that one's host broke down"
            ) from error
        if isinstance(cause, OSError) and cause.errno in _NOT_OURS:
            raise UsageError(
                f"cannot listen at {own}: is it an address of this machine?"
            ) from error
        raise DeviceError(f"no scheduler answers at {address}: is it running there?") from error
    raise DeviceError(f"the scheduler at {address} has gone: start it, then this again")


def _tell_in_lines() -> None:
    """Of what strangers send to a port, tornado tells by a traceback each."""

    def shorten(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[0]:
            record.msg, record.args = f"a connection failed: {record.exc_info[0].__name__}", ()
            record.exc_info = None
        return True

    logging.getLogger("tornado.application").addFilter(shorten)
