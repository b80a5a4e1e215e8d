"""Opens .tflite files that somebody else made: what they want to be fed.

A flatbuffer is offsets all the way down, and nothing in it can be believed: here every offset
is checked against the file before it is followed, and only a few are followed. Every failure is
a :class:`ModelError` of one line that names the file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from hwbench.errors import ModelError, UnknownNameError
from hwbench.records import InputSpec

Shapes = Mapping[str, tuple[int, ...]]

_IDENTIFIER = b"TFL3"
#: numpy's names of the schema's ``TensorType``, those that a model can be fed.
_DTYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float64",
    12: "uint64",
    15: "uint32",
    16: "uint16",
}
# Numbers of the fields in the schema's tables.
_MODEL_SUBGRAPHS = 2
_SUBGRAPH_TENSORS, _SUBGRAPH_INPUTS = 0, 1
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_SIGNATURE = 0, 1, 3, 7


def tflite_inputs(path: str | Path, shapes: Shapes | None = None) -> tuple[InputSpec, ...]:
    """Name, numpy dtype and concrete shape of every input of a model's main subgraph.

    ``shapes`` fills in open dimensions, and must agree with those that are fixed. Raises
    :class:`ModelError` for a file that is missing, damaged, no TFLite model, or open in a
    dimension, :class:`UnknownNameError` for a shape of an input that is not there.
    """
    inputs = _read(path)
    names = [name for name, _, _ in inputs]
    for name in shapes or {}:
        if name not in names:
            raise UnknownNameError("model input", name, names)
    return tuple(_settled(path, *row, (shapes or {}).get(row[0])) for row in inputs)


def tflite_input_names(path: str | Path) -> list[str]:
    """Names of the main subgraph's inputs, whatever their shapes. Raises :class:`ModelError`."""
    return [name for name, _, _ in _read(path)]


def _read(path: str | Path) -> list[tuple[str, int, list[int]]]:
    """The rows of :func:`_inputs` of a file."""
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path}: {reason}") from error
    if content[4:8] != _IDENTIFIER:
        raise ModelError(f"{path}: not a TFLite model: it lacks the mark TFL3")
    try:
        return _inputs(_Flatbuffer(content))
    except _DamagedError as error:
        raise ModelError(f"{path}: damaged or cut short: {error}") from error


def _settled(
    path: str | Path, name: str, number: int, dims: list[int], given: tuple[int, ...] | None
) -> InputSpec:
    """One input with all its dimensions known."""
    if number not in _DTYPES:
        raise ModelError(
            f"{path}: input {name!r} holds neither numbers nor truth values (TFLite's type "
            f"{number}): such models are not supported"
        )
    shown = f"{name!r} [{', '.join('?' if d < 1 else str(d) for d in dims)}]"
    if given is None:
        if any(d < 1 for d in dims):
            raise ModelError(
                f"{path}: open dimensions in input {shown}: give its shape, as --shape NAME=SIZES "
                "(1,224,224,3: separated by commas)"
            )
        given = tuple(dims)
    if not all(isinstance(size, int) and size > 0 for size in given):
        raise ModelError(f"{path}: input {name!r}: a shape needs positive integers, got {given}")
    if len(given) != len(dims) or any(
        d not in (n, -1, 0) for n, d in zip(given, dims, strict=True)
    ):
        raise ModelError(f"{path}: input {shown} cannot be given the shape {given}")
    return InputSpec(name, _DTYPES[number], given)


def _inputs(buffer: _Flatbuffer) -> list[tuple[str, int, list[int]]]:
    """Name, type and dimensions (those below 1 are open) of the first subgraph's inputs."""
    subgraphs = buffer.offsets(buffer.root(), _MODEL_SUBGRAPHS)
    if not subgraphs:
        raise _DamagedError("it holds no subgraph")
    tensors = buffer.offsets(subgraphs[0], _SUBGRAPH_TENSORS)
    rows = []
    for index in buffer.integers(subgraphs[0], _SUBGRAPH_INPUTS):
        if not 0 <= index < len(tensors):
            raise _DamagedError(f"input {index} is none of its {len(tensors)} tensors")
        tensor = tensors[index]
        dims = buffer.integers(tensor, _TENSOR_SHAPE)
        if signature := buffer.integers(tensor, _TENSOR_SIGNATURE):
            if len(signature) != len(dims):
                raise _DamagedError(f"input {index} has two ranks")
            dims = signature
        if any(d < -1 for d in dims):
            raise _DamagedError(f"input {index} has a negative dimension")
        name = buffer.text(tensor, _TENSOR_NAME)
        rows.append((name, buffer.byte(tensor, _TENSOR_TYPE), dims))
    return rows


class _DamagedError(Exception):
    """What does not add up in a file."""


class _Flatbuffer:
    """Reads a flatbuffer's tables by position; nothing outside the content is touched."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def root(self) -> int:
        """Position of the root table."""
        return self._pointed(0)

    def offsets(self, table: int, field: int) -> list[int]:
        """Positions of the tables in a field that is a vector of them."""
        start, count = self._vector(table, field, 4)
        return [self._pointed(start + 4 * i) for i in range(count)]

    def integers(self, table: int, field: int) -> list[int]:
        """A field that is a vector of int32."""
        start, count = self._vector(table, field, 4)
        return list(struct.unpack_from(f"<{count}i", self._content, start))

    def text(self, table: int, field: int) -> str:
        """A field that is a string."""
        start, count = self._vector(table, field, 1)
        try:
            return self._content[start : start + count].decode()
        except UnicodeDecodeError:
            raise _DamagedError("a name in it is not text") from None

    def byte(self, table: int, field: int) -> int:
        """A field that is an int8; 0 where it is left out."""
        place = self._field(table, field)
        return 0 if place is None else self._number("b", place)

    def _vector(self, table: int, field: int, item_bytes: int) -> tuple[int, int]:
        """Position of the first item and number of items; none where it is left out."""
        place = self._field(table, field)
        if place is None:
            return 0, 0
        start = self._pointed(place)
        count = self._number("I", start)
        if start + 4 + count * item_bytes > len(self._content):
            raise _DamagedError(f"{count} items at byte {start} reach beyond its end")
        return start + 4, count

    def _field(self, table: int, field: int) -> int | None:
        """Position of a table's field."""
        vtable = table - self._number("i", table)
        entry = 4 + 2 * field
        if entry + 2 > self._number("H", vtable):
            return None
        offset = self._number("H", vtable + entry)
        return table + offset if offset else None

    def _pointed(self, place: int) -> int:
        """Where the offset at a position leads."""
        return place + self._number("I", place)

    def _number(self, code: str, place: int) -> int:
        if place < 0 or place + struct.calcsize(code) > len(self._content):
            raise _DamagedError(f"byte {place} is not one of its {len(self._content)}")
        number: int = struct.unpack_from(f"<{code}", self._content, place)[0]
        return number
