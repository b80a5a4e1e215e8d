"""What a worker does for a client: say what its devices are, calibrate one, measure a block.

Orders and answers are JSON texts, records in the form of the archive. An order names
architectures of a space that the worker knows itself: no model and no code comes along.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hwbench
from hwbench.errors import DeviceError, HwbenchError, InconclusiveError, ModelError, UsageError
from hwbench.fleet.seats import Seat, Seats, SetAsideError
from hwbench.interchange.archive import measurement_record, record_of
from hwbench.measure.campaign import calibration
from hwbench.measure.jobs import Job
from hwbench.measure.plan import Plan
from hwbench.measure.session import measure
from hwbench.records import CanaryEpoch, Measurement
from hwbench.spaces import get_space
from hwbench.store.documents import EPOCH, check_document, epoch_document, epoch_of


@dataclass(frozen=True)
class Order:
    """A block: architectures of a space, for one device of a kind, or the one of that ``name``.

    ``epochs`` are those that the client's store anchors devices of the kind by.
    """

    kind: str
    space: str
    archs: tuple[str, ...]
    threads: int
    plan: Plan
    epochs: tuple[CanaryEpoch, ...] = ()
    name: str | None = None

    def text(self) -> str:
        """As it travels."""
        plan = {k: getattr(self.plan, k) for k in ("processes", "seconds", "loaded", "tags")}
        return json.dumps(
            {
                "hwbench": hwbench.__version__,
                "kind": self.kind,
                "space": self.space,
                "archs": self.archs,
                "threads": self.threads,
                "plan": plan,
                "epochs": [epoch_document(epoch) for epoch in self.epochs],
                "name": self.name,
            }
        )

    @classmethod
    def of(cls, text: str) -> Order:
        """The order behind a text. Raises UsageError where another hwbench wrote it."""
        d = json.loads(text)
        if d["hwbench"] != hwbench.__version__:
            raise UsageError(
                f"the worker has hwbench {hwbench.__version__}, the client {d['hwbench']}: "
                "install the same on both"
            )
        epochs = tuple(_epoch(document) for document in d["epochs"])
        plan = Plan(**d["plan"])
        return cls(d["kind"], d["space"], tuple(d["archs"]), d["threads"], plan, epochs, d["name"])


@dataclass(frozen=True)
class Described:
    """A device as a client needs it, or why it does not answer (``error``)."""

    device: str
    fingerprint: str = ""
    canaries: str = ""
    options: tuple[tuple[str, str], ...] = ()
    error: str = ""


@dataclass
class Answer:
    """What became of a block.

    ``broken`` says how the device failed before its end, ``refused`` why no device would ever do
    it, ``shut`` why this worker has no device left for it. ``epoch`` anchors the results;
    ``floors`` are the session's own canonical canary times in ns, shape (K,). ``killed``, which
    the client alone knows: no worker survived it.
    """

    worker: str = ""
    device: str = ""
    epoch: CanaryEpoch | None = None
    measured: list[Measurement] = field(default_factory=list)
    failed: list[tuple[str, HwbenchError]] = field(default_factory=list)
    floors: tuple[float, ...] = ()
    broken: str = ""
    refused: str = ""
    shut: str = ""
    killed: bool = False

    def text(self) -> str:
        """As it travels."""
        return json.dumps(
            {
                "worker": self.worker,
                "device": self.device,
                "epoch": self.epoch and epoch_document(self.epoch),
                "measured": [measurement_record(m) for m in self.measured],
                "failed": [[arch, type(e).__name__, str(e)] for arch, e in self.failed],
                "floors": self.floors,
                "broken": self.broken,
                "refused": self.refused,
                "shut": self.shut,
            }
        )

    @classmethod
    def of(cls, text: str) -> Answer:
        """The answer behind a text. Raises ValueError where it is none."""
        d = json.loads(text)
        measured = [record_of(record) for record in d["measured"]]
        if not all(isinstance(record, Measurement) for record in measured):
            raise ValueError("an answer holds measurements alone")
        return cls(
            worker=str(d["worker"]),
            device=str(d["device"]),
            epoch=_epoch(d["epoch"]) if d["epoch"] else None,
            measured=[m for m in measured if isinstance(m, Measurement)],
            failed=[(str(arch), _error(kind, text)) for arch, kind, text in d["failed"]],
            floors=tuple(map(float, d["floors"])),
            broken=str(d["broken"]),
            refused=str(d["refused"]),
            shut=str(d["shut"]),
        )


def _epoch(document: Any) -> CanaryEpoch:
    check_document(document, EPOCH)
    return epoch_of(document)


def _error(kind: str, text: str) -> HwbenchError:
    known = {"InconclusiveError": InconclusiveError, "ModelError": ModelError}
    return known.get(kind, DeviceError)(text)


# --- on the worker ------------------------------------------------------------------------


def describe(text: str) -> str:
    """Task: the devices of an order's kind, as JSON of :class:`Described`'s fields."""
    order, told = Order.of(text), []
    for seat in _seats().of(order.kind):
        try:
            fingerprint, canaries = seat.identity(order.threads)
            (job,) = _jobs(seat, order, order.archs[:1])
            options = [list(pair) for pair in job.workload.options]
            told.append([seat.name, fingerprint, canaries, options, ""])
        except HwbenchError as error:
            told.append([seat.name, "", "", [], str(error)])
    return json.dumps(told)


def described(text: str) -> list[Described]:
    """What :func:`describe` answered."""
    return [
        Described(name, fingerprint, canaries, tuple((k, v) for k, v in options), error)
        for name, fingerprint, canaries, options, error in json.loads(text)
    ]


def perform(text: str) -> str:
    """Task: measure an order's architectures on a free device; without any, calibrate it alone."""
    from distributed import get_worker

    answer = Answer(worker=get_worker().address)
    try:
        order = Order.of(text)
        with _seats().taken(order.kind, order.name) as seat:
            answer.device = seat.name
            answer.epoch = _anchor(seat, order)
            if order.archs:
                _measure(seat, order, answer)
    except SetAsideError as error:
        answer.shut = str(error)
    except UsageError as error:
        answer.refused = str(error)
    except HwbenchError as error:
        answer.broken = str(error)
    return answer.text()


def _seats() -> Seats:
    from distributed import get_worker

    seats: Seats = get_worker().extensions["hwbench"]
    return seats


def _jobs(seat: Seat, order: Order, archs: Sequence[str]) -> list[Job]:
    from hwbench.devices.profile import architecture_jobs

    space = get_space(order.space)
    codes = space.encode(list(archs))
    return architecture_jobs(seat.device, space, codes, order.threads)


def _anchor(seat: Seat, order: Order) -> CanaryEpoch:
    """The epoch of the client's store, else the one that was made here before, else a new one."""
    fingerprint, canaries = seat.identity(order.threads)
    key = fingerprint, canaries, order.threads
    for epoch in order.epochs:
        if (epoch.fingerprint_key, epoch.canary_key, epoch.threads) == key:
            return epoch
    if key not in seat.epochs:
        seat.epochs[key] = calibration(seat.target, order.threads)
    return seat.epochs[key]


def _measure(seat: Seat, order: Order, answer: Answer) -> None:
    """Fill ``answer``; raises the device's own error after what was finished is in it."""
    jobs = _jobs(seat, order, order.archs)
    floors: list[NDArray[np.float64]] = []
    for result in measure(seat.target, jobs, order.plan, answer.epoch, watch=floors.append):
        if isinstance(result, Measurement):
            answer.measured.append(result)
        else:
            answer.failed.append((result.workload.arch or "", result.error))
    if floors:
        answer.floors = tuple(map(float, floors[0]))
    causes = [error for _, error in answer.failed]
    if causes and not answer.measured and not any(isinstance(e, UsageError) for e in causes):
        answer.failed.clear()  # not one went well, and no model is at fault: the device is
        raise causes[0]
