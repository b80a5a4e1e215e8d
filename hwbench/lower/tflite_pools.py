"""Pools and reductions in TFLite."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hwbench.lower.tflite_layout import IMAGE, Layout, frame
from hwbench.lower.tflite_lowering import Lowering, Value
from hwbench.lower.tflite_net import ACTIVATION, FUSABLE, RELU, RELU6
from hwbench.lower.tflite_windows import Window, padded
from hwbench.ops import Op

_LOWEST = float(np.finfo(np.float32).min)
_NOT_NEGATIVE = {"RELU", "RELU6", "LOGISTIC", "SOFTMAX", "EXP", "SQRT"}
_KEEPS_SIGN = {"MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "RESHAPE", "TRANSPOSE", "PAD"}


def max_pool(lo: Lowering, op: Op) -> Value:
    """MAX_POOL_2D; what lies outside the image never wins."""
    x = lo.read_value(op.inputs[0])
    # Zeros are as good as the lowest number behind a relu, and every runtime can pad with them.
    outside = 0.0 if _not_negative(lo, x.tensor) else _LOWEST
    return _pool(lo, op, "MAX_POOL_2D", x, outside)


def avg_pool(lo: Lowering, op: Op) -> Value:
    """AVERAGE_POOL_2D, which itself counts no place outside the image.

    Where it would have to, or where only an explicit padding puts the windows right, it runs on
    an image padded with zeros; the count is then put right by a product, if it has to be.
    """
    x = lo.read_value(op.inputs[0])
    counts_outside = op["count_include_pad"] and any(op["padding"])
    if counts_outside:
        return _pool(lo, op, "AVERAGE_POOL_2D", x, 0.0, explicit=True)
    pooled = _pool(lo, op, "AVERAGE_POOL_2D", x, 0.0)
    window = Window.of(op, x.shape, pooled.shape)
    if window.mode() is not None:
        return pooled
    full = math.prod(window.kernel)
    correction = (full / window.inside()).astype(np.float32)[None, :, :, None]
    factor = lo.constant(correction, f"{op.output}/correction")
    return lo.like(pooled, "MUL", [factor], "MulOptions", FUSABLE)


def _pool(
    lo: Lowering, op: Op, kind: str, x: Value, outside: float, *, explicit: bool = False
) -> Value:
    shape = lo.graph.tensors[op.output].shape
    window = Window.of(op, x.shape, shape)
    tensor, padding = padded(lo, x, window, outside, explicit=explicit)
    order = IMAGE[len(shape)]
    options = {
        "Padding": padding,
        "StrideH": window.stride[0],
        "StrideW": window.stride[1],
        "FilterHeight": window.kernel[0],
        "FilterWidth": window.kernel[1],
        **FUSABLE,
    }
    output = lo.operate(kind, [tensor], frame(shape, order), "Pool2DOptions", options)
    return Value(output, Layout.of(shape, order))


def _not_negative(lo: Lowering, tensor: int) -> bool:
    """Whether a tensor is known to hold no negative number."""
    maker = lo.made_by(tensor)
    if maker is None:
        return False
    if maker.kind in _NOT_NEGATIVE or maker.options.get(ACTIVATION) in (RELU, RELU6):
        return True
    return maker.kind in _KEEPS_SIGN and _not_negative(lo, maker.inputs[0])


def global_pool(lo: Lowering, op: Op, kind: str) -> Value:
    """A reduction over height and width, which stay with size 1."""
    x = lo.read_value(op.inputs[0])
    return reduced(lo, kind, x, range(2, len(x.shape)), keepdims=True)


def reduced(lo: Lowering, kind: str, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
    """MEAN or REDUCE_MAX over axes of the graph's tensor."""
    tensor, order = lo.ordered(x)
    gone = set(axes) if keepdims else {-1, *axes}
    places = [place for place, axis in enumerate(order) if axis in gone]
    if keepdims:
        shape = tuple(1 if axis in gone else n for axis, n in enumerate(x.shape))
        left = order
    else:
        kept = [axis for axis in range(len(x.shape)) if axis not in gone]
        shape = tuple(x.shape[axis] for axis in kept)
        left = tuple(kept.index(axis) for axis in order if axis not in gone)
    inputs, options = [tensor, lo.integers(places)], {"KeepDims": keepdims}
    output = lo.operate(kind, inputs, frame(shape, left), "ReducerOptions", options)
    return Value(output, Layout.of(shape, left))
