"""Operations along axes, and those that only move numbers.

Functions come by the roles of :class:`~hwbench.ops.types.OpKind`: ``<kind>_infer`` gives the
output's shape or refuses the inputs, ``<kind>_params`` the learned tensors, ``<kind>_macs``
the cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hwbench.ops.types import Op, Specs, TensorSpec, broadcast_shape, fail


def constant_infer(op: Op, specs: Specs) -> TensorSpec:
    return TensorSpec(op["shape"], op["dtype"])


def constant_params(op: Op, specs: Specs) -> Mapping[str, TensorSpec]:
    return {"value": TensorSpec(op["shape"], op["dtype"])}


def concat_infer(op: Op, specs: Specs) -> TensorSpec:
    first, axis = specs[0], op["axis"]
    if not 0 <= axis < len(first.shape):
        fail(op, f"axis {axis} is not one of shape {first.shape}")
    outside = {(s.shape[:axis], s.shape[axis + 1 :], s.dtype) for s in specs}
    if len(outside) != 1 or any(len(s.shape) != len(first.shape) for s in specs):
        fail(op, f"shapes {', '.join(str(s.shape) for s in specs)} differ off axis {axis}")
    total = sum(s.shape[axis] for s in specs)
    return TensorSpec((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype)


def flatten_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,), axis = specs, op["axis"]
    if not 0 <= axis <= len(x.shape):
        fail(op, f"axis {axis} is not one of shape {x.shape}")
    return TensorSpec((math.prod(x.shape[:axis]), math.prod(x.shape[axis:])), x.dtype)


def reshape_infer(op: Op, specs: Specs) -> TensorSpec:
    out = TensorSpec(op["shape"], specs[0].dtype)
    if out.elements != specs[0].elements:
        fail(op, f"shape {specs[0].shape} does not hold as many elements as {out.shape}")
    return out


def expand_infer(op: Op, specs: Specs) -> TensorSpec:
    """Axes of size 1, and leading ones that are missing, repeat to those of ``shape``."""
    (x,), shape = specs, op["shape"]
    if broadcast_shape(x.shape, shape) != shape:
        fail(op, f"shape {x.shape} does not broadcast to {shape}")
    return TensorSpec(shape, x.dtype)


def transpose_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,), perm = specs, op["perm"]
    if sorted(perm) != list(range(len(x.shape))):
        fail(op, f"{perm} is no permutation of the axes of shape {x.shape}")
    return TensorSpec(tuple(x.shape[p] for p in perm), x.dtype)


def softmax_infer(op: Op, specs: Specs) -> TensorSpec:
    if not 0 <= op["axis"] < len(specs[0].shape):
        fail(op, f"axis {op['axis']} is not one of shape {specs[0].shape}")
    return specs[0]


def pad_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,), pads = specs, op["pads"]
    if len(pads) != 2 * len(x.shape) or min(pads) < 0:
        fail(op, f"pads {pads} must be a begin and an end, not negative, for each axis")
    sums = zip(x.shape, pads, pads[len(x.shape) :], strict=False)
    return TensorSpec(tuple(n + begin + end for n, begin, end in sums), x.dtype)


def reduce_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,), axes = specs, op["axes"]
    _check_axes(op, axes, x)
    kept = [1 if i in axes else n for i, n in enumerate(x.shape) if op["keepdims"] or i not in axes]
    return TensorSpec(tuple(kept), x.dtype)


def slice_infer(op: Op, specs: Specs) -> TensorSpec:
    """``x[start:stop:step]`` along each of ``axes``; places are counted from the start."""
    (x,), axes = specs, op["axes"]
    starts, stops, steps = op["starts"], op["stops"], op["steps"]
    if not len(axes) == len(starts) == len(stops) == len(steps):
        fail(op, f"{len(axes)} axes need as many starts, stops and steps")
    _check_axes(op, axes, x)
    shape = list(x.shape)
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        if not 0 <= start < stop <= x.shape[axis] or step < 1:
            fail(op, f"{start}:{stop}:{step} is no part of axis {axis} of shape {x.shape}")
        shape[axis] = -(-(stop - start) // step)
    return TensorSpec(tuple(shape), x.dtype)


def _check_axes(op: Op, axes: Sequence[int], x: TensorSpec) -> None:
    if not axes or sorted(set(axes)) != list(axes) or not 0 <= axes[0] <= axes[-1] < len(x.shape):
        fail(op, f"axes {axes} must be rising axes of shape {x.shape}")
