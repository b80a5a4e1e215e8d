"""What each kind of operation means: its output shape, its parameters, its cost.

This file is the one place for the semantics of an operation. To add one, write the functions
that it needs and enter an :class:`OpKind` in :data:`OP_KINDS`; the lowerings
(``hwbench.lower``) have a table each with one entry a kind.

Layout is NCHW (2D) and NCL (1D), as in ONNX and torch. Every op has one output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from hwbench.errors import GraphError

AttrValue = int | float | str | tuple[int, ...]

#: Bytes of one element, for every dtype a tensor may carry (numpy's names).
ITEM_BYTES: Mapping[str, int] = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape and dtype of a tensor; its dimensions are positive and known."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in ITEM_BYTES:
            raise GraphError(f"dtype {self.dtype!r} is not one of {', '.join(ITEM_BYTES)}")
        if not all(isinstance(d, int) and d > 0 for d in self.shape):
            raise GraphError(f"a shape needs positive integers, got {self.shape}")

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Op:
    """One operation: ``output = kind(inputs; attrs, params)``.

    ``attrs`` are pairs sorted by name, so that equal ops compare and hash equal;
    ``op["kernel"]`` reads one.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    attrs: tuple[tuple[str, AttrValue], ...] = ()

    def __getitem__(self, key: str) -> Any:
        for name, value in self.attrs:
            if name == key:
                return value
        raise KeyError(key)


Specs = Sequence[TensorSpec]


def _no_params(op: Op, specs: Specs) -> Mapping[str, TensorSpec]:
    return {}


def _no_macs(op: Op, specs: Specs, out: TensorSpec) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class OpKind:
    """The semantics of a kind of op, as functions of the op and its inputs' specs.

    ``infer`` gives the output and raises :class:`GraphError` for inputs that do not fit;
    ``params`` names the learned tensors; ``macs`` counts multiply-accumulates of convolutions
    and matrix products only, as the literature does (bias, pooling, activations are free).
    ``attrs`` are the attributes that an op of this kind has, all of them, with their types
    (``tuple`` holds ints); ``arity`` is the number of inputs, ``None`` for one or more;
    ``is_view`` marks an op that moves no bytes.
    """

    infer: Callable[[Op, Specs], TensorSpec]
    attrs: Mapping[str, type] = field(default_factory=dict)
    params: Callable[[Op, Specs], Mapping[str, TensorSpec]] = _no_params
    macs: Callable[[Op, Specs, TensorSpec], int] = _no_macs
    arity: int | None = 1
    is_view: bool = False


def fail(op: Op, why: str) -> NoReturn:
    """Refuse an op, naming it."""
    raise GraphError(f"op {op.name!r} ({op.kind}): {why}")


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


# -- windows: what convolutions and pools share -----------------------------------------------


def _slide(op: Op, x: TensorSpec, dilation: tuple[int, ...]) -> tuple[int, ...]:
    """Output sizes of a window of ``kernel`` that moves by ``stride`` over the padded input."""
    spatial = x.shape[2:]
    rank = len(spatial)
    kernel, stride, padding = op["kernel"], op["stride"], op["padding"]
    if rank not in (1, 2):
        fail(op, f"needs an NCL or NCHW input, got shape {x.shape}")
    if not (len(kernel) == len(stride) == len(dilation) == rank and len(padding) == 2 * rank):
        fail(op, f"kernel, stride, dilation and padding do not fit input shape {x.shape}")
    if min(*kernel, *stride, *dilation) < 1 or min(padding) < 0:
        fail(op, "kernel, stride and dilation must be positive, padding not negative")
    out = []
    for axis, (n, k, s, d) in enumerate(zip(spatial, kernel, stride, dilation, strict=True)):
        padded, reach = n + padding[axis] + padding[axis + rank], d * (k - 1) + 1
        if reach > padded:
            fail(op, f"a window of {reach} exceeds the padded input of {padded}")
        out.append((padded - reach) // s + 1)
    return tuple(out)


def _conv_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,) = specs
    spatial = _slide(op, x, op["dilation"])
    groups, out_channels = op["groups"], op["out_channels"]
    if groups < 1 or x.shape[1] % groups or out_channels < 1 or out_channels % groups:
        fail(op, f"{groups} groups do not divide {x.shape[1]} -> {out_channels} channels")
    return TensorSpec((x.shape[0], out_channels, *spatial), x.dtype)


def _conv_params(op: Op, specs: Specs) -> Mapping[str, TensorSpec]:
    (x,) = specs
    shape = (op["out_channels"], x.shape[1] // op["groups"], *op["kernel"])
    return _weight_and_bias(op, shape, x.dtype)


def _conv_macs(op: Op, specs: Specs, out: TensorSpec) -> int:
    per_output: int = specs[0].shape[1] // op["groups"] * math.prod(op["kernel"])
    return out.elements * per_output


def _pool_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,) = specs
    spatial = _slide(op, x, (1,) * len(op["kernel"]))
    if any(p >= k for p, k in zip(op["padding"], op["kernel"] * 2, strict=True)):
        fail(op, f"padding {op['padding']} must stay below the kernel {op['kernel']}")
    return TensorSpec((*x.shape[:2], *spatial), x.dtype)


def _global_pool_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,) = specs
    if len(x.shape) not in (3, 4):
        fail(op, f"needs an NCL or NCHW input, got shape {x.shape}")
    return TensorSpec((*x.shape[:2], *(1,) * (len(x.shape) - 2)), x.dtype)


# -- matrix products --------------------------------------------------------------------------


def _linear_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,) = specs
    if len(x.shape) < 2:
        fail(op, f"needs an input (..., features), got shape {x.shape}")
    return TensorSpec((*x.shape[:-1], op["out_features"]), x.dtype)


def _linear_params(op: Op, specs: Specs) -> Mapping[str, TensorSpec]:
    (x,) = specs
    return _weight_and_bias(op, (op["out_features"], x.shape[-1]), x.dtype)


def _linear_macs(op: Op, specs: Specs, out: TensorSpec) -> int:
    (x,) = specs
    return out.elements * x.shape[-1]


def _weight_and_bias(op: Op, shape: tuple[int, ...], dtype: str) -> Mapping[str, TensorSpec]:
    weight = {"weight": TensorSpec(shape, dtype)}
    return weight | {"bias": TensorSpec(shape[:1], dtype)} if op["bias"] else weight


# -- element by element -----------------------------------------------------------------------


def _same(op: Op, specs: Specs) -> TensorSpec:
    return specs[0]


def _broadcast(op: Op, specs: Specs) -> TensorSpec:
    a, b = specs
    if a.dtype != b.dtype:
        fail(op, f"dtypes {a.dtype} and {b.dtype} differ")
    rank = max(len(a.shape), len(b.shape))
    rows = zip(*((1,) * (rank - len(s.shape)) + s.shape for s in specs), strict=True)
    shape = []
    for m, n in rows:
        if m != n and 1 not in (m, n):
            fail(op, f"shapes {a.shape} and {b.shape} do not broadcast")
        shape.append(max(m, n))
    return TensorSpec(tuple(shape), a.dtype)


def _per_channel(*names: str) -> Callable[[Op, Specs], Mapping[str, TensorSpec]]:
    def params(op: Op, specs: Specs) -> Mapping[str, TensorSpec]:
        (x,) = specs
        return {name: TensorSpec(x.shape[1:2], x.dtype) for name in names}

    return params


def _channels_infer(op: Op, specs: Specs) -> TensorSpec:
    if len(specs[0].shape) < 2:
        fail(op, f"needs an input (N, C, ...), got shape {specs[0].shape}")
    return specs[0]


def _lrn_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,) = specs
    if op["size"] % 2 == 0 or op["size"] < 1:
        fail(op, f"size must be odd, got {op['size']}")
    if len(x.shape) != 4:
        fail(op, f"needs an NCHW input, got shape {x.shape}")
    return x


# -- shape and layout -------------------------------------------------------------------------


def _constant_infer(op: Op, specs: Specs) -> TensorSpec:
    return TensorSpec(op["shape"], op["dtype"])


def _constant_params(op: Op, specs: Specs) -> Mapping[str, TensorSpec]:
    return {"value": TensorSpec(op["shape"], op["dtype"])}


def _concat_infer(op: Op, specs: Specs) -> TensorSpec:
    first, axis = specs[0], op["axis"]
    if not 0 <= axis < len(first.shape):
        fail(op, f"axis {axis} is not one of shape {first.shape}")
    outside = {(s.shape[:axis], s.shape[axis + 1 :], s.dtype) for s in specs}
    if len(outside) != 1 or any(len(s.shape) != len(first.shape) for s in specs):
        fail(op, f"shapes {', '.join(str(s.shape) for s in specs)} differ off axis {axis}")
    total = sum(s.shape[axis] for s in specs)
    return TensorSpec((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype)


def _flatten_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,), axis = specs, op["axis"]
    if not 0 <= axis <= len(x.shape):
        fail(op, f"axis {axis} is not one of shape {x.shape}")
    return TensorSpec((math.prod(x.shape[:axis]), math.prod(x.shape[axis:])), x.dtype)


def _reshape_infer(op: Op, specs: Specs) -> TensorSpec:
    out = TensorSpec(op["shape"], specs[0].dtype)
    if out.elements != specs[0].elements:
        fail(op, f"shape {specs[0].shape} does not hold as many elements as {out.shape}")
    return out


def _transpose_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,), perm = specs, op["perm"]
    if sorted(perm) != list(range(len(x.shape))):
        fail(op, f"{perm} is no permutation of the axes of shape {x.shape}")
    return TensorSpec(tuple(x.shape[p] for p in perm), x.dtype)


def _softmax_infer(op: Op, specs: Specs) -> TensorSpec:
    if not 0 <= op["axis"] < len(specs[0].shape):
        fail(op, f"axis {op['axis']} is not one of shape {specs[0].shape}")
    return specs[0]


def _pad_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,), pads = specs, op["pads"]
    if len(pads) != 2 * len(x.shape) or min(pads) < 0:
        fail(op, f"pads {pads} must be a begin and an end, not negative, for each axis")
    sums = zip(x.shape, pads, pads[len(x.shape) :], strict=False)
    return TensorSpec(tuple(n + begin + end for n, begin, end in sums), x.dtype)


def _mean_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,), axes = specs, op["axes"]
    if not axes or sorted(set(axes)) != list(axes) or not 0 <= axes[0] <= axes[-1] < len(x.shape):
        fail(op, f"axes {axes} must be rising axes of shape {x.shape}")
    kept = [1 if i in axes else n for i, n in enumerate(x.shape) if op["keepdims"] or i not in axes]
    return TensorSpec(tuple(kept), x.dtype)


# -- the registry -----------------------------------------------------------------------------


def _elementwise(**attrs: type) -> OpKind:
    return OpKind(_same, attrs)


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
}

_WINDOW = {"kernel": tuple, "stride": tuple, "padding": tuple}
_CONV = {**_WINDOW, "dilation": tuple, "groups": int, "out_channels": int, "bias": bool}
_LINEAR = {"out_features": int, "bias": bool}
_LRN = {"size": int, "alpha": float, "beta": float, "bias": float}
_BATCH_NORM_PARAMS = _per_channel("scale", "bias", "mean", "var")
_BINARY = OpKind(_broadcast, arity=2)

#: Every kind of op that a graph may hold. Transformer ops join here.
OP_KINDS: Mapping[str, OpKind] = {
    "conv": OpKind(_conv_infer, _CONV, _conv_params, _conv_macs),
    "linear": OpKind(_linear_infer, _LINEAR, _linear_params, _linear_macs),
    "max_pool": OpKind(_pool_infer, _WINDOW),
    "avg_pool": OpKind(_pool_infer, {**_WINDOW, "count_include_pad": bool}),
    "global_avg_pool": OpKind(_global_pool_infer),
    "global_max_pool": OpKind(_global_pool_infer),
    **UNARY,
    "add": _BINARY,
    "sub": _BINARY,
    "mul": _BINARY,
    "div": _BINARY,
    "softmax": OpKind(_softmax_infer, {"axis": int}),
    "mean": OpKind(_mean_infer, {"axes": tuple, "keepdims": bool}),
    "batch_norm": OpKind(_channels_infer, {"epsilon": float}, _BATCH_NORM_PARAMS),
    "lrn": OpKind(_lrn_infer, _LRN),
    "concat": OpKind(_concat_infer, {"axis": int}, arity=None),
    "pad": OpKind(_pad_infer, {"pads": tuple, "value": float}),
    "transpose": OpKind(_transpose_infer, {"perm": tuple}),
    "flatten": OpKind(_flatten_infer, {"axis": int}, is_view=True),
    "reshape": OpKind(_reshape_infer, {"shape": tuple}, is_view=True),
    # A constant tensor that other ops read: its bytes are counted with theirs.
    "constant": OpKind(
        _constant_infer, {"shape": tuple, "dtype": str}, _constant_params, arity=0, is_view=True
    ),
}
