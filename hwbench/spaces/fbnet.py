"""``fbnet``: the layer-wise space of FBNet (Wu et al., CVPR 2019), 224x224 images, 1000 classes.

22 layers in seven stages, each with one of nine blocks: 1e21 codes, 49 to 573 million MACs. A
block is a 1x1 convolution that multiplies the channels by e, a depthwise one of size k, and a 1x1
that projects, with the input added where stride and channels let it. With ``g2`` both 1x1
convolutions have two groups, and a channel shuffle follows the first. ``skip`` is the identity;
where the stride or the channels change, it is a 1x1 convolution with ReLU.

Stages, widths, order and insides of the blocks are those of ``model_infer.py`` and
``hw_nas_bench_api.py`` of HW-NAS-Bench (Li et al., ICLR 2021, commit 6c67e04), whose indices the
tables of HELP (Lee et al., NeurIPS 2021) use as well; the block and ``skip`` agree with Facebook's
own ``fbnet_builder.py`` (maskrcnn-benchmark, 5158d2b). An expansion of 1 keeps its first
convolution. Batch norms are folded into convolutions. Assumed, for want of HELP's measuring
code: that its latencies are of this network, at this size of image.

As a ``skip`` may be an identity, some codes of one network differ: ``k3_e1,skip`` and
``skip,k3_e1`` inside a stage. They are different rows of the published tables, and stay apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.errors import GraphError
from hwbench.graph import Graph, GraphBuilder
from hwbench.spaces.base import Choice, Decision, Space, Value, listed


@dataclass(frozen=True, slots=True)
class Block:
    """Kernel, expansion and groups of a block that is no ``skip``."""

    kernel: int
    expansion: int
    groups: int = 1


SKIP = "skip"
BLOCKS = {
    "k3_e1": Block(3, 1),
    "k3_e1_g2": Block(3, 1, groups=2),
    "k3_e3": Block(3, 3),
    "k3_e6": Block(3, 6),
    "k5_e1": Block(5, 1),
    "k5_e1_g2": Block(5, 1, groups=2),
    "k5_e3": Block(5, 3),
    "k5_e6": Block(5, 6),
}
#: In the order of the published tables' codes.
CHOICES = (*BLOCKS, SKIP)

#: Channels, layers and stride of the first layer, by stage.
STAGES = ((16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1))

_SIZE = 224
_STEM = 16
_HEAD = 1984
_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer with everything decided but its block; ``size`` is that of its input."""

    c_in: int
    c_out: int
    stride: int
    size: int

    @property
    def keeps_shape(self) -> bool:
        return self.stride == 1 and self.c_in == self.c_out

    def add_to(self, b: GraphBuilder, x: str, chosen: str) -> str:
        """Append the layer's ops to a graph."""
        if chosen == SKIP:
            if self.keeps_shape:
                return x
            return b.activation(b.conv(x, self.c_out, kernel=1, stride=self.stride), "relu")
        block = BLOCKS[chosen]
        mid = self.c_in * block.expansion
        y = b.activation(b.conv(x, mid, kernel=1, groups=block.groups), "relu")
        if block.groups > 1:
            y = _shuffled(b, y, block.groups)
        y = b.conv(y, mid, kernel=block.kernel, stride=self.stride, groups=mid)
        y = b.conv(b.activation(y, "relu"), self.c_out, kernel=1, groups=block.groups)
        return b.add(x, y) if self.keeps_shape else y

    def macs(self, chosen: str) -> int:
        """Multiply-accumulates with that block."""
        pixels = (self.size // self.stride) ** 2
        if chosen == SKIP:
            return 0 if self.keeps_shape else self.c_in * self.c_out * pixels
        block = BLOCKS[chosen]
        mid = self.c_in * block.expansion
        expand = self.c_in * mid // block.groups * self.size**2
        return expand + mid * (block.kernel**2 + self.c_out // block.groups) * pixels


class FBNetSpace(Space):
    """Decisions ``layer0`` … ``layer21``, each with the values :data:`CHOICES`."""

    def __init__(self) -> None:
        self._layers = list(_layers())
        names = [f"layer{number}" for number in range(len(self._layers))]
        super().__init__("fbnet", [Decision(name, CHOICES) for name in names])

    def build(self, choice: Choice) -> Graph:
        b = GraphBuilder(self.name)
        x = b.conv(b.input("image", (1, 3, _SIZE, _SIZE)), _STEM, kernel=3, stride=2)
        x = b.activation(x, "relu")
        for layer, chosen in zip(self._layers, choice.values(), strict=True):
            x = layer.add_to(b, x, chosen)
        x = b.activation(b.conv(x, _HEAD, kernel=1), "relu")
        return b.build(b.linear(b.flatten(b.global_avg_pool(x)), _CLASSES))

    def macs(self, codes: ArrayLike) -> NDArray[np.int64]:
        """Multiply-accumulates of each architecture (n, 22) -> (n,): sums over a table."""
        rows = self.check(codes)
        outside, table = self._macs_tables
        macs: NDArray[np.int64] = outside + table[np.arange(len(table)), rows].sum(axis=1)
        return macs

    @cached_property
    def _macs_tables(self) -> tuple[int, NDArray[np.int64]]:
        """MACs of what is always there, and of [layer, block]."""
        table = [[layer.macs(chosen) for chosen in CHOICES] for layer in self._layers]
        last = self._layers[-1]
        stem = 3 * 9 * _STEM * (_SIZE // 2) ** 2
        head = last.c_out * _HEAD * (last.size // last.stride) ** 2
        return stem + head + _HEAD * _CLASSES, np.array(table, dtype=np.int64)

    def text(self, choice: Choice) -> str:
        """The blocks in order: ``k3_e1,k3_e6,skip,k5_e1_g2,…``."""
        return ",".join(choice.values())

    def parse(self, text: str) -> dict[str, Value]:
        blocks = [written.strip() for written in text.split(",")]
        if len(blocks) != len(self.decisions):
            raise GraphError(f"{len(blocks)} blocks joined by ',': give {len(self.decisions)}")
        for decision, block in zip(self.decisions, blocks, strict=True):
            if block not in CHOICES:
                raise GraphError(f"{decision.name} is {block!r}: give one of {listed(CHOICES)}")
        return {d.name: block for d, block in zip(self.decisions, blocks, strict=True)}


def fbnet() -> FBNetSpace:
    """The space as HW-NAS-Bench has it for ImageNet."""
    return FBNetSpace()


def _layers() -> Iterator[Layer]:
    c_in, size = _STEM, _SIZE // 2
    for channels, layers, first_stride in STAGES:
        for i in range(layers):
            stride = first_stride if i == 0 else 1
            yield Layer(c_in, channels, stride, size)
            c_in, size = channels, size // stride


def _shuffled(b: GraphBuilder, x: str, groups: int) -> str:
    """Channel i of group g becomes channel ``groups * i + g``."""
    shape = b.shape(x)
    n, channels, height, width = shape
    y = b.reshape(x, (n, groups, channels // groups, height, width))
    return b.reshape(b.transpose(y, (0, 2, 1, 3, 4)), shape)
