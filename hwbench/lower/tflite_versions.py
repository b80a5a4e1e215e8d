"""Versions of TFLite's operators: the oldest that does what an operator asks for.

A runtime refuses an operator of a version above its own, so a version that is too high shuts out
old phones, and one that is too low makes a runtime do the wrong thing. The rules are those of
TensorFlow's ``lite/tools/versioning/op_version.cc``.
"""

from __future__ import annotations

import math

from hwbench.lower.tflite_net import Net, Operator

#: Operators whose int8 form is version 2 and whose float form is version 1.
_INT8_IS_2 = {
    *("ADD", "SUB", "MAXIMUM", "MINIMUM", "CONCATENATION", "PAD", "PADV2", "TRANSPOSE"),
    *("AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "REDUCE_MAX", "SOFTMAX"),
    *("RELU", "RELU6", "LOGISTIC", "TANH", "EXP", "GELU", "RSQRT", "SUM"),
    *("BATCH_MATMUL", "GATHER", "SLICE", "STRIDED_SLICE", "RESIZE_NEAREST_NEIGHBOR"),
}


def version_of(net: Net, op: Operator) -> int:
    """The version that an operator's types, shapes and options ask for."""
    tensors = [net.tensors[i] for i in op.inputs]
    is_int8 = tensors[0].dtype == "int8"
    axes = max(len(tensor.shape) for tensor in tensors)
    broadcasts = len({tensor.shape for tensor in tensors}) > 1
    match op.kind:
        case "CONV_2D" if tensors[1].shape[3] != tensors[0].shape[3]:
            return 6  # grouped
        case "CONV_2D" | "DEPTHWISE_CONV_2D" if is_int8:
            return 3
        case "DEPTHWISE_CONV_2D":
            return 2 if max(op.options["DilationHFactor"], op.options["DilationWFactor"]) > 1 else 1
        case "FULLY_CONNECTED" if op.options["KeepNumDims"]:
            return 5
        case "FULLY_CONNECTED":
            return 4 if is_int8 else 1
        case "BROADCAST_TO":
            return 2
        case "TRANSPOSE_CONV":
            return 3  # with a bias
        case "SLICE" if axes > 4:
            return 5
        case "STRIDED_SLICE" if axes > 4:
            return 4
        case "MUL" if is_int8:
            return 3 if _gain(net, op) >= 1 else 2
        case "TRANSPOSE" if axes > 4:
            return 4 if axes == 5 else 6
        case "PAD" | "PADV2" if axes > 4:
            return 4
        case "SUB" | "MAXIMUM" | "MINIMUM" if broadcasts and axes > 4:
            return 3
        case "DIV" if broadcasts and axes > 4:
            return 2
    return 2 if is_int8 and op.kind in _INT8_IS_2 else 1


def _gain(net: Net, op: Operator) -> float:
    """Product of the factors' scales over the result's."""
    quants = [net.tensors[i].quant for i in (*op.inputs, op.output)]
    a, b, out = (float(quant.scale[0]) if quant else math.nan for quant in quants)
    return a * b / out
