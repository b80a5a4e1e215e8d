"""This machine's CPU through TFLite: LiteRT, or tflite-runtime in an environment of its own."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from hwbench.devices.base import Check, Device, memory_canaries
from hwbench.devices.interpreters import packages_of
from hwbench.devices.models import Model
from hwbench.devices.onnx_cpu import check_threads
from hwbench.devices.tflite_job import tflite_job
from hwbench.errors import DeviceError
from hwbench.measure.fingerprint import fingerprint_host
from hwbench.measure.jobs import Canary, Job, RunnerSpec
from hwbench.records import Fingerprint, InputSpec

_HERE = Path(__file__).resolve().parent
_RUNNER = str(_HERE / "runners" / "litert.py")
_CANARY_RUNNER = str(_HERE / "runners" / "onnx_canary.py")

#: What a worker's interpreter has to offer, the first of the runtimes counts.
_RUNTIMES = ("ai-edge-litert", "tflite-runtime")


@dataclass(frozen=True, slots=True)
class LiteRtOptions:
    """What ``--option NAME=VALUE`` may say to a LiteRT device.

    ``xnnpack`` off runs TFLite's built-in kernels. ``dtype`` is what a graph of ours is lowered
    to; a file is run as it is. ``python`` names the interpreter of the worker, of an environment
    that holds a runtime (``ai-edge-litert`` or ``tflite-runtime``), numpy and onnxruntime.
    """

    xnnpack: bool = True
    dtype: Literal["fp32", "int8"] = "fp32"
    python: str = sys.executable

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """What tells two workloads of one model apart."""
        return (("dtype", self.dtype), ("xnnpack", "on" if self.xnnpack else "off"))


class LiteRt(Device):
    """TFLite's interpreter on this machine: any .tflite file, and graphs written as one."""

    name = "litert"
    description = "this machine's CPU through TFLite (LiteRT, XNNPACK)"
    suffix = ".tflite"
    options_type = LiteRtOptions

    def __init__(self, options: LiteRtOptions | None = None) -> None:
        self.options = options or LiteRtOptions()

    @property
    def python(self) -> str:
        """The interpreter that runs the worker."""
        return self.options.python

    @cached_property
    def packages(self) -> dict[str, str]:
        """Versions of what the worker's interpreter needs and has."""
        try:
            return packages_of(self.python)
        except DeviceError as error:
            raise DeviceError(
                f"litert: {error}: name a Python 3.9 or newer by --option python=PATH"
            ) from error

    @property
    def runtime(self) -> str:
        """The package that runs models. Raises DeviceError, with the cure, without one."""
        for name in _RUNTIMES:
            if name in self.packages:
                return name
        raise DeviceError(f"litert: {self.python} has no TFLite runtime: {self._cure()}")

    def _cure(self) -> str:
        if self.python == sys.executable:
            return "pip install --force-reinstall ai-edge-litert"
        return f"{self.python} -m pip install ai-edge-litert numpy onnxruntime"

    def fingerprint(self, threads: int) -> Fingerprint:
        """CPU, system, limits, runtime and its version; load and frequency as state."""
        facts, state = fingerprint_host()
        runtime = self.runtime
        facts |= {"runtime": runtime, runtime: self.packages[runtime]}
        return Fingerprint(self.name, facts, state)

    def health(self) -> list[Check]:
        """The runtime runs a real model, the canaries theirs, and what makes a host wander."""
        from hwbench.devices.doctor import host_checks

        cure = self._cure()
        try:
            packages = self.packages
        except DeviceError as error:
            return [Check("runtime", "fail", str(error), "name another --option python=PATH")]
        if "tflite-runtime" in packages:
            # It imports beside numpy 2, and then refuses every model with a SystemError.
            cure = f"{self.python} -m pip install 'numpy<2' onnxruntime"
        return host_checks(self, cure)

    def canaries(self, threads: int) -> tuple[Canary, ...]:
        """Two conv nets in onnxruntime, which is not the runtime under test, and the walk."""
        if "onnxruntime" not in self.packages:
            raise DeviceError(
                f"litert: the canaries run in onnxruntime, which {self.python} lacks: "
                f"{self.python} -m pip install onnxruntime"
            )
        stamp = f"onnxruntime {self.packages['onnxruntime']}"
        return (
            _conv_canary("conv_dw_v1", stamp, threads),
            _conv_canary("conv_std_v1", stamp, threads),
            *memory_canaries(),
        )

    def job(self, model: Model, threads: int) -> Job:
        """A graph is lowered when its turn comes; a file is run where it lies."""
        check_threads(threads)
        xnnpack = self.options.xnnpack

        def specify(path: Path, inputs: tuple[InputSpec, ...]) -> RunnerSpec:
            self.runtime  # noqa: B018 - without one, here is where to say so
            shapes = {i.name: list(i.shape) for i in inputs}
            args = {"model": str(path), "threads": threads, "xnnpack": xnnpack, "shapes": shapes}
            return RunnerSpec(_RUNNER, args)

        options = self.options
        return tflite_job(self.name, model, threads, options.dtype, options.labels, specify)


def _conv_canary(name: str, stamp: str, threads: int) -> Canary:
    path = _HERE / "canaries" / f"{name}.onnx"
    content = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    runner = RunnerSpec(_CANARY_RUNNER, {"model": str(path), "threads": threads})
    return Canary(name, f"{content} {stamp}", runner, 3, 2, "compute")
