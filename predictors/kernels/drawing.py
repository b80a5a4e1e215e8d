"""A network under construction whose sizes are drawn by dice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from hwbench.graph import GraphBuilder
from hwbench.ops import HSIGMOID, AttrValue

#: Every function of one tensor, with the attributes of those that need some.
FUNCTIONS: Mapping[str, Mapping[str, AttrValue]] = {
    "clip": {"min": -1.0, "max": 2.0},
    "elu": {"alpha": 0.1},
    "erf": {},
    "exp": {},
    "gelu": {},
    "hsigmoid": HSIGMOID,
    "hswish": {},
    "leaky_relu": {"alpha": 0.1},
    "relu": {},
    "relu6": {},
    "sigmoid": {},
    "silu": {},
    "sqrt": {},
    "tanh": {},
}

#: What follows convolutions: the common as often as they are.
_ACTIVATIONS = ("relu", "relu", "relu", "relu6", "hswish", "silu", "gelu", "leaky_relu", "elu")

T = TypeVar("T")


class Net:
    """A network under construction: a builder with dice.

    One that is ``small`` has a quarter of the usual sizes: its kernels take some microseconds.
    One that is ``large`` has up to twice the channels.
    """

    def __init__(
        self, name: str, rng: np.random.Generator, *, small: bool = False, large: bool = False
    ) -> None:
        self.b, self.rng, self.small, self.large = GraphBuilder(name), rng, small, large
        self.function = self.one_of(_ACTIVATIONS)
        self.normed = self.chance(0.5)
        self.scaled = False

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def one_of(self, values: Sequence[T]) -> T:
        return values[int(self.rng.integers(len(values)))]

    def between(self, low: float, high: float, multiple: int = 1) -> int:
        """A whole number, evenly spread on a logarithmic scale."""
        drawn = math.exp(self.rng.uniform(math.log(low), math.log(high)))
        return max(multiple, round(drawn / multiple) * multiple)

    def channels(self, low: int, high: int) -> int:
        """Mostly multiples of 8 or 16, as people choose them; now and then any number."""
        if self.small:
            low, high = max(low // 2, 4), max(high // 4, low)
        high = 2 * high if self.large else high
        return self.between(low, high, self.one_of((16, 16, 16, 8, 8, 4, 1)))

    def image(self, low: int = 24, high: int = 256) -> str:
        high = max(high // 4, low) if self.small else high
        size = self.between(low, high, self.one_of((1, 8, 32)))
        return self.b.input("x", (1, self.one_of((1, 3, 3, 3)), size, size))

    def side(self, x: str) -> int:
        return min(self.b.shape(x)[2:])

    def width(self, x: str) -> int:
        return self.b.shape(x)[1]

    def act(self, x: str, function: str | None = None) -> str:
        function = function or self.function
        return self.b.op(function, [x], FUNCTIONS[function])

    def norm(self, x: str) -> str:
        x = self.b.op("batch_norm", [x], {"epsilon": 1e-5})
        if not self.scaled:
            return x
        attrs: dict[str, AttrValue] = {"shape": (1, self.width(x), 1, 1), "dtype": "float32"}
        scaled = self.b.mul(x, self.b.op("constant", [], attrs))
        return self.b.add(scaled, self.b.op("constant", [], attrs))

    def conv(
        self,
        x: str,
        out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        act: bool = True,
    ) -> str:
        """A convolution with what usually follows it."""
        x = self.b.conv(x, out, kernel=kernel, stride=stride, groups=groups, bias=not self.normed)
        x = self.norm(x) if self.normed else x
        return self.act(x) if act else x

    def stem(self, x: str, low: int = 8, high: int = 96) -> str:
        stride = 2 if self.side(x) > 40 or self.chance(0.3) else 1
        x = self.conv(x, self.channels(low, high), self.one_of((3, 3, 3, 5, 7)), stride)
        return self.pool(x) if self.side(x) > 64 or self.chance(0.2) else x

    def pool(self, x: str) -> str:
        if self.side(x) < 4:
            return x
        kernel = self.one_of((2, 3, 3))
        if self.chance(0.7):
            return self.b.max_pool(x, kernel, 2, self.one_of((0, kernel // 2)))
        return self.b.avg_pool(x, kernel, 2, self.one_of((0, kernel // 2)))

    def head(self, x: str) -> str:
        """From an image or a sequence to classes, in one of the usual ways."""
        x = self.b.global_avg_pool(x) if self.chance(0.8) else self.b.global_max_pool(x)
        x = self.b.linear(self.b.flatten(x), self.between(10, 1000))
        return self.b.softmax(x) if self.chance(0.5) else x

    def squeeze_excite(self, x: str) -> str:
        """Scale channels by what a small network makes of their means."""
        width = self.width(x)
        gate = self.b.conv(self.b.global_avg_pool(x), max(width // 4, 4), kernel=1)
        gate = self.b.conv(self.act(gate, "relu"), width, kernel=1)
        return self.b.mul(x, self.act(gate, self.one_of(("hsigmoid", "sigmoid"))))
