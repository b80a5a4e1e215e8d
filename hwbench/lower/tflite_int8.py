"""Post-training quantisation: a float TFLite net -> the same net in int8 throughout.

The scheme is that of TFLite's 8-bit quantisation specification (``real = (stored - zero) *
scale``): weights of convolutions symmetric with a scale for each output channel, those of matrix
products with one scale (older runtimes and most accelerators know no more), biases int32 at the
product of the scales, activations asymmetric with one scale a tensor. Inputs and outputs are
int8 too, as in models that phones ship.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hwbench.errors import GraphError
from hwbench.graph import Graph
from hwbench.lower.tflite_calibrate import Range, calibrated
from hwbench.lower.tflite_net import Array, Net, Operator, Quant, Tensor
from hwbench.ops import TensorSpec

#: Operators that no int8 model may hold, and why.
NOT_IN_INT8 = {
    "DIV": "fails on divisors that are stored as 0",
    "LOCAL_RESPONSE_NORMALIZATION": "does not exist",
    "NEG": "ignores how its input and output are stored",
    "POW": "does not exist",
    "CAST": "gives numbers without a scale",
    "EQUAL": "gives numbers without a scale",
}
#: Operators whose output lies in a known range: the specification fixes how it is stored.
_FIXED = {"SOFTMAX": (1 / 256, -128), "LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}
#: Operators that move numbers: what comes in and what goes out is stored alike.
_MOVES = {
    *("AVERAGE_POOL_2D", "MAX_POOL_2D", "REDUCE_MAX", "CONCATENATION", "MAXIMUM", "MINIMUM"),
    *("PAD", "PADV2", "RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "GATHER"),
    *("RESIZE_NEAREST_NEIGHBOR", "SELECT_V2", "BROADCAST_TO"),
}
#: The axis of the output channels in an operator's weights; ``None`` for one scale in all.
_CHANNEL_AXIS = {
    "CONV_2D": 0,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": None,
    "TRANSPOSE_CONV": 0,
}
#: Which inputs of those operators are the activations, the weights and the bias.
_ROLES = {"TRANSPOSE_CONV": (2, 1, 3)}

_DEFAULT_BATCHES = 4


@dataclass(frozen=True, slots=True)
class Int8:
    """How a model is calibrated: batches of inputs by name, in the graph's layout and dtype.

    Without ``batches`` four random ones are taken, standard normal and of indices 0 and 1: right
    for latency, where values do not matter, and for nothing else.
    """

    batches: Sequence[Mapping[str, Array]] | None = None

    def feeds(self, graph: Graph) -> list[Mapping[str, Array]]:
        """The batches, checked against the graph's inputs."""
        if self.batches is None:
            rng = np.random.default_rng(0)
            return [
                {name: _random(rng, spec) for name, spec in graph.inputs}
                for _ in range(_DEFAULT_BATCHES)
            ]
        if not self.batches:
            raise GraphError("no batches to calibrate int8 with: give one, or None for random ones")
        for batch in self.batches:
            for name, spec in graph.inputs:
                got = batch.get(name)
                if got is None or got.shape != spec.shape or got.dtype.name != spec.dtype:
                    what = "nothing" if got is None else f"{got.dtype.name} {got.shape}"
                    wanted = f"{spec.dtype} {spec.shape}"
                    raise GraphError(f"calibration of input {name!r} needs {wanted}, got {what}")
        return list(self.batches)


def _random(rng: np.random.Generator, spec: TensorSpec) -> Array:
    if spec.dtype == "float32":
        return rng.standard_normal(spec.shape, np.float32)
    return rng.integers(0, 2, spec.shape).astype(spec.dtype)


def quantised(net: Net, feeds: Sequence[Sequence[Array]]) -> Net:
    """The int8 net of a float net, calibrated on ``feeds``, arrays in the order of its inputs.

    Raises :class:`GraphError` for operators that TFLite cannot be trusted with in int8.
    """
    for op in net.operators:
        if why := NOT_IN_INT8.get(op.kind):
            name = net.tensors[op.output].name
            raise GraphError(
                f"op {name!r}: TFLite's int8 {op.kind} {why}: lower the graph without int8"
            )
    quants = _Quants(net, calibrated(net, feeds))
    made = Net(net.name, [replace(t) for t in net.tensors], [], list(net.inputs), list(net.outputs))
    for op in net.operators:
        inputs = [quants.requantised(made, op, tensor) for tensor in op.inputs]
        made.operators.append(replace(op, inputs=inputs))
    for number, tensor in enumerate(net.tensors):
        if tensor.data is None and tensor.dtype == "float32":
            made.tensors[number] = replace(tensor, dtype="int8", quant=quants.of(number))
    for op in made.operators:
        _quantise_constants(made, op, quants)
    return made


class _Quants:
    """How each activation is stored: tensors that must be stored alike form groups."""

    def __init__(self, net: Net, ranges: Mapping[int, Range]) -> None:
        self._ranges = dict(ranges)
        self._group = {tensor: tensor for tensor in ranges}
        self._fixed: dict[int, Quant] = {}
        self._separate: set[tuple[int, int]] = set()  # output of an operator, its input
        for op in net.operators:
            if op.kind in _FIXED:
                scale, zero_point = _FIXED[op.kind]
                self._fixed[op.output] = Quant(np.array([scale], np.float32), zero_point)
            if op.kind == "GATHER" and (table := net.tensors[op.inputs[0]].data) is not None:
                # Rows that no batch looks up must fit as well.
                self._widen(op.output, (float(table.min()), float(table.max())))
            if op.kind in _MOVES:
                self._tie(op, [i for i in op.inputs if i in ranges])

    def _tie(self, op: Operator, inputs: Sequence[int]) -> None:
        for tensor in inputs:
            root = self._root(tensor)
            if root in self._fixed and len(op.inputs) > 1 and op.kind == "CONCATENATION":
                # It keeps its own scale, and is brought to the others' before the operator.
                self._separate.add((op.output, tensor))
                self._widen(op.output, self._ranges[root])
            else:
                out = self._root(op.output)
                if out != root:
                    self._group[out] = root
                    self._widen(root, self._ranges[out])

    def _widen(self, tensor: int, other: Range) -> None:
        root = self._root(tensor)
        low, high = self._ranges[root]
        self._ranges[root] = min(low, other[0]), max(high, other[1])

    def _root(self, tensor: int) -> int:
        while self._group[tensor] != tensor:
            tensor = self._group[tensor]
        return tensor

    def of(self, tensor: int) -> Quant:
        """How an activation is stored."""
        root = self._root(tensor)
        return self._fixed.get(root) or asymmetric(*self._ranges[root])

    def requantised(self, made: Net, op: Operator, tensor: int) -> int:
        """The tensor that an operator reads: another one where it must be stored otherwise."""
        if (op.output, tensor) not in self._separate:
            return tensor
        source = made.tensors[tensor]
        name = f"{source.name}/requantised{len(made.tensors)}"
        quant = self.of(op.output)
        output = made.add_tensor(Tensor(name, source.shape, "int8", None, quant))
        made.operators.append(Operator("QUANTIZE", [tensor], output, "QuantizeOptions", {}))
        return output


def asymmetric(low: float, high: float) -> Quant:
    """Of a range, widened to hold 0, which must be stored exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255) or np.float32(1)
    zero_point = int(np.clip(np.round(-128 - low / scale), -128, 127))
    return Quant(np.array([scale]), zero_point)


def symmetric(weight: Array, axis: int | None, least: Array | float) -> Quant:
    """Of weights, to -127..127; a scale for each index of ``axis``, none below ``least``."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others) if axis is not None else np.abs(weight).max()
    scale = np.maximum(np.atleast_1d(largest) / 127, least).astype(np.float32)
    scale[scale == 0] = 1
    return Quant(scale, 0, 0 if axis is None else axis)


def _quantise_constants(net: Net, op: Operator, quants: _Quants) -> None:
    """Store an operator's constants as its activations ask for."""
    if op.kind in _CHANNEL_AXIS:
        x, weight, bias = (net.tensors[op.inputs[i]] for i in _ROLES.get(op.kind, (0, 1, 2)))
        assert x.quant is not None
        _quantise_weights(x.quant, weight, bias, _CHANNEL_AXIS[op.kind])
        return
    for number in op.inputs:
        tensor = net.tensors[number]
        if tensor.data is None or tensor.dtype != "float32":
            continue
        quant = asymmetric(float(tensor.data.min()), float(tensor.data.max()))
        if op.kind in _MOVES:
            quant = net.tensors[op.output].quant or quant
        net.tensors[number] = replace(
            tensor, dtype="int8", data=stored(tensor.data, quant), quant=quant
        )


def _quantise_weights(x: Quant, weight: Tensor, bias: Tensor, axis: int | None) -> None:
    assert weight.data is not None
    assert bias.data is not None
    # A bias that dwarfs its weights would overflow: then the weights' scale has to give.
    least = np.abs(bias.data.astype(np.float64)) / (float(x.scale[0]) * 2**30)
    quant = symmetric(weight.data, axis, least if axis is not None else least.max())
    product = x.scale.astype(np.float64) * quant.scale
    weight.data, weight.dtype, weight.quant = stored(weight.data, quant), "int8", quant
    bias.data = np.round(bias.data / product).astype(np.int32)
    bias.dtype, bias.quant = "int32", Quant(product.astype(np.float32))


def stored(array: Array, quant: Quant) -> Array:
    """Real numbers as int8; those out of range go to its ends."""
    scale = quant.scale
    if len(scale) > 1:
        scale = scale.reshape([-1 if i == quant.axis else 1 for i in range(array.ndim)])
    return np.clip(np.round(array / scale) + quant.zero_point, -128, 127).astype(np.int8)
