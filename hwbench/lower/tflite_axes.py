"""Operations along axes in TFLite, and those that cut, join and repeat."""

from __future__ import annotations

from hwbench.lower.tflite_layout import Layout, frame, plain
from hwbench.lower.tflite_lowering import Constant, Lower, Lowering, Value, extended
from hwbench.lower.tflite_pools import reduced
from hwbench.ops import Op, fail

_MOST_PADDED_AXES = 5  # of TFLite's PAD
_MOST_SLICED_AXES = 5  # of its SLICE


def softmax(lo: Lowering, op: Op) -> Value:
    """Over TFLite's last axis, where the op's axis goes."""
    x = lo.read_value(op.inputs[0])
    order = lo.order_of(x) or plain(len(x.shape))
    order = (*(axis for axis in order if axis != op["axis"]), op["axis"])
    tensor = lo.place(x, order)
    shape = frame(x.shape, order)
    output = lo.operate("SOFTMAX", [tensor], shape, "SoftmaxOptions", {"Beta": 1.0})
    return Value(output, Layout.of(x.shape, order))


def reduction(kind: str) -> Lower:
    def lower(lo: Lowering, op: Op) -> Value:
        return reduced(lo, kind, lo.read_value(op.inputs[0]), op["axes"], op["keepdims"])

    return lower


def lrn(lo: Lowering, op: Op) -> Value:
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


def concat(lo: Lowering, op: Op) -> Value:
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


def part(lo: Lowering, op: Op) -> Value | Constant:
    """SLICE, or STRIDED_SLICE where a step is more than 1."""
    x = lo.read(op.inputs[0])
    rows = zip(op["axes"], op["starts"], op["stops"], op["steps"], strict=True)
    cut = {axis: slice(*part) for axis, *part in rows}
    if isinstance(x, Constant):
        return Constant(x.array[tuple(cut.get(i, slice(None)) for i in range(x.array.ndim))])
    tensor, order = lo.ordered(x)
    if len(order) > _MOST_SLICED_AXES:
        fail(op, f"TFLite slices at most {_MOST_SLICED_AXES} axes, not {len(order)}")
    here = frame(x.shape, order)
    parts = [cut.get(a, slice(0, n, 1)) for a, n in zip(order, here, strict=True)]
    shape = lo.graph.tensors[op.output].shape
    size = frame(shape, order)
    inputs = [tensor, lo.integers([part.start for part in parts])]
    if max(op["steps"]) == 1:
        inputs.append(lo.integers(size))
        kind, table = "SLICE", "SliceOptions"
    else:
        inputs += [lo.integers([part.stop for part in parts])]
        inputs += [lo.integers([part.step for part in parts])]
        kind, table = "STRIDED_SLICE", "StridedSliceOptions"
    return Value(lo.operate(kind, inputs, size, table), Layout.of(shape, order))


def pad(lo: Lowering, op: Op) -> Value:
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


def expand(lo: Lowering, op: Op) -> Value:
    """BROADCAST_TO."""
    shape = op["shape"]
    x = extended(lo.read_value(op.inputs[0]), len(shape))
    order = lo.common_order([x], len(shape))
    size = frame(shape, order)
    output = lo.operate("BROADCAST_TO", [lo.place(x, order), lo.integers(size)], size)
    return Value(output, Layout.of(shape, order))
