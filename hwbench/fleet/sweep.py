"""The client's side: a sweep in blocks over all devices of a kind, stored by nobody else.

A block goes to whichever device is free. It comes back as a whole, so that what a lost worker had
measured of it is measured again elsewhere, and stored once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hwbench.errors import DeviceError, HwbenchError, NoDeviceError, UsageError
from hwbench.fleet.block import Answer, Described, Order, describe, described, perform
from hwbench.measure.family import LEAST_MODELS
from hwbench.measure.plan import Failure, Plan, Progress
from hwbench.measure.session import TURNS_SECONDS
from hwbench.records import CanaryEpoch, Measurement, Workload, digest
from hwbench.spaces import Space
from hwbench.spaces.base import Codes
from hwbench.store import Store

if TYPE_CHECKING:
    from distributed import Client, Future

#: Blocks a device gets of a sweep at least, where it is large enough: the last ones end together.
BLOCKS_A_DEVICE = 2
#: A block on which so many devices failed is given up.
MOST_TRIES = 5
#: How long a sweep waits for a device when the last one has gone.
PATIENCE_S = 60.0
_LOOK_S = 1.0
#: Questions about devices are not for the queue.
_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Block:
    """Architectures that are measured in one session, and how often that went wrong."""

    archs: tuple[str, ...]
    tries: int = 0
    avoid: str = ""


class FleetSweep:
    """Architectures of a space, to be measured by the devices of one kind.

    Each result keeps the device that it is of: milliseconds of two specimens do not mix. Of
    architectures that are one and the same model one is measured.
    """

    def __init__(
        self,
        client: Client,
        kind: str,
        space: Space,
        codes: Codes,
        *,
        threads: int = 1,
        priority: int = 0,
    ) -> None:
        self.client, self.kind, self.space = client, kind, space
        self.threads, self.priority = threads, priority
        texts = space.decode(codes)
        first: dict[str, str] = {}
        graphs = [space.graph(code).hash for code in codes]
        #: The architecture that is measured for each: of those of one model, the first.
        self.keys = [first.setdefault(g, text) for g, text in zip(graphs, texts, strict=True)]
        self._shut: dict[str, str] = {}

    @staticmethod
    def key_of(measured: Measurement) -> str:
        """Which of :attr:`keys` a measurement is of."""
        return measured.workload.arch or ""

    # -- what there is ------------------------------------------------------------------------

    @cached_property
    def devices(self) -> dict[str, tuple[str, Described]]:
        """Worker and description of each device of the kind, by its name.

        Raises NoDeviceError where there is none, DeviceError where none answers, UsageError where
        a worker has another hwbench or does not know the space.
        """
        workers = self._workers()
        if not workers:
            raise NoDeviceError(
                f"no worker of the fleet has a device of the kind {self.kind!r}; there is "
                f"{', '.join(sorted(self._kinds())) or 'none at all'}"
            )
        order = self._order(self.keys[:1], Plan()).text()
        asked = {
            worker: self.client.submit(
                describe, order, workers=[worker], priority=_AT_ONCE, pure=False
            )
            for worker in workers
        }
        found = {worker: described(self._result(future)) for worker, future in asked.items()}
        ill = [d for each in found.values() for d in each if d.error]
        fit = {d.device: (w, d) for w, each in found.items() for d in each if not d.error}
        if not fit:
            words = "; ".join(f"{d.device}: {d.error}" for d in ill) or "all are set aside"
            raise DeviceError(f"no device of the kind {self.kind!r} can be had: {words}")
        return fit

    def _kinds(self) -> set[str]:
        workers = self.client.scheduler_info()["workers"].values()
        return {kind for worker in workers for kind in worker["resources"]}

    def _workers(self) -> list[str]:
        """Addresses of the workers with devices of the kind that are not all set aside."""
        workers = self.client.scheduler_info()["workers"].items()
        return [a for a, w in workers if self.kind in w["resources"] and a not in self._shut]

    def epochs(self, store: Store) -> dict[str, CanaryEpoch]:
        """What anchors the devices in a store, as far as it is known, by the device's name."""
        known = {
            name: store.epoch(device.fingerprint, device.canaries, self.threads)
            for name, (_, device) in self.devices.items()
        }
        return {name: epoch for name, epoch in known.items() if epoch is not None}

    def stored(self, store: Store) -> list[Measurement]:
        """What a store holds of these architectures on these devices, without samples.

        Of their present environments, options and canary epochs.
        """
        wanted, epochs = set(self.keys), self.epochs(store)
        own = {
            (device.fingerprint, device.options, epochs[name].id)
            for name, (_, device) in self.devices.items()
            if name in epochs
        }
        return [
            m
            for m in store.measurements(space=self.space.name, with_bursts=False)
            if m.workload.arch in wanted
            and m.workload.threads == self.threads
            and (m.fingerprint.key, m.workload.options, m.epoch) in own
        ]

    def campaign(self, store: Store) -> str:
        """The sweep's name in a store: of what is measured, where, and what anchors it."""
        anchors = sorted(epoch.id for epoch in self.epochs(store).values())
        what = [self.space.name, self.keys, self.kind, sorted(self.devices), self.threads]
        return "fleet:" + digest([*what, anchors])

    # -- measuring ----------------------------------------------------------------------------

    def calibrate(self, store: Store, progress: Progress | None = None) -> list[str]:
        """Calibrate the devices that have no epoch in the store; what was amiss with some."""
        known, words = self.epochs(store), list[str]()
        missing = [name for name in self.devices if name not in known]
        asked = {}
        for name in missing:
            worker, _ = self.devices[name]
            order = self._order((), Plan(), name=name)
            asked[self._submit(order, [worker])] = name
        for future in self._as_they_end(asked):
            answer = self._answer(future)
            self._adopt(store, answer)
            if word := answer.broken or answer.shut or answer.refused:
                words.append(f"{asked[future]}: {word}")
            if progress:
                progress((len(missing) - len(asked) + 1) / len(missing))
        return words

    def run(
        self,
        store: Store,
        plan: Plan,
        archs: Sequence[str],
        *,
        campaign: str | None,
        progress: Progress | None = None,
    ) -> Iterator[Measurement | Failure]:
        """Measure these architectures; each result is stored before it is yielded.

        An architecture that no device could measure is a Failure. Raises DeviceError where the
        scheduler, or the last device of the kind, has gone for good; UsageError where a worker
        cannot know what it is asked for.
        """
        epochs = tuple(self.epochs(store).values())
        blocks = list(_blocks(archs, plan, len(self.devices)))
        order = self._order((), plan, epochs=epochs)
        pending = {self._send(order, block): block for block in blocks}
        left = len(archs)
        for future in self._as_they_end(pending):
            block = pending[future]
            answer = self._answer(future)
            if answer.refused:
                raise UsageError(f"{answer.device or 'a worker'}: {answer.refused}")
            self._adopt(store, answer)
            done, rest = self._sorted(block, answer)
            for result in done:
                if isinstance(result, Measurement):
                    store.add(result, plan=campaign)
                yield result
            self._watch(store, answer, done)
            again, lost = self._next(block, rest, answer)
            if again is not None:
                pending[self._send(order, again)] = again
            yield from lost
            left -= len(done) + len(lost)
            if progress:
                progress(1 - left / len(archs))

    def _next(
        self, block: Block, rest: tuple[str, ...], answer: Answer
    ) -> tuple[Block | None, list[Failure]]:
        """What is left of a block as another one, or as failures where enough were tried."""
        if not rest:
            return None, []
        if answer.shut:
            self._shut[answer.worker] = answer.shut
            if not self._workers():
                words = "; ".join(self._shut.values())
                raise DeviceError(f"all devices of the kind {self.kind!r} are set aside: {words}")
            return replace(block, archs=rest, avoid=answer.worker), []
        word = answer.broken or "it was left out"
        if block.tries + 1 >= MOST_TRIES or answer.killed:
            error = DeviceError(f"{answer.device}: {word}" if answer.device else word)
            return None, [self._failure(arch, error) for arch in rest]
        return Block(rest, block.tries + 1, answer.worker), []

    def _sorted(
        self, block: Block, answer: Answer
    ) -> tuple[list[Measurement | Failure], tuple[str, ...]]:
        """An answer's results for architectures of the block, one each; and what it lacks."""
        open_ = dict.fromkeys(block.archs)
        done: list[Measurement | Failure] = []
        for m in answer.measured:
            if m.workload.space == self.space.name and m.workload.arch in open_:
                del open_[m.workload.arch]
                done.append(m)
        for arch, error in answer.failed:
            if arch in open_:
                del open_[arch]
                done.append(self._failure(arch, error))
        return done, tuple(open_)

    def _failure(self, arch: str, error: HwbenchError) -> Failure:
        workload = Workload(arch, "", (), self.threads, (), self.space.name, arch)
        return Failure(workload, error)

    def _adopt(self, store: Store, answer: Answer) -> None:
        """Store an epoch that a worker made."""
        if answer.epoch is not None and not store.epochs(id=answer.epoch.id):
            store.add_epoch(answer.epoch)

    def _watch(self, store: Store, answer: Answer, done: Iterable[Measurement | Failure]) -> None:
        """Add the session to the watched series of its device's canaries."""
        first = next((m for m in done if isinstance(m, Measurement)), None)
        if first is None or answer.epoch is None or not answer.floors:
            return
        key, threads = answer.epoch.canary_key, self.threads
        store.add_canary_run(
            first.fingerprint.key, key, threads, first.session, first.created, answer.floors
        )

    # -- Dask ---------------------------------------------------------------------------------

    def _order(
        self,
        archs: Sequence[str],
        plan: Plan,
        *,
        epochs: tuple[CanaryEpoch, ...] = (),
        name: str | None = None,
    ) -> Order:
        return Order(self.kind, self.space.name, tuple(archs), self.threads, plan, epochs, name)

    def _send(self, order: Order, block: Block) -> Future:
        others = [worker for worker in self._workers() if worker != block.avoid]
        return self._submit(replace(order, archs=block.archs), others if block.avoid else [])

    def _submit(self, order: Order, workers: Sequence[str]) -> Future:
        """To one of these workers while there is one, else to any."""
        return self.client.submit(
            perform,
            order.text(),
            resources={self.kind: 1},
            workers=list(workers) or None,
            allow_other_workers=bool(workers),
            priority=self.priority,
            pure=False,
        )

    def _as_they_end(self, pending: dict[Future, Any]) -> Iterator[Future]:
        """Futures as they end, taken out of ``pending`` afterwards; those added meanwhile too.

        What is left when the caller ends early is taken back.
        """
        from distributed import wait

        alone_since: float | None = None
        try:
            while pending:
                with suppress(TimeoutError), self.client.as_current():
                    wait(list(pending), timeout=_LOOK_S, return_when="FIRST_COMPLETED")
                for future in [each for each in pending if each.status != "pending"]:
                    yield future
                    del pending[future]
                alone = not self._workers()
                alone_since = (alone_since or time.monotonic()) if alone else None
                if pending and alone_since and time.monotonic() - alone_since > PATIENCE_S:
                    raise DeviceError(
                        f"the last worker with a device of the kind {self.kind!r} has gone: start "
                        "it again, then run the same command, which goes on from here"
                    )
        except (OSError, CancelledError) as error:
            raise DeviceError(
                "the fleet's scheduler has gone: start it again, then run the same command, which "
                "goes on from here"
            ) from error
        finally:
            if pending:
                with suppress(OSError):
                    self.client.cancel(list(pending))

    def _answer(self, future: Future) -> Answer:
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
        except CancelledError as error:
            raise DeviceError("the fleet's scheduler gave a task up: run this again") from error


def _blocks(archs: Sequence[str], plan: Plan, devices: int) -> Iterator[Block]:
    """Architectures in sessions as large as help each other's estimates, for all the devices."""
    if not archs:
        return
    most = plan.loaded * max(1, round(TURNS_SECONDS / (plan.seconds * plan.loaded)))
    fair = math.ceil(len(archs) / (devices * BLOCKS_A_DEVICE))
    number = math.ceil(len(archs) / min(max(fair, LEAST_MODELS), most))
    for index in range(number):
        yield Block(tuple(archs[index::number]))
