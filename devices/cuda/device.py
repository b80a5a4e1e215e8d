"""An NVIDIA GPU through torch: CUDA events around each run, NVML beside it.

Run on an H100 (``results/README.md``). Where no GPU stands, the sample loop and all that surrounds
it is tested on the CPU twins of a stream and a sensor; the tests marked ``cuda`` need a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

from hwbench.devices.base import Check, Device
from hwbench.devices.cuda import health
from hwbench.devices.cuda.batch import rebatch
from hwbench.devices.cuda.models import TorchModule
from hwbench.devices.cuda.nvml import Nvml, Sensor
from hwbench.devices.cuda.options import CudaOptions
from hwbench.devices.cuda.probe import GpuFacts, look
from hwbench.devices.models import GraphModel, Model, OnnxModelFile, label
from hwbench.devices.options import parse_options
from hwbench.errors import DeviceError, ModelError, UsageError
from hwbench.lower import to_onnx
from hwbench.measure.fingerprint import fingerprint_host
from hwbench.measure.jobs import Canary, Job, RunnerSpec
from hwbench.records import Fingerprint, InputSpec, Workload

_RUNNERS = Path(__file__).resolve().parents[1] / "runners"
#: The least compute capability on which a precision is the hardware's own.
_NEEDS = {"fp16": (5, 3), "bf16": (8, 0), "tf32": (8, 0)}


class Cuda(Device):
    """GPU ``index`` as torch numbers them, and how models are run on it.

    Everything that could end in a number asks the GPU first (once, in a process of its own):
    without one, or where it lacks what an option asks for, DeviceError says so. Nothing falls
    back to the CPU.
    """

    name = "cuda"
    description = "an NVIDIA GPU through torch"
    runner_file: ClassVar[str] = str(_RUNNERS / "cuda.py")

    def __init__(self, index: int = 0, options: CudaOptions | None = None) -> None:
        self.name = f"cuda:{index}"
        self.index = index
        self.options = options or CudaOptions()
        self._known: tuple[GpuFacts, Sensor | None] | None = None

    @classmethod
    def open(cls, address: str | None, options: Mapping[str, str]) -> Self:
        """The device of ``-d cuda:ADDRESS``, the first GPU where no address is given."""
        if address is not None and not (address.isascii() and address.isdigit()):
            raise UsageError(f"cuda:{address}: a GPU is named by its number, as cuda:0")
        return cls(int(address or 0), parse_options(CudaOptions, options))

    # -- the GPU ------------------------------------------------------------------------------

    def look(self) -> GpuFacts:
        """Ask the GPU what it is. Raises DeviceError, with the cure, where that fails."""
        try:
            return look(self.python, self.index)
        except DeviceError as error:
            raise DeviceError(f"{self.name}: {error}") from error

    def sensor(self, facts: GpuFacts) -> Sensor:
        """NVML's view of the GPU; DeviceError, with the cure, where it cannot be asked."""
        return Nvml(facts.uuid)

    def _gpu(self) -> tuple[GpuFacts, Sensor | None]:
        """What is known of the GPU, asked once; and that it can do what the options say."""
        if self._known is None:
            facts = self.look()
            self._check_options(facts)
            try:
                self._known = facts, self.sensor(facts)
            except DeviceError:  # health() says so, and the facts
                self._known = facts, None
        return self._known

    def _check_options(self, facts: GpuFacts) -> None:
        asked = "tf32" if self.options.tf32 else self.options.dtype
        major, minor = _NEEDS.get(asked, (0, 0))
        if facts.version < (major, minor):
            raise DeviceError(
                f"{self.name}: {facts.name} (compute capability {facts.capability}) has no "
                f"{asked} of its own, which takes {major}.{minor}: choose another precision"
            )

    def fingerprint(self, threads: int) -> Fingerprint:
        """Host, GPU, its modes and limits, torch; clocks, power, temperature as state."""
        gpu, sensor = self._gpu()
        facts, state = fingerprint_host()
        facts |= {f"gpu_{name}": str(value) for name, value in asdict(gpu).items()}
        facts |= {"runtime": "torch", "nvml": "yes" if sensor else "no"}
        if sensor:
            facts |= {f"gpu_{name}": value for name, value in sensor.facts().items()}
            state |= {f"gpu_{name}": value for name, value in sensor.state().texts.items()}
        return Fingerprint(self.name, facts, state)

    def health(self) -> list[Check]:
        """A kernel that ran, NVML, throttling, other processes, modes."""
        try:
            facts = self.look()
            self._check_options(facts)
        except DeviceError as error:
            what, _, cure = str(error).rpartition(": ")
            return [Check("gpu", "fail", what, cure)]
        try:
            return [health.kernel(facts), *health.watched(self.sensor(facts))]
        except DeviceError as error:
            return [health.kernel(facts), health.blind(str(error))]

    # -- the work -----------------------------------------------------------------------------

    def canaries(self, threads: int) -> tuple[Canary, ...]:
        """On the GPU itself: a product of 1024 x 1024 matrices in fp32, a copy of 128 MiB, and 64
        additions of single numbers, whose time is the host's, who launches them.

        The product takes 57 us on an H100, 270 us by the data sheet of a T4; the copy touches
        256 MiB, more than an L2 cache holds. Their version names torch and CUDA, whose kernels
        they run.
        """
        facts, _ = self._gpu()
        version = f"1 torch {facts.torch} cuda {facts.cuda}"
        return (
            Canary("matmul_1024", version, self._spec({"matmul": 1024}), 3, 1, "compute"),
            Canary("copy_128mib", version, self._spec({"copy": 128}), 3, 1, "memory"),
            Canary("launch_64", version, self._spec({"launch": 64}), 3, 1, "launch"),
        )

    def job(self, model: Model, threads: int) -> Job:
        """A graph, an ONNX file that a graph can express, or a user's own module.

        ``threads`` are the host's business and change nothing here but the workload's name.
        """
        if threads < 1:
            raise UsageError(f"threads must be 1 or more, not {threads}")
        self._gpu()
        if isinstance(model, GraphModel):
            return self._graph_job(model, threads)
        if isinstance(model, OnnxModelFile):
            shapes = {i.name: list(i.shape) for i in model.inputs}
            args: dict[str, Any] = {"onnx": str(model.path.resolve()), "shapes": shapes}
        elif isinstance(model, TorchModule):
            specs = [_input_args(i) for i in self._batched(model.inputs)]
            args = {"factory": model.factory, "folder": str(model.folder), "inputs": specs}
        else:
            raise ModelError(
                f"{self.name} runs graphs, ONNX files and torch modules, not {label(model)}"
            )
        inputs = self._batched(model.inputs)
        workload = Workload(model.name, model.hash, inputs, threads, self.options.labels)
        spec = self._spec({"model": args, "options": asdict(self.options)})
        return Job(workload, lambda folder: spec, model.files)

    def _graph_job(self, model: GraphModel, threads: int) -> Job:
        graph = rebatch(model.graph, self.options.batch) if self.options.batch else model.graph
        inputs = tuple(InputSpec(n, s.dtype, s.shape) for n, s in graph.inputs)
        key = "graph:" + graph.hash
        workload = Workload(model.name, key, inputs, threads, self.options.labels)

        def build(folder: Path) -> RunnerSpec:
            path = folder / f"{workload.key}.onnx"
            path.write_bytes(to_onnx(graph).bytes)
            args = {"onnx": str(path), "shapes": {}}
            return self._spec({"model": args, "options": asdict(self.options)})

        return Job(workload, build)

    def _batched(self, inputs: tuple[InputSpec, ...]) -> tuple[InputSpec, ...]:
        """The inputs with the option's batch in dimension 0."""
        if not self.options.batch:
            return inputs
        if scalar := [i.name for i in inputs if not i.shape]:
            raise UsageError(f"input {scalar[0]!r} is a scalar: leave out the option batch")
        batch = self.options.batch
        return tuple(InputSpec(i.name, i.dtype, (batch, *i.shape[1:])) for i in inputs)

    def _spec(self, work: Mapping[str, Any]) -> RunnerSpec:
        facts, sensor = self._gpu()
        uuid = facts.uuid if sensor else None
        return RunnerSpec(self.runner_file, {"index": self.index, "uuid": uuid, **work})


def _input_args(spec: InputSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}
