"""A space small enough for a supernet to be trained in a test, and data for it."""

from __future__ import annotations

from functools import cache

import numpy as np

from hwbench.search.data import Dataset, make_dataset
from hwbench.spaces.mbv3 import MobileNetV3Space, Skeleton, Unit

TINY = Skeleton(
    name="tiny",
    resolutions=(12, 14),
    stem=8,
    stem_stride=1,
    units=(
        Unit(8, stride=2, se=False, activation="relu"),
        Unit(16, stride=2, se=True, activation="hswish"),
    ),
    head=32,
    mix=32,
    classes=4,
    in_channels=1,
    depths=(1, 2),
)


@cache
def tiny_space() -> MobileNetV3Space:
    return MobileNetV3Space(TINY)


@cache
def bars() -> Dataset:
    """12x12 grey images of a bar: across, down, or along either diagonal, amid noise."""
    rng = np.random.default_rng(0)
    line = np.eye(12, dtype=np.float32)
    middle = np.zeros((12, 12), np.float32)
    middle[6] = 1
    shapes = np.stack([middle, middle.T, line, line[::-1]])
    labels = np.repeat(np.arange(4), 60)
    noise = rng.uniform(0, 0.6, (len(labels), 12, 12))
    images = np.clip(200 * shapes[labels] + 255 * noise, 0, 255).astype(np.uint8)
    return make_dataset("bars", ("across", "down", "falling", "rising"), images[:, None], labels)
