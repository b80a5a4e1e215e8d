"""Hosts of a fleet that compute for its clients, while none of their devices measures.

Dask's resources keep the two apart: a worker has its host in ``WHOLE`` parts, of which a block of
measurements takes one, and a computation all. So a host has one worker for all that it does, and
one that does not compute offers a part less.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING

from hwbench.errors import DeviceError, NoDeviceError
from hwbench.fleet.workers import workers_of

if TYPE_CHECKING:
    from distributed import Client, Future

#: The resource; a kind of device, of which lists are made with commas, is never called so.
HOST = "host,"
WHOLE = 1000
MEASURING = {HOST: 1}
_COMPUTING = {HOST: WHOLE}
#: What waits to be measured on a host goes first.
_PRIORITY = -1
#: How long a computation waits for a host when the last one has gone.
PATIENCE_S = 60.0
_LOOK_S = 1.0

Task = Callable[[bytes, str], str]


def parts(computes: bool) -> dict[str, float]:
    """What a worker announces of its host."""
    return {HOST: WHOLE if computes else WHOLE - 1}


class Computing:
    """Tasks on the hosts of a fleet that compute, all with the same ``parcel`` of bytes.

    A host gets the parcel once, from the client or from another host. Raises NoDeviceError where
    no host computes.
    """

    def __init__(self, client: Client, parcel: bytes) -> None:
        self._client = client
        self.hosts = self._hosts()
        if not self.hosts:
            raise NoDeviceError(
                "no host of the fleet computes: start one with hwbench fleet worker … --compute"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Dask would rather have large data in files
            self._parcel = self._submit(_same, parcel)

    def answers(self, task: Task, orders: Sequence[str]) -> list[str]:
        """``task(parcel, order)`` of each order, by the hosts that are free; in their order.

        What a lost host was at is done elsewhere. Raises DeviceError where the scheduler, or the
        last host, has gone for good.
        """
        from distributed.scheduler import KilledWorker

        futures = [self._submit(task, self._parcel, order) for order in orders]
        try:
            self._wait(futures)
            return [str(answer) for answer in self._client.gather(futures)]
        except KilledWorker:
            raise DeviceError("each host that computed this died of it: out of memory?") from None
        except (OSError, CancelledError) as error:
            raise DeviceError(
                "the fleet's scheduler has gone: run the same command again"
            ) from error
        finally:
            with suppress(OSError):
                self._client.cancel(futures)

    def _submit(self, function: Callable[..., object], *arguments: object) -> Future:
        return self._client.submit(
            function, *arguments, resources=_COMPUTING, priority=_PRIORITY, pure=False
        )

    def _hosts(self) -> int:
        """How many compute now."""
        workers = workers_of(self._client).values()
        return sum(worker["resources"].get(HOST, 0) >= WHOLE for worker in workers)

    def _wait(self, futures: Sequence[Future]) -> None:
        from distributed import wait

        seen = time.monotonic()
        while any(future.status == "pending" for future in futures):
            with suppress(TimeoutError), self._client.as_current():
                wait(futures, timeout=min(_LOOK_S, PATIENCE_S))
            if time.monotonic() - seen > PATIENCE_S / 4 and self._hosts():
                seen = time.monotonic()
            elif time.monotonic() - seen > PATIENCE_S:
                raise DeviceError(
                    "the last host that computes has gone: start it, then run the same command"
                )


def _same(parcel: bytes) -> bytes:
    """Task: the parcel, as what others rest on: a host that is lost had no only copy of it."""
    return parcel
