"""Accuracy of a supernet's paths on validation images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwbench.errors import UsageError
from hwbench.lower import create_session, to_onnx
from hwbench.search.accuracy.kept import KeptAccuracy
from hwbench.search.data import Dataset, check_fits
from hwbench.search.supernet import (
    StandAlone,
    Supernet,
    extract,
    recalibrated,
    resolution_of,
    to_inputs,
)
from hwbench.search.supernet.elastic import Norms, Statistics
from hwbench.spaces.base import NOTHING_FIXED, Codes

#: Images that a path runs on at once: few enough for their activations to stay near.
_BATCH = 25

#: Images at once on a GPU, which many keep busy.
_DEVICE_BATCH = 1000

#: Labels that are asked for at once, and lost with a process that is killed meanwhile.
_AT_ONCE = 8


class SupernetAccuracy:
    """Validation accuracy of architectures by their path's weights (an ``AccuracySource``).

    The batch norms of each path are recalibrated on ``calibration`` training images; it is then
    judged on ``images`` of the validation part, the same for all; by the net itself where it is on
    a GPU, else as the network taken out of it. With ``classes`` the task is to tell these apart:
    only their images and logits count. Answers are kept: ``validations`` counts the architectures
    that were really evaluated. ``data`` names the images; ``fixed`` are the decisions that the
    supernet knows one value of: UsageError for an architecture of another, and for data that it
    was not trained on.
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
        self._net = net
        self._classes = None if classes is None else tuple(classes)
        self._calibration = train.some(calibration, seed)
        self._validation = validation.some(images, seed)
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
        return extract(self._net, code, self._statistics(code), self._classes)

    def _statistics(self, code: Codes) -> Statistics:
        images = to_inputs(self._calibration.images, resolution_of(self.space, code))
        return recalibrated(self._net, code, images)

    def _evaluated(self, rows: Sequence[Codes]) -> list[float]:
        """Accuracy of each row (L,). On a CPU a core takes a network: cores that share the layers
        of one, small as they are, wait for each other."""
        threads = torch.get_num_threads()
        if len(rows) < 2 or threads < 2 or self._net.device.type != "cpu":
            return [self._evaluate(row) for row in rows]
        torch.set_num_threads(1)  # of each of the pool's threads too
        try:
            with ThreadPoolExecutor(threads) as pool:
                return list(pool.map(self._evaluate, rows))
        finally:
            torch.set_num_threads(threads)

    def _evaluate(self, code: Codes) -> float:
        images = to_inputs(self._validation.images, resolution_of(self.space, code))
        if self._net.device.type == "cpu":
            answers = _logits(self.stand_alone(code), images.numpy()).argmax(axis=1)
        else:
            answers = self._by_path(code, images).argmax(axis=1)
        return float((answers == self._validation.labels).mean())

    @torch.no_grad()
    def _by_path(self, code: Codes, images: Tensor) -> NDArray[np.float32]:
        """Logits (n, classes) of images (n, c, r, r) by the supernet itself, on its device."""
        statistics = self._statistics(code)
        rows = slice(None) if self._classes is None else list(self._classes)
        logits = [
            self._net(batch.to(self._net.device), code, Norms(fixed=statistics))[:, rows]
            for batch in torch.split(images, _DEVICE_BATCH)
        ]
        found: NDArray[np.float32] = torch.cat(logits).numpy(force=True)
        return found


def kept_labels(source: SupernetAccuracy, weights: Path) -> KeptAccuracy:
    """The source, its answers kept beside the file of its supernet: those of these weights on these
    images, which no search asks for again.
    """
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    about = f"the supernet {digest} on {source.data}"
    return KeptAccuracy(source, weights.with_suffix(".labels.jsonl"), about, at_once=_AT_ONCE)


def _logits(alone: StandAlone, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, classes) of images (n, c, r, r) by onnxruntime: on a CPU 2.6 times as fast as torch."""
    import onnxruntime as ort

    ((name, spec),) = alone.graph.inputs
    batched = replace(spec, shape=(_BATCH, *spec.shape[1:]))
    graph = replace(alone.graph, inputs=((name, batched),))
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = create_session(to_onnx(graph, alone.weights).bytes, options)
    missing = -len(images) % _BATCH
    padded = np.concatenate([images, np.zeros_like(images, shape=(missing, *images.shape[1:]))])
    logits = [session.run(None, {name: batch})[0] for batch in padded.reshape(-1, *batched.shape)]
    return np.concatenate(logits)[: len(images)]


def _check_classes(classes: Sequence[int], data: Dataset) -> None:
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise UsageError(f"a task of the classes {list(classes)}: give at least 2, each once")
    if odd := [c for c in classes if not 0 <= c < len(data.classes)]:
        raise UsageError(f"{data.name} has no class {odd[0]}: they are 0..{len(data.classes) - 1}")
