"""What a network is searched for: samples in three parts, a loss and a metric.

Classification, or dense regression (a map as large as the input), in one dimension or two.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hwbench.errors import ImportFileError, UnknownNameError, UsageError
from hwbench.search.dash.made_tasks import mnist1d
from hwbench.search.data import Dataset, Part, load_dataset
from hwbench.search.data.files import read_npz

VALIDATION_SHARE = TEST_SHARE = 1 / 6
_PAIRS = (("x_train", "y_train"), ("x_test", "y_test"))
_MOST_CLASSES = 10_000
_NAMES = ("mnist1d", "digits", "fashion-mnist")
Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Inputs (n, c, m, …), normalised, and what they stand for: (n,) classes or (n, o, m, …)."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def at(self, rows: Any) -> tuple[Tensor, Tensor]:
        """Those of some rows."""
        return self.x[rows], self.y[rows]


@dataclass(frozen=True, eq=False)
class Task:
    """Searches and trainings take ``train`` and ``validation``.

    The third part is no attribute: :meth:`test_for_the_final_report` has it. ``inputs`` are mean
    and standard deviation (c,) that inputs were normalised by, ``targets`` those of a map's values;
    networks answer what is so normalised.
    """

    name: str
    outputs: int
    dense: bool
    train: Samples
    validation: Samples
    _test: Samples = field(repr=False)
    inputs: tuple[Tensor, Tensor] = field(repr=False)
    targets: tuple[float, float]

    def test_for_the_final_report(self) -> Samples:
        """The samples that no decision may rest on: read them once, when all is decided."""
        return self._test

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input: (c, m, …)."""
        return tuple(self.train.x.shape[1:])

    @property
    def dims(self) -> int:
        """1 or 2."""
        return len(self.shape) - 1

    @property
    def metric(self) -> str:
        """What :meth:`errors` are."""
        return "relative L2 error" if self.dense else "error rate"

    @cached_property
    def digest(self) -> str:
        """Identifies what a search saw."""
        found = hashlib.sha256()
        for tensor in (self.train.x, self.train.y, self.validation.x, self.validation.y):
            found.update(tensor.numpy().tobytes())
        return found.hexdigest()[:32]

    def loss(self, answer: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy, or the metric itself."""
        return self.errors(answer, y).mean() if self.dense else functional.cross_entropy(answer, y)

    def errors(self, answer: Tensor, y: Tensor) -> Tensor:
        """Of each answer (n, …): whether the class is wrong; ``|answer - y| / |y|`` of a map."""
        if not self.dense:
            return (answer.argmax(1) != y).float()
        mean, sd = self.targets
        apart, whole = (t.flatten(1).square().sum(1).sqrt() for t in (answer * sd + mean - y, y))
        return apart / whole.clamp_min(1e-6 * sd)


def load_task(what: str, *, dims: int | None = None, seed: int = 0) -> Task:
    """``mnist1d``, ``digits``, ``fashion-mnist`` or an .npz file.

    A file has ``x`` and ``y``, and may have ``is_test`` (n,); or ``x_train``, ``y_train``,
    ``x_test`` and ``y_test``. x is (n, m), (n, c, m), (n, m, m) or (n, c, m, l); of three axes the
    second is channels, unless the last two are equal, or ``dims`` says 2. Whole numbers y (n,) are
    classes from 0; floats as large as the input, with or without an axis of channels, a map.
    ImportFileError says what is wrong; objects in the file are not read.
    """
    path = Path(what).expanduser()
    if what == "mnist1d":
        return make_task(what, *mnist1d(), dims=1, seed=seed)
    if path.suffix == ".npz" and path.is_file():
        return make_task(path.stem, *_arrays(path), dims=dims, seed=seed)
    if path.suffix == ".npz":
        raise UsageError(f"there is no {path}: name a file, {', '.join(_NAMES)}")
    if what.partition(":")[0] not in _NAMES:
        raise UnknownNameError("task", what, _NAMES)
    return _of_images(load_dataset(what, size=8, seed=seed))


def _of_images(data: Dataset) -> Task:
    """Images as a task, in the parts that they have."""
    parts = (data.train, data.validation, data.test_for_the_final_report())
    x = np.concatenate([part.images for part in parts]).astype(np.float32)
    y = np.concatenate([part.labels for part in parts])
    return _normalised(data.name, x, y, len(data.classes), _rows_of(parts))


def _rows_of(parts: tuple[Part, ...]) -> list[Array]:
    ends = np.cumsum([len(part) for part in parts])
    return np.split(np.arange(ends[-1]), ends[:-1])


def _arrays(path: Path) -> tuple[Array, Array, Array | None]:
    """x, y, and which are for the test."""
    names = ("x", "y", "is_test", *(n for pair in _PAIRS for n in pair))
    found = read_npz(path, names)
    if all(name in found for pair in _PAIRS for name in pair):
        (train, test) = [(found[x], found[y]) for x, y in _PAIRS]
        for a, b in zip(train, test, strict=True):
            if a.shape[1:] != b.shape[1:]:
                raise ImportFileError(
                    f"{path}: train and test differ in shape: {a.shape}, {b.shape}"
                )
        is_test = np.arange(len(train[0]) + len(test[0])) >= len(train[0])
        x, y = (np.concatenate(pair) for pair in zip(train, test, strict=True))
        return x, y, is_test
    if missing := [name for name in ("x", "y") if name not in found]:
        raise ImportFileError(
            f"{path} has no array {missing[0]!r}: it needs x and y, or x_train, y_train, x_test "
            "and y_test"
        )
    return found["x"], found["y"], found.get("is_test")


def make_task(
    name: str,
    x: Array,
    y: Array,
    is_test: Array | None = None,
    *,
    dims: int | None = None,
    seed: int = 0,
) -> Task:
    """Check samples and split them by ``seed``, classes alike: as :func:`load_task`, which see."""
    _check_numbers(name, "x", x)
    if len(x) != len(y) or not len(x):
        raise ImportFileError(f"{name}: {len(x)} inputs and {len(y)} targets: give one for each")
    x = _with_channels(name, x, dims).astype(np.float32)
    if is_test is not None and (is_test.shape != (len(x),) or is_test.dtype != np.bool_):
        raise ImportFileError(f"{name}: is_test has to be one bool for each of {len(x)} samples")
    rng = np.random.default_rng(seed)
    if y.ndim == 1:
        classes = _classes(name, y)
        y = y.astype(np.int64)
        return _normalised(name, x, y, classes, _split(name, y, is_test, rng))
    _check_numbers(name, "y", y)
    if y.shape[1:] == x.shape[2:]:
        y = y[:, None]
    if y.ndim != x.ndim or y.shape[2:] != x.shape[2:]:
        raise ImportFileError(
            f"{name}: targets of shape {y.shape[1:]} for inputs of {x.shape[1:]}: give a class "
            "each, or a map as large as the input"
        )
    rows = _split(name, np.zeros(len(x), np.int64), is_test, rng)
    return _normalised(name, x, y.astype(np.float32), y.shape[1], rows)


def _check_numbers(name: str, what: str, values: Array) -> None:
    if values.dtype.kind not in "iuf":
        raise ImportFileError(f"{name}: {what} is {values.dtype}: give real numbers")
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32)).all()
    if not finite:
        raise ImportFileError(f"{name}: {what} holds values that are no numbers: mend it")


def _with_channels(name: str, x: Array, dims: int | None) -> Array:
    if dims not in (None, 1, 2):
        raise UsageError(f"inputs of {dims} dimensions: give 1 or 2")
    plane = x.ndim == 4 or (x.ndim == 3 and (dims == 2 or (not dims and x.shape[1] == x.shape[2])))
    if not 2 <= x.ndim <= 4 or (dims or 1 + plane) != 1 + plane:
        raise ImportFileError(
            f"{name}: x has shape {x.shape}: give (n, m) or (n, c, m) in one dimension, (n, m, m) "
            "or (n, c, m, l) in two"
        )
    return x[:, None] if x.ndim == 1 + 1 + plane else x


def _classes(name: str, y: Array) -> int:
    if y.dtype.kind not in "iu":
        raise ImportFileError(
            f"{name}: y is {y.dtype} {y.shape}: give whole numbers for classes, or a map as large "
            "as the input"
        )
    low, high = int(y.min()), int(y.max())
    if low < 0 or not 1 <= high < _MOST_CLASSES:
        raise ImportFileError(f"{name}: labels run from {low} to {high}: number two or more from 0")
    counts = np.bincount(y.astype(np.int64))
    if counts.min() < 3:
        raise ImportFileError(
            f"{name}: class {int(counts.argmin())} has {counts.min()} samples: each needs at least "
            "3, numbered from 0 without gaps"
        )
    return high + 1


def _split(
    name: str, labels: Array, is_test: Array | None, rng: np.random.Generator
) -> list[Array]:
    """Rows of training, validation and test: of each label a share."""
    parts: list[list[Array]] = [[], [], []]
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        if is_test is None:
            cut = max(1, round(TEST_SHARE * len(rows)))
            test, rest = rows[:cut], rows[cut:]
        else:
            test, rest = rows[is_test[rows]], rows[~is_test[rows]]
        held = max(1, round(VALIDATION_SHARE * len(rest)))
        for part, some in zip(parts, (rest[held:], rest[:held], test), strict=True):
            if not len(some):
                raise ImportFileError(
                    f"{name}: too few samples of class {label} for training, validation and test"
                )
            part.append(some)
    return [np.sort(np.concatenate(part)) for part in parts]


def _normalised(name: str, x: Array, y: Array, outputs: int, rows: list[Array]) -> Task:
    """By the training samples' mean and deviation, a channel each; a map's targets stay."""
    own = x[rows[0]]
    axes = (0, *range(2, x.ndim))
    mean, sd = own.mean(axes), np.maximum(own.std(axes), 1e-6)
    wide = (1, -1, *[1] * (x.ndim - 2))
    x = (x - mean.reshape(wide)) / sd.reshape(wide)
    train, held, test = (Samples(torch.from_numpy(x[r]), torch.from_numpy(y[r])) for r in rows)
    dense = y.ndim > 1
    targets = (
        (float(y[rows[0]].mean()), float(max(y[rows[0]].std(), 1e-6))) if dense else (0.0, 1.0)
    )
    inputs = torch.from_numpy(mean), torch.from_numpy(sd)
    return Task(name, outputs, dense, train, held, test, inputs, targets)
