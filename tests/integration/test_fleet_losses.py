"""A fleet's hosts that go at bad moments, and whose fault a failure is: by real Dask."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwbench.devices.models import read_model_file
from hwbench.errors import (
    DelegateError,
    DeviceError,
    HwbenchError,
    InconclusiveError,
    ShellTimeoutError,
    ToolOutputError,
    UsageError,
    WorkerError,
)
from hwbench.fleet import block, tasks
from hwbench.fleet.block import Answer
from hwbench.fleet.link import connected, local_cluster
from hwbench.fleet.models import FleetModels, LostError, OneDevice
from hwbench.fleet.seats import Seats, seats_of
from hwbench.fleet.sweep import FleetSweep
from hwbench.measure.jobs import Job, Script
from hwbench.measure.plan import Failure, Plan
from hwbench.records import Measurement
from hwbench.spaces import get_space
from hwbench.store import Store
from tests.fleet_devices import LAUNCH, FakeLauncher
from tests.fleets import Start, local, told
from tests.integration.test_fleet_models import net
from tests.measurements import epoch

pytestmark = pytest.mark.usefixtures("fakes")

SPACE = get_space("mbv3_small")
PLAN = Plan(processes=2, seconds=0.1, loaded=4)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a host is still there is asked every half a second."""
    monkeypatch.setattr(tasks, "PATIENCE_S", 2.0)


@pytest.fixture
def fleet(start: Start) -> Callable[..., Any]:
    """A scheduler's address, and what starts a worker of it with these devices."""
    address = told(start("fleet", "scheduler", "tcp://127.0.0.1:0")).split()[-1]

    def lend(name: str, *devices: str) -> Any:
        listed = ("--devices", ",".join(devices)) if devices else ("--compute",)
        worker = start("fleet", "worker", address, *listed, "--name", name)
        assert told(worker)
        return worker

    lend.address = address  # type: ignore[attr-defined]
    return lend


def sweep_on(client: Any, n: int = 8) -> FleetSweep:
    return FleetSweep(client, "phone", SPACE, SPACE.sample(n, np.random.default_rng(0)))


@pytest.mark.usefixtures("impatient")
class TestHostsThatGo:
    def test_a_task_is_no_other_kinds_when_its_host_goes(
        self, fleet: Any, own_store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nor does it wait for ever; and the fleet goes on with whoever is left, or comes back."""
        monkeypatch.setenv(LAUNCH, "0.3")  # a calibration takes some seconds
        desk = fleet("desk", "phone=fake:1")
        monkeypatch.setenv(LAUNCH, "0.004")
        fleet("bank", "other=fake:2")
        fleet("hut")
        with connected(fleet.address, None) as client, Store.open(own_store) as store:
            sweep = sweep_on(client)
            assert list(sweep.devices) == ["fake:1@desk"]
            threading.Timer(1, desk.kill).start()
            assert sweep.calibrate(store) == ["fake:1@desk: its host has gone"]
            fleet("desk", "phone=fake:1")
            again = sweep_on(client)
            assert again.calibrate(store) == []
            answers = list(again.run(store, PLAN, again.keys, campaign="c"))
            assert {type(a) for a in answers} == {Measurement}
            other = FleetSweep(client, "other", SPACE, SPACE.sample(4, np.random.default_rng(1)))
            assert other.calibrate(store) == []  # the worker without such a device lives

    def test_a_calibration_that_goes_with_its_host_is_told(
        self, fleet: Any, own_store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(LAUNCH, "0.3")
        desk = fleet("desk", "phone=fake:1")
        monkeypatch.setenv(LAUNCH, "0.004")
        fleet("bank", "phone=fake:2")
        with connected(fleet.address, None) as client, Store.open(own_store) as store:
            sweep = sweep_on(client)
            assert len(sweep.devices) == 2
            threading.Timer(1, desk.kill).start()
            assert sweep.calibrate(store) == ["fake:1@desk: its host has gone"]
            assert len(store.epochs()) == 1

    def test_what_none_of_the_others_may_do_any_may(self, fleet: Any, own_store: Path) -> None:
        """A block that had failed on one host is sent to the others; these go."""
        fleet("desk", "phone=fake:1")
        shelf = fleet("shelf", "phone=fake:2")
        with connected(fleet.address, None) as client, Store.open(own_store) as store:
            sweep = sweep_on(client)
            sweep.calibrate(store)
            (gone,) = [w for name, (w, _) in sweep.devices.items() if name.endswith("shelf")]
            shelf.kill()
            shelf.wait()
            order = sweep._order(sweep.work(sweep.keys[:4])[0], PLAN)
            pending = {sweep.tasks.submit(order, [gone]): "block"}
            (answer,) = [sweep.tasks.answer(f) for f in sweep.tasks.as_they_end(pending)]
            assert (answer.device, len(answer.measured)) == ("fake:1@desk", 4)
            assert pending == {}

    def test_a_host_that_dies_while_it_is_asked_is_left_out(self, fleet: Any) -> None:
        fleet("desk", "phone=fake:1")
        shelf = fleet("shelf", "phone=fake:2")
        with connected(fleet.address, None) as client:
            sweep = sweep_on(client)
            shelf.send_signal(signal.SIGSTOP)  # it is there, and does not answer
            threading.Timer(1, shelf.kill).start()
            assert list(sweep.devices) == ["fake:1@desk"]

    def test_a_device_that_came_later_or_comes_back_is_found(
        self, fleet: Any, tmp_path: Path, own_store: Path
    ) -> None:
        desk = fleet("desk", "phone=fake:1")
        with connected(fleet.address, None) as client, Store.open(own_store) as store:
            models = FleetModels(client, "phone")
            model = models.job(read_model_file(net(tmp_path / "net.onnx", 2)), 1)
            assert list(models.devices) == ["fake:1@desk"]
            fleet("shelf", "phone=fake:2")
            later = OneDevice(models, store, "fake:2@shelf")
            assert isinstance(later.session([model], PLAN, None)[0], Measurement)
            desk.kill()
            desk.wait()
            fleet("desk", "phone=fake:1")
            back = OneDevice(models, store, "fake:1@desk")
            assert isinstance(back.session([model], PLAN, None)[0], Measurement)
            with pytest.raises(LostError, match="fake:3@desk: its host has gone"):
                OneDevice(models, store, "fake:3@desk").session([model], PLAN, None)


def test_a_scheduler_that_goes_in_mid_sweep_is_told_and_the_same_command_goes_on(
    start: Start, own_store: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"

    def both() -> tuple[Any, Any]:
        scheduler = start("fleet", "scheduler", address)
        assert told(scheduler)
        worker = start("fleet", "worker", address, "--devices", "phone=fake:1")
        assert "lending" in told(worker)
        return scheduler, worker

    scheduler, worker = both()
    with Store.open(own_store) as store:
        with connected(address, None) as client:
            sweep = sweep_on(client, 48)
            sweep.calibrate(store)
            answers = sweep.run(store, PLAN, sweep.keys, campaign="c")
            next(answers)
            scheduler.kill()
            with pytest.raises(DeviceError, match="the fleet's scheduler has gone: start it again"):
                list(answers)
        kept = len(store.measurements())
        assert 0 < kept < 48
        assert worker.wait(60) == 4  # it says so as well, and ends
        both()
        with connected(address, None) as client:
            sweep = sweep_on(client, 48)
            missing = set(sweep.keys) - {m.workload.arch for m in sweep.stored(store)}
            assert len(missing) == 48 - kept
            rest = list(sweep.run(store, PLAN, sorted(missing), campaign="c"))
        assert {type(each) for each in rest} == {Measurement}
        held = Counter(m.workload.arch for m in store.measurements())
        assert held == Counter(dict.fromkeys(sweep.keys, 1))


# --- in this process --------------------------------------------------------------------------


@contextmanager
def on_phones(*names: str) -> Iterator[tuple[FleetModels, Seats]]:
    """Models for fake phones of a cluster in this process, and these phones."""
    seats = local(*names)
    with local_cluster(seats) as client:
        yield FleetModels(client, "phone"), seats


def failing(monkeypatch: pytest.MonkeyPatch, error: DeviceError) -> None:
    """Every launch of a model, of more microseconds than a canary has, fails in this way."""

    def run(self: FakeLauncher, handles: Any, seconds: float) -> Script:
        found = sound(self, handles, seconds).outcomes
        return Script(
            tuple(
                error if self._ns[h] > 200_000 else o for h, o in zip(handles, found, strict=True)
            )
        )

    sound = FakeLauncher.run
    monkeypatch.setattr(FakeLauncher, "run", run)


@pytest.mark.parametrize(
    "error",
    [WorkerError, DelegateError, ToolOutputError, ShellTimeoutError],
    ids=lambda e: e.__name__,
)
def test_a_device_is_not_set_aside_for_a_models_fault(
    error: type[DeviceError], tmp_path: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that crashes or hangs what runs it, or that a delegate refuses."""
    path = net(tmp_path / "net.onnx", 2)
    failing(monkeypatch, error("it cannot be"))
    with on_phones("1") as (models, seats), Store.open(own_store) as store:
        jobs = [models.job(read_model_file(path), 1)]
        for _ in range(4):
            (answer,) = models.bench(jobs, PLAN, store)
            assert isinstance(answer, Failure)
            assert "it cannot be" in str(answer.error)
            assert answer.error.exit_code == error("").exit_code
        (seat,) = seats.told()
        assert (seat["state"], seat["word"]) == ("free", "")


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_phone_that_does_not_cool_down_is_inconclusive(
    calibrated: bool, tmp_path: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is without a fleet: exit code 3, and the phone is there for the next one, however
    often it is asked.
    """

    def run(self: FakeLauncher, *asked: Any) -> Any:
        raise InconclusiveError("it does not cool down")

    with on_phones("1") as (models, seats), Store.open(own_store) as store:
        assert len(models.devices) == 1
        monkeypatch.setattr(FakeLauncher, "run", run)
        jobs = [models.job(read_model_file(net(tmp_path / "net.onnx", 2)), 1)]
        (seat,) = seats.of("phone")
        if calibrated:
            fingerprint, canaries = seat.identity(1)
            seat.epochs[fingerprint, canaries, 1] = epoch(1)
        assert len(models.calibrate(store)) == (0 if calibrated else 1)
        for _ in range(3):
            (answer,) = models.bench(jobs, PLAN, store)
            assert isinstance(answer, Failure)
            assert isinstance(answer.error, InconclusiveError)
        assert (seat.failures, seat.aside) == (0, False)


class TestUnfit:
    """What is asked for is amiss, or this host cannot do it, while its devices are well."""

    def test_where_no_device_can_do_it_that_is_a_usage_error(self, own_store: Path) -> None:
        with local_cluster(Seats(seats_of(["cpu"], {}, None))) as client:
            codes = SPACE.sample(2, np.random.default_rng(0))
            sweep = FleetSweep(client, "cpu", SPACE, codes, threads=9999)
            with pytest.raises(UsageError, match=r"'cpu' can be had: cpu: .*9999"):
                _ = sweep.devices

    def test_a_host_that_cannot_is_left_out(
        self, fleet: Any, own_store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It lacks a plug-in, say: the others do its blocks. Where none can, that is told."""

        def refusing(who: set[str]) -> Any:
            def answer(self: tasks.Tasks, future: Any) -> Answer:
                found = sound(self, future)
                if found.device.partition("@")[2] not in who:
                    return found
                return Answer(worker=found.worker, device=found.device, refused="not known here")

            return answer

        sound = tasks.Tasks.answer
        for name in ("desk", "shelf"):
            fleet(name, f"phone=fake:{name}")
        with connected(fleet.address, None) as client, Store.open(own_store) as store:
            sweep = sweep_on(client, 32)
            sweep.calibrate(store)
            monkeypatch.setattr(tasks.Tasks, "answer", refusing({"desk"}))
            found = list(sweep.run(store, PLAN, sweep.keys, campaign="c"))
            assert {m.fingerprint.device for m in found if isinstance(m, Measurement)} == {
                "fake:shelf@shelf"
            }
            assert len(found) == len(set(sweep.keys)) == len(store.measurements())
            monkeypatch.setattr(tasks.Tasks, "answer", refusing({"desk", "shelf"}))
            with pytest.raises(UsageError, match="not known here"):
                list(sweep_on(client).run(store, PLAN, sweep.keys[:4], campaign="d"))

    def test_a_name_that_is_taken_is_told(self, fleet: Any, start: Start) -> None:
        fleet("desk", "phone=fake:1")
        second = start(
            "fleet", "worker", fleet.address, "--devices", "phone=fake:2", "--name", "desk"
        )
        assert second.wait(60) == 2
        assert "has a worker called desk: give this one another --name" in told(second)


def test_what_was_merged_in_from_a_client_anchors_its_devices(own_store: Path) -> None:
    """The epoch of a device that is at hand: a sweep into the lab's store finds what it stored."""
    lab = own_store.with_name("lab.db")
    with (
        on_phones("1") as (models, _),
        Store.open(own_store) as store,
        Store.open(lab) as shared,
    ):
        sweep = sweep_on(models.tasks.client)
        sweep.calibrate(store)
        list(sweep.run(store, PLAN, sweep.keys, campaign=sweep.campaign(store)))
        shared.merge([*store.epochs(), *store.measurements()])
        assert sweep.stored(shared) == []
        sweep.calibrate(shared)
        assert len(sweep.stored(shared)) == len(set(sweep.keys))
        assert shared.epochs() == store.epochs()


def test_one_device_that_is_set_aside_is_not_its_host(
    fakes: Path, tmp_path: Path, own_store: Path
) -> None:
    path = net(tmp_path / "net.onnx", 2)
    with on_phones("1", "2") as (models, _), Store.open(own_store) as store:
        job: Job = models.job(read_model_file(path), 1)
        assert len(models.devices) == 2
        (fakes / "1.broken").touch()
        for _ in range(3):
            with pytest.raises(LostError, match="fake:1 is off line"):
                OneDevice(models, store, "fake:1").session([job], PLAN, None)
        for _ in range(2):
            with pytest.raises(LostError, match="fake:1"):
                OneDevice(models, store, "fake:1").session([job], PLAN, None)
        (found,) = OneDevice(models, store, "fake:2").session([job], PLAN, None)
        assert isinstance(found, Measurement)


def test_a_hosts_full_disk_is_told_and_counts_against_it(
    tmp_path: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = net(tmp_path / "net.onnx", 2)

    @contextmanager
    def full() -> Iterator[Path]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield path

    with on_phones("1") as (models, seats), Store.open(own_store) as store:
        jobs = [models.job(read_model_file(path), 1)]
        assert len(models.devices) == 1
        monkeypatch.setattr(block, "scratch", full)
        with pytest.raises(DeviceError, match=r"set aside.*its host: No space left on device"):
            models.bench(jobs, PLAN, store)
        (seat,) = seats.told()
        assert seat["state"] == "set aside"
        later = FleetModels(models.tasks.client, "phone")
        with pytest.raises(DeviceError, match="can be had"):
            _ = later.devices


def test_an_epoch_that_another_client_has_just_stored(own_store: Path) -> None:
    """Both calibrated one device at once, and got the same answer."""
    known = epoch(1)

    class Late(Store):
        looked = 0

        def epochs(self, **of: Any) -> Any:
            self.looked += 1
            return [] if self.looked == 1 else super().epochs(**of)

    with Store.open(own_store) as first, Late.open(own_store) as second:
        first.add_epoch(known)
        answer = Answer(epoch=known)
        FleetModels(None, "phone")._adopt(second, answer)  # type: ignore[arg-type]
        assert second.looked == 2
        second.looked = 0
        bad = Answer(epoch=replace(known, id="new", created="never"))
        with pytest.raises(HwbenchError, match="cannot be stored"):
            FleetModels(None, "phone")._adopt(second, bad)  # type: ignore[arg-type]
