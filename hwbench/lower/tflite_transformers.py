"""What transformers are made of, in TFLite: batched products, lookups, layer norms."""

from __future__ import annotations

from collections.abc import Sequence

from hwbench.lower.tflite_layout import Layout, frame, plain
from hwbench.lower.tflite_lowering import Lowering, Value, extended
from hwbench.lower.tflite_net import FUSABLE
from hwbench.ops import Op, fail

_MOST_PRODUCT_AXES = 5  # of TFLite's BATCH_MATMUL


def matmul(lo: Lowering, op: Op) -> Value:
    """BATCH_MATMUL; a second operand that lies transposed is read as such, and not moved."""
    shape = lo.graph.tensors[op.output].shape
    rank = len(shape)
    if rank > _MOST_PRODUCT_AXES:
        fail(op, f"TFLite multiplies at most {_MOST_PRODUCT_AXES} axes, not {rank}")
    a, b = (extended(lo.read(name), rank) for name in op.inputs)
    order = plain(rank)
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    # Where it has to be moved anyway, whole rows move faster than single numbers.
    transposed = (
        isinstance(b, Value)
        and not b.layout.lies(order)
        and len(b.layout.sizes) - 1 in b.layout.axes[rank - 2]
    )
    inputs = [lo.place(a, order), lo.place(b, swapped if transposed else order)]
    options = {"AdjX": False, "AdjY": transposed}
    output = lo.operate("BATCH_MATMUL", inputs, shape, "BatchMatMulOptions", options)
    return Value(output, Layout.of(shape, order))


def embedding(lo: Lowering, op: Op) -> Value:
    """GATHER of rows."""
    x = lo.read_value(op.inputs[0])
    table = lo.constant(lo.weight(op, "table"), f"{op.name}.table")
    shape = lo.graph.tensors[op.output].shape
    inputs = [table, lo.place(x, plain(len(x.shape)))]
    output = lo.operate("GATHER", inputs, shape, "GatherOptions", {"Axis": 0, "BatchDims": 0})
    return Value(output, Layout.of(shape, plain(len(shape))))


def layer_norm(lo: Lowering, op: Op) -> Value:
    """The nine operators that converters write; no single one exists."""
    x = lo.read_value(op.inputs[0])
    tensor, order = lo.ordered(x)
    place = order.index(len(x.shape) - 1)
    shape = frame(x.shape, order)
    thin = (*shape[:place], 1, *shape[place + 1 :])
    column = (-1, *(1,) * (len(shape) - 1 - place))
    axes = lo.integers([place])

    def mean(of: int, step: str) -> int:
        return lo.operate("MEAN", [of, axes], thin, "ReducerOptions", {"KeepDims": True}, step)

    def both(kind: str, inputs: Sequence[int], step: str, like: Sequence[int] = shape) -> int:
        return lo.operate(kind, inputs, like, f"{kind.capitalize()}Options", FUSABLE, step)

    def weight(name: str) -> int:
        return lo.constant(lo.weight(op, name).reshape(column), f"{op.name}.{name}")

    centred = both("SUB", [tensor, mean(tensor, "mean")], "centred")
    variance = mean(both("MUL", [centred, centred], "squared"), "variance")
    raised = both("ADD", [variance, lo.scalar(op["epsilon"])], "raised", thin)
    factor = lo.operate("RSQRT", [raised], thin, step="factor")
    scaled = both("MUL", [both("MUL", [centred, factor], "normed"), weight("scale")], "scaled")
    return Value(both("ADD", [scaled, weight("bias")], ""), Layout.of(x.shape, order))
