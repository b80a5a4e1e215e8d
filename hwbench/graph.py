"""The one currency of hwbench: an immutable graph of ops with known shapes.

A space makes a :class:`Graph`, a lowering turns it into what a runtime eats, a predictor reads
features off it. It holds no weights: those travel beside it as
``Mapping["<op name>.<param>", array]``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from hwbench.errors import GraphError
from hwbench.ops import HSIGMOID, OP_KINDS, UNARY, AttrValue, Op, TensorSpec, infer
from hwbench.records import digest


@dataclass(frozen=True)
class Graph:
    """Ops in topological order between named inputs and outputs; checked when made.

    Two graphs that do the same work in the same order have the same :attr:`hash`, whatever
    their tensors and ops are called.
    """

    name: str
    inputs: tuple[tuple[str, TensorSpec], ...]
    outputs: tuple[str, ...]
    ops: tuple[Op, ...]

    def __post_init__(self) -> None:
        if not self.outputs:
            raise GraphError(f"graph {self.name!r} has no output")
        made = {op.output for op in self.ops if op.output in self.tensors}
        if missing := [name for name in self.outputs if name not in made]:
            raise GraphError(f"graph {self.name!r}: output {missing[0]!r} is made by no op")
        if len(set(self.outputs)) != len(self.outputs):
            raise GraphError(f"graph {self.name!r}: an output is named twice")
        if len({op.name for op in self.ops}) != len(self.ops):
            raise GraphError(f"graph {self.name!r}: two ops share a name")

    def __reduce__(self) -> tuple[type[Graph], tuple[object, ...]]:
        return Graph, (self.name, self.inputs, self.outputs, self.ops)  # without the caches

    @cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Spec of every tensor by name, inputs included (shape inference)."""
        tensors: dict[str, TensorSpec] = {}
        for name, spec in self.inputs:
            _define(tensors, name, spec, f"graph {self.name!r}")
        for op in self.ops:
            _define(tensors, op.output, infer(op, tensors), f"op {op.name!r}")
        return MappingProxyType(tensors)

    def specs(self, op: Op) -> tuple[TensorSpec, ...]:
        """Specs of an op's inputs, in order."""
        return tuple(self.tensors[name] for name in op.inputs)

    def params(self, op: Op) -> Mapping[str, TensorSpec]:
        """An op's learned tensors: ``{"weight": spec, "bias": spec}`` for a convolution."""
        return OP_KINDS[op.kind].params(op, self.specs(op))

    def macs_of(self, op: Op) -> int:
        """Multiply-accumulates of one op (convolutions and matrix products only)."""
        return OP_KINDS[op.kind].macs(op, self.specs(op), self.tensors[op.output])

    def parameters_of(self, op: Op) -> int:
        """Number of learned values of one op."""
        return sum(spec.elements for spec in self.params(op).values())

    def bytes_moved_of(self, op: Op) -> int:
        """Bytes that one op reads (inputs, parameters) and writes, each tensor once."""
        if OP_KINDS[op.kind].is_view:
            return 0
        moved = (*self.specs(op), *self.params(op).values(), self.tensors[op.output])
        return sum(spec.bytes for spec in moved)

    @cached_property
    def macs(self) -> int:
        return sum(map(self.macs_of, self.ops))

    @cached_property
    def parameters(self) -> int:
        return sum(map(self.parameters_of, self.ops))

    @cached_property
    def bytes_moved(self) -> int:
        return sum(map(self.bytes_moved_of, self.ops))

    @cached_property
    def weights(self) -> Mapping[str, TensorSpec]:
        """Spec of every learned tensor of the graph by ``"<op name>.<param>"``, in order."""
        every = {f"{op.name}.{p}": s for op in self.ops for p, s in self.params(op).items()}
        return MappingProxyType(every)

    @cached_property
    def hash(self) -> str:
        """Digest of the content; names of graph, ops and tensors play no part in it."""
        number = {name: i for i, (name, _) in enumerate(self.inputs)}
        rows = []
        for op in self.ops:
            rows.append([op.kind, [number[name] for name in op.inputs], op.attrs])
            number[op.output] = len(number)
        inputs = [[spec.shape, spec.dtype] for _, spec in self.inputs]
        return digest([inputs, rows, [number[name] for name in self.outputs]])


def _define(tensors: dict[str, TensorSpec], name: str, spec: TensorSpec, where: str) -> None:
    if name in tensors:
        raise GraphError(f"{where}: tensor {name!r} is defined twice")
    tensors[name] = spec


@dataclass(frozen=True, slots=True)
class OpRow:
    """One line of the per-op table of a graph."""

    name: str
    kind: str
    shape: tuple[int, ...]
    macs: int
    parameters: int
    bytes_moved: int


def describe(graph: Graph) -> tuple[OpRow, ...]:
    """Cost of every op: kind, output shape, MACs, parameters, bytes moved."""
    return tuple(
        OpRow(
            op.name,
            op.kind,
            graph.tensors[op.output].shape,
            graph.macs_of(op),
            graph.parameters_of(op),
            graph.bytes_moved_of(op),
        )
        for op in graph.ops
    )


Size = int | Sequence[int]


class GraphBuilder:
    """Builds a graph op by op; each method returns the name of the tensor that it makes.

    >>> b = GraphBuilder("net")
    >>> x = b.input("x", (1, 3, 32, 32))
    >>> x = b.activation(b.conv(x, 16, kernel=3, stride=2), "relu")
    >>> graph = b.build(b.linear(b.flatten(b.global_avg_pool(x)), 10))

    Every method raises :class:`GraphError` at once when its inputs do not fit.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._inputs: list[tuple[str, TensorSpec]] = []
        self._ops: list[Op] = []
        self._tensors: dict[str, TensorSpec] = {}
        self._counts: dict[str, int] = {}

    def spec(self, tensor: str) -> TensorSpec:
        """Shape and dtype of a tensor made so far."""
        if tensor not in self._tensors:
            raise GraphError(f"graph {self.name!r} has no tensor {tensor!r}")
        return self._tensors[tensor]

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Shape of a tensor made so far."""
        return self.spec(tensor).shape

    def build(self, outputs: str | Sequence[str]) -> Graph:
        """The graph with these outputs."""
        outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        return Graph(self.name, tuple(self._inputs), outputs, tuple(self._ops))

    def input(self, name: str, shape: Sequence[int], dtype: str = "float32") -> str:
        """Declare an input; shape NCHW or NCL for images and sequences."""
        spec = TensorSpec(tuple(shape), dtype)
        _define(self._tensors, name, spec, f"graph {self.name!r}")
        self._inputs.append((name, spec))
        return name

    def op(
        self,
        kind: str,
        inputs: Iterable[str],
        attrs: Mapping[str, AttrValue] = MappingProxyType({}),
        *,
        name: str | None = None,
    ) -> str:
        """Add an op of any kind with all its attributes; its tensor bears its name.

        Floats are rounded to float32, in which every runtime holds them, so that a graph
        survives a round trip through a file.
        """
        if name is None:
            name = self._fresh_name(kind)
        pairs = tuple(sorted((key, _rounded(value)) for key, value in attrs.items()))
        op = Op(name, kind, tuple(inputs), name, pairs)
        _define(self._tensors, name, infer(op, self._tensors), f"op {name!r}")
        self._ops.append(op)
        return name

    def _fresh_name(self, kind: str) -> str:
        while True:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            name = f"{kind}{self._counts[kind]}"
            if name not in self._tensors:
                return name

    # -- layers -------------------------------------------------------------------------------

    def conv(
        self,
        x: str,
        out_channels: int,
        *,
        kernel: Size = 3,
        stride: Size = 1,
        padding: Size | str = "same",
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> str:
        """Convolution, 1D for an NCL input and 2D for NCHW.

        Sizes are one number or one for each spatial axis. ``padding`` may also hold begins and
        ends (``2 * axes`` numbers), or be ``"same"``: ``dilation * (kernel - 1)`` in all,
        halved with the odd one at the end, which keeps the size at stride 1.
        """
        rank = self._spatial_rank(x)
        kernel, dilation = _per_axis(kernel, rank), _per_axis(dilation, rank)
        if padding == "same":
            total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
            padding = [t // 2 for t in total] + [t - t // 2 for t in total]
        attrs: dict[str, AttrValue] = {
            "kernel": kernel,
            "stride": _per_axis(stride, rank),
            "padding": _begins_ends(padding, rank),
            "dilation": dilation,
            "groups": groups,
            "out_channels": out_channels,
            "bias": bias,
        }
        return self.op("conv", [x], attrs)

    def linear(self, x: str, out_features: int, *, bias: bool = True) -> str:
        """``x @ weight.T + bias`` over the last axis; weight is (out_features, in_features)."""
        return self.op("linear", [x], {"out_features": out_features, "bias": bias})

    def max_pool(self, x: str, kernel: Size, stride: Size | None = None, padding: Size = 0) -> str:
        """Maximum over windows; the stride is the kernel unless given."""
        return self.op("max_pool", [x], self._window(x, kernel, stride, padding))

    def avg_pool(
        self,
        x: str,
        kernel: Size,
        stride: Size | None = None,
        padding: Size = 0,
        *,
        count_include_pad: bool = False,
    ) -> str:
        """Mean over windows; the stride is the kernel unless given."""
        attrs = self._window(x, kernel, stride, padding)
        return self.op("avg_pool", [x], attrs | {"count_include_pad": count_include_pad})

    def global_avg_pool(self, x: str) -> str:
        """Mean over all spatial axes, which stay with size 1."""
        return self.op("global_avg_pool", [x])

    def global_max_pool(self, x: str) -> str:
        """Maximum over all spatial axes, which stay with size 1."""
        return self.op("global_max_pool", [x])

    def activation(self, x: str, function: str) -> str:
        """An element-wise function of one tensor: relu, hswish, … (keys of ``ops.UNARY``).

        ``hsigmoid`` is ``clip(x / 6 + 0.5, 0, 1)``, ``hswish`` is ``x * hsigmoid(x)``, ``gelu``
        the exact one (erf). Others with attributes go through :meth:`op`.
        """
        if function not in UNARY:
            raise GraphError(f"unknown activation {function!r}; known: {', '.join(UNARY)}")
        return self.op(function, [x], HSIGMOID if function == "hsigmoid" else {})

    # -- arithmetic and shape -----------------------------------------------------------------

    def add(self, x: str, y: str) -> str:
        """``x + y`` with broadcasting."""
        return self.op("add", [x, y])

    def sub(self, x: str, y: str) -> str:
        """``x - y`` with broadcasting."""
        return self.op("sub", [x, y])

    def mul(self, x: str, y: str) -> str:
        """``x * y`` with broadcasting."""
        return self.op("mul", [x, y])

    def div(self, x: str, y: str) -> str:
        """``x / y`` with broadcasting."""
        return self.op("div", [x, y])

    def mean(self, x: str, axes: Sequence[int], *, keepdims: bool = False) -> str:
        """Mean over axes (negative ones count from the end)."""
        every = tuple(sorted(self._axis(x, axis) for axis in axes))
        return self.op("mean", [x], {"axes": every, "keepdims": keepdims})

    def softmax(self, x: str, axis: int = -1) -> str:
        """Softmax along one axis."""
        return self.op("softmax", [x], {"axis": self._axis(x, axis)})

    def concat(self, xs: Sequence[str], axis: int = 1) -> str:
        """Join tensors along an axis."""
        if not xs:
            raise GraphError(f"graph {self.name!r}: concat needs at least one tensor")
        return self.op("concat", xs, {"axis": self._axis(xs[0], axis)})

    def flatten(self, x: str, axis: int = 1) -> str:
        """To two axes: those before ``axis``, and the rest."""
        return self.op("flatten", [x], {"axis": axis})

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """To another shape, given in full."""
        return self.op("reshape", [x], {"shape": tuple(shape)})

    def transpose(self, x: str, perm: Sequence[int]) -> str:
        """Permute the axes: axis i of the result is axis ``perm[i]`` of ``x``."""
        return self.op("transpose", [x], {"perm": tuple(perm)})

    def pad(self, x: str, pads: Sequence[int], value: float = 0.0) -> str:
        """Pad with a value; ``pads`` are the begins of all axes, then the ends (as in ONNX)."""
        return self.op("pad", [x], {"pads": tuple(pads), "value": float(value)})

    # -- arguments ----------------------------------------------------------------------------

    def _spatial_rank(self, x: str) -> int:
        return len(self.shape(x)) - 2

    def _axis(self, x: str, axis: int) -> int:
        return axis + len(self.shape(x)) if axis < 0 else axis

    def _window(
        self, x: str, kernel: Size, stride: Size | None, padding: Size
    ) -> dict[str, AttrValue]:
        rank = self._spatial_rank(x)
        return {
            "kernel": _per_axis(kernel, rank),
            "stride": _per_axis(kernel if stride is None else stride, rank),
            "padding": _begins_ends(padding, rank),
        }


def _per_axis(size: Size, rank: int) -> tuple[int, ...]:
    return tuple(size) if isinstance(size, Sequence) else (size,) * rank


def _begins_ends(padding: Size | str, rank: int) -> tuple[int, ...]:
    if isinstance(padding, str):
        raise GraphError(f"padding is a number, numbers or 'same', not {padding!r}")
    sizes = _per_axis(padding, rank)
    return sizes * 2 if len(sizes) == rank else sizes


def _rounded(value: AttrValue) -> AttrValue:
    if not isinstance(value, float):
        return value
    return ctypes.c_float(value).value
