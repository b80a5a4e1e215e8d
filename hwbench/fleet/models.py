"""The client's side of model files: a bench of them, and single sessions on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from hwbench.devices.models import Model
from hwbench.errors import DeviceError, HwbenchError, ModelError, UsageError
from hwbench.fleet.block import Answer, Order
from hwbench.fleet.sweep import Spread
from hwbench.fleet.work import Models, Sent, far_job
from hwbench.measure.jobs import Job
from hwbench.measure.plan import Failure, Plan, Progress
from hwbench.records import Measurement, Workload
from hwbench.store import Store

if TYPE_CHECKING:
    from distributed import Client

Place = TypeVar("Place")
Found = TypeVar("Found")


class LostError(DeviceError):
    """A device did not finish what it had begun: another one may."""


class FleetModels(Spread):
    """Model files, to be measured by the devices of one kind.

    Jobs are of :meth:`job`. What they are of is read when it is sent.
    """

    def __init__(self, client: Client, kind: str, *, threads: int = 1, priority: int = 0) -> None:
        super().__init__(client, kind, threads=threads, priority=priority)
        self._jobs: Mapping[str, Job] = {}

    def job(self, model: Model, threads: int) -> Job:
        """The work of running a model's file. Raises ModelError for what is none."""
        return far_job(model, threads)

    def work(self, items: Sequence[str]) -> tuple[Models, list[tuple[str, HwbenchError]]]:
        """Their files, as they are now; and what is amiss with some."""
        sent: dict[str, Sent] = {}
        amiss: list[tuple[str, HwbenchError]] = []
        for item in items:
            try:
                sent[item] = Sent.read(self._jobs[item])
            except ModelError as error:
                amiss.append((item, error))
        return Models(sent), amiss

    def example(self) -> Models:
        """None: what a worker can run it says when it is asked to."""
        return Models({})

    def workload(self, item: str) -> Workload:
        """That of its job, whose options are the device's to add."""
        return self._jobs[item].workload

    def fits(self, item: str, measured: Measurement) -> bool:
        """Whether a worker's answer is of the file that it was sent."""
        return _is_of(self.workload(item), measured)

    def bench(
        self, jobs: Sequence[Job], plan: Plan, store: Store, progress: Progress | None = None
    ) -> list[Measurement | Failure]:
        """Measure jobs, each on one of the devices; answers in their order, the results stored.

        Raises as :meth:`Spread.results` does.
        """
        self._jobs = {str(index): job for index, job in enumerate(jobs)}
        items = list(self._jobs)
        answers = dict(self.results(store, plan, items, campaign=None, progress=progress))
        return [answers[item] for item in items]

    # -- one session --------------------------------------------------------------------------

    def session(
        self,
        jobs: Sequence[Job],
        plan: Plan,
        store: Store,
        *,
        on: str | None = None,
        anchored: bool = True,
    ) -> tuple[Answer, list[Measurement | HwbenchError]]:
        """Measure jobs in one session, on the device of that name if one is given.

        Answers in the jobs' order, beside the whole answer. Nothing is stored but an epoch that
        was made for it. Threads may call this at once. Raises LostError where the device did not
        finish, UsageError for what it cannot run, ModelError for a file that cannot be sent,
        DeviceError as :meth:`Spread.results` does.
        """
        names = {str(index): job for index, job in enumerate(jobs)}
        anchors = self._anchors(store)
        sent = Models({name: Sent.read(job) for name, job in names.items()})
        order = Order(self.kind, sent, self.threads, plan, anchors, on, anchored)
        workers = [] if on is None else [self._host_of(on)]
        future = self.tasks.submit(order, workers, only=on is not None)
        answer = Answer(broken="it was taken back")
        for ended in self.tasks.as_they_end({future: None}):
            answer = self.tasks.answer(ended)
        if answer.refused:
            raise UsageError(f"{answer.device or 'a worker'}: {answer.refused}")
        if answer.killed:
            raise DeviceError(answer.broken)
        if answer.shut:
            self.tasks.set_aside(answer)
        self._adopt(store, answer)
        found: dict[str, Measurement | HwbenchError] = dict(answer.failed)
        found |= {i: m for i, m in answer.measured if i in names and _is_of(names[i].workload, m)}
        if answer.broken or answer.shut or not found.keys() >= names.keys():
            where = answer.device or on or self.kind
            raise LostError(f"{where}: {answer.broken or answer.shut or 'it was left out'}")
        return answer, [found[item] for item in names]

    def _host_of(self, device: str) -> str:
        """The worker that has a device now: it may have come, or come back, since all were asked.

        Raises LostError where none has.
        """
        known = self.devices.get(device)
        if known is None or known[0] not in self.tasks.workers():
            self.__dict__.pop("devices", None)  # so that all are asked again
            known = self.devices.get(device)
        if known is None:
            raise LostError(f"{device}: its host has gone")
        return known[0]

    def keep(self, store: Store, answer: Answer) -> None:
        """Store what a session measured, and its point of the watched series."""
        measured = [m for _, m in answer.measured]
        for each in measured:
            store.add(each)
        self._watch(store, answer, measured)


class OneDevice:
    """Where a comparison's sessions are run: on a device by name, or on the first's that was free.

    ``device`` is its name, as soon as there is one.
    """

    def __init__(self, models: FleetModels, store: Store, device: str | None = None) -> None:
        self._models, self._store, self.device = models, store, device
        self._kinds: tuple[str, ...] = ()

    def session(
        self, jobs: Sequence[Job], plan: Plan, progress: Progress | None
    ) -> list[Measurement | HwbenchError]:
        """One session of all jobs; answers in their order. Nothing is calibrated for it."""
        answer, found = self._models.session(
            jobs, plan, self._store, on=self.device, anchored=False
        )
        self.device, self._kinds = answer.device, answer.kinds
        return found

    def kinds(self, threads: int) -> Sequence[str]:
        """What the canaries of the last session stand for."""
        return self._kinds

    def measured(self, job: Job, plan: Plan) -> Measurement:
        """One job by itself, anchored and stored. Raises its error where it has no answer."""
        answer, (found,) = self._models.session([job], plan, self._store, on=self.device)
        self.device = answer.device
        if isinstance(found, HwbenchError):
            raise found
        self._models.keep(self._store, answer)
        return found


def first_that_finishes(places: Iterable[Place], attempt: Callable[[Place], Found]) -> Found:
    """What ``attempt`` makes at the first place whose device does not give out; of at least one."""
    lost: LostError | None = None
    for place in places:
        try:
            return attempt(place)
        except LostError as error:
            lost = error
    assert lost is not None
    raise lost


def _is_of(asked: Workload, measured: Measurement) -> bool:
    """Whether it is of that file; shapes are the device's to settle, as by an option ``batch``."""
    own = measured.workload
    names = ("name", "model_hash", "threads")
    inputs = [[(each.name, each.dtype) for each in w.inputs] for w in (asked, own)]
    return inputs[0] == inputs[1] and all(getattr(asked, n) == getattr(own, n) for n in names)
