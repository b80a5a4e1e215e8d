"""What a worker does for a client: say what its devices are, calibrate one, measure a block.

Orders and answers are JSON texts, records in the form of the archive. No code comes along: what is
to be measured (:mod:`.work`) is named, or is a model's file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

import hwbench
from hwbench.errors import (
    DelegateError,
    DeviceError,
    HwbenchError,
    InconclusiveError,
    ModelError,
    ShellTimeoutError,
    ToolOutputError,
    UsageError,
    WorkerError,
)
from hwbench.fleet.anchors import anchor, epoch_in
from hwbench.fleet.common import Place
from hwbench.fleet.seats import Seat, Seats, SetAsideError
from hwbench.fleet.work import Work, work_of
from hwbench.interchange.archive import measurement_record, record_of
from hwbench.measure.campaign import calibration
from hwbench.measure.jobs import Job
from hwbench.measure.plan import Plan
from hwbench.measure.scratch import scratch
from hwbench.measure.session import measure
from hwbench.records import CanaryEpoch, Measurement
from hwbench.store.documents import epoch_document


@dataclass(frozen=True)
class Order:
    """A block: work for one device of a kind, or for the one of that ``name``, in one session.

    What the client's store anchors devices by lies at ``anchors`` (:mod:`.anchors`). A device that
    has no epoch there is calibrated first where the milliseconds are to be ``anchored``.
    """

    kind: str
    work: Work
    threads: int
    plan: Plan
    anchors: Place = ()
    name: str | None = None
    anchored: bool = True

    def text(self) -> str:
        """As it travels."""
        return json.dumps(
            {
                "hwbench": hwbench.__version__,
                "kind": self.kind,
                **self.work.document(),
                "threads": self.threads,
                "plan": asdict(self.plan),
                "anchors": self.anchors,
                "name": self.name,
                "anchored": self.anchored,
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
        plan, anchors = Plan(**d["plan"]), tuple(d["anchors"])
        return cls(d["kind"], work_of(d), d["threads"], plan, anchors, d["name"], d["anchored"])


@dataclass(frozen=True)
class Described:
    """A device as a client needs it, or why it is none (``error``): it cannot do what it will be
    asked for (``refused``), or does not answer.
    """

    device: str
    fingerprint: str = ""
    canaries: str = ""
    options: tuple[tuple[str, str], ...] = ()
    error: str = ""
    refused: bool = False


@dataclass
class Answer:
    """What became of a block.

    ``broken`` says how the device failed before its end, ``refused`` why no device would ever do
    it, ``shut`` why this worker has no device left for it. ``measured`` and ``failed`` are by the
    items of the work. ``epoch`` anchors the results; ``kinds`` are the canaries', (K,), and
    ``floors`` the session's own canonical times of them in ns. ``killed``, which the client alone
    knows: no worker survived it.
    """

    worker: str = ""
    device: str = ""
    epoch: CanaryEpoch | None = None
    measured: list[tuple[str, Measurement]] = field(default_factory=list)
    failed: list[tuple[str, HwbenchError]] = field(default_factory=list)
    kinds: tuple[str, ...] = ()
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
                "measured": [[item, measurement_record(m)] for item, m in self.measured],
                "failed": [[item, type(e).__name__, str(e)] for item, e in self.failed],
                "kinds": self.kinds,
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
        measured = [(str(item), record_of(record)) for item, record in d["measured"]]
        if not all(isinstance(record, Measurement) for _, record in measured):
            raise ValueError("an answer holds measurements alone")
        return cls(
            worker=str(d["worker"]),
            device=str(d["device"]),
            epoch=epoch_in(d["epoch"]) if d["epoch"] else None,
            measured=[(item, m) for item, m in measured if isinstance(m, Measurement)],
            failed=[(str(item), _error(kind, text)) for item, kind, text in d["failed"]],
            kinds=tuple(map(str, d["kinds"])),
            floors=tuple(map(float, d["floors"])),
            broken=str(d["broken"]),
            refused=str(d["refused"]),
            shut=str(d["shut"]),
        )


#: A model that is refused, or that ends or holds up what runs it, would elsewhere too; and heat
#: passes. (A device that hangs by itself ends its session by that.)
_NOT_THE_DEVICE = (
    UsageError,
    WorkerError,
    DelegateError,
    ToolOutputError,
    ShellTimeoutError,
    InconclusiveError,
)


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
            with scratch() as folder:
                jobs = order.work.jobs(seat.device, order.threads, folder)
            options = [list(pair) for job in jobs[:1] for pair in job.workload.options]
            told.append([seat.name, fingerprint, canaries, options, "", False])
        except (HwbenchError, OSError) as error:
            told.append([seat.name, "", "", [], str(error), isinstance(error, UsageError)])
    return json.dumps(told)


def described(text: str) -> list[Described]:
    """What :func:`describe` answered."""
    return [
        Described(name, fingerprint, canaries, tuple((k, v) for k, v in options), error, refused)
        for name, fingerprint, canaries, options, error, refused in json.loads(text)
    ]


def perform(text: str) -> str:
    """Task: measure an order's work on a free device; without any, calibrate it alone."""
    from distributed import get_worker

    answer = Answer(worker=get_worker().address)
    try:
        order = Order.of(text)
        with _seats().taken(order.kind, order.name) as seat:
            answer.device = seat.name
            with _host_errors(), scratch() as folder:
                # First: what cannot be run is told before a minute is spent on calibrating.
                jobs = order.work.jobs(seat.device, order.threads, folder)
                answer.epoch = _anchor(seat, order)
                if jobs:
                    _measure(seat, order, jobs, answer)
    except SetAsideError as error:
        if _seats().of(order.kind):  # the one that was named alone is
            answer.broken = str(error)
        else:
            answer.shut = str(error)
    except UsageError as error:
        answer.refused = str(error)
    except InconclusiveError as error:  # it is too hot to be calibrated, say
        answer.failed = [(item, error) for item in order.work.items]
        answer.broken = "" if answer.failed else str(error)
    except HwbenchError as error:
        answer.broken = str(error)
    return answer.text()


@contextmanager
def _host_errors() -> Iterator[None]:
    """What the host refuses (a full disk, say) is the fault of its devices, not of the order."""
    try:
        yield
    except OSError as error:
        raise DeviceError(f"its host: {error.strerror or error}") from error


def _seats() -> Seats:
    from distributed import get_worker

    seats: Seats = get_worker().extensions["hwbench"]
    return seats


def _anchor(seat: Seat, order: Order) -> CanaryEpoch | None:
    """The epoch of the client's store, else the one that was made here before, else a new one
    where there has to be one.
    """
    fingerprint, canaries = seat.identity(order.threads)
    key = fingerprint, canaries, order.threads
    if order.anchors and (epoch := anchor(order.anchors, *key)):
        return epoch
    if key not in seat.epochs and order.anchored:
        seat.epochs[key] = calibration(seat.target, order.threads)
    return seat.epochs.get(key)


def _measure(seat: Seat, order: Order, jobs: Sequence[Job], answer: Answer) -> None:
    """Fill ``answer``; raises the device's own error after what was finished is in it."""
    floors: list[NDArray[np.float64]] = []
    answer.kinds = tuple(canary.kind for canary in seat.target.canaries(order.threads))
    # By the workload itself: two items may be equal in all that a workload says.
    items = {id(job.workload): i for job, i in zip(jobs, order.work.items, strict=True)}
    try:
        for result in measure(seat.target, jobs, order.plan, answer.epoch, watch=floors.append):
            item = items.pop(id(result.workload))
            if isinstance(result, Measurement):
                answer.measured.append((item, result))
            else:
                answer.failed.append((item, result.error))
    except InconclusiveError as error:  # it does not cool down, say
        answer.failed += [(item, error) for item in items.values()]
    if floors:
        answer.floors = tuple(map(float, floors[0]))
    causes = [error for _, error in answer.failed]
    if causes and not answer.measured and not any(isinstance(e, _NOT_THE_DEVICE) for e in causes):
        answer.failed.clear()  # not one went well, and no model is at fault: the device is
        raise causes[0]
