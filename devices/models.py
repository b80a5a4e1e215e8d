"""What a device can be given: a graph of ours, or somebody's ONNX file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hwbench.errors import ModelError
from hwbench.graph import Graph
from hwbench.lower.onnx_file import external_location, external_tensors, input_specs, open_onnx
from hwbench.lower.weights import RANDOM_LOCATION
from hwbench.records import InputSpec


@dataclass(frozen=True, slots=True)
class GraphModel:
    """An architecture of a space, or any other :class:`~hwbench.graph.Graph`."""

    graph: Graph
    name: str
    space: str | None = None
    arch: str | None = None


@dataclass(frozen=True, slots=True)
class OnnxModelFile:
    """An ONNX file with every input's shape settled. Build it with :func:`read_onnx_file`."""

    path: Path
    name: str
    hash: str
    inputs: tuple[InputSpec, ...]


Model = GraphModel | OnnxModelFile


def read_onnx_file(
    path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> OnnxModelFile:
    """An ONNX file's inputs, and the hash of its content and its external data.

    ``shapes`` settles inputs whose shape the file leaves open. Raises
    :class:`~hwbench.errors.ModelError` for a file that is missing, damaged, no ONNX, open in a
    dimension, or whose external data lies outside its folder.
    """
    if not path.name.isprintable():
        raise ModelError(f"{str(path)!r}: a file's name must be readable text: rename it")
    model = open_onnx(path)
    sha = hashlib.sha256(path.read_bytes())
    # Random weights lie in no file: the model's own content says all of them.
    locations = {external_location(t) for t in external_tensors(model)} - {RANDOM_LOCATION}
    try:
        for location in sorted(locations):
            with (path.parent / location).open("rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise ModelError(f"{path}: external data {location!r}: {error.strerror}") from error
    try:
        inputs = input_specs(model, shapes)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return OnnxModelFile(path, path.name, "onnx:" + sha.hexdigest()[:32], inputs)
