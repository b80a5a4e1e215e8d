"""Wrote the conv-net canaries in this folder, once: ``python make_canaries.py``.

Each is there twice: for LiteRT, beside models of other runtimes, and for onnxruntime, beside
models of TFLite.

The files are what counts. Their SHA-256 is part of each canary's version, so that a canary made
anew, with other bytes, starts a new series instead of moving an old one.

``conv_dw_v1``: three inverted bottlenecks at 24 px, the mix of work in a MobileNet.
``conv_std_v1``: five plain 3x3 convolutions at 20 px, the mix of work in a ResNet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hwbench.graph import GraphBuilder
from hwbench.lower import random_weights, to_onnx, to_tflite

_RELU = 1


class Net:
    """A chain of NHWC convolutions, written over the flatbuffer schema."""

    def __init__(self, size: int, channels: int) -> None:
        self.rng = np.random.default_rng(7)
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: list[int] = []
        self.input = self.output = self._tensor((1, size, size, channels))

    def _tensor(self, shape: tuple[int, ...], data: np.ndarray | None = None) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = np.array(shape, np.int32), 0, 0
        tensor.name = f"t{len(self.tensors)}".encode()
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.astype(np.float32).tobytes(), np.uint8)
            self.buffers.append(buffer)
            tensor.buffer = len(self.buffers) - 1
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _add(self, code: int, inputs: list[int], shape: tuple[int, ...], options: Any) -> None:
        operator = schema.OperatorT()
        if code not in self.codes:
            self.codes.append(code)
        operator.opcodeIndex = self.codes.index(code)
        self.output = self._tensor(shape)
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([self.output], np.int32)
        operator.builtinOptions = options
        name = type(options).__name__.removesuffix("T")
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        self.operators.append(operator)

    def conv(self, out: int, kernel: int, *, stride: int = 1, depthwise: bool = False) -> int:
        """Convolution with relu; He-scaled weights, so that no value becomes denormal."""
        x = self.output
        _, height, _, channels = (int(v) for v in self.tensors[x].shape)
        taps = kernel * kernel if depthwise else kernel * kernel * channels
        shape = (1, kernel, kernel, out) if depthwise else (out, kernel, kernel, channels)
        weight = self.rng.standard_normal(shape) * np.sqrt(2 / taps)
        options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
        options.padding, options.strideH, options.strideW = 0, stride, stride
        options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = _RELU
        if depthwise:
            options.depthMultiplier = 1
        operators = schema.BuiltinOperator
        code = operators.DEPTHWISE_CONV_2D if depthwise else operators.CONV_2D
        size = -(-height // stride)
        inputs = [x, self._tensor(shape, weight), self._tensor((out,), np.zeros(out))]
        self._add(code, inputs, (1, size, size, out), options)
        return self.output

    def add(self, a: int, b: int) -> None:
        """Element-wise sum."""
        self._add(
            schema.BuiltinOperator.ADD, [a, b], tuple(self.tensors[a].shape), schema.AddOptionsT()
        )

    def bytes(self) -> bytes:
        """The file's content."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs = np.array([self.input], np.int32)
        graph.outputs = np.array([self.output], np.int32)
        model = schema.ModelT()
        model.version, model.buffers, model.subgraphs = 3, self.buffers, [graph]
        model.operatorCodes = []
        for code in self.codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode = entry.deprecatedBuiltinCode = code
            entry.version = 1
            model.operatorCodes.append(entry)
        builder = flatbuffers.Builder(1 << 18)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def depthwise_net() -> bytes:
    """Content of ``conv_dw_v1.tflite``."""
    net = Net(48, 3)
    x = net.conv(20, 3, stride=2)
    for _ in range(3):
        net.conv(80, 1)
        net.conv(80, 5, depthwise=True)
        net.add(x, net.conv(20, 1))
        x = net.output
    return net.bytes()


def standard_net() -> bytes:
    """Content of ``conv_std_v1.tflite``."""
    net = Net(40, 3)
    net.conv(32, 3, stride=2)
    for _ in range(4):
        net.conv(32, 3)
    return net.bytes()


def onnx_depthwise_net() -> bytes:
    """Content of ``conv_dw_v1.onnx``."""
    b = GraphBuilder("conv_dw_v1")
    x = b.activation(b.conv(b.input("x", (1, 3, 48, 48)), 20, kernel=3, stride=2), "relu")
    for _ in range(3):
        y = b.activation(b.conv(x, 80, kernel=1), "relu")
        y = b.activation(b.conv(y, 80, kernel=5, groups=80), "relu")
        x = b.add(x, b.activation(b.conv(y, 20, kernel=1), "relu"))
    graph = b.build(x)
    return to_onnx(graph, random_weights(graph)).bytes


def onnx_standard_net() -> bytes:
    """Content of ``conv_std_v1.onnx``."""
    b = GraphBuilder("conv_std_v1")
    x = b.activation(b.conv(b.input("x", (1, 3, 40, 40)), 32, kernel=3, stride=2), "relu")
    for _ in range(4):
        x = b.activation(b.conv(x, 32, kernel=3), "relu")
    graph = b.build(x)
    return to_onnx(graph, random_weights(graph)).bytes


def stream_net() -> bytes:
    """Content of ``stream_v1.tflite``: reads 8 MiB and writes 8 MiB, with next to no work."""
    b = GraphBuilder("stream_v1")
    x = b.input("x", (1, 8, 512, 512))
    return to_tflite(b.build(b.add(x, x))).bytes


if __name__ == "__main__":
    here = Path(__file__).parent
    (here / "stream_v1.tflite").write_bytes(stream_net())
    (here / "conv_dw_v1.onnx").write_bytes(onnx_depthwise_net())
    (here / "conv_std_v1.onnx").write_bytes(onnx_standard_net())
    (here / "conv_dw_v1.tflite").write_bytes(depthwise_net())
    (here / "conv_std_v1.tflite").write_bytes(standard_net())
