"""What ONNX nodes compute when all their inputs are known: constants are folded at import.

Weights made in the graph (``ConstantOfShape`` and friends) become arrays; those that repeat one
value stay views of that value and take no memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hwbench.lower.onnx_file import shown

Array = NDArray[Any]

#: All folded tensors of a model that take memory, together: a bomb, if more. An element counts as
#: eight bytes before it is made.
MOST_BYTES = 1 << 31
_ELEMENT = 8


@dataclass(frozen=True, slots=True)
class Node:
    """One ONNX node: its attributes as Python values, trailing empty inputs dropped."""

    op_type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]

    @classmethod
    def of(cls, proto: NodeProto) -> Node:
        inputs = list(proto.input)
        while inputs and not inputs[-1]:
            inputs.pop()
        kind = (
            proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"
        )
        attrs = {a.name: _plain(helper.get_attribute_value(a)) for a in proto.attribute}
        name = proto.name or (proto.output[0] if proto.output else "")
        return cls(shown(kind), name, tuple(inputs), tuple(proto.output), attrs)

    @property
    def output(self) -> str:
        return self.outputs[0]

    def attr(self, name: str, default: Any) -> Any:
        return self.attrs.get(name, default)


def _plain(value: Any) -> Any:
    """An attribute's value with text as ``str`` and lists as tuples."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


# An input that is left out is None.
Fold = Callable[[Node, Sequence[Any]], Array]


def fold(node: Node, inputs: Sequence[Array | None], left: int = MOST_BYTES) -> Array:
    """The node's output, in at most ``left`` bytes.

    :class:`ValueError` and its kin when the inputs do not fit, or it would take more.
    """
    if _ELEMENT * _elements(node, inputs) > left:
        raise ValueError("constants of more than 2**28 elements in all")
    return FOLDS[node.op_type](node, inputs)


def _elements(node: Node, inputs: Sequence[Any]) -> int:
    """What a node makes at most that takes memory."""
    if node.op_type in _VIEWS:
        return 0
    shapes: list[tuple[int, ...]] = [array.shape for array in inputs if array is not None]
    if node.op_type == "Gather":
        axis: int = node.attr("axis", 0)
        return math.prod(shapes[1]) * math.prod(shapes[0]) // max(shapes[0][axis], 1)
    if node.op_type == "Range":
        start, limit, step = (array.item() for array in inputs)
        count: int = math.ceil((limit - start) / step)
        return max(count, 0)
    result = np.broadcast_shapes(*shapes) if node.op_type in _BROADCAST else ()
    return max(math.prod(result), sum(map(math.prod, shapes)))


def memory_of(made: Array, inputs: Sequence[Array | None]) -> int:
    """Bytes that a folded array takes beside what it is made of: none where it is a view."""
    if any(np.may_share_memory(made, array) for array in inputs if array is not None):
        return 0
    low, high = np.lib.array_utils.byte_bounds(made)
    return int(high - low)


def array_of(tensor: Any) -> Array:
    """Value of a stored tensor; :class:`ValueError` if it is damaged, or no tensor at all."""
    if not isinstance(tensor, TensorProto):
        raise ValueError("a tensor was expected")
    try:
        return numpy_helper.to_array(tensor)
    except (TypeError, KeyError) as error:
        raise ValueError(f"element type {tensor.data_type} is not known") from error


def _constant(node: Node, inputs: Sequence[Any]) -> Array:
    ((kind, value),) = node.attrs.items()
    if kind == "value":
        return array_of(value)
    dtype = {"value_float": np.float32, "value_floats": np.float32}.get(kind, np.int64)
    if kind not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise ValueError(f"a constant of type {kind}")
    return np.asarray(value, dtype)


def _constant_of_shape(node: Node, inputs: Sequence[Any]) -> Array:
    value = node.attr("value", None)
    fill = np.zeros(1, np.float32) if value is None else array_of(value)
    return np.broadcast_to(fill.reshape(()), _sizes(inputs[0]))


def _sizes(array: Array) -> tuple[int, ...]:
    return tuple(int(size) for size in array.reshape(-1))


def axes_of(node: Node, inputs: Sequence[Array | None]) -> tuple[int, ...] | None:
    """Axes of a node: an attribute in old opsets, the second input in new ones."""
    if len(inputs) > 1 and inputs[1] is not None:
        return _sizes(inputs[1])
    axes = node.attr("axes", None)
    return None if axes is None else tuple(axes)


def _unsqueeze(node: Node, inputs: Sequence[Any]) -> Array:
    axes = axes_of(node, inputs)
    if axes is None:
        raise ValueError("no axes")
    return np.expand_dims(inputs[0], axes)


def _reshape(node: Node, inputs: Sequence[Any]) -> Array:
    data: Array = inputs[0]
    sizes = list(_sizes(inputs[1]))
    if not node.attr("allowzero", 0):  # then 0 keeps the input's size; -1 is numpy's own
        kept = [*data.shape, *(0,) * len(sizes)]
        sizes = [kept[i] if size == 0 else size for i, size in enumerate(sizes)]
    return data.reshape(sizes)


def _cast(node: Node, inputs: Sequence[Any]) -> Array:
    data: Array = inputs[0]
    return data.astype(helper.tensor_dtype_to_np_dtype(node.attr("to", TensorProto.UNDEFINED)))


def cuts_of(node: Node, inputs: Sequence[Any], shape: Sequence[int]) -> tuple[slice, ...]:
    """What a Slice node takes of each axis; ``inputs`` are its second and later ones."""
    if "starts" in node.attrs:  # before opset 10
        given = [node.attrs["starts"], node.attrs["ends"], node.attr("axes", None)]
    else:
        given = [None if array is None else _sizes(array) for array in inputs]
    starts, ends, axes, steps = [*given, None, None][:4]
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    cut = [slice(None)] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # Stepping back, ONNX says "to before the first" by a large negative end.
        stop = None if step < 0 and end < -shape[axis] else end
        cut[axis] = slice(start, stop, step)
    return tuple(cut)


def _slice(node: Node, inputs: Sequence[Any]) -> Array:
    data: Array = inputs[0]
    return data[cuts_of(node, inputs[1:], data.shape)]


def _divide(node: Node, inputs: Sequence[Any]) -> Array:
    a, b = inputs
    if np.issubdtype(a.dtype, np.integer):
        if not np.all(b):
            raise ValueError("integer division by zero")
        return np.asarray(np.trunc(a / b)).astype(a.dtype)
    return np.asarray(a / b)


def _range(node: Node, inputs: Sequence[Any]) -> Array:
    start, limit, step = (array.item() for array in inputs)
    values: Array = np.arange(start, limit, step).astype(inputs[0].dtype)
    return values


def _elementwise(function: Callable[..., Any]) -> Fold:
    return lambda node, inputs: np.asarray(function(*inputs))


#: Results that are views: they take no memory however large they are.
_VIEWS = frozenset({"ConstantOfShape", "Expand", "Squeeze", "Transpose", "Unsqueeze"})
_BROADCAST = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Mod", "Equal", "Where"})

FOLDS: Mapping[str, Fold] = {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Unsqueeze": _unsqueeze,
    "Squeeze": lambda node, inputs: np.squeeze(inputs[0], axes_of(node, inputs)),
    "Reshape": _reshape,
    "Expand": lambda node, inputs: np.broadcast_to(
        inputs[0], np.broadcast_shapes(inputs[0].shape, _sizes(inputs[1]))
    ),
    "Transpose": lambda node, inputs: np.transpose(inputs[0], node.attr("perm", None)),
    "Cast": _cast,
    "Concat": lambda node, inputs: np.concatenate(inputs, node.attr("axis", 1)),
    "Gather": lambda node, inputs: np.take(inputs[0], inputs[1], node.attr("axis", 0)),
    "Slice": _slice,
    "Shape": lambda node, inputs: shape_of(node, inputs[0].shape),
    "Add": _elementwise(np.add),
    "Sub": _elementwise(np.subtract),
    "Mul": _elementwise(np.multiply),
    "Div": _divide,
    "Pow": lambda node, inputs: np.power(*inputs).astype(inputs[0].dtype),
    "Mod": lambda node, inputs: (np.fmod if node.attr("fmod", 0) else np.mod)(*inputs),
    "Sqrt": _elementwise(np.sqrt),
    "Neg": _elementwise(np.negative),
    "Equal": _elementwise(np.equal),
    "Where": _elementwise(np.where),
    "Range": _range,
}


def shape_of(node: Node, shape: Sequence[int]) -> Array:
    """Output of a Shape node for an input of this shape."""
    return np.asarray(shape[node.attr("start", 0) : node.attr("end", None)], np.int64)
