"""Matrix products and lookups in a learned table.

Functions come by the roles of :class:`~hwbench.ops.types.OpKind`: ``<kind>_infer`` gives the
output's shape or refuses the inputs, ``<kind>_params`` the learned tensors, ``<kind>_macs``
the cost.
"""

from __future__ import annotations

from collections.abc import Mapping

from hwbench.ops.types import Op, Specs, TensorSpec, broadcast_shape, fail, weight_and_bias


def linear_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,) = specs
    if len(x.shape) < 2:
        fail(op, f"needs an input (..., features), got shape {x.shape}")
    return TensorSpec((*x.shape[:-1], op["out_features"]), x.dtype)


def linear_params(op: Op, specs: Specs) -> Mapping[str, TensorSpec]:
    (x,) = specs
    return weight_and_bias(op, (op["out_features"], x.shape[-1]), x.dtype)


def linear_macs(op: Op, specs: Specs, out: TensorSpec) -> int:
    (x,) = specs
    return out.elements * x.shape[-1]


def matmul_infer(op: Op, specs: Specs) -> TensorSpec:
    """``(..., m, k) @ (..., k, n)``; the axes before the last two broadcast."""
    a, b = specs
    if a.dtype != b.dtype:
        fail(op, f"dtypes {a.dtype} and {b.dtype} differ")
    if min(len(a.shape), len(b.shape)) < 2 or a.shape[-1] != b.shape[-2]:
        fail(op, f"shapes {a.shape} and {b.shape} are no (..., m, k) and (..., k, n)")
    batch = broadcast_shape(a.shape[:-2], b.shape[:-2])
    if batch is None:
        fail(op, f"shapes {a.shape} and {b.shape} do not broadcast before the last two axes")
    return TensorSpec((*batch, a.shape[-2], b.shape[-1]), a.dtype)


def matmul_macs(op: Op, specs: Specs, out: TensorSpec) -> int:
    return out.elements * specs[0].shape[-1]


def embedding_infer(op: Op, specs: Specs) -> TensorSpec:
    """Row i of a learned table for each index i: shape (..., features)."""
    (indices,) = specs
    if indices.dtype not in ("int32", "int64"):
        fail(op, f"needs indices in int32 or int64, got {indices.dtype}")
    if op["rows"] < 1:
        fail(op, f"a table of {op['rows']} rows has nothing to look up")
    return TensorSpec((*indices.shape, op["features"]))


def embedding_params(op: Op, specs: Specs) -> Mapping[str, TensorSpec]:
    return {"table": TensorSpec((op["rows"], op["features"]))}


def embedding_param_bytes(op: Op, specs: Specs) -> int:
    """The rows that are looked up, not the whole table."""
    (indices,) = specs
    return embedding_infer(op, [indices]).bytes
