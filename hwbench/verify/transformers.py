"""Transformer encoder blocks as files, for the checks of devices: no graph expresses them yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def write_transformer(path: Path, depth: int, tokens: int, width: int, heads: int) -> None:
    """Write a network of encoder blocks (post-norm, relu), as ONNX or .tflite by its ending."""
    make = _tflite if path.suffix == ".tflite" else _onnx
    path.write_bytes(make(depth, tokens, width, heads))


def _onnx(depth: int, tokens: int, width: int, heads: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

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
    return bytes(model.SerializeToString())


def _tflite(depth: int, tokens: int, width: int, heads: int) -> bytes:
    """As converters write it: a layer norm is nine operators, of which XNNPACK takes most."""
    from hwbench.lower.tflite_net import FUSABLE, Net, Operator, Tensor
    from hwbench.lower.tflite_write import serialise

    rng, net = np.random.default_rng(0), Net("transformer")

    def tensor(shape: tuple[int, ...], data: np.ndarray | None = None) -> int:
        dtype = "float32" if data is None else data.dtype.name
        return net.add_tensor(Tensor(f"t{len(net.tensors)}", shape, dtype, data))

    def constant(array: np.ndarray) -> int:
        return tensor(array.shape, array)

    def node(kind: str, shape: tuple[int, ...], table: str, *inputs: int, **options: Any) -> int:
        output = tensor(shape)
        net.operators.append(Operator(kind, list(inputs), output, table, options))
        return output

    def linear(x: int, rows: int, columns: int) -> int:
        matrix = rng.standard_normal((rows, columns)).T / np.sqrt(rows)
        weights = (
            constant(np.ascontiguousarray(matrix, np.float32)),
            constant(np.zeros(columns, np.float32)),
        )
        options: dict[str, Any] = {**FUSABLE, "KeepNumDims": True}
        shape = (1, tokens, columns)
        return node("FULLY_CONNECTED", shape, "FullyConnectedOptions", x, *weights, **options)

    def both(kind: str, a: int, b: int) -> int:
        shape = net.tensors[a].shape
        return node(kind, shape, f"{kind.capitalize()}Options", a, b, **FUSABLE)

    def mean(x: int) -> int:
        axis = constant(np.array([2], np.int32))
        return node("MEAN", (1, tokens, 1), "ReducerOptions", x, axis, KeepDims=True)

    def norm(x: int) -> int:
        centred = both("SUB", x, mean(x))
        variance = mean(both("MUL", centred, centred))
        raised = both("ADD", variance, constant(np.array([1e-5], np.float32)))
        scale = node("RSQRT", (1, tokens, 1), "", raised)
        scaled = both("MUL", centred, scale)
        ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
        return both("ADD", both("MUL", scaled, constant(ones)), constant(zeros))

    def reshape(x: int, shape: tuple[int, ...]) -> int:
        sizes = constant(np.array(shape, np.int32))
        return node("RESHAPE", shape, "ReshapeOptions", x, sizes)

    def transpose(x: int, order: tuple[int, ...]) -> int:
        shape = tuple(net.tensors[x].shape[axis] for axis in order)
        axes = constant(np.array(order, np.int32))
        return node("TRANSPOSE", shape, "TransposeOptions", x, axes)

    def product(a: int, b: int, *, transposed: bool = False) -> int:
        columns = net.tensors[b].shape[2 if transposed else 3]
        shape = (*net.tensors[a].shape[:3], columns)
        options = {"AdjX": False, "AdjY": transposed}
        return node("BATCH_MATMUL", shape, "BatchMatMulOptions", a, b, **options)

    split = (1, tokens, heads, width // heads)
    scale = constant(np.array([(width // heads) ** -0.5], np.float32))
    x = tensor((1, tokens, width))
    net.inputs.append(x)
    for _ in range(depth):
        q, k, v = (transpose(reshape(linear(x, width, width), split), (0, 2, 1, 3)) for _ in "qkv")
        scores = both("MUL", product(q, k, transposed=True), scale)
        mixed = node("SOFTMAX", net.tensors[scores].shape, "SoftmaxOptions", scores, Beta=1.0)
        heads_out = transpose(product(mixed, v), (0, 2, 1, 3))
        x = norm(both("ADD", x, linear(reshape(heads_out, (1, tokens, width)), width, width)))
        hidden = linear(x, width, 4 * width)
        hidden = node("RELU", net.tensors[hidden].shape, "", hidden)
        x = norm(both("ADD", x, linear(hidden, 4 * width, width)))
    net.outputs.append(x)
    return serialise(net)
