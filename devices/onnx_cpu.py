"""This machine's CPU through onnxruntime."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

from hwbench.devices.base import Check, Device
from hwbench.devices.models import GraphModel, Model, OnnxModelFile, label
from hwbench.errors import ModelError, UsageError
from hwbench.lower import to_onnx
from hwbench.measure.fingerprint import fingerprint_host
from hwbench.measure.jobs import Job, RunnerSpec
from hwbench.records import Fingerprint, InputSpec, Workload

_RUNNER = str(Path(__file__).resolve().parent / "runners" / "ort.py")

#: More only wait for each other, and some tens of thousands take the machine down.
MOST_THREADS_A_CORE = 4


class OnnxCpu(Device):
    """onnxruntime's CPU provider, weights and inputs random where a graph has none."""

    name = "cpu"
    description = "this machine's CPU through onnxruntime"

    def fingerprint(self, threads: int) -> Fingerprint:
        """CPU, system, limits, runtime and its version; load and frequency as state."""
        facts, state = fingerprint_host()
        return Fingerprint(
            self.name,
            {**facts, "runtime": "onnxruntime", "onnxruntime": version("onnxruntime")},
            state,
        )

    def job(self, model: Model, threads: int) -> Job:
        """A graph is lowered when its turn comes; a file is run where it lies."""
        check_threads(threads)
        if isinstance(model, GraphModel):
            return _graph_job(model, threads)
        if isinstance(model, OnnxModelFile):
            return _file_job(model, threads)
        raise ModelError(
            f"the cpu device runs ONNX files and graphs, not {label(model)}: "
            "a .tflite file runs on -d litert"
        )

    def health(self) -> list[Check]:
        """onnxruntime runs a real model, and both canaries' runtimes work."""
        from hwbench.devices.doctor import host_checks

        return host_checks(self, "reinstall hwbench in a fresh environment")


def check_threads(threads: int) -> None:
    """UsageError for a number of threads that would only take this machine down."""
    most = max(MOST_THREADS_A_CORE * (os.cpu_count() or 1), 2)
    if not 1 <= threads <= most:
        raise UsageError(f"threads must be 1 to {most} on this machine, not {threads}")


def _args(path: Path | str, inputs: tuple[InputSpec, ...], threads: int) -> dict[str, object]:
    specs = [{"name": i.name, "dtype": i.dtype, "shape": list(i.shape)} for i in inputs]
    return {"model": str(path), "inputs": specs, "threads": threads}


def _file_job(model: OnnxModelFile, threads: int) -> Job:
    workload = Workload(model.name, model.hash, model.inputs, threads)
    runner = RunnerSpec(_RUNNER, _args(model.path.resolve(), model.inputs, threads))
    return Job(workload, lambda folder: runner, model.files)


def _graph_job(model: GraphModel, threads: int) -> Job:
    graph = model.graph
    inputs = tuple(InputSpec(n, s.dtype, s.shape) for n, s in graph.inputs)
    workload = Workload(model.name, "graph:" + graph.hash, inputs, threads)

    def build(folder: Path) -> RunnerSpec:
        path = folder / f"{workload.key}.onnx"
        path.write_bytes(to_onnx(graph).bytes)
        return RunnerSpec(_RUNNER, _args(path, inputs, threads))

    return Job(workload, build)
