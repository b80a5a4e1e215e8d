"""The client's side of Dask: tasks for the devices of one kind are sent, awaited and taken back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hwbench.errors import DeviceError, NoDeviceError
from hwbench.fleet.block import Answer, Described, Order, describe, described, perform
from hwbench.fleet.computing import HOST, MEASURING
from hwbench.fleet.workers import gone, workers_of

if TYPE_CHECKING:
    from distributed import Client, Future

#: How long a device is waited for when the last one has gone.
PATIENCE_S = 60.0
#: Within which it is asked so often whether there is one.
_LOOKS = 4
_LOOK_S = 1.0
#: Questions about devices are not for the queue.
_AT_ONCE = 1_000_000


class Tasks:
    """Orders for the devices of one kind, and what became of them."""

    def __init__(self, client: Client, kind: str, priority: int) -> None:
        self.client, self.kind, self._priority = client, kind, priority
        self._shut: dict[str, str] = {}
        self._ended = False

    def workers(self) -> list[str]:
        """Addresses of the workers with devices of the kind that are not all set aside."""
        workers = workers_of(self.client).items()
        return [a for a, w in workers if self.kind in w["resources"] and a not in self._shut]

    def set_aside(self, answer: Answer) -> None:
        """Ask that worker no more. Raises DeviceError where it was the last one."""
        self._shut[answer.worker] = answer.shut
        if not self.workers():
            words = "; ".join(self._shut.values())
            raise DeviceError(f"all devices of the kind {self.kind!r} are set aside: {words}")

    def described(self, order: Order) -> dict[str, list[Described]]:
        """What each worker says of its devices of the kind. NoDeviceError where there are none."""
        workers = self.workers()
        if not workers:
            known = {kind for w in workers_of(self.client).values() for kind in w["resources"]}
            raise NoDeviceError(
                f"no worker of the fleet has a device of the kind {self.kind!r}; there is "
                f"{', '.join(sorted(known - {HOST})) or 'none at all'}"
            )
        text = order.text()
        asked = {
            worker: self.client.submit(
                describe, text, workers=[worker], priority=_AT_ONCE, pure=False
            )
            for worker in workers
        }
        return {worker: described(self._result(future)) for worker, future in asked.items()}

    def submit(self, order: Order, workers: Sequence[str], *, only: bool = False) -> Future:
        """To one of these workers while there is one, else to any but where ``only`` they do."""
        return self.client.submit(
            perform,
            order.text(),
            resources={self.kind: 1, **MEASURING},
            workers=list(workers) or None,
            allow_other_workers=bool(workers) and not only,
            priority=self._priority,
            pure=False,
        )

    def end(self) -> None:
        """Let whoever waits, in other threads, wait no more: their tasks are taken back."""
        self._ended = True

    def as_they_end(self, pending: dict[Future, Any], only: str | None = None) -> Iterator[Future]:
        """Futures as they end, taken out of ``pending`` afterwards; those added meanwhile too.

        What is left when the caller ends early is taken back. Ends without them where the
        ``only`` worker that may do them has gone. Raises DeviceError where the scheduler, or the
        last worker, has gone for good.
        """
        from distributed import wait

        seen = looked = time.monotonic()  # a worker with a device, and when it was asked last
        try:
            while pending and not self._ended:
                with suppress(TimeoutError), self.client.as_current():
                    wait(list(pending), timeout=_LOOK_S, return_when="FIRST_COMPLETED")
                for future in [each for each in pending if each.status != "pending"]:
                    yield future
                    del pending[future]
                    seen = time.monotonic()
                # An answer of the scheduler's is as long as the fleet is large: it is asked rarely.
                if not pending or time.monotonic() - max(seen, looked) < PATIENCE_S / _LOOKS:
                    continue
                looked, workers = time.monotonic(), self.workers()
                if only is not None and only not in workers:
                    return
                if workers:
                    seen = looked
                elif looked - seen > PATIENCE_S:
                    raise DeviceError(
                        f"the last worker with a device of the kind {self.kind!r} has gone: start "
                        "it again, then run the same command, which goes on from here"
                    )
        except (OSError, CancelledError) as error:
            raise gone() from error
        finally:
            if pending:
                with suppress(OSError):
                    self.client.cancel(list(pending))

    def answer(self, future: Future) -> Answer:
        """What a block's future holds; where Dask gave it up, that is the answer."""
        from distributed.scheduler import KilledWorker

        try:
            return Answer.of(self._result(future))
        except KilledWorker:
            return Answer(broken="each worker that measured these died of it", killed=True)
        except ValueError as error:
            return Answer(broken=f"a worker answered nonsense: {error}")

    def _result(self, future: Future) -> str:
        try:
            return str(future.result())
        except (OSError, CancelledError) as error:
            raise DeviceError("the fleet's scheduler gave a task up: run this again") from error
