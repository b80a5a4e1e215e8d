"""The work of running a model in TFLite, whatever device does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hwbench.devices.models import GraphModel, Model, TfliteModelFile, label
from hwbench.errors import ModelError, UsageError
from hwbench.lower import Int8, to_tflite
from hwbench.measure.jobs import Job, RunnerSpec
from hwbench.records import InputSpec, Workload

Labels = tuple[tuple[str, str], ...]
#: From a model file and the inputs' shapes to what loads it.
Specify = Callable[[Path, tuple[InputSpec, ...]], RunnerSpec]


def tflite_job(
    device: str, model: Model, threads: int, dtype: str, labels: Labels, specify: Specify
) -> Job:
    """A file is run where it lies; a graph is lowered to ``dtype`` when its turn comes.

    Raises ModelError for another kind of model, UsageError for a file that is to be lowered.
    """
    if isinstance(model, TfliteModelFile):
        if dtype != "fp32":
            raise UsageError(f"{model.name}: a file is run as it is: leave out the option dtype")
        how = tuple((name, value) for name, value in labels if name != "dtype")  # has its own
        workload = Workload(model.name, model.hash, model.inputs, threads, how)
        runner = specify(model.path.resolve(), model.inputs)
        return Job(workload, lambda folder: runner, model.files)
    if not isinstance(model, GraphModel):
        raise ModelError(
            f"{device} runs .tflite files and graphs, not {label(model)}: "
            "convert the model, or measure it on another device"
        )
    return _graph_job(model, threads, dtype, labels, specify)


def _graph_job(
    model: GraphModel, threads: int, dtype: str, labels: Labels, specify: Specify
) -> Job:
    graph, int8 = model.graph, Int8() if dtype == "int8" else None
    inputs = tuple(InputSpec(n, s.dtype, s.shape) for n, s in graph.inputs)
    workload = Workload(model.name, "graph:" + graph.hash, inputs, threads, labels)

    def build(folder: Path) -> RunnerSpec:
        path = folder / f"{workload.key}.tflite"
        to_tflite(graph, int8=int8).save(path)
        return specify(path, ())

    return Job(workload, build)
