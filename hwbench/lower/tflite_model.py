"""Graph -> .tflite: the whole way, float32 or int8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hwbench.errors import GraphError
from hwbench.graph import Graph
from hwbench.lower.tflite_int8 import Int8, quantised
from hwbench.lower.tflite_layout import IMAGE, Order, frame, plain
from hwbench.lower.tflite_lowering import Floats, Lowering
from hwbench.lower.tflite_net import Array, Net, Quant
from hwbench.lower.tflite_ops import TFLITE_OPS
from hwbench.lower.tflite_write import serialise
from hwbench.lower.weights import check_weights, random_weights
from hwbench.ops import UNARY, Op


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model: how a graph's tensor lies in the file's, and is stored.

    ``order`` are the graph's axes in the file's order, -1 an axis of size 1 that the graph does
    not have: (0, 2, 3, 1) for an image, (0, -1, 2, 1) for a sequence that is an image of height 1.
    """

    name: str
    shape: tuple[int, ...]
    order: Order
    quant: Quant | None = None

    def to_file(self, array: Array) -> Array:
        """A graph's tensor as the model wants to be fed, quantised if it is an int8 model."""
        axes = [axis for axis in self.order if axis >= 0]
        moved = array.transpose(axes).reshape(frame(self.shape, self.order))
        if self.quant is None:
            return moved
        steps = np.round(moved / self.quant.scale) + self.quant.zero_point
        return steps.clip(-128, 127).astype(np.int8)

    def to_graph(self, array: Array) -> Array:
        """What the model gave, as the graph's tensor, in float32."""
        axes = [axis for axis in self.order if axis >= 0]
        if self.quant is not None:
            array = (array.astype(np.float32) - self.quant.zero_point) * self.quant.scale
        return array.reshape([self.shape[axis] for axis in axes]).transpose(np.argsort(axes))


@dataclass(frozen=True, slots=True)
class TfliteModel:
    """A serialised .tflite model, its weights inside; ports are in the graph's order."""

    name: str
    bytes: bytes = field(repr=False)
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()

    def save(self, path: str | Path) -> None:
        """Write the model to a file."""
        Path(path).write_bytes(self.bytes)


def to_tflite(
    graph: Graph, weights: Mapping[str, Floats] | None = None, *, int8: Int8 | None = None
) -> TfliteModel:
    """Lower a graph to a .tflite model, NHWC throughout.

    ``weights`` are as for :func:`hwbench.lower.to_onnx`; without them the random ones of seed 0
    go into the file. Images come in and go out as NHWC, sequences that a convolution or a pool
    reads as (N, 1, L, C), other tensors as the graph has them; :class:`Port` tells and converts.
    With ``int8`` the model is quantised throughout, its inputs and outputs too, as phones ship
    it. Raises :class:`GraphError` for weights that do not fit, an op that TFLite does not have
    (or not in int8), a graph that computes in another type than float32, and a model of 2 GiB or
    more.
    """
    net, inputs, outputs = lowered(graph, weights, int8)
    return TfliteModel(graph.name, serialise(net), inputs, outputs)


def lowered(
    graph: Graph, weights: Mapping[str, Floats] | None = None, int8: Int8 | None = None
) -> tuple[Net, tuple[Port, ...], tuple[Port, ...]]:
    """The net of a graph before it is serialised, its inputs and its outputs."""
    net, inputs, outputs = _float_net(graph, weights)
    if int8 is None:
        return net, inputs, outputs
    feeds = [[port.to_file(batch[port.name]) for port in inputs] for batch in int8.feeds(graph)]
    net = quantised(net, feeds)
    return net, _stored_alike(inputs, net, net.inputs), _stored_alike(outputs, net, net.outputs)


def _float_net(
    graph: Graph, weights: Mapping[str, Floats] | None
) -> tuple[Net, tuple[Port, ...], tuple[Port, ...]]:
    if weights is None:
        weights = random_weights(graph)
    check_weights(graph, weights)
    lowering = Lowering(graph, weights)
    inputs = []
    for name, spec in graph.inputs:
        order = _input_order(lowering, name, len(spec.shape))
        lowering.input(name, spec, order)
        inputs.append(Port(name, spec.shape, order))
    for op in graph.ops:
        _check_dtypes(graph, op)
        lowering.op = op
        lowering.bind(op.output, TFLITE_OPS[op.kind](lowering, op))
    return lowering.net, tuple(inputs), tuple(_outputs(lowering))


_INDICES = ("int32", "int64", "bool")
_TAKE_INDICES = {"constant", "cast", "embedding", "equal", "concat", "slice", "where"}
_TAKE_INDICES |= {"expand", "flatten", "reshape", "transpose"}


def _check_dtypes(graph: Graph, op: Op) -> None:
    for spec in (*graph.specs(op), graph.tensors[op.output]):
        if spec.dtype != "float32" and not (spec.dtype in _INDICES and op.kind in _TAKE_INDICES):
            raise GraphError(f"op {op.name!r}: {spec.dtype} is not lowered to TFLite, only float32")


_READS_CHANNELS = {"conv", "conv_transpose", "upsample", "max_pool", "avg_pool", "lrn"}
_READS_CHANNELS |= {"global_avg_pool", "global_max_pool"}
_READS_ALIKE = {*UNARY, "add", "sub", "mul", "div", "maximum", "minimum", "equal", "cast", "where"}
_READS_ALIKE |= {"batch_norm", "concat", "pad", "slice"}


def _input_order(lowering: Lowering, name: str, rank: int) -> Order:
    """NHWC for an image; for a tensor of rank 3 what its first readers of any opinion want."""
    if rank == 4:
        return IMAGE[4]
    names, seen = [name], {name}
    while rank == 3 and names:
        for op in lowering.readers(names.pop(0)):
            if op.kind in _READS_CHANNELS:
                return IMAGE[3]
            if op.kind in _READS_ALIKE and op.output not in seen:
                seen.add(op.output)
                names.append(op.output)
    return plain(rank)


def _outputs(lowering: Lowering) -> list[Port]:
    """Close the net: outputs leave in the order in which they lie, if it is a plain one."""
    net, ports = lowering.net, []
    for name in lowering.graph.outputs:
        value = lowering.read_value(name)
        rank = len(value.shape)
        order = lowering.order_of(value)
        if order is None or order != IMAGE.get(rank):
            order = plain(rank)
        tensor = lowering.place(value, order)
        # An output is made by an operator of its own.
        if tensor in (*net.inputs, *net.outputs) or net.tensors[tensor].data is not None:
            tensor = lowering.copied(tensor, net.tensors[tensor].shape)
        net.tensors[tensor].name = name
        net.outputs.append(tensor)
        ports.append(Port(name, value.shape, order))
    return ports


def _stored_alike(ports: Sequence[Port], net: Net, tensors: Sequence[int]) -> tuple[Port, ...]:
    """The ports with what the net says of how their tensors are stored."""
    quants = (net.tensors[tensor].quant for tensor in tensors)
    return tuple(replace(port, quant=quant) for port, quant in zip(ports, quants, strict=True))
