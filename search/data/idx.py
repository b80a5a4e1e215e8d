"""The idx format of MNIST and its kin: a header of big-endian numbers, then bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import ImportFileError

_UNSIGNED_BYTES = 8
_MOST_BYTES = 1 << 30


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """The array of unsigned bytes with so many axes in an idx file, plain or ``.gz``.

    ImportFileError where it is cut short, is something else, or holds more than 1 GiB.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * axes)
            if len(header) < 4 + 4 * axes or header[:4] != bytes((0, 0, _UNSIGNED_BYTES, axes)):
                raise ImportFileError(f"{path} is no idx file of bytes with {axes} axes")
            shape = struct.unpack(f">{axes}I", header[4:])
            size = math.prod(shape)
            if size > _MOST_BYTES:
                raise ImportFileError(f"{path} claims to hold {size} bytes, more than 1 GiB")
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ImportFileError(f"cannot read {path}: {error}") from None
    if len(content) != size:
        raise ImportFileError(
            f"{path} holds {'more' if len(content) > size else 'less'} than the {size} bytes of "
            f"its header's shape {shape}: fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
