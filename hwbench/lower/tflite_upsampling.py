"""What makes images larger in TFLite: transposed convolutions and repeated pixels."""

from __future__ import annotations

import numpy as np

from hwbench.lower.tflite_layout import IMAGE, Layout, frame
from hwbench.lower.tflite_lowering import Lowering, Value
from hwbench.lower.tflite_windows import VALID
from hwbench.ops import Op


def conv_transpose(lo: Lowering, op: Op) -> Value:
    """TRANSPOSE_CONV without padding, and a SLICE where the op has some."""
    x = lo.read_value(op.inputs[0])
    shape = lo.graph.tensors[op.output].shape
    order, rank = IMAGE[len(shape)], len(op["kernel"])
    weight = lo.weight(op, "weight")
    bias = lo.weight(op, "bias") if op["bias"] else np.zeros(op["out_channels"], np.float32)
    if rank == 1:  # over a sequence: an image of height 1
        weight = weight[:, :, None, :]
    begins, ends = op["padding"][:rank], op["padding"][rank:]
    sizes = [n + b + e for n, b, e in zip(shape[2:], begins, ends, strict=True)]
    uncut = frame((*shape[:2], *sizes), order)
    stride = (1, *op["stride"])[-2:]
    inputs = [
        lo.integers(uncut),
        lo.constant(weight.transpose(1, 2, 3, 0), f"{op.name}.weight"),
        lo.place(x, order),
        lo.constant(bias, f"{op.name}.bias"),
    ]
    options = {"Padding": VALID, "StrideH": stride[0], "StrideW": stride[1]}
    step = "uncut" if any(op["padding"]) else ""
    output = lo.operate("TRANSPOSE_CONV", inputs, uncut, "TransposeConvOptions", options, step)
    lo.net.tensors[output].dtype = "float32"
    if step:
        size = frame(shape, order)
        start = lo.integers((0, *(0, *begins)[-2:], 0))
        output = lo.operate("SLICE", [output, start, lo.integers(size)], size, "SliceOptions")
    return Value(output, Layout.of(shape, order))


def upsample(lo: Lowering, op: Op) -> Value:
    """RESIZE_NEAREST_NEIGHBOR."""
    x = lo.read_value(op.inputs[0])
    shape = lo.graph.tensors[op.output].shape
    order = IMAGE[len(shape)]
    size = frame(shape, order)
    inputs = [lo.place(x, order), lo.integers(size[1:3])]
    options = {"AlignCorners": False, "HalfPixelCenters": False}
    table = "ResizeNearestNeighborOptions"
    output = lo.operate("RESIZE_NEAREST_NEIGHBOR", inputs, size, table, options)
    return Value(output, Layout.of(shape, order))
