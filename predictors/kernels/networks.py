"""Random networks to learn kernels from: many shapes of layers, in surroundings that are usual.

A space holds one family of networks, whose layers differ little from each other. These are drawn
from the ways in which convolutional and dense networks are built at large, with sizes spread
evenly on a logarithmic scale, so that a network of no space finds its layers among them.
``random_network(family, seed)`` is the same network for the same arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from hwbench.errors import UnknownNameError
from hwbench.graph import Graph
from hwbench.ops import AttrValue
from hwbench.predictors.kernels.drawing import FUNCTIONS, Net

#: A network is drawn again while it is dearer than this: it has to be measured in seconds. Those
#: that are not large are allowed a share of it.
MOST_MACS, MOST_PARAMETERS, MOST_ELEMENTS = 4.8e9, 1.2e8, 1 << 23
_USUAL_SHARES = 0.25, 0.5, 0.5

_TRIES = 200
#: One network in three is small; one in nine is large, the dearest of some that are affordable: of
#: networks dearer than any that was measured little can be told.
_SMALL_EVERY, _LARGE_EVERY, _LARGE_OF = 3, 9, 12


def random_network(family: str, seed: int) -> Graph:
    """A network of one of :data:`FAMILIES`. UnknownNameError for another name."""
    if family not in FAMILIES:
        raise UnknownNameError("family of networks", family, FAMILIES)
    rng = np.random.default_rng([seed, sum(family.encode())])
    small = seed % _SMALL_EVERY == _SMALL_EVERY - 1
    large = seed % _LARGE_EVERY == 1
    drawn: list[Graph] = []
    for _ in range(_TRIES):
        net = Net(f"{family} {seed}", rng, small=small, large=large)
        graph = net.b.build(FAMILIES[family](net))
        if _is_affordable(graph, (1.0, 1.0, 1.0) if large else _USUAL_SHARES):
            drawn.append(graph)
        if len(drawn) == (_LARGE_OF if large else 1):
            break
    if not drawn:
        raise AssertionError(f"no affordable network in {_TRIES} draws of {family}")
    return max(drawn, key=lambda graph: graph.macs)


def _is_affordable(graph: Graph, shares: tuple[float, float, float]) -> bool:
    """Whether a network stays below these shares of the most that there may be."""
    largest = max(spec.elements for spec in graph.tensors.values())
    costs = graph.macs / MOST_MACS, graph.parameters / MOST_PARAMETERS, largest / MOST_ELEMENTS
    return all(cost <= share for cost, share in zip(costs, shares, strict=True))


def _plain(net: Net) -> str:
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


def _residual(net: Net) -> str:
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


def _mobile(net: Net) -> str:
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


def _shuffle(net: Net) -> str:
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


def _dense(net: Net) -> str:
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


def _branches(net: Net) -> str:
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


def _sequence(net: Net) -> str:
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


def _layers(net: Net) -> str:
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


def _encoder(net: Net) -> str:
    """Tokens or patches that attend to each other (BERT, ViT)."""
    b, heads = net.b, net.one_of((1, 2, 3, 4, 6, 8))
    width, first = heads * net.one_of((16, 32, 32, 64)), net.chance(0.6)
    if net.chance(0.4):
        ids = b.input("ids", (1, net.between(8, 256)), "int64")
        x = b.embedding(ids, net.between(100, 30_000), width)
    else:
        patch = net.one_of((4, 8, 16))
        x = b.conv(net.image(32, 224), width, kernel=patch, stride=patch, padding=0)
        x = b.transpose(b.reshape(x, (1, width, math.prod(b.shape(x)[2:]))), (0, 2, 1))
    function, grown = net.one_of(("gelu", "gelu", "relu", "silu")), net.one_of((2, 3, 4))
    for _ in range(net.between(1, 6)):
        y = b.attention(b.layer_norm(x) if first else x, heads)
        x = b.add(x, y) if first else b.layer_norm(b.add(x, y))
        y = net.act(b.linear(b.layer_norm(x) if first else x, grown * width), function)
        y = b.add(x, b.linear(y, width))
        x = y if first else b.layer_norm(y)
    return b.linear(b.mean(x, (1,)), net.between(2, 1000))


def _decoder(net: Net) -> str:
    """Down to small images and up again, for an answer at each place (U-Net, FPN)."""
    b, skips = net.b, []
    x = net.b.input("x", (1, 3, *[16 * net.between(2, 14)] * 2))
    width, joined = net.channels(8, 64), net.chance(0.5)
    for _ in range(net.between(2, 3)):
        x = net.conv(x, width, net.one_of((3, 3, 5)), 2)
        x = net.conv(x, width, 3, 1, net.one_of((1, width)))
        skips.append(x)
        width = min(2 * width, 256)
    for skip in reversed(skips[:-1]):
        out = net.width(skip)
        if net.chance(0.5):
            x = net.act(net.norm(b.conv_transpose(x, out, kernel=2, stride=2)), "relu")
        else:
            x = b.op("upsample", [net.conv(x, out, 1)], {"factors": (2, 2)})
        x = net.conv(b.concat([x, skip]) if joined else b.add(x, skip), out, 3)
    return net.act(b.conv_transpose(x, net.one_of((1, 8)), kernel=2, stride=2), "sigmoid")


def _arithmetic(net: Net) -> str:
    """What transformers and their exporters add to arithmetic, on sequences."""
    b = net.b
    x = b.input("x", (1, net.between(16, 512), net.channels(16, 256)))
    for _ in range(net.between(4, 12)):
        rows, width = b.shape(x)[1:]
        kind = net.one_of(("linear", "norm", "square", "gate", "part", "peak", "flip", "scores"))
        if kind == "linear":
            x = net.act(b.linear(x, net.channels(16, 384)), net.one_of(("gelu", "tanh", "silu")))
        elif kind == "norm":
            x = b.layer_norm(x)
        elif kind == "square":
            mean = b.mean(b.op("pow", [x], {"exponent": 2.0}), (2,), keepdims=True)
            x = b.mul(x, b.op("reciprocal", [b.activation(b.activation(mean, "exp"), "sqrt")]))
        elif kind == "gate" and width % 2 == 0:
            left = b.slice(x, 2, 0, width // 2)
            x = b.mul(left, net.act(b.slice(x, 2, width // 2, width), "sigmoid"))
        elif kind == "part" and rows > 8:
            x = b.slice(x, 1, 0, rows // 2)
        elif kind == "peak":
            axes: dict[str, AttrValue] = {"axes": (net.one_of((1, 2)),), "keepdims": True}
            peak = b.op(net.one_of(("max", "sum")), [x], axes)
            x = b.op(net.one_of(("maximum", "minimum", "sub")), [x, b.scale(peak, 0.1)])
        elif kind == "flip":
            x = b.transpose(x, (0, 2, 1))
        elif kind == "scores" and rows * rows < 1 << 17:
            keys = b.transpose(b.op("neg", [b.scale(x, 0.1)]), (0, 2, 1))
            x = b.matmul(b.softmax(b.matmul(x, keys)), x)
    return b.linear(b.mean(x, (1,)), net.between(2, 100))


def _scaled(net: Net) -> str:
    """Networks whose norms are followed by a scale and a shift, as converters leave them."""
    net.scaled = net.normed = True
    return net.one_of((_residual, _dense, _branches, _shuffle))(net)


def _medley(net: Net) -> str:
    """Operations of every kind between convolutions, the rare ones as often as the common."""
    x = net.conv(net.image(16, 128), net.channels(8, 96), net.one_of((3, 5)), net.one_of((1, 2)))
    for _ in range(net.between(3, 10)):
        x = net.one_of(_MEDLEY)(net, x)
        if net.chance(0.4):
            high, wide = net.one_of(((1, 3), (3, 1), (1, 7), (7, 1), (3, 3), (5, 5), (2, 2)))
            out, dilation = net.channels(8, 192), net.one_of((1, 1, 1, 2))
            x = net.act(net.b.conv(x, out, kernel=(high, wide), dilation=dilation))
        if net.side(x) > 24 and net.chance(0.4):
            x = net.pool(x)
    return net.head(x)


def _function(net: Net, x: str) -> str:
    """Any element-wise function, on numbers that it bears."""
    function = net.one_of(list(FUNCTIONS))
    return net.act(net.act(x, "sigmoid") if function in ("exp", "sqrt") else x, function)


def _binary(net: Net, x: str) -> str:
    """Arithmetic of two tensors, of one shape or one for each channel or place."""
    y = net.act(x, "hsigmoid")
    if net.chance(0.5):
        y = net.b.mean(y, net.one_of(((2, 3), (1,), (3,))), keepdims=True)
    kind = net.one_of(("add", "sub", "mul", "div"))
    return net.b.div(x, net.b.activation(y, "exp")) if kind == "div" else net.b.op(kind, [x, y])


def _moved(net: Net, x: str) -> str:
    """Channels last, something along them, and back."""
    x = net.b.transpose(x, (0, 2, 3, 1))
    if net.chance(0.5):
        x = net.b.softmax(x)
    if net.chance(0.5):
        x = net.act(net.b.linear(x, net.channels(8, 192)))
    return net.b.transpose(x, (0, 3, 1, 2))


def _edged(net: Net, x: str) -> str:
    pads = (0, 0, 1, 1, 0, 0, 1, net.one_of((0, 1)))
    return net.b.concat([net.b.pad(x, pads), net.b.pad(net.act(x, "relu"), pads)])


def _local(net: Net, x: str) -> str:
    """What looks at neighbours without weights."""
    if net.chance(0.3):
        return net.b.op("lrn", [x], {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0})
    kernel = net.one_of((3, 5, 7))
    pool = net.b.max_pool if net.chance(0.5) else net.b.avg_pool
    return net.norm(pool(x, kernel, 1, kernel // 2))


_MEDLEY = (_function, _function, _binary, _moved, _edged, _local, Net.squeeze_excite)

FAMILIES: Mapping[str, Callable[[Net], str]] = {
    "plain": _plain,
    "residual": _residual,
    "mobile": _mobile,
    "shuffle": _shuffle,
    "dense": _dense,
    "branches": _branches,
    "sequence": _sequence,
    "layers": _layers,
    "medley": _medley,
    "scaled": _scaled,
    "encoder": _encoder,
    "decoder": _decoder,
    "arithmetic": _arithmetic,
}
