"""The client's side of Dask: tasks for the devices of one kind are sent, awaited and taken back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwbench.errors import DeviceError, NoDeviceError, UsageError
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


@dataclass(frozen=True, slots=True)
class _Pinned:
    """A task that only some workers may do, and what of it is sent to any where they have gone."""

    workers: frozenset[str]
    otherwise: Order | None


class Tasks:
    """Orders for the devices of one kind, and what became of them."""

    def __init__(self, client: Client, kind: str, priority: int) -> None:
        self.client, self.kind, self._priority = client, kind, priority
        self._shut: dict[str, str] = {}
        self._pinned: dict[Future, _Pinned] = {}
        self._lost: set[Future] = set()
        self._ended = False

    def workers(self) -> list[str]:
        """Addresses of the workers with devices of the kind that are not all set aside."""
        workers = workers_of(self.client).items()
        return [a for a, w in workers if self.kind in w["resources"] and a not in self._shut]

    def set_aside(self, answer: Answer) -> None:
        """Ask that worker no more. Where it was the last one, raises UsageError if it refused,
        DeviceError if its devices failed.
        """
        self._shut[answer.worker] = answer.shut or answer.refused
        if not self.workers():
            if answer.refused:
                raise UsageError(f"{answer.device or 'a worker'}: {answer.refused}")
            words = "; ".join(self._shut.values())
            raise DeviceError(f"all devices of the kind {self.kind!r} are set aside: {words}")

    def described(self, order: Order) -> dict[str, list[Described]]:
        """What each worker says of its devices of the kind, but for those that go meanwhile.

        Raises NoDeviceError where there are none.
        """
        workers = self.workers()
        if not workers:
            known = {kind for w in workers_of(self.client).values() for kind in w["resources"]}
            raise NoDeviceError(
                f"no worker of the fleet has a device of the kind {self.kind!r}; there is "
                f"{', '.join(sorted(known - {HOST})) or 'none at all'}"
            )
        asked: dict[Future, str] = {}
        text, found = order.text(), {}
        for worker in workers:
            how = {"workers": [worker], "priority": _AT_ONCE, "pure": False}
            future = self.client.submit(describe, text, **how)
            self._pinned[future] = _Pinned(frozenset([worker]), None)
            asked[future] = worker
        for future in self.as_they_end(asked):
            if future not in self._lost:
                found[asked[future]] = described(self._result(future))
        return found

    def submit(self, order: Order, workers: Sequence[str], *, only: bool = False) -> Future:
        """To one of these workers while there is one, else to any but where ``only`` they do.

        Dask is never told that others may do it: it then forgets what a task takes, also when it
        hands one to a worker without such a device, and loses count.
        """
        future = self.client.submit(
            perform,
            order.text(),
            resources={self.kind: 1, **MEASURING},
            workers=list(workers) or None,
            priority=self._priority,
            pure=False,
        )
        if workers:
            self._pinned[future] = _Pinned(frozenset(workers), None if only else order)
        return future

    def end(self) -> None:
        """Let whoever waits, in other threads, wait no more: their tasks are taken back."""
        self._ended = True

    def as_they_end(self, pending: dict[Future, Any]) -> Iterator[Future]:
        """Futures as they end, taken out of ``pending`` afterwards; those added meanwhile too.

        One whose workers have gone ends as lost, or goes on as another that any may do. What is
        left when the caller ends early is taken back. Raises DeviceError where the scheduler, or
        the last worker, has gone for good.
        """
        from distributed import wait

        seen = looked = time.monotonic()  # a worker with a device, and when it was asked last
        try:
            while pending and not self._ended:
                with suppress(TimeoutError), self.client.as_current():
                    wait(list(pending), timeout=_LOOK_S, return_when="FIRST_COMPLETED")
                for future in [each for each in pending if each.status != "pending"]:
                    yield future
                    self._forget(future, pending)
                    seen = time.monotonic()
                # An answer of the scheduler's is as long as the fleet is large: it is asked rarely.
                if not pending or time.monotonic() - max(seen, looked) < PATIENCE_S / _LOOKS:
                    continue
                looked, workers = time.monotonic(), self.workers()
                for future in self._deserted(pending, workers):
                    self._lost.add(future)
                    yield future
                    self._forget(future, pending)
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

    def _deserted(self, pending: dict[Future, Any], workers: Sequence[str]) -> list[Future]:
        """The futures that are lost with their workers; the others of these are sent to any."""
        without = {
            future: pinned
            for future in pending
            if (pinned := self._pinned.get(future)) and pinned.workers.isdisjoint(workers)
        }
        if without:
            self.client.cancel(list(without))
        lost = []
        for future, pinned in without.items():
            if pinned.otherwise is None:
                lost.append(future)
            else:
                pending[self.submit(pinned.otherwise, [])] = pending[future]
                self._forget(future, pending)
        return lost

    def _forget(self, future: Future, pending: dict[Future, Any]) -> None:
        del pending[future]
        self._pinned.pop(future, None)
        self._lost.discard(future)

    def answer(self, future: Future) -> Answer:
        """What a block's future holds; where Dask gave it up, that is the answer."""
        from distributed.scheduler import KilledWorker

        if future in self._lost:
            return Answer(broken="its host has gone")
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
