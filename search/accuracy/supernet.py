"""Accuracy of a supernet's paths on validation images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import UsageError
from hwbench.search.accuracy.judge import Judge
from hwbench.search.accuracy.kept import KeptAccuracy
from hwbench.search.data import Dataset, check_fits
from hwbench.search.supernet import StandAlone, Supernet
from hwbench.spaces.base import NOTHING_FIXED, Codes

#: Labels that are asked for at once, and lost with a process that is killed meanwhile.
_AT_ONCE = 8

Evaluate = Callable[[Sequence[Codes]], list[float]]
"""Accuracy of each of some rows (L,)."""

Elsewhere = Callable[[Judge], Evaluate]
"""What evaluates in the place of a judge."""


class SupernetAccuracy:
    """Validation accuracy of architectures by their path's weights (an ``AccuracySource``).

    The batch norms of each path are recalibrated on ``calibration`` training images; it is then
    judged on ``images`` of the validation part, the same for all; by the net itself where it is on
    a GPU, else as the network taken out of it. With ``classes`` the task is to tell these apart:
    only their images and logits count. Answers are kept: ``validations`` counts the architectures
    that were really evaluated. ``data`` names the images; ``fixed`` are the decisions that the
    supernet knows one value of: UsageError for an architecture of another, and for data that it
    was not trained on. ``elsewhere`` gives what evaluates in the place of its ``judge``.
    """

    def __init__(
        self,
        net: Supernet,
        data: Dataset,
        *,
        images: int = 2000,
        calibration: int = 1000,
        classes: Sequence[int] | None = None,
        seed: int = 0,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        skeleton = net.space.skeleton
        wanted = {"channels": skeleton.in_channels, "classes": skeleton.classes}
        check_fits(data, **wanted, what=net.space.name)
        if net.learned is not None and net.learned.data != data.digest:
            raise UsageError(
                f"the supernet was trained on other images than those of {data.name}, or on "
                "another split of them: give what it was trained on"
            )
        if images < 1 or calibration < 2:
            raise UsageError("accuracy needs 1 image to judge by and 2 to calibrate on")
        train, validation = data.train, data.validation
        if classes is not None:
            _check_classes(classes, data)
            train, validation = train.of_classes(classes), validation.of_classes(classes)
        self.space = net.space
        self.data = data.name
        self.fixed = NOTHING_FIXED if net.learned is None else net.learned.fixed
        self.validations = 0
        self.judge = Judge(
            net,
            train.some(calibration, seed),
            validation.some(images, seed),
            None if classes is None else tuple(classes),
        )
        self._evaluated = elsewhere(self.judge) if elsewhere else self.judge.accuracies
        self._known: dict[bytes, float] = {}

    def accuracy(self, codes: Codes) -> NDArray[np.float64]:
        """Share (n,) of the validation images that each of codes (n, L) gets right."""
        rows = self.space.canonical(codes)
        self._require_known(rows)
        new = {row.tobytes(): row for row in rows if row.tobytes() not in self._known}
        self._known |= zip(new, self._evaluated(list(new.values())), strict=True)
        self.validations += len(new)
        return np.array([self._known[row.tobytes()] for row in rows], dtype=np.float64)

    def _require_known(self, rows: Codes) -> None:
        active = self.space.active(rows)
        for name, value in self.fixed.items():
            ((column, code),) = self.space.pinned({name: value}).items()
            other = active[:, column] & (rows[:, column] != code)
            if other.any():
                (text,) = self.space.decode(rows[other][:1])
                raise UsageError(
                    f"the supernet was trained with {name} {value} alone, which {text!r} is not"
                )

    def stand_alone(self, code: Codes) -> StandAlone:
        """The network that the accuracy of a code (L,) is of."""
        return self.judge.stand_alone(code)


def kept_labels(source: SupernetAccuracy, weights: Path, *, hosts: int = 1) -> KeptAccuracy:
    """The source, its answers kept beside the file of its supernet: those of these weights on these
    images, which no search asks for again. ``hosts`` evaluate at once.
    """
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    about = f"the supernet {digest} on {source.data}"
    return KeptAccuracy(
        source, weights.with_suffix(".labels.jsonl"), about, at_once=hosts * _AT_ONCE
    )


def _check_classes(classes: Sequence[int], data: Dataset) -> None:
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise UsageError(f"a task of the classes {list(classes)}: give at least 2, each once")
    if odd := [c for c in classes if not 0 <= c < len(data.classes)]:
        raise UsageError(f"{data.name} has no class {odd[0]}: they are 0..{len(data.classes) - 1}")
