"""Labelled images in three parts, of which a search sees two."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import ImportFileError, UsageError

Labels = NDArray[np.int64]

VALIDATION_SHARE = 1 / 6
TEST_SHARE = 1 / 6


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images (n, c, h, w), uint8 from 0 to 255 or float32, and their labels (n,)."""

    images: NDArray[Any]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"<{len(self)} images {self.images.shape[1:]} {self.images.dtype}>"

    def take(self, rows: NDArray[Any]) -> Part:
        """The images of these rows (indices, or a mask)."""
        return Part(self.images[rows], self.labels[rows])

    def some(self, n: int, seed: int) -> Part:
        """``n`` of them drawn by a seed; all where they are fewer."""
        if n >= len(self):
            return self
        return self.take(np.random.default_rng(seed).permutation(len(self))[:n])

    def of_classes(self, classes: Sequence[int]) -> Part:
        """Those of these classes, labelled by their place in ``classes``."""
        place = np.full(max(int(self.labels.max()), *classes) + 1, -1, dtype=np.int64)
        place[list(classes)] = np.arange(len(classes))
        part = self.take(place[self.labels] >= 0)
        return Part(part.images, place[part.labels])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification task. Every image is in one part only.

    Searches, trainings and accuracy sources take ``train`` and ``validation``. The third part is
    no attribute: :meth:`test_for_the_final_report` has it.
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    validation: Part
    _test: Part = field(repr=False)

    def test_for_the_final_report(self) -> Part:
        """The images that no decision may rest on: read them once, when all is decided."""
        return self._test

    @property
    def channels(self) -> int:
        """Channels of an image: 1 or 3."""
        return int(self.train.images.shape[1])

    @cached_property
    def digest(self) -> str:
        """Identifies what a training saw: images and labels, in order."""
        content = hashlib.sha256(str((self.train.images.dtype, self.train.images.shape)).encode())
        content.update(np.ascontiguousarray(self.train.images).data)
        content.update(np.ascontiguousarray(self.train.labels).data)
        return content.hexdigest()[:32]


def make_dataset(
    name: str,
    classes: Sequence[str],
    images: NDArray[Any],
    labels: NDArray[Any],
    *,
    is_test: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> Dataset:
    """Check images (n, c, h, w) and labels (n,), and split them class by class, by ``seed``.

    Where ``is_test`` (n,) does not say which are for the test, a sixth of each class is. A sixth
    of the others is for validation. ImportFileError where something does not fit.
    """
    _check(name, classes, images, labels, is_test)
    labels = labels.astype(np.int64)
    rng = np.random.default_rng(seed)
    every = np.arange(len(labels))
    if is_test is None:
        rest, test = _stratified(every, labels, TEST_SHARE, rng)
    else:
        rest, test = every[~is_test], every[is_test]
    train, validation = _stratified(rest, labels, VALIDATION_SHARE, rng)
    parts = []
    for part, rows in (("train", train), ("validation", validation), ("test", test)):
        counts = np.bincount(labels[rows], minlength=len(classes))
        if not counts.all():
            raise ImportFileError(
                f"{name}: class {classes[int(counts.argmin())]!r} has no image for {part}: "
                "each class needs at least 3, and some that are not for the test"
            )
        parts.append(Part(_frozen(images[rows]), _frozen(labels[rows])))
    return Dataset(name, tuple(classes), *parts)


def _stratified(
    rows: Labels, labels: Labels, share: float, rng: np.random.Generator
) -> tuple[Labels, Labels]:
    """Rows less a share of each class (one at least), and that share; both in order."""
    taken = []
    for label in np.unique(labels[rows]):
        of_class = rng.permutation(rows[labels[rows] == label])
        taken.append(of_class[: max(1, round(share * len(of_class)))])
    held = np.sort(np.concatenate(taken)) if taken else rows[:0]
    return np.setdiff1d(rows, held), held


def _check(
    name: str,
    classes: Sequence[str],
    images: NDArray[Any],
    labels: NDArray[Any],
    is_test: NDArray[np.bool_] | None,
) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.size:
        raise ImportFileError(
            f"{name}: images have shape {images.shape}: give (n, h, w) or (n, c, h, w), c 1 or 3"
        )
    if images.dtype not in (np.uint8, np.float32):
        raise ImportFileError(f"{name}: images are {images.dtype}: give uint8 or float32")
    if images.dtype == np.float32 and not np.isfinite(images).all():
        raise ImportFileError(f"{name}: some image holds values that are no numbers: mend it")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ImportFileError(
            f"{name}: labels are {labels.dtype} {labels.shape} for {len(images)} images: "
            "give one integer each"
        )
    if len(classes) < 2:
        raise ImportFileError(f"{name}: {len(classes)} class: a task needs at least 2")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ImportFileError(
            f"{name}: labels run from {labels.min()} to {labels.max()}, but there are "
            f"{len(classes)} classes: number them from 0"
        )
    if is_test is not None and (is_test.shape != labels.shape or is_test.dtype != np.bool_):
        raise ImportFileError(
            f"{name}: is_test is {is_test.dtype} {is_test.shape}: give one bool for each image"
        )


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def check_fits(data: Dataset, *, channels: int, classes: int, what: str) -> None:
    """UsageError unless images and classes are those that ``what`` is made for."""
    if data.channels != channels:
        raise UsageError(
            f"{data.name} has images of {data.channels} channels, but {what} takes {channels}: "
            "choose another space, or load the images so"
        )
    if len(data.classes) != classes:
        raise UsageError(
            f"{data.name} has {len(data.classes)} classes, but {what} has {classes}: take a "
            "network made for as many (for a space: its skeleton, by dataclasses.replace)"
        )
