"""The predictor file ``.hwp``: a zip of one JSON header and plain arrays.

    predictor.json    {"format": "hwbench-predictor", "version": 3, "checksum": …,
                       "arrays": {NAME: {"dtype": …, "shape": […], "sha256": …}}, "meta": {…}}
    NAME.npy          one a named array, numpy's format without objects

Nothing in it is ever executed, and nothing is believed: sizes are bounded before they are
allocated, and every byte is covered by a checksum. ``numpy.load`` opens the arrays by hand.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import PredictorError
from hwbench.inputs import require_finite
from hwbench.records import digest

FORMAT = "hwbench-predictor"
VERSION = 4

#: What files of older versions did not tell: what sessions differ by, what other devices it
#: learned from, and what lies beyond where it was tested.
_BEFORE: Mapping[str, Any] = {"session_sd": 0.0, "sources": [], "widest_sd": None, "held_ms": None}

HEADER = "predictor.json"
_MAX_HEADER_BYTES = 1 << 20
_MAX_ARRAY_BYTES = 1 << 28
_MAX_ARRAYS = 64
_DTYPES = ("<f4", "<f8", "<i2", "<i4", "<i8", "|u1", "|b1")
#: The same content makes the same file, whenever it is written.
_EPOCH = (1980, 1, 1, 0, 0, 0)

Arrays = Mapping[str, NDArray[np.generic]]


def write(path: Path, meta: Mapping[str, Any], arrays: Arrays) -> None:
    """Write a predictor file; the old one stays until the new one is complete."""
    members = {f"{name}.npy": _npy(array) for name, array in arrays.items()}
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "meta": dict(meta),
        "arrays": {
            name: {
                "dtype": array.dtype.str,
                "shape": list(array.shape),
                "sha256": hashlib.sha256(members[f"{name}.npy"]).hexdigest(),
            }
            for name, array in arrays.items()
        },
    }
    header["checksum"] = digest(header)
    text = json.dumps(header, indent=1, sort_keys=True, ensure_ascii=True)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in {HEADER: text.encode(), **members}.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    try:
        replace_file(path, content.getvalue())
    except OSError as error:
        raise PredictorError(f"cannot write {path}: {error.strerror or error}") from None


def read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    """Header's ``meta`` and the arrays; PredictorError says what is wrong with the file."""
    try:
        require_finite(path)
        with zipfile.ZipFile(path) as archive:
            header = _header(archive)
            arrays = {n: _array(archive, n, spec) for n, spec in header["arrays"].items()}
    except OSError as error:
        raise PredictorError(f"cannot read {path}: {error.strerror or error}") from None
    except _DamageError as damage:
        raise PredictorError(f"{path}: {damage}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # The last two: compression or encryption that no hwbench writes.
        raise PredictorError(
            f"{path} is not a predictor file, or damaged ({error}): fit it again"
        ) from None
    meta: dict[str, Any] = header["meta"]
    return meta, arrays


class _DamageError(Exception):
    """What is wrong with the content of a file."""


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; OSError where it cannot be written."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _npy(array: NDArray[np.generic]) -> bytes:
    if array.dtype.str not in _DTYPES:
        raise TypeError(f"arrays of {array.dtype} cannot be saved: use one of {_DTYPES}")
    data = io.BytesIO()
    np.lib.format.write_array(data, np.ascontiguousarray(array), version=(1, 0))
    return data.getvalue()


def _header(archive: zipfile.ZipFile) -> dict[str, Any]:
    names = archive.namelist()
    if HEADER not in names:
        raise _DamageError(f"no {HEADER} inside: this is no predictor file")
    try:
        header = json.loads(_bytes(archive, HEADER, _MAX_HEADER_BYTES))
    except (ValueError, RecursionError) as error:
        raise _DamageError(f"{HEADER} is no JSON ({error}): fit it again") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _DamageError(f"{HEADER} is not that of a predictor")
    version = header.get("version")
    if not isinstance(version, int) or version < 1:
        raise _DamageError(f"format version {version!r} does not exist")
    if version > VERSION:
        raise _DamageError(
            f"written by a newer hwbench (format {version}, this one reads up to {VERSION}): "
            "update hwbench"
        )
    checksum = header.pop("checksum", None)
    if checksum != digest(header):
        raise _DamageError(f"{HEADER} was changed after it was written: fit it again")
    arrays = header.get("arrays")
    if not isinstance(arrays, dict) or not isinstance(header.get("meta"), dict):
        raise _DamageError(f"{HEADER} lacks its parts: fit it again")
    if sorted(names) != sorted([HEADER, *(f"{name}.npy" for name in arrays)]):
        raise _DamageError("its members are not those that its header names: fit it again")
    if len(arrays) > _MAX_ARRAYS:
        raise _DamageError(f"it has {len(arrays)} arrays, more than {_MAX_ARRAYS}")
    header["meta"] = {**_BEFORE, **header["meta"]} if version < VERSION else header["meta"]
    return header


def _array(archive: zipfile.ZipFile, name: str, spec: Any) -> NDArray[np.generic]:
    try:
        dtype, shape, sha256 = spec["dtype"], tuple(spec["shape"]), spec["sha256"]
    except (KeyError, TypeError):
        raise _DamageError(f"array {name!r} is not described: fit it again") from None
    if dtype not in _DTYPES or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise _DamageError(f"array {name!r} has dtype {dtype!r} and shape {shape}: fit it again")
    size = np.dtype(dtype).itemsize * math.prod(shape)
    data = _bytes(archive, f"{name}.npy", _MAX_ARRAY_BYTES)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _DamageError(f"array {name!r} was changed after it was written: fit it again")
    file = io.BytesIO(data)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("of another version")
        found_shape, by_column, found_dtype = np.lib.format.read_array_header_1_0(file)
    except Exception:  # noqa: BLE001 - numpy hands the text to Python's parsers, which raise any kind
        raise _DamageError(f"array {name!r} is not in numpy's format: fit it again") from None
    left = data[file.tell() :]
    if (found_shape, found_dtype.str, by_column) != (shape, dtype, False) or len(left) != size:
        raise _DamageError(f"array {name!r} is not what the header says: fit it again")
    try:
        array = np.frombuffer(left, dtype=dtype).reshape(shape)
    except (OverflowError, ValueError):  # no bytes, in more or longer axes than an array can have
        raise _DamageError(f"array {name!r} has shape {shape}: fit it again") from None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _DamageError(f"array {name!r} holds values that are no numbers: fit it again")
    return array


def _bytes(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """A member's content, unless it is (or claims to be) larger than ``limit``."""
    with archive.open(name) as member:
        data = member.read(limit + 1)
    if len(data) > limit:
        raise _DamageError(f"{name} is larger than {limit >> 20} MB")
    return data
