"""What each kind of op becomes in TFLite: one entry a kind.

The forms are those of Google's converter, so that a latency is that of shipped models:
activations fused into the operators before them, batch norms and the shift of an h-sigmoid
folded into weights and biases, means for global pools.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from hwbench.lower import tflite_axes as axes
from hwbench.lower.tflite_convs import batch_norm, conv, linear
from hwbench.lower.tflite_layout import Layout, frame, plain
from hwbench.lower.tflite_lowering import Constant, Lower, Lowering, Value, extended
from hwbench.lower.tflite_net import (
    ACTIVATION,
    FUSABLE,
    RELU,
    RELU6,
    RELU_N1_TO_1,
)
from hwbench.lower.tflite_pools import avg_pool, global_pool, max_pool
from hwbench.lower.tflite_transformers import embedding, layer_norm, matmul
from hwbench.lower.tflite_upsampling import conv_transpose, upsample
from hwbench.ops import HSIGMOID, Op, fail

_MOST_CHOSEN_AXES = 5  # of TFLite's SELECT_V2
_MOST_BROADCAST_AXES = 6  # of TFLite's arithmetic
_BROADCAST_AXES = {"SUB": 5, "DIV": 5, "MAXIMUM": 5, "MINIMUM": 5, "EQUAL": 4}


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


def _number(kind: str, table: str, attr: str) -> Lower:
    """Arithmetic with a number that the op has as an attribute."""

    def lower(lo: Lowering, op: Op) -> Value:
        x = lo.read_value(op.inputs[0])
        return lo.like(x, kind, [lo.scalar(op[attr])], table, _options(table))

    return lower


def _pow(lo: Lowering, op: Op) -> Value:
    """A square is a product."""
    if op["exponent"] != 2:
        return _number("POW", "PowOptions", "exponent")(lo, op)  # type: ignore[return-value]
    x = lo.read_value(op.inputs[0])
    return lo.like(x, "MUL", [x.tensor], "MulOptions", FUSABLE)


def _reciprocal(lo: Lowering, op: Op) -> Value:
    x = lo.read_value(op.inputs[0])
    inputs = [lo.scalar(1.0), x.tensor]
    return Value(lo.operate("DIV", inputs, lo.shape_of(x), "DivOptions", FUSABLE), x.layout)


def _cast(lo: Lowering, op: Op) -> Value:
    y = lo.like(lo.read_value(op.inputs[0]), "CAST")
    lo.net.tensors[y.tensor].dtype = op["dtype"]
    return y


def _equal(lo: Lowering, op: Op) -> Value:
    a, b = map(lo.read, op.inputs)
    y = arithmetic(lo, op, "EQUAL", "EqualOptions", a, b)
    lo.net.tensors[y.tensor].dtype = "bool"
    return y


def _where(lo: Lowering, op: Op) -> Value:
    """SELECT_V2, with the axes in the order of the result's largest operand."""
    xs = [lo.read(name) for name in op.inputs]
    shape = lo.graph.tensors[op.output].shape
    order = lo.common_order(xs, len(shape))
    if len(order) > _MOST_CHOSEN_AXES:
        fail(op, f"TFLite's SELECT_V2 takes at most {_MOST_CHOSEN_AXES} axes, not {len(order)}")
    inputs = [lo.place(extended(x, len(shape)), order) for x in xs]
    output = lo.operate("SELECT_V2", inputs, frame(shape, order))
    lo.net.tensors[output].dtype = lo.graph.tensors[op.output].dtype
    return Value(output, Layout.of(shape, order))


def _binary(kind: str, table: str) -> Lower:
    """Arithmetic of two tensors; the larger one says in which order the axes lie."""

    def lower(lo: Lowering, op: Op) -> Value:
        return arithmetic(lo, op, kind, table, lo.read(op.inputs[0]), lo.read(op.inputs[1]))

    return lower


def _options(table: str) -> Mapping[str, int]:
    """Arithmetic can apply an activation as well, other operators of two tensors cannot."""
    return FUSABLE if table in ("AddOptions", "SubOptions", "MulOptions", "DivOptions") else {}


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
        return lo.like(a, kind, [other], table, _options(table), step)
    shape = np.broadcast_shapes(a.shape, b.shape)
    rank = len(shape)
    order = lo.common_order((a, b), rank)
    if len(order) > (most := _BROADCAST_AXES.get(kind, _MOST_BROADCAST_AXES)):
        fail(op, f"TFLite's {kind} broadcasts over at most {most} axes, not {len(order)}")
    inputs = [lo.place(extended(x, rank), order) for x in (a, b)]
    output = lo.operate(kind, inputs, frame(shape, order), table, _options(table), step)
    return Value(output, Layout.of(shape, order))


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
    "conv_transpose": conv_transpose,
    "linear": linear,
    "matmul": matmul,
    "embedding": embedding,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "global_avg_pool": lambda lo, op: global_pool(lo, op, "MEAN"),
    "global_max_pool": lambda lo, op: global_pool(lo, op, "REDUCE_MAX"),
    "upsample": upsample,
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
    "neg": _unary("NEG", "NegOptions"),
    "reciprocal": _reciprocal,
    "pow": _pow,
    "scale": _number("MUL", "MulOptions", "factor"),
    "cast": _cast,
    "add": _binary("ADD", "AddOptions"),
    "sub": _binary("SUB", "SubOptions"),
    "mul": _binary("MUL", "MulOptions"),
    "div": _binary("DIV", "DivOptions"),
    "maximum": _binary("MAXIMUM", "MaximumMinimumOptions"),
    "minimum": _binary("MINIMUM", "MaximumMinimumOptions"),
    "equal": _equal,
    "where": _where,
    "softmax": axes.softmax,
    "mean": axes.reduction("MEAN"),
    "sum": axes.reduction("SUM"),
    "max": axes.reduction("REDUCE_MAX"),
    "batch_norm": _batch_norm,
    "layer_norm": layer_norm,
    "lrn": axes.lrn,
    "concat": axes.concat,
    "slice": axes.part,
    "pad": axes.pad,
    "expand": axes.expand,
    "transpose": _transpose,
    "flatten": _reshape,
    "reshape": _reshape,
    "constant": _constant,
}
