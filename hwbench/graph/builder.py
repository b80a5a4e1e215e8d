"""Builds graphs, op by op or layer by layer."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from hwbench.errors import GraphError
from hwbench.graph.graph import Graph, define
from hwbench.ops import HSIGMOID, UNARY, AttrValue, Op, TensorSpec, infer

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
        inputs, ops = tuple(self._inputs), tuple(self._ops)
        return Graph.inferred(self.name, inputs, outputs, ops, self._tensors)

    def input(self, name: str, shape: Sequence[int], dtype: str = "float32") -> str:
        """Declare an input; shape NCHW or NCL for images and sequences."""
        spec = TensorSpec(tuple(shape), dtype)
        define(self._tensors, name, spec, f"graph {self.name!r}")
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
        define(self._tensors, name, infer(op, self._tensors), f"op {name!r}")
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

    def conv_transpose(
        self,
        x: str,
        out_channels: int,
        *,
        kernel: Size,
        stride: Size = 1,
        padding: Size = 0,
        bias: bool = True,
    ) -> str:
        """Transposed convolution: ``(n - 1) * stride + kernel`` places less the padding."""
        window = self._window(x, kernel, stride, padding)
        return self.op("conv_transpose", [x], window | {"out_channels": out_channels, "bias": bias})

    def embedding(self, indices: str, rows: int, features: int) -> str:
        """Rows of a learned (rows, features) table: int32 or int64 (...) -> (..., features)."""
        return self.op("embedding", [indices], {"rows": rows, "features": features})

    def layer_norm(self, x: str, epsilon: float = 1e-5) -> str:
        """Normalise over the last axis, then scale and shift each of its places."""
        return self.op("layer_norm", [x], {"epsilon": epsilon})

    def attention(self, x: str, heads: int, head_size: int | None = None) -> str:
        """Multi-head self-attention of tokens (N, T, W) with its four projections; same shape.

        Per head of d = ``head_size`` (else W / heads) features: ``softmax(q @ k.T / sqrt(d)) @ v``
        (Vaswani et al., arXiv 1706.03762), composed of linear, reshape, transpose, matmul, scale
        and softmax.
        """
        shape = self.shape(x)
        if len(shape) != 3 or heads < 1 or (head_size is None and shape[2] % heads):
            raise GraphError(f"attention of {heads} heads needs (N, T, heads * d), got {shape}")
        batch, tokens, width = shape
        parts = (batch, tokens, heads, head_size or width // heads)
        inner = parts[2] * parts[3]
        q, k, v = (
            self.transpose(self.reshape(self.linear(x, inner), parts), perm)
            for perm in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
        )
        scores = self.scale(self.matmul(q, k), parts[-1] ** -0.5)
        mixed = self.transpose(self.matmul(self.softmax(scores), v), (0, 2, 1, 3))
        return self.linear(self.reshape(mixed, (batch, tokens, inner)), width)

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

    def scale(self, x: str, factor: float) -> str:
        """``factor * x``, with a factor that is part of the graph, not of its weights."""
        return self.op("scale", [x], {"factor": float(factor)})

    def matmul(self, x: str, y: str) -> str:
        """``x @ y``: (..., m, k) and (..., k, n) -> (..., m, n); the axes before broadcast."""
        return self.op("matmul", [x, y])

    def equal(self, x: str, y: str) -> str:
        """Where ``x == y``, with broadcasting, as bool."""
        return self.op("equal", [x, y])

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

    def slice(self, x: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        """``x[start:stop:step]`` along one axis; places are counted from its start."""
        cut = {"starts": (start,), "stops": (stop,), "steps": (step,)}
        return self.op("slice", [x], {"axes": (self._axis(x, axis),), **cut})

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
