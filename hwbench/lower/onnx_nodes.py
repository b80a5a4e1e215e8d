"""What each kind of ONNX node means as ops of a :class:`~hwbench.graph.Graph`.

One reader a kind, in :data:`READERS`. A reader knows its node's old and new spellings (axes were
attributes, then inputs), and takes a few groups of nodes as the one op that exporters spell with
them: a MatMul with a bias, silu, gelu.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hwbench.errors import GraphError
from hwbench.lower.onnx_fold import Array, Node, axes_of, fold
from hwbench.lower.onnx_importer import Importer, UnsupportedNodeError
from hwbench.ops import AttrValue

Reader = Callable[[Importer, Node], None]


def _plain(kind: str, **defaults: AttrValue) -> Reader:
    """A node that is one op with the same attributes; ``defaults`` are ONNX's."""

    def read(importer: Importer, node: Node) -> None:
        attrs = {name: node.attr(name, default) for name, default in defaults.items()}
        importer.emit(node, kind, node.inputs, attrs)

    return read


def _alias(importer: Importer, node: Node) -> None:
    source = node.inputs[0]
    if source in importer.constants:
        importer.constants[node.output] = importer.constants[source]
    else:
        importer.names[node.output] = importer.tensor(source)


# -- windows ----------------------------------------------------------------------------------


def _window(importer: Importer, node: Node, kernel: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Kernel, stride, dilation and explicit padding, whatever way the node gives the last."""
    rank = len(kernel)
    stride = tuple(node.attr("strides", (1,) * rank))
    dilation = tuple(node.attr("dilations", (1,) * rank))
    sizes = importer.shape(node.inputs[0])[2:]
    if not len(sizes) == len(stride) == len(dilation) == rank:
        raise GraphError(f"a window of {rank} axes on input {importer.shape(node.inputs[0])}")
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    mode = node.attr("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        rows = zip(sizes, stride, reach, strict=True)
        total = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in rows]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        padding = [*small, *large] if mode == "SAME_UPPER" else [*large, *small]
    elif mode in ("NOTSET", "VALID", ""):
        padding = list(node.attr("pads", (0,) * 2 * rank)) if mode != "VALID" else [0] * 2 * rank
    else:
        raise UnsupportedNodeError(f"{node.op_type} with auto_pad {mode}")
    if node.attr("ceil_mode", 0) and len(padding) == 2 * rank:
        padding = _ceil(padding, sizes, stride, reach)
    return {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": tuple(padding)}


def _ceil(
    padding: list[int], sizes: Sequence[int], stride: Sequence[int], reach: Sequence[int]
) -> list[int]:
    """Padding whose windows, rounded down, are those of ``ceil_mode``.

    The last window may hang over the end, but has to start in the input or before it.
    """
    rank = len(sizes)
    padding = list(padding)
    for axis, (n, s, r) in enumerate(zip(sizes, stride, reach, strict=True)):
        begin, end = padding[axis], padding[axis + rank]
        last = -(-(begin + n + end - r) // s) * s
        if last >= begin + n:
            last -= s
        padding[axis + rank] = max(end, last + r - begin - n)
    return padding


def _conv(importer: Importer, node: Node) -> None:
    weight = importer.constant(node, 1, "weights")
    bias = importer.optional(node, 2, "bias")
    attrs: dict[str, AttrValue] = {
        **_window(importer, node, weight.shape[2:]),
        "groups": node.attr("group", 1),
        "out_channels": weight.shape[0],
        "bias": bias is not None,
    }
    importer.emit(node, "conv", node.inputs[:1], attrs, {"weight": weight, "bias": bias})


def _pool(kind: str, *flags: str) -> Reader:
    def read(importer: Importer, node: Node) -> None:
        window = _window(importer, node, tuple(node.attrs["kernel_shape"]))
        if any(d != 1 for d in window.pop("dilation")):
            raise UnsupportedNodeError(f"{node.op_type} with dilations")
        attrs: dict[str, AttrValue] = {**window}
        for flag in flags:
            attrs[flag] = bool(node.attr(flag, 0))
            if attrs[flag] and node.attr("ceil_mode", 0):
                raise UnsupportedNodeError(f"{node.op_type} with ceil_mode and {flag}")
        importer.emit(node, kind, node.inputs, attrs)

    return read


# -- matrix products --------------------------------------------------------------------------


def _gemm(importer: Importer, node: Node) -> None:
    if node.attr("transA", 0):
        raise UnsupportedNodeError("Gemm with transA")
    weight = _scaled(importer.constant(node, 1, "weights"), node.attr("alpha", 1.0))
    weight = weight if node.attr("transB", 0) else weight.T
    bias = importer.optional(node, 2, "bias")
    if bias is not None:
        bias = np.broadcast_to(_scaled(bias, node.attr("beta", 1.0)), (1, len(weight)))[0]
    _emit_linear(importer, node, node.inputs[0], weight, bias)


def _scaled(array: Array, factor: float) -> Array:
    return array if factor == 1.0 else array * array.dtype.type(factor)


def _matmul(importer: Importer, node: Node) -> None:
    weight = importer.constant(node, 1, "second operand")
    if weight.ndim != 2:
        raise UnsupportedNodeError("MatMul with an operand of more than 2 axes")
    _emit_linear(importer, node, node.inputs[0], weight.T, None)


def _emit_linear(importer: Importer, node: Node, x: str, weight: Array, bias: Array | None) -> None:
    attrs: dict[str, AttrValue] = {"out_features": weight.shape[0], "bias": bias is not None}
    importer.emit(node, "linear", [x], attrs, {"weight": weight, "bias": bias})


# -- arithmetic -------------------------------------------------------------------------------


def _add(importer: Importer, node: Node) -> None:
    """An addition, or the bias of the MatMul before it."""
    for product, name in (node.inputs, node.inputs[::-1]):
        matmul, bias = importer.maker(product, "MatMul"), importer.constants.get(name)
        if matmul and bias is not None:
            weight = importer.constant(matmul, 1, "second operand").T
            if bias.shape == weight.shape[:1]:
                _emit_linear(importer, node, matmul.inputs[0], weight, bias)
                return
    importer.emit(node, "add", node.inputs)


def _mul(importer: Importer, node: Node) -> None:
    """A product, or the last node of silu or gelu."""
    for x, gate in (node.inputs, node.inputs[::-1]):
        sigmoid = importer.maker(gate, "Sigmoid")
        if sigmoid and sigmoid.inputs == (x,):
            importer.emit(node, "silu", [x])
            return
    gelu_input = _gelu_input(importer, node)
    if gelu_input is not None:
        importer.emit(node, "gelu", [gelu_input])
    else:
        importer.emit(node, "mul", node.inputs)


def _gelu_input(importer: Importer, node: Node) -> str | None:
    """The x of ``x * 0.5 * (1 + erf(x / sqrt 2))``, whatever the order of the factors."""
    factors = list(node.inputs)
    for name in node.inputs:
        if inner := importer.maker(name, "Mul"):
            factors.remove(name)
            factors.extend(inner.inputs)
    if len(factors) != 3:
        return None
    for gate in factors:
        x = _erf_input(importer, gate)
        others = [name for name in factors if name != gate]
        if x in others and any(importer.scalar(name) == 0.5 for name in others):
            return x
    return None


def _erf_input(importer: Importer, gate: str) -> str | None:
    """The x of ``1 + erf(x / sqrt 2)``."""
    add = importer.maker(gate, "Add")
    if not add or 1.0 not in map(importer.scalar, add.inputs):
        return None
    for name in add.inputs:
        erf = importer.maker(name, "Erf")
        for op_type, scale in (("Div", math.sqrt(2)), ("Mul", math.sqrt(0.5))):
            scaled = importer.maker(erf.inputs[0], op_type) if erf else None
            factor = importer.scalar(scaled.inputs[1]) if scaled else None
            if scaled and factor is not None and math.isclose(factor, scale, rel_tol=1e-5):
                return scaled.inputs[0]
    return None


def _sum(importer: Importer, node: Node) -> None:
    total, *rest = map(importer.tensor, node.inputs)
    for i, name in enumerate(rest, start=1 - len(rest)):
        label = f"{node.output}/{i}" if i else node.output
        total = importer.builder.op("add", [total, name], name=label)
    importer.names[node.output] = total


def _clip(importer: Importer, node: Node) -> None:
    low, high = (
        float(value.item()) if value is not None else float(node.attr(name, default))
        for name, default, value in (
            ("min", -math.inf, importer.optional(node, 1, "bounds")),
            ("max", math.inf, importer.optional(node, 2, "bounds")),
        )
    )
    if (low, high) == (0.0, 6.0):
        importer.emit(node, "relu6", node.inputs[:1])
    else:
        importer.emit(node, "clip", node.inputs[:1], {"min": low, "max": high})


def _gelu(importer: Importer, node: Node) -> None:
    if node.attr("approximate", "none") != "none":
        raise UnsupportedNodeError(f"Gelu with approximate={node.attrs['approximate']}")
    importer.emit(node, "gelu", node.inputs)


def _batch_norm(importer: Importer, node: Node) -> None:
    if node.attr("training_mode", 0):
        raise UnsupportedNodeError("BatchNormalization in training mode")
    names = ("scale", "bias", "mean", "var")
    params = {name: importer.constant(node, i + 1, name) for i, name in enumerate(names)}
    attrs = {"epsilon": node.attr("epsilon", 1e-5)}
    importer.emit(node, "batch_norm", node.inputs[:1], attrs, params)


# -- shape and layout -------------------------------------------------------------------------


def _axis(importer: Importer, node: Node, axis: int) -> int:
    rank = len(importer.shape(node.inputs[0]))
    return axis + rank if axis < 0 else axis


def _softmax(importer: Importer, node: Node) -> None:
    """Before opset 13 a softmax ran over all axes from ``axis`` on, as over one."""
    (x,) = node.inputs
    old = importer.opset < 13
    axis, shape = _axis(importer, node, node.attr("axis", 1 if old else -1)), importer.shape(x)
    if not old or math.prod(shape[axis + 1 :]) == 1:
        importer.emit(node, "softmax", [x], {"axis": axis})
        return
    flat = (*shape[:axis], math.prod(shape[axis:]))
    builder = importer.builder
    y = builder.op("reshape", [importer.tensor(x)], {"shape": flat}, name=f"{node.output}/flat")
    y = builder.op("softmax", [y], {"axis": axis}, name=f"{node.output}/softmax")
    importer.names[node.output] = builder.op("reshape", [y], {"shape": shape}, name=node.output)


def _mean(importer: Importer, node: Node) -> None:
    axes = axes_of(node, [None, importer.optional(node, 1, "axes")])
    rank = len(importer.shape(node.inputs[0]))
    if not axes:
        if node.attr("noop_with_empty_axes", 0):
            _alias(importer, node)
            return
        axes = tuple(range(rank))
    attrs: dict[str, AttrValue] = {
        "axes": tuple(sorted(_axis(importer, node, axis) for axis in axes)),
        "keepdims": bool(node.attr("keepdims", 1)),
    }
    importer.emit(node, "mean", node.inputs[:1], attrs)


def _concat(importer: Importer, node: Node) -> None:
    importer.emit(
        node, "concat", node.inputs, {"axis": _axis(importer, node, node.attr("axis", 1))}
    )


def _flatten(importer: Importer, node: Node) -> None:
    importer.emit(
        node, "flatten", node.inputs, {"axis": _axis(importer, node, node.attr("axis", 1))}
    )


def _view(importer: Importer, node: Node) -> None:
    """Reshape, Squeeze, Unsqueeze: whatever shape the node gives to an array of that size."""
    if len(node.inputs) > 1:
        importer.constant(node, 1, "shape")
    # A stand-in of one element, repeated, takes no memory.
    stand_in = np.broadcast_to(np.zeros((), np.float32), importer.shape(node.inputs[0]))
    result = fold(node, [stand_in, *(importer.constants[name] for name in node.inputs[1:])])
    importer.emit(node, "reshape", node.inputs[:1], {"shape": result.shape})


def _transpose(importer: Importer, node: Node) -> None:
    rank = len(importer.shape(node.inputs[0]))
    perm = tuple(node.attr("perm", range(rank)[::-1]))
    importer.emit(node, "transpose", node.inputs, {"perm": perm})


def _pad(importer: Importer, node: Node) -> None:
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


READERS: Mapping[str, Reader] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MaxPool": _pool("max_pool"),
    "AveragePool": _pool("avg_pool", "count_include_pad"),
    "GlobalAveragePool": _plain("global_avg_pool"),
    "GlobalMaxPool": _plain("global_max_pool"),
    "Relu": _plain("relu"),
    "HardSwish": _plain("hswish"),
    "HardSigmoid": _plain("hsigmoid", alpha=0.2, beta=0.5),
    "Sigmoid": _plain("sigmoid"),
    "Tanh": _plain("tanh"),
    "Gelu": _gelu,
    "LeakyRelu": _plain("leaky_relu", alpha=0.01),
    "Elu": _plain("elu", alpha=1.0),
    "Clip": _clip,
    "Exp": _plain("exp"),
    "Erf": _plain("erf"),
    "Sqrt": _plain("sqrt"),
    "Add": _add,
    "Sub": _plain("sub"),
    "Mul": _mul,
    "Div": _plain("div"),
    "Sum": _sum,
    "Softmax": _softmax,
    "ReduceMean": _mean,
    "BatchNormalization": _batch_norm,
    "LRN": _plain("lrn", size=0, alpha=1e-4, beta=0.75, bias=1.0),
    "Concat": _concat,
    "Flatten": _flatten,
    "Reshape": _view,
    "Squeeze": _view,
    "Unsqueeze": _view,
    "Transpose": _transpose,
    "Pad": _pad,
    # At inference these pass their first input on.
    "Dropout": _alias,
    "Identity": _alias,
}
