"""Random networks to learn kernels from: many shapes of layers, in surroundings that are usual.

A space holds one family of networks, whose layers differ little from each other. These are drawn
from the ways in which convolutional and dense networks are built at large, with sizes spread
evenly on a logarithmic scale, so that a network of no space finds its layers among them.
``random_network(family, seed)`` is the same network for the same arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from hwbench.errors import UnknownNameError
from hwbench.graph import Graph, GraphBuilder

#: A network is drawn again while it is dearer than this: it has to be measured in a second.
MOST_MACS, MOST_PARAMETERS, MOST_ELEMENTS = 1.2e9, 6e7, 1 << 22

_ACTIVATIONS = ("relu", "relu", "relu", "relu6", "hswish", "silu", "gelu", "leaky_relu", "elu")
_TRIES = 200

T = TypeVar("T")


def random_network(family: str, seed: int) -> Graph:
    """A network of one of :data:`FAMILIES`. UnknownNameError for another name."""
    if family not in FAMILIES:
        raise UnknownNameError("family of networks", family, FAMILIES)
    rng = np.random.default_rng([seed, sum(family.encode())])
    for _ in range(_TRIES):
        net = _Net(f"{family} {seed}", rng)
        graph = net.b.build(FAMILIES[family](net))
        largest = max(spec.elements for spec in graph.tensors.values())
        if (
            graph.macs <= MOST_MACS
            and graph.parameters <= MOST_PARAMETERS
            and largest <= MOST_ELEMENTS
        ):
            return graph
    raise AssertionError(f"no affordable network in {_TRIES} draws of {family}")


class _Net:
    """A network under construction: a builder with dice."""

    def __init__(self, name: str, rng: np.random.Generator) -> None:
        self.b, self.rng = GraphBuilder(name), rng
        self.function = self.one_of(_ACTIVATIONS)
        self.normed = self.chance(0.5)

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
        return self.between(low, high, self.one_of((16, 16, 16, 8, 8, 4, 1)))

    def image(self, low: int = 24, high: int = 256) -> str:
        size = self.between(low, high, self.one_of((1, 8, 32)))
        return self.b.input("x", (1, self.one_of((1, 3, 3, 3)), size, size))

    def side(self, x: str) -> int:
        return min(self.b.shape(x)[2:])

    def width(self, x: str) -> int:
        return self.b.shape(x)[1]

    def act(self, x: str, function: str | None = None) -> str:
        function = function or self.function
        if function in ("leaky_relu", "elu"):
            return self.b.op(function, [x], {"alpha": 0.1})
        return self.b.activation(x, function)

    def norm(self, x: str) -> str:
        return self.b.op("batch_norm", [x], {"epsilon": 1e-5})

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


def _plain(net: _Net) -> str:
    """Convolutions one after the other, pools between, dense layers at the end (AlexNet, VGG)."""
    x = net.image()
    x = net.conv(x, net.channels(8, 96), net.one_of((3, 5, 7, 11)), net.one_of((1, 2, 2, 4)))
    for _ in range(net.between(2, 9)):
        if net.side(x) > 48 or (net.side(x) > 6 and net.chance(0.3)):
            x = net.pool(x)
        x = net.conv(x, net.channels(16, 512), net.one_of((1, 3, 3, 3, 5)))
        if net.chance(0.1):
            attrs = {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}
            x = net.b.op("lrn", [x], attrs)
    if net.chance(0.4):
        return net.head(x)
    x = net.b.flatten(x)
    for _ in range(net.between(1, 2)):
        x = net.act(net.b.linear(x, net.between(64, 4096)), "relu")
    return net.b.softmax(net.b.linear(x, net.between(10, 1000)))


def _residual(net: _Net) -> str:
    """Basic or bottleneck blocks with additions, some of them grouped (ResNet, ResNeXt)."""
    x = net.stem(net.image())
    bottleneck, grouped = net.chance(0.5), net.chance(0.2)
    width = net.channels(16, 128)
    for stage in range(net.between(1, 4)):
        for block in range(net.between(1, 4)):
            stride = 2 if stage and not block and net.side(x) > 4 else 1
            out = width * (4 if bottleneck else 1)
            groups = math.gcd(width, 8) if grouped else 1
            y = net.conv(x, width, 1 if bottleneck else 3, 1 if bottleneck else stride)
            if bottleneck:
                y = net.conv(y, width, 3, stride, groups)
            y = net.conv(y, out, 1 if bottleneck else 3, act=False)
            if net.b.shape(x) != net.b.shape(y):
                x = net.conv(x, out, 1, stride, act=False)
            x = net.act(net.b.add(x, y))
        width = min(2 * width, 512)
    return net.head(x)


def _mobile(net: _Net) -> str:
    """Inverted residuals of depthwise convolutions, some gated (MobileNet, EfficientNet)."""
    x = net.stem(net.image(), high=48)
    gated = net.chance(0.5)
    for _ in range(net.between(3, 12)):
        stride = 2 if net.side(x) > 6 and net.chance(0.35) else 1
        out = net.width(x) if net.chance(0.5) else net.channels(16, 256)
        y = x
        if net.chance(0.85):
            y = net.conv(y, net.width(x) * net.one_of((2, 3, 4, 6)), 1)
        y = net.conv(y, net.width(y), net.one_of((3, 3, 5, 7)), stride, net.width(y))
        if gated and net.chance(0.7):
            y = net.squeeze_excite(y)
        y = net.conv(y, out, 1, act=False)
        x = net.b.add(x, y) if net.b.shape(x) == net.b.shape(y) else y
    return net.head(net.conv(x, net.channels(64, 1024), 1))


def _shuffle(net: _Net) -> str:
    """Grouped convolutions whose channels are shuffled between (ShuffleNet)."""
    x, groups = net.stem(net.image(), 16, 48), net.one_of((2, 3, 4, 8))
    for _ in range(net.between(2, 9)):
        stride = 2 if net.side(x) > 6 and net.chance(0.4) else 1
        width = groups * net.between(8, 512 / groups, net.one_of((1, 4, 8)))
        y = net.conv(x, width, 1, 1, math.gcd(groups, net.width(x)))
        _, _, high, wide = net.b.shape(y)
        y = net.b.reshape(y, (1, groups, width // groups, high, wide))
        y = net.b.reshape(net.b.transpose(y, (0, 2, 1, 3, 4)), (1, width, high, wide))
        y = net.conv(y, width, 3, stride, width, act=False)
        y = net.conv(y, width, 1, 1, groups, act=False)
        if net.b.shape(x) == net.b.shape(y):
            x = net.act(net.b.add(x, y), "relu")
        else:
            x = net.act(net.b.concat([net.b.avg_pool(x, 3, stride, 1), y]), "relu")
    return net.head(x)


def _dense(net: _Net) -> str:
    """Each layer reads all earlier ones, normalised before the convolution (DenseNet)."""
    x, growth = net.stem(net.image()), net.channels(8, 48)
    for block in range(net.between(1, 3)):
        if block:
            x = net.b.conv(net.act(net.norm(x), "relu"), net.width(x) // 2, kernel=1)
            x = net.b.avg_pool(x, 2, 2) if net.side(x) > 4 else x
        for _ in range(net.between(2, 8)):
            y = net.act(net.norm(x), "relu")
            if net.chance(0.7):
                y = net.act(net.norm(net.b.conv(y, 4 * growth, kernel=1)), "relu")
            x = net.b.concat([x, net.b.conv(y, growth, kernel=3)])
    return net.head(net.act(net.norm(x), "relu"))


def _branches(net: _Net) -> str:
    """Convolutions of several kernels side by side, joined (Inception, SqueezeNet)."""
    x, small = net.stem(net.image()), net.chance(0.4)
    for _ in range(net.between(2, 7)):
        if net.side(x) > 8 and net.chance(0.35):
            x = net.pool(x)
        squeezed = net.conv(x, net.channels(8, 96), 1)
        outs = [net.conv(squeezed, net.channels(16, 192), kernel) for kernel in (1, 3)]
        if not small:
            y = net.conv(x, net.channels(8, 48), 1)
            outs.append(net.conv(y, net.channels(16, 96), net.one_of((3, 5))))
            pooled = net.b.max_pool(x, 3, 1, 1) if net.chance(0.6) else net.b.avg_pool(x, 3, 1, 1)
            outs.append(net.conv(pooled, net.channels(16, 96), 1))
        x = net.b.concat(outs)
    return net.head(x)


def _sequence(net: _Net) -> str:
    """Convolutions along one axis, of sound or text."""
    x = net.b.input("x", (1, net.channels(4, 128), net.between(64, 4096)))
    for _ in range(net.between(2, 8)):
        stride = 2 if net.side(x) > 32 and net.chance(0.4) else 1
        y = net.conv(x, net.channels(16, 384), net.one_of((1, 3, 3, 5, 9)), stride)
        x = net.b.add(x, y) if net.b.shape(x) == net.b.shape(y) else y
        if net.chance(0.2):
            x = net.conv(x, net.width(x), net.one_of((3, 7)), 1, net.width(x))
        if net.chance(0.2) and net.side(x) > 8:
            x = net.b.max_pool(x, 2, 2)
    return net.head(x)


def _layers(net: _Net) -> str:
    """Dense layers on vectors or on sequences of them."""
    vectors = net.chance(0.5)
    rows = (1,) if vectors else (1, net.between(8, 512))
    x = net.b.input("x", (*rows, net.between(32, 4096 if vectors else 1024)))
    for _ in range(net.between(2, 8)):
        y = net.act(net.b.linear(x, net.between(32, 4096 if vectors else 1024)))
        if not vectors and net.chance(0.3):
            gate = net.act(net.b.linear(y, net.b.shape(y)[-1]), "sigmoid")
            y = net.b.mul(y, gate) if net.chance(0.7) else net.b.sub(y, gate)
        if net.b.shape(x) == net.b.shape(y):
            y = net.b.add(x, y)
        x = net.b.softmax(y) if net.chance(0.15) else y
    return net.b.linear(x, net.between(8, 1000))


FAMILIES: Mapping[str, Callable[[_Net], str]] = {
    "plain": _plain,
    "residual": _residual,
    "mobile": _mobile,
    "shuffle": _shuffle,
    "dense": _dense,
    "branches": _branches,
    "sequence": _sequence,
    "layers": _layers,
}
