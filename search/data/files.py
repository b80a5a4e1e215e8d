"""The user's own images: an npz file, or a folder for each class."""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import ImportFileError
from hwbench.inputs import require_finite
from hwbench.search.data.dataset import Dataset, make_dataset

_MOST_BYTES, _MOST_IMAGE_BYTES = 1 << 33, 1 << 28
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
#: What zipfile and numpy raise at files that are damaged, or made to harm.
_DAMAGE = (
    ValueError, TypeError, KeyError, SyntaxError, EOFError, OverflowError, RecursionError,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".pgm", ".ppm", ".tif", ".tiff")
_MODES = {1: "L", 3: "RGB"}


def npz_dataset(path: Path, *, seed: int = 0) -> Dataset:
    """``x`` (n, h, w) or (n, c, h, w), uint8 or float; ``y`` (n,) integers from 0.

    Optional: ``is_test`` (n,) bool, ``class_names`` (classes,) of text. ImportFileError says
    what is wrong; objects in the file are not read.
    """
    arrays = read_npz(path, ("x", "y", "is_test", "class_names"))
    if missing := [name for name in ("x", "y") if name not in arrays]:
        raise ImportFileError(f"{path} has no array {missing[0]!r}: it needs x (images) and y")
    images, labels = arrays["x"], arrays["y"]
    if images.ndim == 3:
        images = images[:, None]
    if np.issubdtype(images.dtype, np.floating):
        images = images.astype(np.float32)
    names = arrays.get("class_names")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise ImportFileError(f"{path}: class_names are {names.dtype}: give one text for a class")
    if names is None:
        known = labels.size and np.issubdtype(labels.dtype, np.integer)
        count = int(labels.max()) + 1 if known else 0
        if count > len(labels):
            raise ImportFileError(
                f"{path}: labels run up to {count - 1}, but there are {len(labels)} images: number "
                "the classes from 0, each has to have some"
            )
        names = np.arange(count)
    classes = [str(name) for name in names]
    is_test = arrays.get("is_test")
    return make_dataset(path.stem, classes, images, labels, is_test=is_test, seed=seed)


def read_npz(path: Path, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Those of the arrays wanted that a file has. ImportFileError where it is damaged or huge.

    No array is allocated before its size is known to be that of what the file holds.
    """
    try:
        require_finite(path)
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            claimed = sum(member.file_size for member in members.values())
            if claimed > _MOST_BYTES:
                raise ImportFileError(f"{path} claims to hold {claimed >> 30} GiB: give at most 8")
            found = {name: members.get(f"{name}.npy") for name in wanted}
            return {name: _array(archive, member) for name, member in found.items() if member}
    except OSError as error:
        raise ImportFileError(f"cannot read {path}: {error.strerror or error}") from None
    except _DAMAGE:
        raise ImportFileError(
            f"cannot read {path}: it is damaged, or no npz file of plain arrays; objects are never "
            "read"
        ) from None
    except (NotImplementedError, RuntimeError) as error:  # compressed or encrypted some other way
        raise ImportFileError(f"cannot read {path}: {error}") from None


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as file:
        shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
        size = dtype.itemsize * math.prod(shape)
        if dtype.hasobject or not dtype.itemsize or file.tell() + size != member.file_size:
            raise ValueError("no plain array of that size")
    with archive.open(member) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def image_folder(path: Path, *, size: int, channels: int, seed: int = 0) -> Dataset:
    """A folder for each class, named as the class; images are scaled to ``size`` squared.

    Where there is a folder ``train`` beside one called ``test`` or ``val``, the classes lie in
    those, and the latter's images are for the test. ``channels`` is 1 (grey) or 3.
    """
    if channels not in _MODES:
        raise ImportFileError(f"images of {channels} channels cannot be read: take 1 or 3")
    held = next((path / name for name in ("test", "val") if (path / name).is_dir()), None)
    splits = [path / "train", held] if held and (path / "train").is_dir() else [path]
    classes = _subfolders(splits[0])
    images, labels, tests = [], [], []
    for split in filter(None, splits):
        if (found := _subfolders(split)) != classes:
            odd = sorted(set(found) ^ set(classes))[0]
            raise ImportFileError(
                f"{path}: class {odd!r} is in {splits[0].name} or {split.name} only"
            )
        for label, name in enumerate(classes):
            for file in _image_files(split / name):
                images.append(_read_image(file, size, channels))
                labels.append(label)
                tests.append(split is held)
    return make_dataset(
        path.name,
        classes,
        np.stack(images),
        np.asarray(labels),
        is_test=np.asarray(tests) if len(splits) > 1 else None,
        seed=seed,
    )


def _subfolders(path: Path) -> list[str]:
    try:
        names = sorted(p.name for p in path.iterdir() if p.is_dir() and p.name[0] != ".")
    except OSError as error:
        raise ImportFileError(f"cannot read {path}: {error.strerror or error}") from None
    if not names:
        raise ImportFileError(f"{path} has no folders: it needs one for each class")
    return names


def _image_files(folder: Path) -> Iterator[Path]:
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES)
    if not found:
        raise ImportFileError(f"{folder} has no images ({', '.join(_SUFFIXES)})")
    yield from found


def _read_image(path: Path, size: int, channels: int) -> NDArray[np.uint8]:
    """(channels, size, size)."""
    from PIL import Image

    try:
        require_finite(path)
        if path.stat().st_size > _MOST_IMAGE_BYTES:
            raise OSError(f"it has more than {_MOST_IMAGE_BYTES >> 20} MiB")
        with Image.open(path) as image:
            scaled = image.convert(_MODES[channels]).resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImportFileError(f"cannot read the image {path}: {error}") from None
    pixels = np.asarray(scaled, dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
