"""Models of all classes for checking the instrument itself: what is true of one may not be of
another, so every figure of a check is given by class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hwbench.devices.models import GraphModel, Model, read_onnx_file
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


def write_transformer(path: Path, depth: int, tokens: int, width: int, heads: int) -> None:
    """Write an ONNX file of transformer encoder blocks."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    nodes: list[Any] = []
    weights: list[Any] = []

    def constant(array: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(array, f"c{len(weights)}"))
        return str(weights[-1].name)

    def node(kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"t{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def linear(x: str, rows: int, columns: int) -> str:
        matrix = rng.standard_normal((rows, columns)) / np.sqrt(rows)
        return node("MatMul", x, constant(matrix.astype(np.float32)))

    def norm(x: str) -> str:
        ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
        return node("LayerNormalization", x, constant(ones), constant(zeros))

    split = constant(np.array([1, tokens, heads, width // heads]))
    merge = constant(np.array([1, tokens, width]))
    scale = constant(np.array((width // heads) ** -0.5, np.float32))
    x = "x"
    for _ in range(depth):
        q, k, v = (
            node("Transpose", node("Reshape", linear(x, width, width), split), perm=order)
            for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        mixed = node("Softmax", node("Mul", node("MatMul", q, k), scale), axis=-1)
        heads_out = node("Transpose", node("MatMul", mixed, v), perm=[0, 2, 1, 3])
        x = norm(node("Add", x, linear(node("Reshape", heads_out, merge), width, width)))
        hidden = node("Relu", linear(x, width, 4 * width))
        x = norm(node("Add", x, linear(hidden, 4 * width, width)))
    shape = [1, tokens, width]
    graph = helper.make_graph(
        nodes,
        "transformer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    save(model, str(path))


def check_models(folder: Path, *, quick: bool) -> list[tuple[str, Model]]:
    """(class, model) pairs: every class, small and large. Files go to ``folder``."""
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
    }
    models: list[tuple[str, Model]] = [
        (kind, GraphModel(graph, name)) for name, (kind, graph) in graphs.items()
    ]
    transformers = {"transformer-small": (2, 64, 128, 4), "transformer": (2, 128, 256, 4)}
    for name, sizes in transformers.items():
        path = folder / f"{name}.onnx"
        write_transformer(path, *sizes)
        models.append(("attention", read_onnx_file(path)))
    return models[::2] if quick else models
