"""Convolutions and matrix products in TFLite, with the batch norms behind them folded in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwbench.lower.tflite_layout import IMAGE, Layout, frame, plain
from hwbench.lower.tflite_lowering import Floats, Lowering, Value
from hwbench.lower.tflite_net import FUSABLE
from hwbench.lower.tflite_windows import Window, padded
from hwbench.ops import Op

Doubles = NDArray[np.float64]


def conv(lo: Lowering, op: Op) -> Value:
    """CONV_2D, or DEPTHWISE_CONV_2D where each channel is a group of its own."""
    x = lo.read_value(op.inputs[0])
    channels, groups = x.shape[1], op["groups"]
    weight, bias = _folded(lo, op)
    if weight.ndim == 3:  # over a sequence: an image of height 1
        weight = weight[:, :, None, :]
    window = Window.of(op, x.shape, lo.graph.tensors[op.output].shape)
    tensor, padding = padded(lo, x, window)
    options = {
        "Padding": padding,
        "StrideH": window.stride[0],
        "StrideW": window.stride[1],
        "DilationHFactor": window.dilation[0],
        "DilationWFactor": window.dilation[1],
        **FUSABLE,
    }
    if groups == channels > 1:
        kind, table = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"
        options["DepthMultiplier"] = op["out_channels"] // groups
        weight = weight.transpose(1, 2, 3, 0)
    else:
        kind, table = "CONV_2D", "Conv2DOptions"
        weight = weight.transpose(0, 2, 3, 1)
    shape = lo.graph.tensors[op.output].shape
    order = IMAGE[len(shape)]
    inputs = [tensor, *_stored(lo, op, weight, bias)]
    output = lo.operate(kind, inputs, frame(shape, order), table, options)
    return Value(output, Layout.of(shape, order))


def linear(lo: Lowering, op: Op) -> Value:
    """FULLY_CONNECTED; features that lie in another order get their weights in that order."""
    x = lo.read_value(op.inputs[0])
    weight, bias = _folded(lo, op)
    *outer, features = x.shape
    leading = x.layout.parts(plain(len(outer)))
    parts = x.layout.axes[-1]
    if leading == tuple(range(len(leading))):  # then the features are what lies last
        sizes = [x.layout.sizes[part] for part in parts]
        axes = sorted(range(len(parts)), key=lambda i: parts[i])
        weight = weight.reshape(-1, *sizes).transpose(0, *(axis + 1 for axis in axes))
        weight = weight.reshape(-1, features)
        tensor = x.tensor
    else:
        tensor = lo.place(x, plain(len(x.shape)))
    keeps_axes = len(outer) > 1
    if keeps_axes or lo.net.tensors[tensor].shape[-1] != features:
        tensor = lo.reshaped(tensor, x.shape)
    shape = lo.graph.tensors[op.output].shape
    inputs = [tensor, *_stored(lo, op, weight, bias)]
    options = {"KeepNumDims": keeps_axes, **FUSABLE}
    output = lo.operate("FULLY_CONNECTED", inputs, shape, "FullyConnectedOptions", options)
    return Value(output, Layout.of(shape, plain(len(shape))))


def batch_norm(lo: Lowering, op: Op) -> tuple[Doubles, Doubles]:
    """A batch norm's factor and shift of each channel."""
    scale, bias, mean, var = (
        lo.weight(op, name).astype(np.float64) for name in ("scale", "bias", "mean", "var")
    )
    factor = scale / np.sqrt(var + op["epsilon"])
    return factor, bias - mean * factor


def _folded(lo: Lowering, op: Op) -> tuple[Floats, Floats]:
    """An op's weight and bias (zeros if it has none), batch norms that follow taken in."""
    weight = lo.weight(op, "weight")
    bias = lo.weight(op, "bias") if op["bias"] else np.zeros(len(weight), np.float32)
    output = op.output
    # A matrix product on more than two axes has its features elsewhere than a norm looks.
    is_normed = op.kind == "conv" or len(lo.graph.tensors[output].shape) == 2
    while is_normed and (norm := lo.only_reader(output)) and norm.kind == "batch_norm":
        factor, shift = batch_norm(lo, norm)
        column = factor.reshape(-1, *(1,) * (weight.ndim - 1))
        weight = (weight * column).astype(np.float32)
        bias = (bias * factor + shift).astype(np.float32)
        lo.folded.add(norm.name)
        output = norm.output
    return weight, bias


def _stored(lo: Lowering, op: Op, weight: Floats, bias: Floats) -> tuple[int, int]:
    return lo.constant(weight, f"{op.name}.weight"), lo.constant(bias, f"{op.name}.bias")
