"""What ONNX nodes along axes, and those that only move numbers, mean as ops of a graph."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from hwbench.lower.onnx_fold import Node, axes_of, cuts_of, fold
from hwbench.lower.onnx_importer import Importer, Reader, UnsupportedNodeError
from hwbench.ops import AttrValue


def axis_of(importer: Importer, node: Node, axis: int) -> int:
    rank = len(importer.shape(node.inputs[0]))
    return axis + rank if axis < 0 else axis


def softmax(importer: Importer, node: Node) -> None:
    """Before opset 13 a softmax ran over all axes from ``axis`` on, as over one."""
    (x,) = node.inputs
    old = importer.opset < 13
    axis, shape = axis_of(importer, node, node.attr("axis", 1 if old else -1)), importer.shape(x)
    if not old or math.prod(shape[axis + 1 :]) == 1:
        importer.emit(node, "softmax", [x], {"axis": axis})
        return
    flat = (*shape[:axis], math.prod(shape[axis:]))
    builder = importer.builder
    y = builder.op("reshape", [importer.tensor(x)], {"shape": flat}, name=f"{node.output}/flat")
    y = builder.op("softmax", [y], {"axis": axis}, name=f"{node.output}/softmax")
    importer.names[node.output] = builder.op("reshape", [y], {"shape": shape}, name=node.output)


def reduction(kind: str) -> Reader:
    """A reduction, over all axes unless some are given."""

    def read(importer: Importer, node: Node) -> None:
        axes = axes_of(node, [None, importer.optional(node, 1, "axes")])
        if not axes:
            if node.attr("noop_with_empty_axes", 0):
                importer.alias(node)
                return
            axes = tuple(range(len(importer.shape(node.inputs[0]))))
        attrs: dict[str, AttrValue] = {
            "axes": tuple(sorted(axis_of(importer, node, axis) for axis in axes)),
            "keepdims": bool(node.attr("keepdims", 1)),
        }
        importer.emit(node, kind, node.inputs[:1], attrs)

    return read


def concat(importer: Importer, node: Node) -> None:
    importer.emit(
        node, "concat", node.inputs, {"axis": axis_of(importer, node, node.attr("axis", 1))}
    )


def flatten(importer: Importer, node: Node) -> None:
    importer.emit(
        node, "flatten", node.inputs, {"axis": axis_of(importer, node, node.attr("axis", 1))}
    )


def view(importer: Importer, node: Node) -> None:
    """Reshape, Squeeze, Unsqueeze: whatever shape the node gives to an array of that size."""
    if len(node.inputs) > 1:
        importer.constant(node, 1, "shape")
    # A stand-in of one element, repeated, takes no memory.
    stand_in = np.broadcast_to(np.zeros((), np.float32), importer.shape(node.inputs[0]))
    result = fold(node, [stand_in, *(importer.constants[name] for name in node.inputs[1:])])
    importer.emit(node, "reshape", node.inputs[:1], {"shape": result.shape})


def transpose(importer: Importer, node: Node) -> None:
    rank = len(importer.shape(node.inputs[0]))
    perm = tuple(node.attr("perm", range(rank)[::-1]))
    importer.emit(node, "transpose", node.inputs, {"perm": perm})


def pad(importer: Importer, node: Node) -> None:
    mode = node.attr("mode", "constant")
    if mode != "constant":
        raise UnsupportedNodeError(f"Pad with mode {mode}")
    given, value, axes = (importer.optional(node, i, "pads") for i in (1, 2, 3))
    pads = node.attr("pads", ()) if given is None else given.reshape(-1).tolist()
    fill = node.attr("value", 0.0) if value is None else float(value.item())
    rank = len(importer.shape(node.inputs[0]))
    if axes is not None:
        every = [0] * 2 * rank
        for i, axis in enumerate(axes.reshape(-1).tolist()):
            every[axis % rank], every[axis % rank + rank] = pads[i], pads[i + axes.size]
        pads = every
    importer.emit(node, "pad", node.inputs[:1], {"pads": tuple(pads), "value": fill})


def cut(importer: Importer, node: Node) -> None:
    """A Slice with known bounds; one that takes everything vanishes."""
    if "starts" not in node.attrs:
        importer.constant(node, 1, "bounds")
    bounds = [importer.optional(node, i, "bounds") for i in range(1, len(node.inputs))]
    shape = importer.shape(node.inputs[0])
    parts = [p.indices(n) for p, n in zip(cuts_of(node, bounds, shape), shape, strict=True)]
    if any(step < 0 for *_, step in parts):
        raise UnsupportedNodeError("Slice with negative steps")
    _emit_slice(importer, node.inputs[0], node.output, dict(enumerate(parts)))


def _emit_slice(
    importer: Importer, x: str, output: str, parts: Mapping[int, tuple[int, int, int]]
) -> None:
    """The start, stop and step of some axes, under the name of an output of a node."""
    tensor, shape = importer.tensor(x), importer.shape(x)
    kept = {axis: part for axis, part in sorted(parts.items()) if part != (0, shape[axis], 1)}
    if kept:
        starts, stops, steps = zip(*kept.values(), strict=True)
        cuts = {"axes": tuple(kept), "starts": starts, "stops": stops, "steps": steps}
        tensor = importer.builder.op("slice", [tensor], cuts, name=output)
    importer.names[output] = tensor


def split(importer: Importer, node: Node) -> None:
    """One slice for each output."""
    x, axis = node.inputs[0], axis_of(importer, node, node.attr("axis", 0))
    size, count = importer.shape(x)[axis], len(node.outputs)
    given = importer.optional(node, 1, "sizes")
    sizes = node.attr("split", None) if given is None else tuple(given.reshape(-1).tolist())
    if sizes is None:
        largest = -(-size // count)
        sizes = [min(largest, size - i * largest) for i in range(count)]
    start = 0
    for output, length in zip(node.outputs, sizes, strict=True):
        _emit_slice(importer, x, output, {axis: (start, start + length, 1)})
        start += length


def gather(importer: Importer, node: Node) -> None:
    """Rows of a known table, or known places of an axis that follow each other."""
    data, indices = node.inputs
    axis = node.attr("axis", 0)
    if data in importer.constants and indices not in importer.constants:
        table = importer.constants[data]
        if axis != 0 or table.ndim != 2:
            raise UnsupportedNodeError("Gather from a table that has not rows and columns")
        attrs: dict[str, AttrValue] = {"rows": table.shape[0], "features": table.shape[1]}
        importer.emit(node, "embedding", [indices], attrs, {"table": table})
        return
    places = importer.constant(node, 1, "indices")
    axis = axis_of(importer, node, axis)
    shape = importer.shape(data)
    first = int(places.reshape(-1)[0]) % shape[axis]
    follows = places.ndim <= 1 and np.array_equal(
        places.reshape(-1) % shape[axis], np.arange(first, first + places.size)
    )
    if not follows:
        raise UnsupportedNodeError("Gather of places that do not follow each other")
    part = {axis: (first, first + places.size, 1)}
    if places.ndim == 1:
        _emit_slice(importer, data, node.output, part)
        return
    _emit_slice(importer, data, f"{node.output}/kept", part)
    kept = [importer.names[f"{node.output}/kept"]]
    left = (*shape[:axis], *shape[axis + 1 :])
    name = node.output
    importer.names[name] = importer.builder.op("reshape", kept, {"shape": left}, name=name)


def expand(importer: Importer, node: Node) -> None:
    """Exporters write many that repeat nothing."""
    target = importer.constant(node, 1, "shape")
    shape = importer.shape(node.inputs[0])
    wanted = np.broadcast_shapes(shape, tuple(target.reshape(-1).tolist()))
    if wanted == shape:
        importer.alias(node)
    else:
        importer.emit(node, "expand", node.inputs[:1], {"shape": wanted})


def resize(importer: Importer, node: Node) -> None:
    """Nearest neighbours, by whole factors along the spatial axes."""
    shape = importer.shape(node.inputs[0])
    old = node.op_type == "Upsample" or importer.opset < 11  # scales came second
    scales = importer.optional(node, 1 if old else 2, "scales")
    sizes = None if old else importer.optional(node, 3, "sizes")
    if sizes is not None:
        factors = [float(size) / n for size, n in zip(sizes.tolist(), shape, strict=True)]
    elif scales is not None:
        factors = scales.tolist()
    else:
        raise UnsupportedNodeError(f"{node.op_type} with scales as an attribute")
    how = (
        node.attr("coordinate_transformation_mode", "asymmetric" if old else "half_pixel"),
        node.attr("nearest_mode", "floor" if old else "round_prefer_floor"),
    )
    # With whole factors these two agree.
    same = how in (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"))
    is_whole = all(f >= 1 and f == int(f) for f in factors) and factors[:2] == [1, 1]
    if node.attr("mode", "nearest") != "nearest" or not same or not is_whole:
        raise UnsupportedNodeError(f"{node.op_type} other than nearest by whole factors")
    spatial = tuple(int(f) for f in factors[2:])
    if set(spatial) == {1}:
        importer.alias(node)
    else:
        importer.emit(node, "upsample", node.inputs[:1], {"factors": spatial})
