"""Models of all classes for checking the instrument itself: what is true of one may not be of
another, so every figure of a check is given by class.
"""

from __future__ import annotations

from hwbench.devices.models import GraphModel, Model
from hwbench.graph import Graph, GraphBuilder

#: Classes whose work a conv-net canary resembles; the bars for them are tighter.
CONV_CLASSES = frozenset({"conv", "depthwise"})


def conv(depth: int, channels: int, size: int, *, stride: int = 2) -> Graph:
    """Plain 3x3 convolutions with relu."""
    b = GraphBuilder("conv")
    x = b.conv(b.input("x", (1, 3, size, size)), channels, kernel=3, stride=stride)
    x = b.activation(x, "relu")
    for _ in range(depth):
        x = b.activation(b.conv(x, channels, kernel=3), "relu")
    return b.build(x)


def bottlenecks(depth: int, channels: int, kernel: int, size: int) -> Graph:
    """Inverted bottlenecks as in MobileNetV3."""
    b = GraphBuilder("bottlenecks")
    x = b.conv(b.input("x", (1, 3, size, size)), channels, kernel=3, stride=2)
    for _ in range(depth):
        y = b.activation(b.conv(x, channels * 4, kernel=1), "hswish")
        y = b.activation(b.conv(y, channels * 4, kernel=kernel, groups=channels * 4), "hswish")
        x = b.add(x, b.conv(y, channels, kernel=1))
    return b.build(x)


def depthwise(depth: int, channels: int, kernel: int, size: int) -> Graph:
    """Depthwise convolutions alone."""
    b = GraphBuilder("depthwise")
    x = b.conv(b.input("x", (1, 3, size, size)), channels, kernel=3, stride=2)
    for _ in range(depth):
        x = b.activation(b.conv(x, channels, kernel=kernel, groups=channels), "relu")
    return b.build(x)


def dense(depth: int, width: int) -> Graph:
    """Square linear layers at batch 1: 4 width^2 bytes of weights each, read once."""
    b = GraphBuilder("dense")
    x = b.input("x", (1, width))
    for _ in range(depth):
        x = b.activation(b.linear(x, width), "relu")
    return b.build(x)


def elementwise(depth: int, size: int) -> Graph:
    """Products and sums over ``size`` floats."""
    b = GraphBuilder("elementwise")
    x = y = b.input("x", (1, size))
    for step in range(depth):
        y = b.add(y, x) if step % 2 else b.mul(y, x)
    return b.build(y)


def transformer(depth: int, tokens: int, width: int, heads: int) -> Graph:
    """Encoder blocks of attention and two linear layers: post-norm, relu."""
    b = GraphBuilder("transformer")
    x = b.input("x", (1, tokens, width))
    for _ in range(depth):
        x = b.layer_norm(b.add(x, b.attention(x, heads)))
        hidden = b.activation(b.linear(x, 4 * width), "relu")
        x = b.layer_norm(b.add(x, b.linear(hidden, width)))
    return b.build(x)


def check_models(*, quick: bool) -> list[tuple[str, Model]]:
    """(class, model) pairs: every class, small and large."""
    graphs = {
        "conv small": ("conv", conv(4, 32, 32)),
        "conv medium": ("conv", conv(6, 48, 48)),
        "conv 224 px": ("conv", conv(3, 24, 224)),
        "bottleneck small": ("conv", bottlenecks(2, 16, 3, 32)),
        "bottleneck large": ("conv", bottlenecks(4, 24, 5, 96)),
        "depthwise small": ("depthwise", depthwise(8, 64, 3, 32)),
        "depthwise large": ("depthwise", depthwise(6, 96, 5, 112)),
        "dense 4 MB": ("dense", dense(4, 512)),
        "dense 16 MB": ("dense", dense(4, 1024)),
        "element-wise 1/4 MB": ("memory", elementwise(6, 1 << 16)),
        "element-wise 8 MB": ("memory", elementwise(4, 1 << 21)),
        "transformer-small": ("attention", transformer(2, 64, 128, 4)),
        "transformer": ("attention", transformer(2, 128, 256, 4)),
    }
    models: list[tuple[str, Model]] = [
        (kind, GraphModel(graph, name)) for name, (kind, graph) in graphs.items()
    ]
    return models[::2] if quick else models
