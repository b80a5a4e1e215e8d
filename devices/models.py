"""What a device can be given: a graph of ours, or somebody's ONNX or TFLite file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hwbench.devices.cuda.models import TorchModule
from hwbench.errors import ModelError
from hwbench.graph import Graph
from hwbench.inputs import Stamp
from hwbench.lower.onnx_file import external_location, external_tensors, input_specs, open_onnx
from hwbench.lower.tflite_file import tflite_input_names, tflite_inputs
from hwbench.lower.weights import RANDOM_LOCATION
from hwbench.records import InputSpec


@dataclass(frozen=True, slots=True)
class GraphModel:
    """An architecture of a space, or any other :class:`~hwbench.graph.Graph`."""

    graph: Graph
    name: str


@dataclass(frozen=True, slots=True)
class OnnxModelFile:
    """An ONNX file with every input's shape settled. Build it with :func:`read_model_file`."""

    path: Path
    name: str
    hash: str
    inputs: tuple[InputSpec, ...]
    files: tuple[Stamp, ...] = ()


@dataclass(frozen=True, slots=True)
class TfliteModelFile:
    """A TFLite file with every input's shape settled. Build it with :func:`read_model_file`."""

    path: Path
    name: str
    hash: str
    inputs: tuple[InputSpec, ...]
    files: tuple[Stamp, ...] = ()


ModelFile = OnnxModelFile | TfliteModelFile
Model = GraphModel | ModelFile | TorchModule

_TFLITE = ".tflite"


def label(model: object) -> str:
    """How a refusal calls what a device does not run: by its name, else by its type."""
    return str(getattr(model, "name", type(model).__name__))


def input_names(path: Path) -> set[str]:
    """Names of a model file's inputs. Raises :class:`~hwbench.errors.ModelError`."""
    if path.suffix.lower() == _TFLITE:
        _check_mark(path)
        return set(tflite_input_names(path))
    return {value.name for value in open_onnx(path).graph.input}


def read_model_file(path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> ModelFile:
    """A model file's inputs and the hash of its content, by its ending: .tflite, else ONNX.

    ``shapes`` settles inputs whose shape the file leaves open. Raises
    :class:`~hwbench.errors.ModelError` for a file that is missing, damaged, of another format,
    or open in a dimension.
    """
    if not path.name.isprintable():
        raise ModelError(f"{str(path)!r}: a file's name must be readable text: rename it")
    if path.suffix.lower() != _TFLITE:
        return read_onnx_file(path, shapes)
    _check_mark(path)
    stamp = Stamp.of(path)
    inputs = tflite_inputs(path, shapes)
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    return TfliteModelFile(path, path.name, "tflite:" + content[:32], inputs, (stamp,))


def _check_mark(path: Path) -> None:
    """ModelError for what is no TFLite file, before gigabytes of it are read to be parsed."""
    if path.is_fifo():  # opening it would wait for a writer
        raise ModelError(f"{path}: a pipe, not a file: name a .tflite file")
    try:
        with path.open("rb") as file:
            mark = file.read(8)[4:]
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path}: {reason}") from error
    if mark != b"TFL3":
        raise ModelError(f"{path}: not a TFLite model: it lacks the mark TFL3")


def read_onnx_file(
    path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> OnnxModelFile:
    """An ONNX file's inputs, and the hash of its content and its external data.

    As :func:`read_model_file`; external data outside the file's folder is a ModelError too.
    """
    model = open_onnx(path)
    stamps = [Stamp.of(path)]
    sha = hashlib.sha256(path.read_bytes())
    # Random weights lie in no file: the model's own content says all of them.
    locations = {external_location(t) for t in external_tensors(model)} - {RANDOM_LOCATION}
    try:
        for location in sorted(locations):
            stamps.append(Stamp.of(path.parent / location))
            with (path.parent / location).open("rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise ModelError(f"{path}: external data {location!r}: {error.strerror}") from error
    try:
        inputs = input_specs(model, shapes)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    content = "onnx:" + sha.hexdigest()[:32]
    return OnnxModelFile(path, path.name, content, inputs, tuple(stamps))
