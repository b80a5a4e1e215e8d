"""The client's side: a sweep in blocks over all devices of a kind, stored by nobody else.

A block goes to whichever device is free. It comes back as a whole, so that what a lost worker had
measured of it is measured again elsewhere, and stored once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from hwbench.errors import DeviceError, HwbenchError, StoreError, UsageError
from hwbench.fleet.anchors import leave_anchors
from hwbench.fleet.block import Answer, Described, Order
from hwbench.fleet.common import Place
from hwbench.fleet.tasks import Tasks
from hwbench.fleet.work import Architectures, Work
from hwbench.measure.campaign import called
from hwbench.measure.family import LEAST_MODELS
from hwbench.measure.plan import Failure, Plan, Progress
from hwbench.measure.session import TURNS_SECONDS
from hwbench.records import CanaryEpoch, Measurement, Workload, digest
from hwbench.spaces import Space
from hwbench.spaces.base import Codes
from hwbench.store import Store, Sweep

if TYPE_CHECKING:
    from distributed import Client, Future

#: Blocks a device gets of a sweep at least, where it is large enough: the last ones end together.
BLOCKS_A_DEVICE = 2
#: A block on which so many devices failed is given up.
MOST_TRIES = 5


@dataclass(frozen=True)
class Block:
    """Items of a work that are measured in one session, and how often that went wrong."""

    items: tuple[str, ...]
    tries: int = 0
    avoid: str = ""


class Spread(ABC):
    """Work that is spread over all devices of one kind, whatever it is of.

    Each result keeps the device that it is of: milliseconds of two specimens do not mix.
    """

    #: Items that help each other's estimates: a block has so many at least.
    least = 1

    def __init__(self, client: Client, kind: str, *, threads: int, priority: int) -> None:
        self.kind, self.threads = kind, threads
        self.tasks = Tasks(client, kind, priority)
        #: What is amiss with devices that are left out.
        self.unfit: list[str] = []

    @abstractmethod
    def work(self, items: Sequence[str]) -> tuple[Work, list[tuple[str, HwbenchError]]]:
        """What of these items is sent to a worker, and why some cannot be."""

    @abstractmethod
    def example(self) -> Work:
        """What tells a device's options, and whether a worker knows what it will be asked for."""

    @abstractmethod
    def workload(self, item: str) -> Workload:
        """What is known here of an item's workload."""

    def fits(self, item: str, measured: Measurement) -> bool:
        """Whether a worker's answer for an item is of that, as far as is known here."""
        asked = self.workload(item)
        names = ("name", "space", "arch", "threads")
        return all(getattr(measured.workload, n) == getattr(asked, n) for n in names)

    @cached_property
    def devices(self) -> dict[str, tuple[str, Described]]:
        """Worker and description of each device of the kind, by its name.

        Raises NoDeviceError where there is none, DeviceError where none answers, UsageError where
        a worker has another hwbench, or none can do what it will be asked for.
        """
        found = self.tasks.described(self._order(self.example(), Plan()))
        ill = [d for each in found.values() for d in each if d.error]
        fit = {d.device: (w, d) for w, each in found.items() for d in each if not d.error}
        self.unfit = [f"{d.device}: {d.error}" for d in ill]
        if not fit:
            words = "; ".join(self.unfit) or "all are set aside, or gone"
            text = f"no device of the kind {self.kind!r} can be had: {words}"
            raise UsageError(text) if ill and all(d.refused for d in ill) else DeviceError(text)
        return fit

    def epochs(self, store: Store) -> dict[str, CanaryEpoch]:
        """What anchors the devices in a store, as far as it is known, by the device's name."""
        known = {
            name: store.epoch(device.fingerprint, device.canaries, self.threads)
            for name, (_, device) in self.devices.items()
        }
        return {name: epoch for name, epoch in known.items() if epoch is not None}

    def _anchors(self, store: Store) -> Place:
        """Where workers find these, as an order names it."""
        return leave_anchors(self.tasks.client, list(self.epochs(store).values()))

    # -- measuring ----------------------------------------------------------------------------

    def calibrate(self, store: Store, progress: Progress | None = None) -> list[str]:
        """Calibrate the devices that have no epoch in the store; what was amiss with some."""
        known, words = self.epochs(store), list[str]()
        missing = [name for name in self.devices if name not in known]
        asked = {}
        for name in missing:
            worker, _ = self.devices[name]
            order = self._order(self.work(())[0], Plan(), name=name)
            asked[self.tasks.submit(order, [worker], only=True)] = name
        for future in self.tasks.as_they_end(asked):
            answer = self.tasks.answer(future)
            self._adopt(store, answer)
            if word := answer.broken or answer.shut or answer.refused:
                words.append(f"{asked[future]}: {word}")
            if progress:
                progress((len(missing) - len(asked) + 1) / len(missing))
        return words

    def results(
        self,
        store: Store,
        plan: Plan,
        items: Sequence[str],
        *,
        campaign: str | None,
        progress: Progress | None = None,
    ) -> Iterator[tuple[str, Measurement | Failure]]:
        """Measure these items; each result is stored before it is yielded, beside its item.

        An item that no device could measure, or that could not be sent, is a Failure. Raises
        DeviceError where the scheduler, or the last device of the kind, has gone for good;
        UsageError where no worker can know what it is asked for.
        """
        blocks = list(_blocks(items, plan, len(self.devices), self.least))
        anchors = self._anchors(store)
        announced = store.announce(self._announcement(items, campaign))
        pending: dict[Future, Block] = {}
        left = len(items)

        def send(block: Block) -> list[tuple[str, Failure]]:
            work, amiss = self.work(block.items)
            if work.items:
                others = self._others(block.avoid)
                future = self.tasks.submit(self._order(work, plan, anchors=anchors), others)
                pending[future] = replace(block, items=work.items)
            return [(item, Failure(self.workload(item), error)) for item, error in amiss]

        unsent = [each for block in blocks for each in send(block)]
        if unsent:
            store.set_back(announced, "", failures=0, cells=len(unsent))
        yield from unsent
        left -= len(unsent)
        for future in self.tasks.as_they_end(pending):
            block = pending[future]
            answer = self.tasks.answer(future)
            self._adopt(store, answer)
            done, rest = self._sorted(block, answer)
            for item, result in done:
                if isinstance(result, Measurement):
                    store.add(result, plan=campaign)
                yield item, result
            self._watch(store, answer, [result for _, result in done])
            again, lost = self._next(block, rest, answer)
            if again is not None:
                lost += send(again)
            failed = [each for _, each in [*done, *lost] if isinstance(each, Failure)]
            if answer.broken or failed:
                store.set_back(
                    announced, answer.device, failures=bool(answer.broken), cells=len(failed)
                )
            yield from lost
            left -= len(done) + len(lost)
            if progress:
                progress(1 - left / len(items))

    def _announcement(self, items: Sequence[str], campaign: str | None) -> Sweep:
        """These items as whoever watches the store is told of them."""
        devices = {name: device.fingerprint for name, (_, device) in self.devices.items()}
        what = called([self.workload(item) for item in items])
        return Sweep(what, self.kind, "", campaign, len(items), 0, devices=devices)

    def _next(
        self, block: Block, rest: tuple[str, ...], answer: Answer
    ) -> tuple[Block | None, list[tuple[str, Failure]]]:
        """What is left of a block as another one, or as failures where enough were tried."""
        if not rest:
            return None, []
        if answer.shut or answer.refused:
            self.tasks.set_aside(answer)
            return replace(block, items=rest, avoid=answer.worker), []
        word = answer.broken or "it was left out"
        if block.tries + 1 >= MOST_TRIES or answer.killed:
            error = DeviceError(f"{answer.device}: {word}" if answer.device else word)
            return None, [(item, Failure(self.workload(item), error)) for item in rest]
        return Block(rest, block.tries + 1, answer.worker), []

    def _sorted(
        self, block: Block, answer: Answer
    ) -> tuple[list[tuple[str, Measurement | Failure]], tuple[str, ...]]:
        """An answer's results for items of the block, one each; and what it lacks."""
        open_ = dict.fromkeys(block.items)
        done: list[tuple[str, Measurement | Failure]] = []
        for item, m in answer.measured:
            if item in open_ and self.fits(item, m):
                del open_[item]
                done.append((item, m))
        for item, error in answer.failed:
            if item in open_:
                del open_[item]
                done.append((item, Failure(self.workload(item), error)))
        return done, tuple(open_)

    def _adopt(self, store: Store, answer: Answer) -> None:
        """Store an epoch that a worker made, unless another client just has.

        One that was merged in from elsewhere anchors here by now: its device is at hand.
        """
        if answer.epoch is None:
            return
        if not store.epochs(id=answer.epoch.id, imported=False):
            try:
                store.add_epoch(answer.epoch)
            except StoreError:
                if not store.epochs(id=answer.epoch.id, imported=False):
                    raise

    def _watch(self, store: Store, answer: Answer, done: Iterable[Measurement | Failure]) -> None:
        """Add the session to the watched series of its device's canaries."""
        first = next((m for m in done if isinstance(m, Measurement)), None)
        if first is None or answer.epoch is None or not answer.floors:
            return
        key, threads = answer.epoch.canary_key, self.threads
        store.add_canary_run(
            first.fingerprint.key, key, threads, first.session, first.created, answer.floors
        )

    # -- orders -------------------------------------------------------------------------------

    def _order(
        self,
        work: Work,
        plan: Plan,
        *,
        anchors: Place = (),
        name: str | None = None,
    ) -> Order:
        return Order(self.kind, work, self.threads, plan, anchors, name)

    def _others(self, avoid: str) -> list[str]:
        """All workers but that one; none named where none is to be avoided: any will do."""
        return [w for w in self.tasks.workers() if w != avoid] if avoid else []


class FleetSweep(Spread):
    """Architectures of a space, to be measured by the devices of one kind.

    Of architectures that are one and the same model one is measured.
    """

    least = LEAST_MODELS

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
        super().__init__(client, kind, threads=threads, priority=priority)
        self.space = space
        texts = space.decode(codes)
        first: dict[str, str] = {}
        graphs = [space.graph(code).hash for code in codes]
        #: The architecture that is measured for each: of those of one model, the first.
        self.keys = [first.setdefault(g, text) for g, text in zip(graphs, texts, strict=True)]

    @staticmethod
    def key_of(measured: Measurement | Failure) -> str:
        """Which of :attr:`keys` a measurement is of."""
        return measured.workload.arch or ""

    def work(self, items: Sequence[str]) -> tuple[Architectures, list[tuple[str, HwbenchError]]]:
        """Texts of the space, by themselves: all can be sent."""
        return Architectures(self.space.name, tuple(items)), []

    def example(self) -> Architectures:
        """The first of them."""
        return self.work(self.keys[:1])[0]

    def workload(self, item: str) -> Workload:
        """Its labels."""
        return Workload(item, "", (), self.threads, (), self.space.name, item)

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

    def run(
        self,
        store: Store,
        plan: Plan,
        archs: Sequence[str],
        *,
        campaign: str | None,
        progress: Progress | None = None,
    ) -> Iterator[Measurement | Failure]:
        """Measure these architectures, as :meth:`results` does."""
        for _, each in self.results(store, plan, archs, campaign=campaign, progress=progress):
            yield each


def _blocks(items: Sequence[str], plan: Plan, devices: int, least: int) -> Iterator[Block]:
    """Items in sessions as large as help each other's estimates, for all the devices."""
    if not items:
        return
    most = plan.loaded * max(1, round(TURNS_SECONDS / (plan.seconds * plan.loaded)))
    fair = math.ceil(len(items) / (devices * BLOCKS_A_DEVICE))
    number = math.ceil(len(items) / min(max(fair, least), most))
    for index in range(number):
        yield Block(tuple(items[index::number]))
