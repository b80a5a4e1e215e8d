"""Sessions on a machine whose files change, whose clock is set, that gets hot, or is full."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import numpy as np
import onnx
import pytest

from hwbench.devices import get_device
from hwbench.devices.models import read_model_file
from hwbench.errors import EXIT_DEVICE, DeviceError, ModelError, WorkerError
from hwbench.lower import to_onnx
from hwbench.measure import campaign, session
from hwbench.measure.campaign import recalibrate, record
from hwbench.measure.jobs import Canary, Job
from hwbench.measure.plan import Failure, Plan
from hwbench.measure.session import measure
from hwbench.records import Measurement
from hwbench.store import Store
from tests.disks import fill
from tests.measurements import epoch_on
from tests.targets import LocalTarget, job, leaves_nothing, runner_file, tiny_net

PLAN = Plan(processes=2, seconds=1e-3)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with leaves_nothing(tmp_path, monkeypatch):
        yield


class TestModelFiles:
    def net(self, folder: Path) -> Path:
        path = folder / "net.onnx"
        path.write_bytes(to_onnx(tiny_net(4).graph).bytes)
        return path

    @pytest.mark.parametrize("content", [to_onnx(tiny_net(9).graph).bytes, b"", None])
    def test_one_that_changes_while_it_is_measured_fails_alone(
        self, tmp_path: Path, target: LocalTarget, good: list[Job], content: bytes | None
    ) -> None:
        """Its name would be that of what it was. By another network, by nothing, or for good."""
        path = self.net(tmp_path)
        jobs = [good[0], get_device("cpu").job(read_model_file(path), 1)]

        def change(share: float) -> None:
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)

        failure, other = measure(target, jobs, PLAN, None, progress=change)
        assert isinstance(failure, Failure)
        assert isinstance(failure.error, ModelError)
        assert str(failure.error).startswith("net.onnx: ")
        if content:
            assert f"{path} changed while it was measured" in str(failure.error)
        assert isinstance(other, Measurement)

    def test_its_weights_in_another_file_are_a_part_of_it(self, tmp_path: Path) -> None:
        path, weights = self.net(tmp_path), tmp_path / "weights.bin"
        model = onnx.load(path, load_external_data=False)
        tensor = onnx.numpy_helper.from_array(np.ones(8, np.float32), "unused")
        onnx.external_data_helper.set_external_data(tensor, weights.name)
        tensor.ClearField("raw_data")
        model.graph.initializer.append(tensor)
        path.write_bytes(model.SerializeToString())
        weights.write_bytes(bytes(32))
        made = get_device("cpu").job(read_model_file(path), 1)
        made.require_unchanged()
        weights.write_bytes(bytes(31) + b"1")
        with pytest.raises(ModelError, match=r"weights.bin changed while it was measured"):
            made.require_unchanged()


class Jumping(datetime):
    """A wall clock that somebody sets while hwbench runs."""

    by = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime.now(tz) + cls.by


class TestTheWallClock:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> type[Jumping]:
        true_time = time.time
        monkeypatch.setattr(Jumping, "by", timedelta())
        monkeypatch.setattr(time, "time", lambda: true_time() + Jumping.by.total_seconds())
        for module in (campaign, session):
            monkeypatch.setattr(module, "datetime", Jumping)
        return Jumping

    @pytest.mark.parametrize("hours", [-1, 1])
    def test_a_jump_moves_no_time_and_loses_nothing(
        self,
        target: LocalTarget,
        good: list[Job],
        own_store: Path,
        clock: type[Jumping],
        hours: int,
    ) -> None:
        plan = dataclasses.replace(PLAN, processes=3)
        jumps = list[float]()

        def jump(share: float) -> None:
            jumps.append(share)
            clock.by = timedelta(hours=hours)

        with Store.open(own_store) as store:
            for jobs in (good[:1], good, good):
                list(record(target, jobs, plan, store, None, campaign="sweep", progress=jump))
            held = {m.workload.name: m for m in store.measurements(plan="sweep")}
            assert len(store.measurements()) == len(held) == len(good)
            assert len(store.canary_runs()) == 2
        assert jumps
        began = [datetime.fromisoformat(held[j.workload.name].created) for j in good]
        assert abs(began[1] - began[0] - timedelta(hours=hours)) < timedelta(minutes=5)
        for number, result in enumerate(held[j.workload.name] for j in good):
            assert 0 < result.seconds < 60
            assert (np.diff(result.bursts.start_ns) > 0).all()
            assert (20 + number) * 1e3 <= (result.latency_ns or 0) < 1e6

    def test_a_calibration_before_the_last_one_would_anchor_nothing(
        self, target: LocalTarget, own_store: Path, clock: type[Jumping]
    ) -> None:
        clock.by = -timedelta(hours=1)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with Store.open(own_store) as store:
            store.add_epoch(epoch_on(target, created=now))
            with pytest.raises(DeviceError, match="set the clock") as caught:
                recalibrate(target, 1, store)
            assert caught.value.exit_code == EXIT_DEVICE
            assert [known.created for known in store.epochs()] == [now]


#: Work whose time grows by ``share`` a second from ``began`` on, as it would on a hot machine.
_HEATING = """
import random, time

class Runner:
    def __init__(self, ns, began, share):
        self.ns, self.began, self.share = ns, began, share

    def run(self, n):
        pace = 1 + self.share * (time.perf_counter() - self.began)
        return [round(self.ns * pace * random.uniform(1, 1.01)) for _ in range(n)]

def load(args):
    return Runner(**args)
"""


def test_a_machine_that_slows_down_by_and_by_is_seen_through(tmp_path: Path) -> None:
    """The canaries feel it too: the latency is that of the machine as it was calibrated."""
    heat = {"began": time.perf_counter(), "share": 0.5}

    class Heating(LocalTarget):
        def canaries(self, threads: int) -> tuple[Canary, ...]:
            work = runner_file(tmp_path, _HEATING, ns=50_000, **heat)
            return tuple(dataclasses.replace(c, runner=work) for c in super().canaries(threads))

    target = Heating(tmp_path)
    net = job("net", runner_file(tmp_path, _HEATING, ns=200_000, **heat))
    cool = epoch_on(target, [50_000 * 1.003] * len(target.canaries(1)), 0.002)
    (result,) = measure(target, [net], Plan(processes=5, seconds=0.5), cool)
    assert isinstance(result, Measurement)
    observed, cool_ns = np.median(result.bursts.sample_ns), 1.005 * 200_000
    assert observed > 1.05 * cool_ns, "it did not slow down"
    assert result.latency_ns is not None
    assert abs(result.latency_ns / cool_ns - 1) < 0.02
    assert (result.low_ns or 0) < cool_ns < (result.high_ns or 0)
    assert result.contention["slowdown"] > 1.02


class TestNoRoom:
    """Among the temporary files, where models and the workers' notes lie."""

    @pytest.fixture(autouse=True)
    def temporary(self, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(small_disk))

    def test_at_the_beginning(self, small_disk: Path, target: LocalTarget, good: list[Job]) -> None:
        ballast = fill(small_disk)
        with pytest.raises(WorkerError, match=f"No space left.*{small_disk}.*TMPDIR") as caught:
            list(measure(target, good, PLAN, None))
        assert "\n" not in str(caught.value)
        ballast.unlink()
        assert all(isinstance(r, Measurement) for r in measure(target, good, PLAN, None))

    def test_later_what_two_processes_measured_is_kept(
        self, tmp_path: Path, small_disk: Path, good: list[Job]
    ) -> None:
        class Filling(LocalTarget):
            started = 0

            @property
            def python(self) -> str:
                """Asked for before each worker is started."""
                self.started += 1
                if self.started == 3:
                    fill(small_disk)
                return sys.executable

        found = list[Measurement | Failure]()
        plan = dataclasses.replace(PLAN, processes=4)
        with pytest.raises(WorkerError, match="No space left"):  # noqa: PT012 - as above
            for result in measure(Filling(tmp_path), good, plan, None):
                found.append(result)
        assert {r.workload.name for r in found} == {"good0", "good1"}
        assert all(isinstance(r, Measurement) for r in found)
