"""Writes the stages of a network as plain model files with a manifest."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx

from hwbench.errors import ModelError, UsageError
from hwbench.graph import Graph
from hwbench.lower import to_onnx, to_tflite
from hwbench.search.s2dnas.manifest import (
    FILE_NAME,
    SUFFIX,
    ImageEntry,
    Manifest,
    Runtime,
    StageEntry,
    TensorPort,
    is_name,
)
from hwbench.search.s2dnas.stages import IMAGE_INPUT, Stage

#: The open batch axis of an ONNX file.
BATCH = "batch"


def deploy(
    stages: Sequence[Stage],
    thresholds: Sequence[float],
    folder: str | Path,
    *,
    runtime: Runtime = "onnxruntime",
    name: str | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Path:
    """Write one ONNX or TFLite file a stage, and the manifest, into a new folder.

    Returns the manifest's path.
    ``thresholds``: the confidence, 0 to 1, at which an input leaves each stage but the last.
    ``mean`` and ``std`` (c,) are what pixels of 0..1 are normalised by before they are the
    network's image (default: not at all). ONNX files take any batch, TFLite files one image. The
    folder appears whole or not at all; UsageError where it holds something already, or where
    thresholds or names do not fit.
    """
    folder = Path(folder)
    shape = dict(stages[0].net.graph.inputs)[IMAGE_INPUT].shape[1:]
    classes = stages[0].net.graph.tensors[stages[0].logits].shape[1]
    name = stages[0].net.graph.name if name is None else name
    _check(stages, thresholds, classes, class_names)
    if odd := [text for text in (name, *(class_names or ())) if not is_name(text)]:
        raise UsageError(f"{odd[0]!r} is no name: give one line of readable text")
    image = ImageEntry(
        shape,
        tuple(map(float, [0.0] * shape[0] if mean is None else mean)),
        tuple(map(float, [1.0] * shape[0] if std is None else std)),
    )
    if {len(image.mean), len(image.std)} != {shape[0]} or min(image.std) <= 0:
        raise UsageError(f"give a mean and a positive std for each of {shape[0]} channels")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} is there already: name a new folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise ModelError(f"cannot write {folder}: {error.strerror or error}") from None
    try:
        entries = []
        for stage, threshold in zip(stages, [*map(float, thresholds), None], strict=True):
            content, inputs, outputs = _lowered(stage, runtime)
            file = f"stage{stage.number}{SUFFIX[runtime]}"
            (scratch / file).write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            names = (stage.logits, stage.confidence)
            entries.append(StageEntry(file, sha256, threshold, *names, inputs, outputs))
        manifest = Manifest(
            scratch,
            name,
            runtime,
            image,
            classes,
            None if class_names is None else tuple(class_names),
            tuple(entries),
        )
        (scratch / FILE_NAME).write_text(manifest.text())
        scratch.chmod(0o755)
        os.replace(scratch, folder)
    except OSError as error:
        raise ModelError(f"cannot write {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder / FILE_NAME


def _check(
    stages: Sequence[Stage],
    thresholds: Sequence[float],
    classes: int,
    class_names: Sequence[str] | None,
) -> None:
    if [stage.number for stage in stages] != list(range(1, len(stages) + 1)):
        raise UsageError("deploy takes all stages of a network, in their order")
    if len(thresholds) != len(stages) - 1:
        raise UsageError(
            f"{len(thresholds)} thresholds for {len(stages)} stages: give one for each but the last"
        )
    if not all(math.isfinite(t) and 0 <= t <= 1 for t in thresholds):
        raise UsageError(f"thresholds {list(thresholds)} are not all from 0 to 1")
    if class_names is not None and len(class_names) != classes:
        raise UsageError(f"{len(class_names)} class names for {classes} classes: give one for each")


Ports = tuple[TensorPort, ...]


def _lowered(stage: Stage, runtime: Runtime) -> tuple[bytes, Ports, Ports]:
    """A stage's file and its ports."""
    graph, weights = stage.net.graph, stage.net.weights
    if runtime == "litert":
        model = to_tflite(graph, weights)
        inputs, outputs = (
            tuple(TensorPort(p.name, p.shape, p.order) for p in ports)
            for ports in (model.inputs, model.outputs)
        )
        return model.bytes, inputs, outputs
    inputs = tuple(_plain(graph, tensor) for tensor, _ in graph.inputs)
    outputs = tuple(_plain(graph, tensor) for tensor in graph.outputs)
    return _any_batch(to_onnx(graph, weights).bytes), inputs, outputs


def _plain(graph: Graph, tensor: str) -> TensorPort:
    shape = graph.tensors[tensor].shape
    return TensorPort(tensor, shape, tuple(range(len(shape))))


def _any_batch(content: bytes) -> bytes:
    """The model with its first axis open: nothing in a stage's network depends on its size."""
    model = onnx.load_from_string(content)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised
