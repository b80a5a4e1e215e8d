"""What each kind of op becomes in TFLite: one entry a kind.

The forms are those of Google's converter, so that a latency is that of shipped models:
activations fused into the operators before them, batch norms and the shift of an h-sigmoid
folded into weights and biases, means for global pools.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from hwbench.lower.tflite_convs import batch_norm, conv, linear
from hwbench.lower.tflite_layout import Layout, frame, plain
from hwbench.lower.tflite_lowering import Constant, Lowering, Value
from hwbench.lower.tflite_net import (
    ACTIVATION,
    FUSABLE,
    RELU,
    RELU6,
    RELU_N1_TO_1,
)
from hwbench.lower.tflite_pools import avg_pool, global_pool, max_pool, reduced
from hwbench.ops import HSIGMOID, Op, fail

Lower = Callable[[Lowering, Op], Value | Constant]

_MOST_PADDED_AXES = 5  # of TFLite's PAD
_MOST_BROADCAST_AXES = 6  # of TFLite's arithmetic; SUB and DIV take 5
_BROADCAST_AXES = {"SUB": 5, "DIV": 5}


# -- element by element -----------------------------------------------------------------------


def _unary(kind: str, table: str = "", **same: str) -> Lower:
    """One operator; ``same`` are its options that the op's attributes give."""

    def lower(lo: Lowering, op: Op) -> Value:
        options = {field: op[ours] for field, ours in same.items()}
        return lo.like(lo.read_value(op.inputs[0]), kind, (), table, options)

    return lower


def _fusable(kind: str, activation: int) -> Lower:
    """An activation that the operator before it applies, if it can."""

    def lower(lo: Lowering, op: Op) -> Value:
        x = lo.read_value(op.inputs[0])
        return x if lo.fuse(x, activation) else lo.like(x, kind)

    return lower


def _clip(lo: Lowering, op: Op) -> Value:
    low, high = op["min"], op["max"]
    known = {
        (0.0, math.inf): ("RELU", RELU),
        (0.0, 6.0): ("RELU6", RELU6),
        (-1.0, 1.0): ("RELU_N1_TO_1", RELU_N1_TO_1),
    }
    if (low, high) in known:
        return _fusable(*known[low, high])(lo, op)  # type: ignore[return-value]
    x = lo.read_value(op.inputs[0])
    if low > -math.inf:
        x = lo.like(x, "MAXIMUM", [lo.scalar(low)], "MaximumMinimumOptions", step="low")
    if high < math.inf:
        x = lo.like(x, "MINIMUM", [lo.scalar(high)], "MaximumMinimumOptions")
    return x


def _hsigmoid(lo: Lowering, op: Op) -> Value:
    """``relu6(6 alpha x + 6 beta) / 6``: the shift goes into the bias before it, if it can."""
    x = lo.read_value(op.inputs[0])
    if dict(op.attrs) != HSIGMOID:
        slope = lo.scalar(6 * op["alpha"])
        x = lo.like(x, "MUL", [slope], "MulOptions", FUSABLE, "slope")
    shift = np.float32(6 * op["beta"])
    maker = lo.maker(x)
    if (
        maker is not None
        and maker.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
        and lo.fuse(x, RELU6)
    ):
        bias = lo.net.tensors[maker.inputs[2]]
        assert bias.data is not None
        bias.data = bias.data + shift
    else:
        operand = lo.scalar(float(shift))
        x = lo.like(x, "ADD", [operand], "AddOptions", {ACTIVATION: RELU6}, "shift")
    return lo.like(x, "MUL", [lo.scalar(1 / 6)], "MulOptions", FUSABLE)


def _silu(lo: Lowering, op: Op) -> Value:
    x = lo.read_value(op.inputs[0])
    gate = lo.like(x, "LOGISTIC", step="sigmoid")
    return lo.like(x, "MUL", [gate.tensor], "MulOptions", FUSABLE)


def _elu(lo: Lowering, op: Op) -> Value:
    """TFLite's ELU has slope 1; a leaky relu scales what it made negative."""
    x = lo.like(lo.read_value(op.inputs[0]), "ELU", step="elu")
    if op["alpha"] == 1:
        return x
    return lo.like(x, "LEAKY_RELU", (), "LeakyReluOptions", {"Alpha": op["alpha"]})


def _binary(kind: str, table: str) -> Lower:
    """Arithmetic of two tensors; the larger one says in which order the axes lie."""

    def lower(lo: Lowering, op: Op) -> Value:
        return arithmetic(lo, op, kind, table, lo.read(op.inputs[0]), lo.read(op.inputs[1]))

    return lower


def arithmetic(
    lo: Lowering,
    op: Op,
    kind: str,
    table: str,
    a: Value | Constant,
    b: Value | Constant,
    step: str = "",
) -> Value:
    """``a <kind> b`` with broadcasting, in one operator."""
    if isinstance(a, Value) and isinstance(b, Value) and a.layout == b.layout:
        other = lo.reshaped(b.tensor, lo.shape_of(a))
        return lo.like(a, kind, [other], table, FUSABLE, step)
    shape = np.broadcast_shapes(a.shape, b.shape)
    rank = len(shape)
    values = [x for x in (a, b) if isinstance(x, Value)]
    order = plain(rank)
    if values:
        largest = max(values, key=lambda x: math.prod(x.shape))
        order = lo.order_of(Value(largest.tensor, largest.layout.extended(rank))) or order
    if len(order) > (most := _BROADCAST_AXES.get(kind, _MOST_BROADCAST_AXES)):
        fail(op, f"TFLite's {kind} broadcasts over at most {most} axes, not {len(order)}")
    inputs = [lo.place(_extended(x, rank), order) for x in (a, b)]
    output = lo.operate(kind, inputs, frame(shape, order), table, FUSABLE, step)
    return Value(output, Layout.of(shape, order))


def _extended(x: Value | Constant, rank: int) -> Value | Constant:
    if isinstance(x, Value):
        return Value(x.tensor, x.layout.extended(rank))
    return Constant(x.array.reshape((1,) * (rank - x.array.ndim) + x.array.shape))


def _batch_norm(lo: Lowering, op: Op) -> Value:
    """Nothing where the layer before took it in; a product and a sum elsewhere."""
    x = lo.read_value(op.inputs[0])
    if op.name in lo.folded:
        lo.take_over(x)
        return x
    scale, shift = (
        Constant(part.astype(np.float32).reshape(-1, *(1,) * (len(x.shape) - 2)))
        for part in batch_norm(lo, op)
    )
    scaled = arithmetic(lo, op, "MUL", "MulOptions", x, scale, "scaled")
    return arithmetic(lo, op, "ADD", "AddOptions", scaled, shift)


# -- along an axis ----------------------------------------------------------------------------


def _softmax(lo: Lowering, op: Op) -> Value:
    """Over TFLite's last axis, where the op's axis goes."""
    x = lo.read_value(op.inputs[0])
    order = lo.order_of(x) or plain(len(x.shape))
    order = (*(axis for axis in order if axis != op["axis"]), op["axis"])
    tensor = lo.place(x, order)
    shape = frame(x.shape, order)
    output = lo.operate("SOFTMAX", [tensor], shape, "SoftmaxOptions", {"Beta": 1.0})
    return Value(output, Layout.of(x.shape, order))


def _mean(lo: Lowering, op: Op) -> Value:
    x = lo.read_value(op.inputs[0])
    return reduced(lo, "MEAN", x, op["axes"], op["keepdims"])


def _lrn(lo: Lowering, op: Op) -> Value:
    """Over TFLite's last axis; its ``alpha`` is not divided by the window's size."""
    x = lo.read_value(op.inputs[0])
    order = (0, 2, 3, 1)
    options = {
        "Radius": op["size"] // 2,
        "Bias": op["bias"],
        "Alpha": op["alpha"] / op["size"],
        "Beta": op["beta"],
    }
    output = lo.operate(
        "LOCAL_RESPONSE_NORMALIZATION",
        [lo.place(x, order)],
        frame(x.shape, order),
        "LocalResponseNormalizationOptions",
        options,
    )
    return Value(output, Layout.of(x.shape, order))


def _concat(lo: Lowering, op: Op) -> Value:
    xs = [lo.read(name) for name in op.inputs]
    values = [x for x in xs if isinstance(x, Value)]
    rank = len(xs[0].shape)
    order = (lo.order_of(values[0]) if values else None) or plain(rank)
    inputs = [lo.place(x, order) for x in xs]
    shape = lo.graph.tensors[op.output].shape
    options = {"Axis": order.index(op["axis"])}
    output = lo.operate(
        "CONCATENATION", inputs, frame(shape, order), "ConcatenationOptions", options
    )
    return Value(output, Layout.of(shape, order))


def _pad(lo: Lowering, op: Op) -> Value:
    x = lo.read_value(op.inputs[0])
    tensor, order = lo.ordered(x)
    if len(order) > _MOST_PADDED_AXES:
        fail(op, f"TFLite pads at most {_MOST_PADDED_AXES} axes, not {len(order)}")
    pads, rank = op["pads"], len(x.shape)
    amounts = [(0, 0) if a < 0 else (pads[a], pads[a + rank]) for a in order]
    shape = lo.graph.tensors[op.output].shape
    inputs = [tensor, lo.integers(amounts)]
    kind, table = "PAD", "PadOptions"
    if op["value"]:
        kind, table = "PADV2", "PadV2Options"
        inputs.append(lo.scalar(op["value"]))
    return Value(lo.operate(kind, inputs, frame(shape, order), table), Layout.of(shape, order))


# -- views ------------------------------------------------------------------------------------


def _transpose(lo: Lowering, op: Op) -> Value | Constant:
    x = lo.read(op.inputs[0])
    if isinstance(x, Constant):
        return Constant(x.array.transpose(op["perm"]))
    return lo.view(x, x.layout.transposed(op["perm"]))


def _reshape(lo: Lowering, op: Op) -> Value | Constant:
    x, shape = lo.read(op.inputs[0]), lo.graph.tensors[op.output].shape
    if isinstance(x, Constant):
        return Constant(x.array.reshape(shape))
    if layout := x.layout.reshaped(shape):
        return lo.view(x, layout)
    order = plain(len(x.shape))
    flat = lo.place(x, order)
    return Value(lo.reshaped(flat, shape), Layout.of(shape, plain(len(shape))))


def _constant(lo: Lowering, op: Op) -> Constant:
    return Constant(lo.weight(op, "value"))


def _erf(lo: Lowering, op: Op) -> Value:
    fail(op, "TFLite has no erf; where it spells out a gelu, use the op gelu")


TFLITE_OPS: Mapping[str, Lower] = {
    "conv": conv,
    "linear": linear,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "global_avg_pool": lambda lo, op: global_pool(lo, op, "MEAN"),
    "global_max_pool": lambda lo, op: global_pool(lo, op, "REDUCE_MAX"),
    "relu": _fusable("RELU", RELU),
    "relu6": _fusable("RELU6", RELU6),
    "hswish": _unary("HARD_SWISH", "HardSwishOptions"),
    "hsigmoid": _hsigmoid,
    "sigmoid": _unary("LOGISTIC"),
    "silu": _silu,
    "gelu": _unary("GELU", "GeluOptions"),
    "tanh": _unary("TANH"),
    "leaky_relu": _unary("LEAKY_RELU", "LeakyReluOptions", Alpha="alpha"),
    "elu": _elu,
    "clip": _clip,
    "exp": _unary("EXP", "ExpOptions"),
    "erf": _erf,
    "sqrt": _unary("SQRT"),
    "add": _binary("ADD", "AddOptions"),
    "sub": _binary("SUB", "SubOptions"),
    "mul": _binary("MUL", "MulOptions"),
    "div": _binary("DIV", "DivOptions"),
    "softmax": _softmax,
    "mean": _mean,
    "batch_norm": _batch_norm,
    "lrn": _lrn,
    "concat": _concat,
    "pad": _pad,
    "transpose": _transpose,
    "flatten": _reshape,
    "reshape": _reshape,
    "constant": _constant,
}
