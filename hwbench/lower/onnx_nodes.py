"""What each kind of ONNX node means as ops of a :class:`~hwbench.graph.Graph`.

One reader a kind, in :data:`READERS`. A reader knows its node's old and new spellings (axes were
attributes, then inputs), and takes a few groups of nodes as the one op that exporters spell with
them: a MatMul with a bias, and those of ``hwbench.lower.onnx_patterns``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import helper

from hwbench.errors import GraphError
from hwbench.lower import onnx_axes as axes
from hwbench.lower.onnx_fold import Array, Node
from hwbench.lower.onnx_importer import Importer, Reader, UnsupportedNodeError
from hwbench.lower.onnx_patterns import gelu_input, layer_norm, silu_input
from hwbench.ops import ITEM_BYTES, AttrValue


def _plain(kind: str, **defaults: AttrValue) -> Reader:
    """A node that is one op with the same attributes; ``defaults`` are ONNX's."""

    def read(importer: Importer, node: Node) -> None:
        attrs = {name: node.attr(name, default) for name, default in defaults.items()}
        importer.emit(node, kind, node.inputs, attrs)

    return read


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


def _kernel(importer: Importer, node: Node) -> Array:
    """The weights of a convolution, which the kernel_shape beside them may not contradict."""
    weight = importer.constant(node, 1, "weights")
    told = tuple(node.attr("kernel_shape", weight.shape[2:]))
    if told != weight.shape[2:]:
        raise GraphError(f"kernel_shape {told} is not that of its weights {weight.shape}")
    return weight


def _conv(importer: Importer, node: Node) -> None:
    weight = _kernel(importer, node)
    bias = importer.optional(node, 2, "bias")
    attrs: dict[str, AttrValue] = {
        **_window(importer, node, weight.shape[2:]),
        "groups": node.attr("group", 1),
        "out_channels": weight.shape[0],
        "bias": bias is not None,
    }
    importer.emit(node, "conv", node.inputs[:1], attrs, {"weight": weight, "bias": bias})


def _conv_transpose(importer: Importer, node: Node) -> None:
    weight = _kernel(importer, node)
    bias = importer.optional(node, 2, "bias")
    rank = weight.ndim - 2
    usual = {"group": 1, "dilations": (1,) * rank, "output_padding": (0,) * rank}
    usual |= {"auto_pad": "NOTSET", "output_shape": None}
    for name, value in usual.items():
        if node.attr(name, value) != value:
            raise UnsupportedNodeError(f"ConvTranspose with {name} {node.attrs[name]}")
    attrs: dict[str, AttrValue] = {
        "kernel": weight.shape[2:],
        "stride": tuple(node.attr("strides", (1,) * rank)),
        "padding": tuple(node.attr("pads", (0,) * 2 * rank)),
        "out_channels": weight.shape[1],
        "bias": bias is not None,
    }
    params = {"weight": weight, "bias": bias}
    importer.emit(node, "conv_transpose", node.inputs[:1], attrs, params)


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
    """A linear layer where the second operand is a known matrix."""
    weight = importer.constants.get(node.inputs[1])
    if weight is not None and weight.ndim == 2:
        _emit_linear(importer, node, node.inputs[0], weight.T, None)
    else:
        importer.emit(node, "matmul", node.inputs)


def _emit_linear(importer: Importer, node: Node, x: str, weight: Array, bias: Array | None) -> None:
    attrs: dict[str, AttrValue] = {"out_features": weight.shape[0], "bias": bias is not None}
    importer.emit(node, "linear", [x], attrs, {"weight": weight, "bias": bias})


# -- arithmetic -------------------------------------------------------------------------------


def _add(importer: Importer, node: Node) -> None:
    """An addition, the bias of the MatMul before it, or the last node of a layer norm."""
    for product, name in (node.inputs, node.inputs[::-1]):
        matmul, bias = importer.maker(product, "MatMul"), importer.constants.get(name)
        weight = importer.constants.get(matmul.inputs[1]) if matmul else None
        if matmul is None or bias is None or weight is None or weight.ndim != 2:
            continue
        features = weight.shape[1:]
        # Some biases have axes of size 1 before their own.
        if bias.shape[-1:] == (bias.size,) == features and bias.ndim <= len(
            importer.shape(product)
        ):
            _emit_linear(importer, node, matmul.inputs[0], weight.T, bias.reshape(-1))
            return
    if norm := layer_norm(importer, node):
        params = {"scale": norm.scale, "bias": norm.bias}
        importer.emit(node, "layer_norm", [norm.x], {"epsilon": norm.epsilon}, params)
    else:
        importer.emit(node, "add", node.inputs)


def _mul(importer: Importer, node: Node) -> None:
    """A product, one with a number, or the last node of silu or gelu."""
    if x := silu_input(importer, node):
        importer.emit(node, "silu", [x])
    elif x := gelu_input(importer, node):
        importer.emit(node, "gelu", [x])
    else:
        for x, factor in (node.inputs, node.inputs[::-1]):
            number = importer.constants.get(factor)
            if number is not None and number.shape == () and number.dtype == np.float32:
                importer.emit(node, "scale", [x], {"factor": float(number)})
                return
        importer.emit(node, "mul", node.inputs)


def _pow(importer: Importer, node: Node) -> None:
    exponent = importer.constant(node, 1, "exponent")
    if exponent.size != 1:
        raise UnsupportedNodeError("Pow with several exponents")
    importer.emit(node, "pow", node.inputs[:1], {"exponent": float(exponent.item())})


def _cast(importer: Importer, node: Node) -> None:
    wanted = helper.tensor_dtype_to_np_dtype(node.attrs["to"]).name
    if wanted == importer.builder.spec(importer.tensor(node.inputs[0])).dtype:
        importer.alias(node)
    elif wanted in ITEM_BYTES:
        importer.emit(node, "cast", node.inputs, {"dtype": wanted})
    else:
        raise UnsupportedNodeError(f"Cast to {wanted}")


def _chain(kind: str) -> Reader:
    """A node of any number of operands: one op less than there are operands."""

    def read(importer: Importer, node: Node) -> None:
        total, *rest = map(importer.tensor, node.inputs)
        for i, name in enumerate(rest, start=1 - len(rest)):
            label = f"{node.output}/{i}" if i else node.output
            total = importer.builder.op(kind, [total, name], name=label)
        importer.names[node.output] = total

    return read


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


def _layer_norm(importer: Importer, node: Node) -> None:
    rank = len(importer.shape(node.inputs[0]))
    if node.attr("axis", -1) not in (-1, rank - 1):
        raise UnsupportedNodeError("LayerNormalization over more than the last axis")
    scale, bias = importer.constant(node, 1, "scale"), importer.optional(node, 2, "bias")
    params = {"scale": scale, "bias": np.zeros_like(scale) if bias is None else bias}
    attrs = {"epsilon": node.attr("epsilon", 1e-5)}
    importer.emit(node, "layer_norm", node.inputs[:1], attrs, params)


def _pass_on(importer: Importer, node: Node) -> None:
    """Nodes that do nothing at inference."""
    importer.alias(node)


READERS: Mapping[str, Reader] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
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
    "Neg": _plain("neg"),
    "Reciprocal": _plain("reciprocal"),
    "Pow": _pow,
    "Cast": _cast,
    "Add": _add,
    "Sub": _plain("sub"),
    "Mul": _mul,
    "Div": _plain("div"),
    "Sum": _chain("add"),
    "Max": _chain("maximum"),
    "Min": _chain("minimum"),
    "Equal": _plain("equal"),
    "Where": _plain("where"),
    "Softmax": axes.softmax,
    "ReduceMean": axes.reduction("mean"),
    "ReduceSum": axes.reduction("sum"),
    "ReduceMax": axes.reduction("max"),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "LRN": _plain("lrn", size=0, alpha=1e-4, beta=0.75, bias=1.0),
    "Concat": axes.concat,
    "Slice": axes.cut,
    "Split": axes.split,
    "Gather": axes.gather,
    "Expand": axes.expand,
    "Resize": axes.resize,
    "Upsample": axes.resize,
    "Flatten": axes.flatten,
    "Reshape": axes.view,
    "Squeeze": axes.view,
    "Unsqueeze": axes.view,
    "Transpose": axes.transpose,
    "Pad": axes.pad,
    "Dropout": _pass_on,
    "Identity": _pass_on,
}
