"""Graph -> torch module: a list of ops, run in order, with trainable parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hwbench.errors import GraphError
from hwbench.graph import Graph
from hwbench.lower.weights import check_weights, random_weights
from hwbench.ops import HSIGMOID, Op

Params = Mapping[str, Tensor]
Call = Callable[[Op, Sequence[Tensor], Params], Tensor]


def to_torch(graph: Graph, weights: Mapping[str, NDArray[np.float32]] | None = None) -> GraphModule:
    """Lower a graph to a module that computes what onnxruntime computes from ``to_onnx``.

    ``weights`` are as for ``to_onnx``: copied, and by default the random ones of seed 0.
    Raises :class:`GraphError` for weights that do not fit.
    """
    if weights is None:
        weights = random_weights(graph)
    check_weights(graph, weights)
    return GraphModule(graph, weights)


class GraphModule(nn.Module):
    """Runs a graph; inputs come in the graph's order, several outputs leave as a tuple.

    ``ops[i]`` holds the parameters of ``graph.ops[i]`` under their own names.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__()
        self.graph = graph
        self.ops = nn.ModuleList(OpModule(graph, op, weights) for op in graph.ops)
        last_use = {name: i for i, op in enumerate(graph.ops) for name in op.inputs}
        self._dead_after = [
            [name for name in set(op.inputs) if last_use[name] == i and name not in graph.outputs]
            for i, op in enumerate(graph.ops)
        ]

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        if len(inputs) != len(self.graph.inputs):
            wanted = len(self.graph.inputs)
            raise GraphError(f"{self.graph.name!r} takes {wanted} inputs, got {len(inputs)}")
        live = {name: x for (name, _), x in zip(self.graph.inputs, inputs, strict=True)}
        for op, module, dead in zip(self.graph.ops, self.ops, self._dead_after, strict=True):
            live[op.output] = module(*(live[name] for name in op.inputs))
            for name in dead:
                del live[name]
        outputs = tuple(live[name] for name in self.graph.outputs)
        return outputs if len(outputs) > 1 else outputs[0]


class OpModule(nn.Module):
    """One op of a graph, with its parameters."""

    def __init__(self, graph: Graph, op: Op, weights: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__()
        self.op = op
        self._names = tuple(graph.params(op))
        for name in self._names:
            value = torch.from_numpy(np.array(weights[f"{op.name}.{name}"]))
            learned = name not in _STATISTICS and value.is_floating_point()
            self.register_parameter(name, nn.Parameter(value, requires_grad=learned))

    def forward(self, *inputs: Tensor) -> Tensor:
        params = {name: getattr(self, name) for name in self._names}
        return TORCH_OPS[self.op.kind](self.op, inputs, params)

    def extra_repr(self) -> str:
        return f"{self.op.name}: {self.op.kind}"


_STATISTICS = ("mean", "var")  # of a batch norm, which runs as at inference


# -- one entry for each kind of op ------------------------------------------------------------


def _function(call: Callable[[Tensor], Tensor]) -> Call:
    return lambda op, xs, params: call(xs[0])


def _operator(call: Callable[[Tensor, Tensor], Tensor]) -> Call:
    return lambda op, xs, params: call(xs[0], xs[1])


def _padded(op: Op, x: Tensor, value: float = 0.0) -> Tensor:
    """The input with a window's padding made explicit: torch has neither uneven padding, nor
    more than half a kernel of it in a pool."""
    rank = len(op["padding"]) // 2
    return _pad_axes(x, op["padding"][:rank], op["padding"][rank:], value)


def _pad_axes(x: Tensor, begins: Sequence[int], ends: Sequence[int], value: float) -> Tensor:
    # functional.pad takes (begin, end) pairs from the last axis on.
    pairs = [p for begin, end in zip(begins[::-1], ends[::-1], strict=True) for p in (begin, end)]
    return functional.pad(x, pairs, value=value) if any(pairs) else x


def _conv(op: Op, xs: Sequence[Tensor], params: Params) -> Tensor:
    (x,), rank = xs, len(op["kernel"])
    begins, ends = op["padding"][:rank], op["padding"][rank:]
    if begins != ends:
        x, begins = _padded(op, x), (0,) * rank
    call = (functional.conv1d, functional.conv2d)[rank - 1]
    weight, bias = params["weight"], params.get("bias")
    return call(x, weight, bias, op["stride"], begins, op["dilation"], op["groups"])


def _conv_transpose(op: Op, xs: Sequence[Tensor], params: Params) -> Tensor:
    call = (functional.conv_transpose1d, functional.conv_transpose2d)[len(op["kernel"]) - 1]
    y = call(xs[0], params["weight"], params.get("bias"), op["stride"])
    rank = len(op["kernel"])
    for axis, (begin, end) in enumerate(
        zip(op["padding"][:rank], op["padding"][rank:], strict=True), start=2
    ):
        y = y.narrow(axis, begin, y.shape[axis] - begin - end)
    return y


def _upsample(op: Op, xs: Sequence[Tensor], params: Params) -> Tensor:
    return functional.interpolate(xs[0], scale_factor=[float(f) for f in op["factors"]])


def _max_pool(op: Op, xs: Sequence[Tensor], params: Params) -> Tensor:
    call = (functional.max_pool1d, functional.max_pool2d)[len(op["kernel"]) - 1]
    return call(_padded(op, xs[0], -math.inf), op["kernel"], op["stride"])


def _avg_pool(op: Op, xs: Sequence[Tensor], params: Params) -> Tensor:
    (x,) = xs
    call = (functional.avg_pool1d, functional.avg_pool2d)[len(op["kernel"]) - 1]
    mean = call(_padded(op, x), op["kernel"], op["stride"])
    if op["count_include_pad"] or not any(op["padding"]):
        return mean
    inside = _padded(op, torch.ones_like(x[:1, :1]))
    return mean / call(inside, op["kernel"], op["stride"])


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


def _hsigmoid(op: Op, xs: Sequence[Tensor], params: Params) -> Tensor:
    (x,) = xs
    if dict(op.attrs) == HSIGMOID:
        return functional.hardsigmoid(x)
    line: Tensor = op["alpha"] * x + op["beta"]
    return line.clamp(0, 1)


def _lrn(op: Op, xs: Sequence[Tensor], params: Params) -> Tensor:
    (x,), size = xs, op["size"]
    return functional.local_response_norm(x, size, op["alpha"], op["beta"], op["bias"])


def _batch_norm(op: Op, xs: Sequence[Tensor], p: Params) -> Tensor:
    return functional.batch_norm(
        xs[0], p["mean"], p["var"], p["scale"], p["bias"], eps=op["epsilon"]
    )


def _layer_norm(op: Op, xs: Sequence[Tensor], p: Params) -> Tensor:
    (x,) = xs
    return functional.layer_norm(x, x.shape[-1:], p["scale"], p["bias"], op["epsilon"])


def _cast(op: Op, xs: Sequence[Tensor], params: Params) -> Tensor:
    return xs[0].to(getattr(torch, op["dtype"]))


def _slice(op: Op, xs: Sequence[Tensor], params: Params) -> Tensor:
    cut = [slice(None)] * xs[0].dim()
    for axis, *part in zip(op["axes"], op["starts"], op["stops"], op["steps"], strict=True):
        cut[axis] = slice(*part)
    return xs[0][tuple(cut)]


def _pad(op: Op, xs: Sequence[Tensor], params: Params) -> Tensor:
    (x,), pads = xs, op["pads"]
    return _pad_axes(x, pads[: x.dim()], pads[x.dim() :], op["value"])


def _flatten(op: Op, xs: Sequence[Tensor], params: Params) -> Tensor:
    (x,), axis = xs, op["axis"]
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


TORCH_OPS: Mapping[str, Call] = {
    "conv": _conv,
    "linear": lambda op, xs, params: functional.linear(xs[0], params["weight"], params.get("bias")),
    "conv_transpose": _conv_transpose,
    "matmul": _operator(torch.matmul),
    "embedding": lambda op, xs, params: functional.embedding(xs[0], params["table"]),
    "upsample": _upsample,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": lambda op, xs, params: xs[0].mean(_spatial(xs[0]), keepdim=True),
    "global_max_pool": lambda op, xs, params: xs[0].amax(_spatial(xs[0]), keepdim=True),
    "relu": _function(functional.relu),
    "relu6": _function(functional.relu6),
    "hswish": _function(functional.hardswish),
    "hsigmoid": _hsigmoid,
    "sigmoid": _function(torch.sigmoid),
    "silu": _function(functional.silu),
    "gelu": _function(functional.gelu),
    "tanh": _function(torch.tanh),
    "leaky_relu": lambda op, xs, params: functional.leaky_relu(xs[0], op["alpha"]),
    "elu": lambda op, xs, params: functional.elu(xs[0], op["alpha"]),
    "clip": lambda op, xs, params: xs[0].clamp(op["min"], op["max"]),
    "exp": _function(torch.exp),
    "erf": _function(torch.erf),
    "sqrt": _function(torch.sqrt),
    "neg": _function(torch.neg),
    "reciprocal": _function(torch.reciprocal),
    "pow": lambda op, xs, params: xs[0].pow(op["exponent"]),
    "scale": lambda op, xs, params: xs[0] * op["factor"],
    "cast": _cast,
    "add": _operator(torch.add),
    "sub": _operator(torch.sub),
    "mul": _operator(torch.mul),
    "div": _operator(torch.div),
    "maximum": _operator(torch.maximum),
    "minimum": _operator(torch.minimum),
    "equal": _operator(torch.eq),
    "where": lambda op, xs, params: torch.where(xs[0], xs[1], xs[2]),
    "softmax": lambda op, xs, params: xs[0].softmax(op["axis"]),
    "mean": lambda op, xs, params: xs[0].mean(op["axes"], keepdim=op["keepdims"]),
    "sum": lambda op, xs, params: xs[0].sum(op["axes"], keepdim=op["keepdims"]),
    "max": lambda op, xs, params: xs[0].amax(op["axes"], keepdim=op["keepdims"]),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "lrn": _lrn,
    "concat": lambda op, xs, params: torch.cat(list(xs), op["axis"]),
    "slice": _slice,
    "pad": _pad,
    "transpose": lambda op, xs, params: xs[0].permute(op["perm"]),
    "flatten": _flatten,
    "expand": lambda op, xs, params: xs[0].expand(op["shape"]),
    "reshape": lambda op, xs, params: xs[0].reshape(op["shape"]),
    "constant": lambda op, xs, params: params["value"],
}
