"""Phones made up for tests of the fleet: each launch sleeps, and files say how they misbehave.

A process whose PYTHONPATH has :func:`install`'s folder knows them as ``-d fake:NAME``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from hwbench.devices.base import Check, Device
from hwbench.devices.models import GraphModel, Model, OnnxModelFile
from hwbench.errors import DeviceError, ModelError
from hwbench.measure.estimate import NEEDED_KINDS
from hwbench.measure.jobs import Canary, Job, Launched, Profiled, RunnerSpec, Script
from hwbench.records import Fingerprint, InputSpec, Workload

#: How long a launch of a fake phone takes, in seconds.
LAUNCH = "HWBENCH_FAKE_LAUNCH_S"
#: Folder of the files NAME.broken, while which are there phone NAME is off line.
FAULTS = "HWBENCH_FAKE_FAULTS"


def install(folder: Path) -> Path:
    """A folder that makes ``fake`` a kind of device, by an entry point as a package has it."""
    info = folder / "fakes-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fakes\nVersion: 1\n")
    points = "[hwbench.devices]\nfake = tests.fleet_devices:FakePhone\n"
    (info / "entry_points.txt").write_text(points)
    return folder


class FakePhone(Device):
    """Is given launches; a model takes as many microseconds as it has thousands of MACs, a file as
    many as it has bytes.
    """

    description = "sleeps"

    def __init__(self, address: str) -> None:
        self.name = f"fake:{address}"

    @classmethod
    def open(cls, address: str | None, options: Mapping[str, str]) -> Self:
        return cls(address or "0")

    def fingerprint(self, threads: int) -> Fingerprint:
        self.require()
        return Fingerprint(self.name, {"model": "fake"})

    def health(self) -> list[Check]:
        return [Check("sleep", "ok", "it sleeps")]

    def job(self, model: Model, threads: int) -> Job:
        if isinstance(model, OnnxModelFile):
            work = Workload(model.name, model.hash, model.inputs, threads)
            size = 1000 * sum(stamp.path.stat().st_size for stamp in model.files)
            return Job(work, lambda folder: RunnerSpec("fake", {"ns": size}), model.files)
        if not isinstance(model, GraphModel):
            raise ModelError("fake phones run graphs and ONNX files")
        inputs = tuple(InputSpec(n, s.dtype, s.shape) for n, s in model.graph.inputs)
        work = Workload(model.name, f"fake:{model.graph.hash}", inputs, threads)
        spec = RunnerSpec("fake", {"ns": model.graph.macs})
        return Job(work, lambda folder: spec)

    def canaries(self, threads: int) -> tuple[Canary, ...]:
        spec = RunnerSpec("fake", {"ns": 150_000})
        return tuple(Canary(f"fake_{kind}", "1", spec, 1, 0, kind) for kind in NEEDED_KINDS)

    def launcher(self, threads: int) -> FakeLauncher:
        return FakeLauncher(self)

    def require(self) -> None:
        """Raise DeviceError while the phone is off line."""
        faults = os.environ.get(FAULTS)
        if faults and (Path(faults) / f"{self.name.partition(':')[2]}.broken").exists():
            raise DeviceError(f"{self.name} is off line")


class FakeLauncher:
    """What a session drives."""

    drift, patience_s = 0.05, 1.0

    def __init__(self, phone: FakePhone) -> None:
        self._phone = phone
        self._ns: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ns.clear()

    def load(self, runner: RunnerSpec) -> str:
        self._phone.require()
        handle = str(len(self._ns))
        self._ns[handle] = runner.args["ns"]
        return handle

    def unload(self, handle: str) -> None:
        del self._ns[handle]

    def run(self, handles: Sequence[str], seconds: float) -> Script:
        self._phone.require()
        time.sleep(float(os.environ.get(LAUNCH, "0.002")) * len(handles))
        return Script(tuple(Launched(self._ns[h], 1000, None, None) for h in handles))

    def disturbed(self) -> tuple[str, ...]:
        return ()

    def recover(self) -> None:
        self._phone.require()

    def profile(self, handle: str, seconds: float) -> Profiled:
        raise DeviceError("fake phones time no operators")
