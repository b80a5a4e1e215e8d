"""Devices that run ``benchmark_model``: phones through adb, Linux boards through their shell.

Serials, properties and paths come from elsewhere; they are checked where they enter and quoted
once, at the device's boundary (:mod:`hwbench.devices.phone.shell`).
"""

from __future__ import annotations

import hashlib
import os
import platform
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

from hwbench.devices.base import Check, Device
from hwbench.devices.models import Model
from hwbench.devices.options import parse_options
from hwbench.devices.phone.adb import REMOTE_FOLDER, Adb, AdbShell, read_facts
from hwbench.devices.phone.launcher import Settings, ToolLauncher
from hwbench.devices.phone.shell import LocalShell, Shell
from hwbench.devices.phone.state import PhoneState, core_mask, read_state, rejections
from hwbench.devices.phone.tool import PUBLISHED, ToolOptions, published_for
from hwbench.devices.tflite_job import tflite_job
from hwbench.errors import DeviceError, HwbenchError, UsageError
from hwbench.measure.fingerprint import UNKNOWN, fingerprint_host
from hwbench.measure.jobs import Canary, Job, RunnerSpec
from hwbench.records import Fingerprint

_CANARIES = Path(__file__).resolve().parents[1] / "canaries"
#: What of a device's facts the doctor tells.
_TOLD = ("model", "android", "soc", "abi", "machine", "cpu_model", "kernel")
#: Beyond this a canary says nothing.
_MOST_DRIFT = 1000


@dataclass(frozen=True, slots=True)
class PhoneOptions:
    """What ``--option NAME=VALUE`` may say to a device that runs ``benchmark_model``.

    ``benchmark_model`` is the tool's path here, of a build for the device; ``adb`` names an adb,
    ``folder`` a folder on the device, in which each session makes one of its own. ``cores`` are
    ``big``, ``little``, ``all`` or a mask; ``auto`` takes the big ones of a device that tells
    their speeds, else all. ``partial`` accepts a delegate that runs a part of a model,
    ``precision_loss`` a GPU that computes in fp16.
    ``dtype`` is what a graph of ours is lowered to. A launch does not count when a canary moved
    by more than ``drift`` per cent across it; ``patience`` are the seconds that a session waits
    for a hot device until a launch counts again.
    """

    benchmark_model: str = ""
    adb: str = ""
    folder: str = ""
    delegate: Literal["none", "xnnpack", "gpu", "nnapi"] = "xnnpack"
    cores: str = "auto"
    partial: bool = False
    precision_loss: bool = False
    dtype: Literal["fp32", "int8"] = "fp32"
    drift: int = 5
    patience: int = 600

    def __post_init__(self) -> None:
        if not 1 <= self.drift <= _MOST_DRIFT:
            raise UsageError(f"option drift is 1 to {_MOST_DRIFT} per cent, not {self.drift}")

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """What tells two workloads of one model apart; the fingerprint has the cores."""
        found: dict[str, str] = {"delegate": self.delegate, "dtype": self.dtype}
        if self.delegate == "gpu":
            found["precision_loss"] = "on" if self.precision_loss else "off"
        return tuple(sorted(found.items()))


class ToolDevice(Device):
    """Base of both: everything but how the shell is reached and what the device is."""

    suffix = ".tflite"
    options_type = PhoneOptions

    def __init__(self, options: PhoneOptions) -> None:
        self.options = options

    @property
    @abstractmethod
    def shell(self) -> Shell:
        """The device's shell. Raises DeviceError, with the cure, where there is none."""

    @property
    def published(self) -> str:
        """Where the tool for this device is to be had."""
        return PUBLISHED

    @abstractmethod
    def _facts(self) -> dict[str, str]:
        """What the device is."""

    @cached_property
    def tool(self) -> Path:
        """The user's benchmark_model. Raises DeviceError where it is missing."""
        given = self.options.benchmark_model or os.environ.get("HWBENCH_BENCHMARK_MODEL", "")
        if not given:
            raise DeviceError(
                f"{self.name} runs Google's benchmark_model, which hwbench does not carry: "
                f"get it from {self.published} and name it by --option benchmark_model=PATH"
            )
        path = Path(given)
        if not path.is_file():
            raise DeviceError(
                f"there is no benchmark_model at {given!r}: get it from {self.published}"
            )
        return path

    def _state(self) -> PhoneState:
        return read_state(self.shell)

    @cached_property
    def mask(self) -> str | None:
        """The cores to run on, as ``taskset`` takes them; None for all."""
        which = self.options.cores
        if which == "all":
            return None
        cores = self._state().cores
        if which == "auto":
            if not cores or any(core.max_khz is None for core in cores):
                return None  # a virtual machine, or a board without cpufreq
            which = "big"
        return core_mask(cores, which)

    def launcher(self, threads: int) -> ToolLauncher:
        """What a session drives."""
        options = ToolOptions(
            threads=threads,
            runs=10,
            delegate=self.options.delegate,
            gpu_precision_loss_allowed=self.options.precision_loss,
            allow_partial=self.options.partial,
            mask=self.mask,
        )
        drift, patience = self.options.drift / 100, float(self.options.patience)
        return ToolLauncher(self.shell, Settings(self.tool, options, drift, patience))

    def fingerprint(self, threads: int) -> Fingerprint:
        """What the device is, the tool's content, the cores; clocks and heat as state."""
        tool = hashlib.sha256(self.tool.read_bytes()).hexdigest()[:16]
        state = self._state()
        facts = {
            **self._facts(),
            "runtime": "benchmark_model",
            "benchmark_model": tool,
            "mask": self.mask or "all",
            "reached by": self.shell.label,
        }
        return Fingerprint(self.name, facts, _texts(state))

    def canaries(self, threads: int) -> tuple[Canary, ...]:
        """A conv net, and 8 MiB doubled; on the CPU whatever the delegate is."""
        return (_canary("conv_dw_v1", "compute"), _canary("stream_v1", "memory"))

    def job(self, model: Model, threads: int) -> Job:
        """A .tflite file, or a graph written as one when its turn comes."""
        if threads < 1:
            raise UsageError(f"threads must be 1 or more, not {threads}")
        dtype, labels = self.options.dtype, self.options.labels
        return tflite_job(self.name, model, threads, dtype, labels, lambda path, _: _spec(path))

    def health(self) -> list[Check]:
        """The connection, the tool by a real launch, and what makes the device wander."""
        try:
            state = self._state()
            facts = self._facts()
        except HwbenchError as error:
            what, _, cure = str(error).rpartition(": ")
            return [Check("connection", "fail", what or str(error), cure)]
        known = (facts[name] for name in _TOLD if facts.get(name) not in (None, "", UNKNOWN))
        mask = None
        with suppress(HwbenchError):  # the launch tells
            mask = self.mask
        return [
            Check("connection", "ok", ", ".join(known)),
            self._launches(),
            *_state_checks(state, mask),
        ]

    def _launches(self) -> Check:
        try:
            with self.launcher(1) as launcher:
                handle = launcher.load(self.canaries(1)[0].runner)
                script = launcher.run([handle], 0.1)
            (outcome,) = script.outcomes or (script.broken,)
        except HwbenchError as error:
            what, _, cure = str(error).rpartition(": ")
            return Check("benchmark_model", "fail", what or str(error), cure)
        if outcome is None or isinstance(outcome, HwbenchError):
            cure = f"take a build for this device, from {self.published}"
            return Check("benchmark_model", "fail", str(outcome), cure)
        return Check("benchmark_model", "ok", f"ran a canary in {outcome.median_ns / 1e3:.0f} us")


class AdbPhone(ToolDevice):
    """A phone through adb: ``-d adb`` where one is connected, ``-d adb:SERIAL`` of several."""

    name = "adb"
    description = "an Android phone through adb (TFLite's benchmark_model)"

    def __init__(self, serial: str | None, options: PhoneOptions) -> None:
        super().__init__(options)
        self._asked = serial

    @classmethod
    def open(cls, address: str | None, options: Mapping[str, str]) -> Self:
        """The phone of that serial; it is looked for when it is first asked."""
        device = cls(address, parse_options(PhoneOptions, options))
        device.name = f"adb:{address}" if address is not None else "adb"
        return device

    def named(self) -> Self:
        """Without a serial: the one that is connected, looked for now."""
        if self._asked is None:
            _ = self.shell
        return self

    @cached_property
    def shell(self) -> AdbShell:
        """The phone's shell."""
        adb = Adb.find(Path(self.options.adb) if self.options.adb else None)
        serial = adb.choose(self._asked)
        self.name = f"adb:{serial}"
        return AdbShell(adb, serial, self.options.folder or REMOTE_FOLDER)

    @cached_property
    def _read(self) -> dict[str, str]:
        return asdict(read_facts(self.shell))

    def _facts(self) -> dict[str, str]:
        return self._read


class Board(ToolDevice):
    """This machine, a Linux board, running ``benchmark_model`` natively."""

    name = "shell"
    description = "this Linux board through TFLite's benchmark_model"

    @cached_property
    def shell(self) -> LocalShell:
        """This machine's own. Raises UsageError where its files have no place that will do."""
        import tempfile

        if self.options.folder:
            return LocalShell(self.options.folder)
        try:
            return LocalShell(tempfile.gettempdir())
        except UsageError as error:
            raise UsageError(
                f"the folder for temporary files of this machine ({tempfile.gettempdir()!r}) cannot"
                " be used: set TMPDIR to another, or name one by --option folder=PATH"
            ) from error

    @property
    def published(self) -> str:
        """Where the tool for this machine is to be had."""
        return published_for(platform.machine())

    def _facts(self) -> dict[str, str]:
        return fingerprint_host()[0]


def _spec(path: Path) -> RunnerSpec:
    return RunnerSpec("benchmark_model", {"model": str(path)})


def _canary(name: str, kind: Literal["compute", "memory"]) -> Canary:
    path = _CANARIES / f"{name}.tflite"
    content = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    runner = RunnerSpec("benchmark_model", {"model": str(path), "canary": True})
    return Canary(name, content, runner, 1, 0, kind)


def _texts(state: PhoneState) -> dict[str, str]:
    """The state as a record keeps it; what the device does not say is left out."""
    found = {
        "thermal_status": state.thermal_status,
        "battery_percent": state.battery.percent if state.battery else None,
        "battery_celsius": state.battery.celsius if state.battery else None,
        "wakefulness": state.wakefulness,
        "governors": ",".join(sorted({c.governor for c in state.cores if c.governor})),
        "frequencies_khz": ",".join(str(c.now_khz or "?") for c in state.cores),
        "hottest_celsius": max((t.celsius for t in state.temperatures or ()), default=None),
    }
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def _state_checks(state: PhoneState, mask: str | None) -> list[Check]:
    reasons = rejections(state, mask)
    if reasons:
        cure = "let it cool and charge, or lift what caps its clock: until then no launch counts"
        return [Check("state", "warn", "; ".join(reasons), cure)]
    texts = _texts(state)
    governors = texts.get("governors", "not visible")
    return [
        Check("state", "ok", f"cool, {len(state.cores)} cores, governor {governors}"),
        *(
            [Check("screen", "warn", "Awake", "switch the screen off: it heats and competes")]
            if state.wakefulness == "Awake"
            else []
        ),
    ]
