"""How the accuracy of a supernet's path is told: by which images, and where."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwbench.lower import create_session, to_onnx
from hwbench.search.data import Part
from hwbench.search.supernet import (
    StandAlone,
    Supernet,
    extract,
    recalibrated,
    resolution_of,
    to_inputs,
)
from hwbench.search.supernet.elastic import Norms, Statistics
from hwbench.spaces.base import Codes

#: Images that a path runs on at once: few enough for their activations to stay near.
_BATCH = 25

#: Images at once on a GPU, which many keep busy.
_DEVICE_BATCH = 1000


@dataclass(frozen=True, eq=False)
class Judge:
    """A supernet, the training images that a path's batch norms are calibrated on, and the
    validation images that it is judged by; with ``classes`` the labels are places in them, and the
    other logits do not count.
    """

    net: Supernet
    calibration: Part
    validation: Part
    classes: tuple[int, ...] | None = None

    def stand_alone(self, code: Codes) -> StandAlone:
        """The network that the accuracy of a code (L,) is of."""
        return extract(self.net, code, self._statistics(code), self.classes)

    def accuracies(self, rows: Sequence[Codes]) -> list[float]:
        """Accuracy of each row (L,), 0 to 1. On a CPU a core takes a network: cores that share the
        layers of one, small as they are, wait for each other, and add up in another order."""
        if self.net.device.type != "cpu":
            return [self._accuracy(row) for row in rows]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # of each of the pool's threads too
        try:
            with ThreadPoolExecutor(threads) as pool:
                return list(pool.map(self._accuracy, rows))
        finally:
            torch.set_num_threads(threads)

    def _statistics(self, code: Codes) -> Statistics:
        images = to_inputs(self.calibration.images, resolution_of(self.net.space, code))
        return recalibrated(self.net, code, images)

    def _accuracy(self, code: Codes) -> float:
        images = to_inputs(self.validation.images, resolution_of(self.net.space, code))
        if self.net.device.type == "cpu":
            answers = _logits(self.stand_alone(code), images.numpy()).argmax(axis=1)
        else:
            answers = self._by_path(code, images).argmax(axis=1)
        return float((answers == self.validation.labels).mean())

    @torch.no_grad()
    def _by_path(self, code: Codes, images: Tensor) -> NDArray[np.float32]:
        """Logits (n, classes) of images (n, c, r, r) by the supernet itself, on its device."""
        statistics = self._statistics(code)
        rows = slice(None) if self.classes is None else list(self.classes)
        logits = [
            self.net(batch.to(self.net.device), code, Norms(fixed=statistics))[:, rows]
            for batch in torch.split(images, _DEVICE_BATCH)
        ]
        found: NDArray[np.float32] = torch.cat(logits).numpy(force=True)
        return found


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
