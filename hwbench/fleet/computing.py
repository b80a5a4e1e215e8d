"""Hosts of a fleet that compute for its clients, while none of their devices measures.

Dask's resources keep the two apart: a worker has its host in ``WHOLE`` parts, of which a block of
measurements takes one, and a computation all. So a host has one worker for all that it does, and
one that does not compute offers a part less.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from hwbench.errors import DeviceError, NoDeviceError
from hwbench.fleet.common import Place, leave, left
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
_PARCEL = "parcel"
#: How long a computation waits for a host when the last one has gone.
PATIENCE_S = 60.0
_LOOK_S = 1.0

Task = Callable[[bytes, str], str]


def parts(computes: bool) -> dict[str, float]:
    """What a worker announces of its host."""
    return {HOST: WHOLE if computes else WHOLE - 1}


class Computing:
    """Tasks on the hosts of a fleet that compute, all with the same ``parcel`` of bytes.

    A host gets the parcel once. Raises NoDeviceError where no host computes.
    """

    def __init__(self, client: Client, parcel: bytes) -> None:
        self._client = client
        self.hosts = hosts_of(client)
        name = hashlib.sha256(parcel).hexdigest()
        self._place = leave(client, name, {_PARCEL: parcel})

    def answers(
        self,
        task: Task,
        orders: Sequence[str],
        progress: Callable[[float], None] = lambda share: None,
    ) -> list[str]:
        """``task(parcel, order)`` of each order, by the hosts that are free; in their order.

        ``progress`` is told the share that is done. What a lost host was at is done elsewhere.
        Raises DeviceError where the scheduler, or the last host, has gone for good.
        """
        from distributed.scheduler import KilledWorker

        futures = [self._submit(task, order) for order in orders]
        try:
            self._wait(futures, progress)
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

    def _submit(self, task: Task, order: str) -> Future:
        how = {"resources": _COMPUTING, "priority": _PRIORITY, "pure": False}
        return self._client.submit(_done, task, self._place, order, **how)

    def _wait(self, futures: Sequence[Future], progress: Callable[[float], None]) -> None:
        from distributed import wait

        seen = time.monotonic()
        while pending := sum(future.status == "pending" for future in futures):
            progress(1 - pending / len(futures))
            with suppress(TimeoutError), self._client.as_current():
                wait(futures, timeout=min(_LOOK_S, PATIENCE_S))
            if time.monotonic() - seen > PATIENCE_S / 4 and _number(self._client):
                seen = time.monotonic()
            elif time.monotonic() - seen > PATIENCE_S:
                raise DeviceError(
                    "the last host that computes has gone: start it, then run the same command"
                )


def hosts_of(client: Client) -> int:
    """How many hosts of a fleet compute. Raises NoDeviceError where none does."""
    if number := _number(client):
        return number
    raise NoDeviceError(
        "no host of the fleet computes: start one with hwbench fleet worker … --compute"
    )


def _number(client: Client) -> int:
    workers = workers_of(client).values()
    return sum(worker["resources"].get(HOST, 0) >= WHOLE for worker in workers)


def _done(task: Task, place: Place, order: str) -> str:
    """Task: another one, with its parcel."""
    return task(_parcel(tuple(place)), order)


@lru_cache(maxsize=1)
def _parcel(place: Place) -> bytes:
    """On a host: the last one that was asked for is kept."""
    parcel: bytes | None = left(place, _PARCEL)
    if parcel is None:
        raise DeviceError("the client that left a parcel with the scheduler has gone")
    return parcel
