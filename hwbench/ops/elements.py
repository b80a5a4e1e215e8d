"""Element-wise arithmetic and norms.

Functions come by the roles of :class:`~hwbench.ops.types.OpKind`: ``<kind>_infer`` gives the
output's shape or refuses the inputs, ``<kind>_params`` the learned tensors, ``<kind>_macs``
the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hwbench.ops.types import Op, Specs, TensorSpec, broadcast_shape, fail


def same(op: Op, specs: Specs) -> TensorSpec:
    return specs[0]


def broadcast_infer(op: Op, specs: Specs) -> TensorSpec:
    a, b = specs
    if a.dtype != b.dtype:
        fail(op, f"dtypes {a.dtype} and {b.dtype} differ")
    shape = broadcast_shape(a.shape, b.shape)
    if shape is None:
        fail(op, f"shapes {a.shape} and {b.shape} do not broadcast")
    return TensorSpec(shape, a.dtype)


def equal_infer(op: Op, specs: Specs) -> TensorSpec:
    return TensorSpec(broadcast_infer(op, specs).shape, "bool")


def where_infer(op: Op, specs: Specs) -> TensorSpec:
    """``a`` where the condition holds, ``b`` elsewhere."""
    condition, a, b = specs
    if condition.dtype != "bool":
        fail(op, f"needs a condition in bool, got {condition.dtype}")
    chosen = broadcast_infer(op, (a, b))
    shape = broadcast_shape(condition.shape, chosen.shape)
    if shape is None:
        fail(op, f"shapes {condition.shape} and {chosen.shape} do not broadcast")
    return TensorSpec(shape, a.dtype)


def cast_infer(op: Op, specs: Specs) -> TensorSpec:
    return TensorSpec(specs[0].shape, op["dtype"])


def per_channel(*names: str) -> Callable[[Op, Specs], Mapping[str, TensorSpec]]:
    def params(op: Op, specs: Specs) -> Mapping[str, TensorSpec]:
        (x,) = specs
        return {name: TensorSpec(x.shape[1:2], x.dtype) for name in names}

    return params


def channels_infer(op: Op, specs: Specs) -> TensorSpec:
    if len(specs[0].shape) < 2:
        fail(op, f"needs an input (N, C, ...), got shape {specs[0].shape}")
    return specs[0]


def lrn_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,) = specs
    if op["size"] % 2 == 0 or op["size"] < 1:
        fail(op, f"size must be odd, got {op['size']}")
    if len(x.shape) != 4:
        fail(op, f"needs an NCHW input, got shape {x.shape}")
    return x


def layer_norm_infer(op: Op, specs: Specs) -> TensorSpec:
    """Over the last axis, each of whose places has a scale and a bias."""
    if len(specs[0].shape) < 2:
        fail(op, f"needs an input (..., features), got shape {specs[0].shape}")
    return specs[0]


def layer_norm_params(op: Op, specs: Specs) -> Mapping[str, TensorSpec]:
    (x,) = specs
    return {name: TensorSpec(x.shape[-1:], x.dtype) for name in ("scale", "bias")}
