"""What each kind of operation means: its output shape, its parameters, its cost.

This package is the one place for the semantics of an operation. To add one, write the functions
that it needs beside its like and enter an :class:`OpKind` in :data:`OP_KINDS`; the lowerings
(``hwbench.lower``) have a table each with one entry a kind.

Layout is NCHW (2D) and NCL (1D), as in ONNX and torch. Every op has one output.
"""

from __future__ import annotations

from collections.abc import Mapping

from hwbench.ops import axes, elements, products, windows
from hwbench.ops.types import ITEM_BYTES, AttrValue, Op, OpKind, Specs, TensorSpec, fail

__all__ = [
    "HSIGMOID",
    "ITEM_BYTES",
    "OP_KINDS",
    "UNARY",
    "AttrValue",
    "Op",
    "OpKind",
    "Specs",
    "TensorSpec",
    "fail",
    "infer",
]


def infer(op: Op, tensors: Mapping[str, TensorSpec]) -> TensorSpec:
    """Output spec of an op whose inputs are described in ``tensors``.

    Raises :class:`GraphError` unless kind, inputs and attributes are all well formed.
    """
    kind = OP_KINDS.get(op.kind)
    if kind is None:
        fail(op, f"unknown kind; known: {', '.join(OP_KINDS)}")
    if missing := [name for name in op.inputs if name not in tensors]:
        fail(op, f"input {missing[0]!r} is not made by an earlier op")
    if len(op.inputs) != kind.arity if kind.arity is not None else not op.inputs:
        wanted = "at least 1" if kind.arity is None else kind.arity
        fail(op, f"takes {wanted} inputs, got {len(op.inputs)}")
    if len(op.attrs) != len(kind.attrs) or any(name not in kind.attrs for name, _ in op.attrs):
        fail(op, f"needs the attributes {sorted(kind.attrs)}, got {[n for n, _ in op.attrs]}")
    for name, value in op.attrs:
        wanted_type = kind.attrs[name]
        holds_ints = not isinstance(value, tuple) or all(type(v) is int for v in value)
        if type(value) is not wanted_type or not holds_ints:
            of = " of ints" if wanted_type is tuple else ""
            fail(op, f"attribute {name!r} must be {wanted_type.__name__}{of}, got {value!r}")
    return kind.infer(op, [tensors[name] for name in op.inputs])


# -- the registry -----------------------------------------------------------------------------


def _elementwise(**attrs: type) -> OpKind:
    return OpKind(elements.same, attrs)


#: The usual slope and offset of ``hsigmoid = clip(alpha * x + beta, 0, 1)``, in float32.
HSIGMOID: Mapping[str, AttrValue] = {"alpha": 0.1666666716337204, "beta": 0.5}

#: Element-wise functions of one tensor, with the attributes that each takes.
UNARY: Mapping[str, OpKind] = {
    "relu": _elementwise(),
    "relu6": _elementwise(),
    "hswish": _elementwise(),
    "hsigmoid": _elementwise(alpha=float, beta=float),
    "sigmoid": _elementwise(),
    "silu": _elementwise(),
    "gelu": _elementwise(),
    "tanh": _elementwise(),
    "leaky_relu": _elementwise(alpha=float),
    "elu": _elementwise(alpha=float),
    "clip": _elementwise(min=float, max=float),
    "exp": _elementwise(),
    "erf": _elementwise(),
    "sqrt": _elementwise(),
    "neg": _elementwise(),
    "reciprocal": _elementwise(),
    "pow": _elementwise(exponent=float),
    "scale": _elementwise(factor=float),  # times a number that is not learned
}

_WINDOW = {"kernel": tuple, "stride": tuple, "padding": tuple}
_CONV = {**_WINDOW, "dilation": tuple, "groups": int, "out_channels": int, "bias": bool}
_CONV_TRANSPOSE = {**_WINDOW, "out_channels": int, "bias": bool}
_LINEAR = {"out_features": int, "bias": bool}
_LRN = {"size": int, "alpha": float, "beta": float, "bias": float}
_SLICE = {"axes": tuple, "starts": tuple, "stops": tuple, "steps": tuple}
_BATCH_NORM_PARAMS = elements.per_channel("scale", "bias", "mean", "var")
_BINARY = OpKind(elements.broadcast_infer, arity=2)
_REDUCTION = OpKind(axes.reduce_infer, {"axes": tuple, "keepdims": bool})

#: Every kind of op that a graph may hold.
OP_KINDS: Mapping[str, OpKind] = {
    "conv": OpKind(windows.conv_infer, _CONV, windows.conv_params, windows.conv_macs),
    "conv_transpose": OpKind(
        windows.conv_transpose_infer,
        _CONV_TRANSPOSE,
        windows.conv_transpose_params,
        windows.conv_transpose_macs,
    ),
    "linear": OpKind(products.linear_infer, _LINEAR, products.linear_params, products.linear_macs),
    "matmul": OpKind(products.matmul_infer, macs=products.matmul_macs, arity=2),
    "embedding": OpKind(
        products.embedding_infer,
        {"rows": int, "features": int},
        products.embedding_params,
        param_bytes=products.embedding_param_bytes,
    ),
    "max_pool": OpKind(windows.pool_infer, _WINDOW),
    "avg_pool": OpKind(windows.pool_infer, {**_WINDOW, "count_include_pad": bool}),
    "global_avg_pool": OpKind(windows.global_pool_infer),
    "global_max_pool": OpKind(windows.global_pool_infer),
    "upsample": OpKind(windows.upsample_infer, {"factors": tuple}),
    **UNARY,
    "cast": OpKind(elements.cast_infer, {"dtype": str}),
    "add": _BINARY,
    "sub": _BINARY,
    "mul": _BINARY,
    "div": _BINARY,
    "maximum": _BINARY,
    "minimum": _BINARY,
    "equal": OpKind(elements.equal_infer, arity=2),
    "where": OpKind(elements.where_infer, arity=3),
    "softmax": OpKind(axes.softmax_infer, {"axis": int}),
    "mean": _REDUCTION,
    "sum": _REDUCTION,
    "max": _REDUCTION,
    "batch_norm": OpKind(elements.channels_infer, {"epsilon": float}, _BATCH_NORM_PARAMS),
    "layer_norm": OpKind(elements.layer_norm_infer, {"epsilon": float}, elements.layer_norm_params),
    "lrn": OpKind(elements.lrn_infer, _LRN),
    "concat": OpKind(axes.concat_infer, {"axis": int}, arity=None),
    "slice": OpKind(axes.slice_infer, _SLICE),
    "pad": OpKind(axes.pad_infer, {"pads": tuple, "value": float}),
    "expand": OpKind(axes.expand_infer, {"shape": tuple}),
    "transpose": OpKind(axes.transpose_infer, {"perm": tuple}),
    "flatten": OpKind(axes.flatten_infer, {"axis": int}, is_view=True),
    "reshape": OpKind(axes.reshape_infer, {"shape": tuple}, is_view=True),
    # A constant tensor that other ops read: its bytes are counted with theirs.
    "constant": OpKind(
        axes.constant_infer,
        {"shape": tuple, "dtype": str},
        axes.constant_params,
        arity=0,
        is_view=True,
    ),
}
