"""Opens ONNX files that somebody else made: what they hold, and what they must not reach for.

Every failure is a :class:`ModelError` of one line that names the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, TensorProto, helper

from hwbench.errors import ModelError, UnknownNameError
from hwbench.inputs import require_finite
from hwbench.lower.weights import RANDOM_LOCATION
from hwbench.records import InputSpec

Shapes = Mapping[str, tuple[int, ...]]


def open_onnx(source: str | Path | bytes) -> onnx.ModelProto:
    """Parse a model file (or its bytes) without its external data.

    External data is accepted only as regular files in the model's own folder or below it: an
    absolute path, a ``..`` and a link that leads elsewhere are refused before anything is read.
    """
    label = label_of(source)
    model = onnx.ModelProto()
    try:
        if not isinstance(source, bytes):
            require_finite(Path(source))
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        model.ParseFromString(content)
    except OSError as error:
        raise ModelError(f"{label}: {error.strerror}") from error
    except DecodeError as error:
        raise ModelError(f"{label}: not an ONNX model, or cut short") from error
    if not model.opset_import or not model.graph.output:
        raise ModelError(f"{label}: holds no ONNX graph; is the file empty or cut short?")
    # protobuf hands out text that is not UTF-8 as bytes.
    if not all(isinstance(text, str) for text in _texts(model.graph)):
        raise ModelError(f"{label}: damaged: a name in it is not text")
    folder = None if isinstance(source, bytes) else Path(source).parent
    for tensor in external_tensors(model):
        if external_location(tensor) != RANDOM_LOCATION:
            _check_location(label, folder, tensor)
    return model


def _texts(graph: onnx.GraphProto) -> Iterator[object]:
    """All names in a graph that others refer to."""
    yield graph.name
    for named in (*graph.initializer, *graph.input, *graph.output):
        yield named.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def shown(text: str) -> str:
    """A name from a file as it may stand in a message: without line breaks and the like."""
    return text if text.isprintable() else repr(text)


def label_of(source: str | Path | bytes) -> str:
    """What messages call a model: its path, or "model" for bytes."""
    return "model" if isinstance(source, bytes) else str(source)


def external_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model whose data lies outside it, those of subgraphs included."""
    tensors = _tensors(model.graph)
    for function in model.functions:
        tensors = (*tensors, *_attribute_tensors(function.node))
    return (t for t in tensors if t.data_location == TensorProto.EXTERNAL)


def external_files(content: bytes) -> list[str]:
    """The files that hold a model's external data, relative to its own, by name; none for what is
    no ONNX model. Not what lies outside the model's folder.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        return []
    found = {external_location(tensor) for tensor in external_tensors(model)} - {RANDOM_LOCATION}
    return sorted(location for location in found if _is_inside(location))


def external_location(tensor: TensorProto) -> str:
    """Where an external tensor's data lies: a path relative to the model's folder."""
    places = [entry.value for entry in tensor.external_data if entry.key == "location"]
    return str(places[-1]) if places else ""


def _tensors(graph: onnx.GraphProto) -> Iterable[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _attribute_tensors(graph.node)


def _attribute_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
            for graph in (attribute.g, *attribute.graphs):
                yield from _tensors(graph)


def _is_inside(location: str) -> bool:
    path = Path(location)
    return bool(location) and not (path.is_absolute() or ".." in path.parts or "\0" in location)


def _check_location(label: str, folder: Path | None, tensor: TensorProto) -> None:
    location = external_location(tensor)
    what = f"{label}: external data {location!r} of tensor {tensor.name!r}"
    if folder is None:
        raise ModelError(f"{what} needs a folder: give the model as a file")
    path = Path(location)
    if not _is_inside(location):
        raise ModelError(f"{what} is not a path inside the model's folder")
    real = (folder / path).resolve()
    if not real.is_relative_to(folder.resolve()):
        raise ModelError(f"{what} is a link that leaves the model's folder: copy it there")
    if not real.is_file():
        raise ModelError(f"{what} is missing: keep it beside the model")


# -- inputs -----------------------------------------------------------------------------------


def input_specs(model: onnx.ModelProto, shapes: Shapes | None = None) -> tuple[InputSpec, ...]:
    """Name, numpy dtype and concrete shape of every input that a caller has to feed.

    ``shapes`` fills in open dimensions, and must agree with those that are fixed. Raises
    :class:`ModelError` while a dimension stays open, :class:`UnknownNameError` for a shape of
    an input that is not there.
    """
    shapes = {} if shapes is None else shapes
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    for name in shapes:
        if name not in {value.name for value in inputs}:
            raise UnknownNameError("model input", name, (value.name for value in inputs))
    symbols: dict[str, int] = {}
    specs, open_inputs = [], []
    for value in inputs:
        dims = _dims(value, shapes.get(value.name), symbols)
        sizes = tuple(d for d in dims or () if isinstance(d, int))
        if dims is None or len(sizes) != len(dims):
            open_inputs.append((value.name, dims))
        else:
            specs.append(InputSpec(value.name, _numpy_name(value), sizes))
    if open_inputs:
        named = ", ".join(_show(*each) for each in open_inputs)
        options = " ".join(_as_option(*each) for each in open_inputs)
        raise ModelError(f"open dimensions in input {named}: give its shape, as {options}")
    return tuple(specs)


Dims = list[int | str]


def _dims(
    value: onnx.ValueInfoProto, given: tuple[int, ...] | None, symbols: dict[str, int]
) -> Dims | None:
    """Sizes of an input, and symbols where they stay open; ``None`` for an open rank."""
    name, kind = value.name, value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type":
        raise ModelError(f"input {name!r} is not a tensor: such models are not supported")
    dims = [_dim(d) for d in kind.shape.dim] if kind.HasField("shape") else None
    if given is None:
        return dims
    if not all(isinstance(size, int) and size > 0 for size in given):
        raise ModelError(f"input {name!r}: a shape needs positive integers, got {given}")
    if dims is not None and (
        len(dims) != len(given)
        or any(_settle(d, n, symbols) != n for d, n in zip(dims, given, strict=True))
    ):
        raise ModelError(f"input {_show(name, dims)} cannot be given the shape {given}")
    return list(given)


def _settle(dim: int | str, size: int, symbols: dict[str, int]) -> int:
    """The size that a dimension has to have, when a caller gives it this one."""
    if isinstance(dim, int):
        return dim
    return size if dim == "?" else symbols.setdefault(dim, size)


def _show(name: str, dims: Dims | None) -> str:
    sizes = ", ".join(map(str, dims)) if dims is not None else "any rank"
    return shown(f"{name}[{sizes}]")


def _as_option(name: str, dims: Dims | None) -> str:
    """How a shape is given on the command line, with sizes such as many models take."""
    images = dims is None or len(dims) == 4
    usual = [1, 3, 224, 224] if images else [1, *[128] * (len(dims or ()) - 1)]
    sizes = [d if isinstance(d, int) else n for d, n in zip(dims or usual, usual, strict=True)]
    return shown(f"--shape {name}={','.join(map(str, sizes))}")


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str:
    """A fixed size, or the symbol of an open one (0 and negative sizes are open too)."""
    return dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?"


def _numpy_name(value: onnx.ValueInfoProto) -> str:
    try:
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    except KeyError:
        raise ModelError(f"input {value.name!r} has no element type") from None
    if dtype == np.dtype(object):
        raise ModelError(f"input {value.name!r} holds strings: such models are not supported")
    return dtype.name
