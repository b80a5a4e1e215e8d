"""The supernet: one set of weights in which every architecture of a space is a path."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from hwbench.errors import UsageError
from hwbench.search.supernet.elastic import (
    ElasticLayer,
    Gates,
    Moments,
    NormalisedConv,
    Norms,
    Statistics,
)
from hwbench.spaces.base import NOTHING_FIXED, Codes, Space, Value
from hwbench.spaces.mbv3 import MobileNetV3Space


@dataclass(frozen=True)
class Learned:
    """What a supernet's weights come from: ``fixed`` decisions of all paths that were trained, the
    digest of the ``data``, and whether steps took some of the classes alone, ``tasks``."""

    fixed: Mapping[str, Value]
    data: str
    tasks: bool


#: Up to this much larger, relatively, an image is framed with zeros; beyond, it is scaled.
_FRAMED = 0.25

#: Images that statistics are taken of at once: few enough for their activations to stay near.
_PIECE = 125


class Supernet(nn.Module):
    """Weights for every architecture of an OFA-MobileNetV3 space, drawn by ``seed``.

    ``learned`` says what they were trained on, once they are. UsageError for a space of another
    kind.
    """

    def __init__(self, space: Space, seed: int = 0) -> None:
        super().__init__()
        if not isinstance(space, MobileNetV3Space):
            raise UsageError(
                f"there is no supernet for the space {space.name}: take one of MobileNetV3 kind "
                "(mbv3_small, mbv3_small_rgb, ofa_mbv3)"
            )
        s = space.skeleton
        self.space = space
        self.learned: Learned | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = NormalisedConv(space.first.c_in, s.in_channels, 3)
            self.first = ElasticLayer(space.first, (3,), (1,))
            self.layers = [ElasticLayer(y, s.kernels, s.expansions) for y in space.layers]
            self.elastic = nn.ModuleList(self.layers)  # makes their weights the supernet's
            head, mix = s.channels(s.head), s.channels(s.mix)
            self.head = NormalisedConv(head, space.layers[-1].c_out, 1)
            self.mix = nn.Conv2d(head, mix, 1, bias=False)
            self.classifier = nn.Linear(mix, s.classes)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and what is run has to be: moved by ``net.to(device)``."""
        return self.classifier.weight.device

    def forward(self, x: Tensor, code: ArrayLike, norms: Norms) -> Tensor:
        """Logits (n, classes) of images (n, c, r, r) by the path of one code (L,).

        ``r`` is that of the images: the code's resolution is for :func:`to_inputs`.
        """
        x = self.first(self._stem(x, norms), 3, 1, norms)
        for layer, kernel, expansion in self.path(code):
            x = layer(x, kernel, expansion, norms)
        return self._head(x, norms)

    def path(self, code: ArrayLike) -> list[tuple[ElasticLayer, int, int]]:
        """The elastic layers that an architecture has, in order: layer, kernel, expansion."""
        choice = self.space.choice(code)
        return [
            (layer, int(choice[f"k{i}"]), int(choice[f"e{i}"]))
            for i, layer in enumerate(self.layers)
            if f"k{i}" in choice
        ]

    def relaxed(self, x: Tensor, kernel: Tensor, expansion: Tensor, depth: Tensor) -> Tensor:
        """Logits (n, classes) with relaxed choices, so that gradients reach what made them.

        ``kernel`` (layers, kernels) and ``expansion`` (layers, expansions) are weights of each
        layer's choices in the order of the space's values, ``depth`` (units, depths) of each
        unit's; rows sum to 1. At one-hot rows this is what the path gives by batch statistics.
        """
        norms, slots = Norms(), self.space.slots
        depths = torch.tensor(self.space.skeleton.depths, device=depth.device)
        x = self.first(self._stem(x, norms), 3, 1, norms)
        for i, layer in enumerate(self.layers):
            unit, place = divmod(i, slots)
            presence = depth[unit] @ (depths > place).to(depth.dtype)
            x = layer.relaxed(x, Gates(kernel[i], expansion[i], presence), norms)
        return self._head(x, norms)

    def _stem(self, x: Tensor, norms: Norms) -> Tensor:
        stride = self.space.skeleton.stem_stride
        x = functional.conv2d(x, self.stem.weight, None, stride, 1)
        if x.is_cpu:  # twice as quick there, and all that follows keeps it so
            x = x.contiguous(memory_format=torch.channels_last)
        return functional.hardswish(norms(x, self.stem.scale, self.stem.shift))

    def _head(self, x: Tensor, norms: Norms) -> Tensor:
        x = functional.conv2d(x, self.head.weight)
        x = functional.hardswish(norms(x, self.head.scale, self.head.shift))
        x = functional.hardswish(self.mix(x.mean((2, 3), keepdim=True)))
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


def largest(space: Space, fixed: Mapping[str, Value] = NOTHING_FIXED) -> Codes:
    """The code (L,) of the most of everything, but for what ``fixed`` pins."""
    return _extreme(space, [int(np.argmax(d.values)) for d in space.decisions], fixed)


def smallest(space: Space, fixed: Mapping[str, Value] = NOTHING_FIXED) -> Codes:
    """The canonical code (L,) of the least of everything, but for what ``fixed`` pins."""
    return _extreme(space, [int(np.argmin(d.values)) for d in space.decisions], fixed)


def resolution_of(space: Space, code: ArrayLike) -> int:
    """The resolution of a code's (L,) images."""
    return int(space.choice(code)["r"])


def _extreme(space: Space, code: list[int], fixed: Mapping[str, Value]) -> Codes:
    row = np.asarray([code], dtype=np.int16)
    for column, value in space.pinned(fixed).items():
        row[:, column] = value
    canonical: Codes = space.canonical(row)[0]
    return canonical


def to_inputs(images: NDArray[Any], resolution: int) -> Tensor:
    """Images (n, c, h, w) as the nets take them: (n, c, r, r) float32.

    uint8 is divided by 255, float32 stays: the batch norm after the first convolution makes scale
    and mean its own. An image that is smaller by up to a fifth (28 for 32) gets a frame of zeros;
    otherwise it is scaled bilinearly, with antialiasing.
    """
    x = torch.from_numpy(np.array(images, dtype=np.float32))
    x = x / 255 if images.dtype == np.uint8 else x
    missing = [resolution - size for size in x.shape[:1:-1]]  # the last axis first
    if not any(missing):
        return x
    if all(0 <= m <= _FRAMED * (resolution - m) for m in missing):
        return functional.pad(x, [side for m in missing for side in (m // 2, m - m // 2)])
    size = (resolution, resolution)
    return functional.interpolate(x, size, mode="bilinear", antialias=True)


def image_size(resolutions: Sequence[int]) -> int:
    """Pixels a side that images are best kept at for nets of these resolutions: the smallest where
    the largest only frames them, else the largest.
    """
    low, high = min(resolutions), max(resolutions)
    return low if high - low <= _FRAMED * low else high


@torch.no_grad()
def recalibrated(net: Supernet, code: ArrayLike, images: Tensor) -> Statistics:
    """The batch norms' statistics of one path (code (L,)) over images (n, c, r, r).

    As Once-for-All does before it evaluates a sub-network: in batches of every n-th image, whose
    statistics are pooled. On the net's device, wherever the images are.
    """
    count = math.ceil(len(images) / _PIECE)
    seen = []
    for first in range(count):
        norms = Norms(record=True)
        net(images[first::count].to(net.device), code, norms)
        seen.append(norms.seen)
    return tuple(_pooled(layer) for layer in zip(*seen, strict=True))


def _pooled(parts: Sequence[Moments]) -> tuple[Tensor, Tensor]:
    """Mean and variance (c,) of all values of the parts."""
    counts = torch.tensor([part.values for part in parts], dtype=torch.float64)[:, None]
    means = torch.stack([part.mean for part in parts]).double()
    variances = torch.stack([part.variance for part in parts]).double()
    counts = counts.to(means.device)
    mean = (counts * means).sum(0) / counts.sum()
    squares = (counts - 1) * variances + counts * (means - mean) ** 2
    return mean.float(), (squares.sum(0) / (counts.sum() - 1)).float()
