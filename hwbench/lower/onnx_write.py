"""Graph -> ONNX, by writing the protobuf directly: no tracing, no converter.

A MobileNetV3-size net takes a few milliseconds, because its weights stay out of the file: they
are named there and made where the model is loaded (``hwbench.lower.weights``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto, helper

from hwbench.errors import GraphError
from hwbench.graph import Graph
from hwbench.lower.weights import RANDOM_LOCATION, check_weights
from hwbench.ops import Op, TensorSpec

OLDEST_OPSET, NEWEST_OPSET = 14, 21  # HardSwish came with 14

_AXES_AS_INPUT = 18  # from this opset on, ReduceMean and ReduceMax take their axes as an input
_LAYER_NORM = 17  # from this opset on, LayerNormalization is an operator
_GELU = 20  # the same of Gelu
_DTYPES = ("float32", "int32", "int64", "bool")

AttributeValue = int | float | str | Sequence[int]


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A serialised ONNX model; one whose weights are only named needs
    :func:`hwbench.lower.create_session` to be loaded."""

    name: str
    bytes: bytes = field(repr=False)

    def save(self, path: str | Path) -> None:
        """Write the model to a file."""
        Path(path).write_bytes(self.bytes)


def to_onnx(
    graph: Graph, weights: Mapping[str, NDArray[np.float32]] | None = None, *, opset: int = 17
) -> OnnxModel:
    """Lower a graph to an ONNX model that onnxruntime runs.

    ``weights`` holds a float32 array of the right shape for every name in ``graph.weights``;
    they go into the file. Without them the model names its weights only, see
    ``hwbench.lower.weights``. Raises :class:`GraphError` for weights that do not fit, an opset
    out of 14..21, or a graph that computes in another type than float32 (and indices).
    """
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise GraphError(f"opset {opset} is not one of {OLDEST_OPSET}..{NEWEST_OPSET}")
    writer = _Writer(graph, weights, opset)
    for op in graph.ops:
        dtype = graph.tensors[op.output].dtype
        if dtype not in _DTYPES:
            raise GraphError(f"op {op.name!r}: {dtype} is not lowered to ONNX, only float32")
        params = [writer.weight(op, name, spec) for name, spec in graph.params(op).items()]
        inputs = [writer.alias.get(name, name) for name in op.inputs]
        ONNX_OPS[op.kind](writer, op, inputs + params)
    return OnnxModel(graph.name, writer.finish())


@dataclass
class _Writer:
    """The model under construction."""

    graph: Graph
    weights: Mapping[str, NDArray[np.float32]] | None
    opset: int
    proto: onnx.ModelProto = field(default_factory=onnx.ModelProto)
    alias: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    constants: dict[tuple[str, bytes, tuple[int, ...]], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.taken.update(self.graph.tensors)
        if clash := self.taken.intersection(self.graph.weights):
            raise GraphError(f"tensor {min(clash)!r} is called like a weight: rename its op")
        self.taken.update(self.graph.weights)
        if self.weights is not None:
            check_weights(self.graph, self.weights)

    def node(
        self, op_type: str, inputs: Sequence[str], output: str, **attrs: AttributeValue
    ) -> None:
        """Append a node with one output, named after it."""
        node = self.proto.graph.node.add()
        node.op_type = op_type
        node.name = output
        node.input.extend(inputs)
        node.output.append(output)
        for name, value in attrs.items():
            _set_attribute(node, name, value)

    def fresh(self, base: str) -> str:
        """A tensor name that is not taken yet."""
        name, count = base, 1
        while name in self.taken:
            count += 1
            name = f"{base}_{count}"
        self.taken.add(name)
        return name

    def constant(self, value: float | Sequence[float] | Sequence[int]) -> str:
        """A small constant written into the model, once per value: float32, or an int64 list."""
        is_float = isinstance(value, float) or isinstance(value[0], float)
        dtype = np.float32 if is_float else np.int64
        array = np.asarray(value, dtype)
        key = (array.dtype.name, array.tobytes(), array.shape)
        if key not in self.constants:
            self.constants[key] = self.fresh(f"const{len(self.constants)}")
            tensor = self._tensor(self.constants[key], array.shape)
            tensor.data_type = TensorProto.FLOAT if is_float else TensorProto.INT64
            tensor.raw_data = array.tobytes()
        return self.constants[key]

    def weight(self, op: Op, param: str, spec: TensorSpec) -> str:
        """An op's parameter as an initialiser; returns its name in the model."""
        name = f"{op.name}.{param}"
        array = None if self.weights is None else self.weights[name]
        shape = spec.shape
        if _is_matmul(op, self.graph) and param == "weight":
            # MatMul multiplies from the left, so the file holds the transpose.
            name, shape = f"{name}_t", shape[::-1]
            array = None if array is None else array.T
        tensor = self._tensor(name, shape)
        dtype = np.dtype(spec.dtype)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(dtype)
        if array is None and spec.dtype != "float32":
            array = np.zeros(shape, dtype)
        if array is None:
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=RANDOM_LOCATION)
        else:
            tensor.raw_data = np.ascontiguousarray(array, dtype.newbyteorder("<")).tobytes()
        return name

    def _tensor(self, name: str, shape: tuple[int, ...]) -> TensorProto:
        tensor: TensorProto = self.proto.graph.initializer.add()
        tensor.name = name
        tensor.dims.extend(shape)
        return tensor

    def finish(self) -> bytes:
        proto, graph = self.proto, self.graph
        opset = helper.make_opsetid("", self.opset)
        proto.opset_import.append(opset)
        proto.ir_version = helper.find_min_ir_version_for([opset])
        proto.producer_name = "hwbench"
        proto.graph.name = graph.name
        for name, spec in graph.inputs:
            proto.graph.input.append(_value_info(name, spec))
        for name in graph.outputs:
            if name in self.alias:
                self.node("Identity", [self.alias[name]], name)
            proto.graph.output.append(_value_info(name, graph.tensors[name]))
        serialised: bytes = proto.SerializeToString(deterministic=True)
        return serialised


def _set_attribute(node: NodeProto, name: str, value: AttributeValue) -> None:
    attribute = node.attribute.add()
    attribute.name = name
    if isinstance(value, int):
        attribute.type = AttributeProto.INT
        attribute.i = int(value)  # a bool is an int here too
    elif isinstance(value, float):
        attribute.type = AttributeProto.FLOAT
        attribute.f = value
    elif isinstance(value, str):
        attribute.type = AttributeProto.STRING
        attribute.s = value.encode()
    else:
        attribute.type = AttributeProto.INTS
        attribute.ints.extend(value)


def _value_info(name: str, spec: TensorSpec) -> onnx.ValueInfoProto:
    elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    return helper.make_tensor_value_info(name, elem_type, spec.shape)


# -- one entry for each kind of op ------------------------------------------------------------

Emit = Callable[[_Writer, Op, Sequence[str]], None]


def _plain(op_type: str, *same: str, **renamed: str) -> Emit:
    """A node that takes the op's attributes ``same`` as they are, others under ONNX's name."""
    names = {name: name for name in same} | renamed

    def emit(writer: _Writer, op: Op, inputs: Sequence[str]) -> None:
        attrs = {onnx_name: op[ours] for onnx_name, ours in names.items()}
        writer.node(op_type, inputs, op.output, **attrs)

    return emit


def _clip(writer: _Writer, op: Op, inputs: Sequence[str], low: float, high: float) -> None:
    bounds = ["" if math.isinf(value) else writer.constant(value) for value in (low, high)]
    while bounds and not bounds[-1]:
        bounds.pop()
    writer.node("Clip", [*inputs, *bounds], op.output)


def _silu(writer: _Writer, op: Op, inputs: Sequence[str]) -> None:
    gate = writer.fresh(f"{op.output}_sigmoid")
    writer.node("Sigmoid", inputs, gate)
    writer.node("Mul", [*inputs, gate], op.output)


def _gelu(writer: _Writer, op: Op, inputs: Sequence[str]) -> None:
    """``x * (1 + erf(x / sqrt 2)) / 2``, in the form that runtimes recognise and fuse."""
    if writer.opset >= _GELU:
        writer.node("Gelu", inputs, op.output)
        return
    (x,) = inputs
    scaled, erf, shifted, product = (
        writer.fresh(f"{op.output}_{part}") for part in ("scaled", "erf", "shifted", "product")
    )
    writer.node("Div", [x, writer.constant(math.sqrt(2))], scaled)
    writer.node("Erf", [scaled], erf)
    writer.node("Add", [erf, writer.constant(1.0)], shifted)
    writer.node("Mul", [x, shifted], product)
    writer.node("Mul", [product, writer.constant(0.5)], op.output)


def _layer_norm(writer: _Writer, op: Op, inputs: Sequence[str]) -> None:
    """One operator, or the form of old exporters, which runtimes recognise and fuse."""
    if writer.opset >= _LAYER_NORM:
        writer.node("LayerNormalization", inputs, op.output, axis=-1, epsilon=op["epsilon"])
        return
    x, scale, bias = inputs

    def step(op_type: str, inputs: Sequence[str], **attrs: AttributeValue) -> str:
        output = writer.fresh(f"{op.output}_{op_type}")
        writer.node(op_type, inputs, output, **attrs)
        return output

    def mean(tensor: str) -> str:
        return step("ReduceMean", [tensor], axes=[-1], keepdims=1)

    centred = step("Sub", [x, mean(x)])
    variance = mean(step("Pow", [centred, writer.constant(2.0)]))
    spread = step("Sqrt", [step("Add", [variance, writer.constant(op["epsilon"])])])
    scaled = step("Mul", [step("Div", [centred, spread]), scale])
    writer.node("Add", [scaled, bias], op.output)


def _with_number(op_type: str, attr: str) -> Emit:
    """A node whose second operand is a number that the op has as an attribute."""

    def emit(writer: _Writer, op: Op, inputs: Sequence[str]) -> None:
        writer.node(op_type, [*inputs, writer.constant(op[attr])], op.output)

    return emit


def _is_matmul(op: Op, graph: Graph) -> bool:
    """Gemm takes matrices only; a linear op on more axes is a MatMul."""
    return op.kind == "linear" and len(graph.tensors[op.inputs[0]].shape) != 2


def _linear(writer: _Writer, op: Op, inputs: Sequence[str]) -> None:
    if not _is_matmul(op, writer.graph):
        writer.node("Gemm", inputs, op.output, transB=1)
    elif op["bias"]:
        product = writer.fresh(f"{op.output}_product")
        writer.node("MatMul", inputs[:2], product)
        writer.node("Add", [product, inputs[2]], op.output)
    else:
        writer.node("MatMul", inputs, op.output)


def _reduction(op_type: str, axes_as_input: int) -> Emit:
    """A reduction whose axes are an input from that opset on, an attribute before."""

    def emit(writer: _Writer, op: Op, inputs: Sequence[str]) -> None:
        keepdims = int(op["keepdims"])
        if writer.opset >= axes_as_input:
            axes = writer.constant(op["axes"])
            writer.node(op_type, [*inputs, axes], op.output, keepdims=keepdims)
        else:
            writer.node(op_type, inputs, op.output, axes=op["axes"], keepdims=keepdims)

    return emit


def _embedding(writer: _Writer, op: Op, inputs: Sequence[str]) -> None:
    indices, table = inputs
    writer.node("Gather", [table, indices], op.output, axis=0)


def _cast(writer: _Writer, op: Op, inputs: Sequence[str]) -> None:
    to = helper.np_dtype_to_tensor_dtype(np.dtype(op["dtype"]))
    writer.node("Cast", inputs, op.output, to=int(to))


def _slice(writer: _Writer, op: Op, inputs: Sequence[str]) -> None:
    parts = [writer.constant(op[name]) for name in ("starts", "stops", "axes", "steps")]
    writer.node("Slice", [*inputs, *parts], op.output)


def _upsample(writer: _Writer, op: Op, inputs: Sequence[str]) -> None:
    scales = writer.constant([1.0, 1.0, *map(float, op["factors"])])
    attrs = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
    writer.node("Resize", [*inputs, "", scales], op.output, **attrs, nearest_mode="floor")


def _pad(writer: _Writer, op: Op, inputs: Sequence[str]) -> None:
    pads, value = writer.constant(op["pads"]), writer.constant(op["value"])
    writer.node("Pad", [*inputs, pads, value], op.output)


def _to_shape(op_type: str) -> Emit:
    def emit(writer: _Writer, op: Op, inputs: Sequence[str]) -> None:
        writer.node(op_type, [*inputs, writer.constant(op["shape"])], op.output)

    return emit


def _constant(writer: _Writer, op: Op, inputs: Sequence[str]) -> None:
    (writer.alias[op.output],) = inputs  # readers take the initialiser itself


_POOL = {"kernel_shape": "kernel", "strides": "stride", "pads": "padding"}

ONNX_OPS: Mapping[str, Emit] = {
    "conv": _plain("Conv", **_POOL, dilations="dilation", group="groups"),
    "conv_transpose": _plain("ConvTranspose", **_POOL),
    "linear": _linear,
    "matmul": _plain("MatMul"),
    "embedding": _embedding,
    "max_pool": _plain("MaxPool", **_POOL),
    "avg_pool": _plain("AveragePool", "count_include_pad", **_POOL),
    "global_avg_pool": _plain("GlobalAveragePool"),
    "global_max_pool": _plain("GlobalMaxPool"),
    "upsample": _upsample,
    "relu": _plain("Relu"),
    "relu6": lambda writer, op, inputs: _clip(writer, op, inputs, 0.0, 6.0),
    "hswish": _plain("HardSwish"),
    "hsigmoid": _plain("HardSigmoid", "alpha", "beta"),
    "sigmoid": _plain("Sigmoid"),
    "silu": _silu,
    "gelu": _gelu,
    "tanh": _plain("Tanh"),
    "leaky_relu": _plain("LeakyRelu", "alpha"),
    "elu": _plain("Elu", "alpha"),
    "clip": lambda writer, op, inputs: _clip(writer, op, inputs, op["min"], op["max"]),
    "exp": _plain("Exp"),
    "erf": _plain("Erf"),
    "sqrt": _plain("Sqrt"),
    "neg": _plain("Neg"),
    "reciprocal": _plain("Reciprocal"),
    "pow": _with_number("Pow", "exponent"),
    "scale": _with_number("Mul", "factor"),
    "cast": _cast,
    "add": _plain("Add"),
    "sub": _plain("Sub"),
    "mul": _plain("Mul"),
    "div": _plain("Div"),
    "maximum": _plain("Max"),
    "minimum": _plain("Min"),
    "equal": _plain("Equal"),
    "where": _plain("Where"),
    "softmax": _plain("Softmax", "axis"),
    "mean": _reduction("ReduceMean", _AXES_AS_INPUT),
    "sum": _reduction("ReduceSum", OLDEST_OPSET),
    "max": _reduction("ReduceMax", _AXES_AS_INPUT),
    "batch_norm": _plain("BatchNormalization", "epsilon"),
    "layer_norm": _layer_norm,
    "lrn": _plain("LRN", "size", "alpha", "beta", "bias"),
    "concat": _plain("Concat", "axis"),
    "slice": _slice,
    "pad": _pad,
    "transpose": _plain("Transpose", "perm"),
    "flatten": _plain("Flatten", "axis"),
    "reshape": _to_shape("Reshape"),
    "expand": _to_shape("Expand"),
    "constant": _constant,
}
