"""What an operation is: a kind with attributes, between tensors of known shape."""

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


def no_params(op: Op, specs: Specs) -> Mapping[str, TensorSpec]:
    return {}


def no_macs(op: Op, specs: Specs, out: TensorSpec) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class OpKind:
    """The semantics of a kind of op, as functions of the op and its inputs' specs.

    ``infer`` gives the output and raises :class:`GraphError` for inputs that do not fit;
    ``params`` names the learned tensors; ``macs`` counts multiply-accumulates of convolutions
    and matrix products only, as the literature does (bias, pooling, activations are free).
    ``param_bytes`` are the bytes of the learned tensors that one run reads, ``None`` for all.
    ``attrs`` are the attributes that an op of this kind has, all of them, with their types
    (``tuple`` holds ints); ``arity`` is the number of inputs, ``None`` for one or more;
    ``is_view`` marks an op that moves no bytes.
    """

    infer: Callable[[Op, Specs], TensorSpec]
    attrs: Mapping[str, type] = field(default_factory=dict)
    params: Callable[[Op, Specs], Mapping[str, TensorSpec]] = no_params
    macs: Callable[[Op, Specs, TensorSpec], int] = no_macs
    param_bytes: Callable[[Op, Specs], int] | None = None
    arity: int | None = 1
    is_view: bool = False


def fail(op: Op, why: str) -> NoReturn:
    """Refuse an op, naming it."""
    raise GraphError(f"op {op.name!r} ({op.kind}): {why}")


def broadcast_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that two shapes broadcast to; ``None`` where they do not."""
    rank = max(len(a), len(b))
    sizes = [(1,) * (rank - len(shape)) + shape for shape in (a, b)]
    if any(m != n and 1 not in (m, n) for m, n in zip(*sizes, strict=True)):
        return None
    return tuple(map(max, *sizes))


def weight_and_bias(op: Op, shape: tuple[int, ...], dtype: str) -> Mapping[str, TensorSpec]:
    """Parameters of a layer whose bias, if it has one, is as long as the weight's first axis."""
    weight = {"weight": TensorSpec(shape, dtype)}
    return weight | {"bias": TensorSpec(shape[:1], dtype)} if op["bias"] else weight
