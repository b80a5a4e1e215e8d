"""The manifest of a deployed multi-stage network: ``manifest.json`` beside one model file a stage.

    {"format": "hwbench-dynamic", "version": 1, "checksum": …, "name": …, "runtime": "onnxruntime",
     "image": {"shape": [c, h, w], "mean": […], "std": […]}, "classes": 10, "class_names": null,
     "stages": [{"file": "stage1.onnx", "sha256": …, "threshold": 0.9, "logits": …,
                 "confidence": …, "inputs": [PORT…], "outputs": [PORT…]}, …]}

A PORT is ``{"name", "shape", "order"}``: a tensor of one image, and in which order of its axes the
file holds it. An input leaves at the first stage whose confidence reaches its threshold; the last
stage has none (null). Plain text, with a checksum over itself and one over each file; nothing in it
is executed, and no file is opened outside its folder.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args

from hwbench.errors import ModelError
from hwbench.records import digest

FORMAT = "hwbench-dynamic"
VERSION = 1
FILE_NAME = "manifest.json"

Runtime = Literal["onnxruntime", "litert"]
SUFFIX: Mapping[Runtime, str] = {"onnxruntime": ".onnx", "litert": ".tflite"}

_MOST_BYTES = 1 << 20
_MOST_STAGES = 64
_MOST_RANK = 4
_LONGEST = 500


@dataclass(frozen=True, slots=True)
class TensorPort:
    """A stage's input or output: shape for one image, and the file's order of the axes."""

    name: str
    shape: tuple[int, ...]
    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StageEntry:
    """One stage's file, and what it reads and gives; ``threshold`` is None at the last."""

    file: str
    sha256: str
    threshold: float | None
    logits: str
    confidence: str
    inputs: tuple[TensorPort, ...]
    outputs: tuple[TensorPort, ...]


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """What the network reads: (c, h, w), pixels of 0..1 less ``mean`` (c,) over ``std`` (c,)."""

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A deployed network; ``folder`` is where its files lie."""

    folder: Path
    name: str
    runtime: Runtime
    image: ImageEntry
    classes: int
    class_names: tuple[str, ...] | None
    stages: tuple[StageEntry, ...]

    def content(self, stage: StageEntry) -> bytes:
        """A stage's file; ModelError where it is not the one that was deployed."""
        path = self.folder / stage.file
        try:
            if path.is_symlink() or not path.is_file():
                raise ModelError(f"{path}: no such file: deploy the network again, as a whole")
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror or error}") from None
        if hashlib.sha256(content).hexdigest() != stage.sha256:
            raise ModelError(
                f"{path} was changed or cut short after the manifest was written: deploy again"
            )
        return content

    def text(self) -> str:
        """The file's content."""
        body = {"format": FORMAT, "version": VERSION, **asdict(self)}
        del body["folder"]
        body["checksum"] = digest(body)
        return json.dumps(body, indent=1, ensure_ascii=True) + "\n"


def read_manifest(path: str | Path) -> Manifest:
    """The manifest in a file; ModelError says in one line what is wrong with it."""
    path = Path(path)
    try:
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path}: {reason}") from None
    if len(content) > _MOST_BYTES:
        raise ModelError(f"{path} is larger than {_MOST_BYTES >> 20} MB: this is no manifest")
    try:
        return _parsed(path, content)
    except (KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
        shown = f"lacks {error}" if isinstance(error, KeyError) else error
        raise ModelError(f"{path} is not a manifest, or damaged ({shown}): deploy again") from None


def _parsed(path: Path, content: bytes) -> Manifest:
    body = json.loads(content)
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ValueError("it is of another format")
    if body.get("version") != VERSION:
        found = body.get("version")
        raise ModelError(
            f"{path} has version {found!r}, this hwbench reads {VERSION}: deploy again"
        )
    checksum = body.pop("checksum", None)
    if checksum != digest(body):
        raise ValueError("changed after it was written")
    image = ImageEntry(
        _sizes(body["image"]["shape"]), *(_numbers(body["image"][key]) for key in ("mean", "std"))
    )
    names = body["class_names"]
    runtime = body["runtime"]
    if runtime not in get_args(Runtime):
        raise ValueError(f"no runtime {_text(runtime)!r}")
    rows = body["stages"]
    if not isinstance(rows, list) or not 1 <= len(rows) <= _MOST_STAGES:
        raise ValueError(f"it needs 1 to {_MOST_STAGES} stages")
    manifest = Manifest(
        folder=path.parent,
        name=_text(body["name"]),
        runtime=runtime,
        image=image,
        classes=_size(body["classes"]),
        class_names=None if names is None else tuple(map(_text, names)),
        stages=tuple(_stage(row, SUFFIX[runtime]) for row in rows),
    )
    _check(manifest)
    return manifest


def _stage(row: Mapping[str, Any], suffix: str) -> StageEntry:
    name = _text(row["file"])
    if Path(name).name != name or "\\" in name or name.startswith(".") or ":" in name:
        raise ValueError(f"{name!r} is no plain file name")
    if not name.endswith(suffix):
        raise ValueError(f"{name!r} does not end in {suffix}")
    threshold = row["threshold"]
    if threshold is not None and not 0 <= _number(threshold) <= 1:
        raise ValueError(f"threshold {threshold} is not from 0 to 1")
    return StageEntry(
        name,
        _text(row["sha256"]),
        None if threshold is None else float(threshold),
        _text(row["logits"]),
        _text(row["confidence"]),
        tuple(map(_port, row["inputs"])),
        tuple(map(_port, row["outputs"])),
    )


def _port(row: Mapping[str, Any]) -> TensorPort:
    shape, order = _sizes(row["shape"]), tuple(row["order"])
    if not all(type(axis) is int for axis in order) or sorted(order) != list(range(len(shape))):
        raise ValueError(f"{order} is no order of the axes of shape {shape}")
    return TensorPort(_text(row["name"]), shape, order)


def _check(manifest: Manifest) -> None:
    """ValueError unless the parts fit together: what a stage reads, an earlier one gives."""
    image, last = manifest.image, len(manifest.stages) - 1
    if len(image.shape) != 3 or {len(image.mean), len(image.std)} != {image.shape[0]}:
        raise ValueError("the image is not described: shape, and mean and std of each channel")
    if min(image.std) <= 0:
        raise ValueError("an std is not positive")
    if manifest.class_names is not None and len(manifest.class_names) != manifest.classes:
        raise ValueError(f"{len(manifest.class_names)} names for {manifest.classes} classes")
    if len({stage.file for stage in manifest.stages}) <= last:
        raise ValueError("two stages name one file")
    known: dict[str, tuple[int, ...]] = {"image": (1, *image.shape)}
    for number, stage in enumerate(manifest.stages):
        if (stage.threshold is None) != (number == last):
            raise ValueError("every stage but the last needs a threshold, and that has none")
        for port in stage.inputs:
            if known.get(port.name) != port.shape:
                raise ValueError(f"{stage.file} reads {port.name!r}, which nothing before it gives")
        outputs = {port.name: port.shape for port in stage.outputs}
        if outputs.get(stage.logits) != (1, manifest.classes):
            raise ValueError(f"{stage.file} gives no logits of {manifest.classes} classes")
        if outputs.get(stage.confidence) != (1,):
            raise ValueError(f"{stage.file} gives no confidence")
        known |= outputs


def is_name(value: Any) -> TypeGuard[str]:
    """Whether a manifest may call something so: one line of text that can be read."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable()


def _text(value: Any) -> str:
    if not is_name(value):
        raise ValueError(f"{str(value)[:60]!r} is no name")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:60]!r} is no number")
    return float(value)


def _numbers(values: Any) -> tuple[float, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise ValueError("a list of numbers is missing")
    return tuple(map(_number, values))


def _size(value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 31:
        raise ValueError(f"{str(value)[:60]!r} is no size")
    return value


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) > _MOST_RANK:
        raise ValueError("a shape is missing")
    return tuple(map(_size, values))
