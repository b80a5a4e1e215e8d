"""What each operator of an exported torch program is in a graph: one rule an operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import fx

from hwbench.graph import GraphBuilder
from hwbench.ops import AttrValue


class RefusalError(Exception):
    """Why an operator cannot be taken: completes "layer X …"."""


#: Start, stop and step by axis.
Cuts = Mapping[int, tuple[int, int, int]]


class Builder(Protocol):
    """What a rule works with: the graph under construction, and where weights come from."""

    builder: GraphBuilder
    cuts: dict[str, tuple[str, Cuts]]  # of each slice: what it cuts, and how each axis

    def free_name(self, wanted: str) -> str: ...
    def tensor(self, value: Any) -> str: ...
    def take(self, layer: str, param: str, value: fx.Node) -> None: ...
    def layer_name(self, value: Any) -> str: ...


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operator, its arguments by name."""

    tracer: Builder
    node: fx.Node
    args: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    @property
    def x(self) -> str:
        """The graph's tensor of the first argument."""
        return self.tracer.tensor(next(iter(self.node.args)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of that tensor."""
        return self.tracer.builder.shape(self.x)

    @property
    def result(self) -> tuple[int, ...]:
        """Shape of what the call gave (first) for a batch of two images."""
        value = self.node.meta["val"]
        return tuple((value[0] if isinstance(value, (tuple, list)) else value).shape)

    def op(self, kind: str, attrs: Mapping[str, AttrValue] | None = None, *more: str) -> str:
        """Add an op without weights, called by its kind."""
        name = self.tracer.free_name(kind)
        return self.tracer.builder.op(kind, [self.x, *more], attrs or {}, name=name)

    def layer(self, kind: str, attrs: Mapping[str, AttrValue], weights: Mapping[str, Any]) -> str:
        """Add an op with weights, called by the module's path."""
        present = {param: value for param, value in weights.items() if value is not None}
        name = self.tracer.layer_name(next(iter(present.values()), None))
        made = self.tracer.builder.op(kind, [self.x], attrs, name=name)
        for param, value in present.items():
            self.tracer.take(name, param, value)
        return made


def _pair(value: Any) -> tuple[int, int]:
    sizes = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return (sizes * 2)[:2] if len(sizes) == 1 else (sizes[0], sizes[1])


def _needs(condition: bool, why: str) -> None:
    if not condition:
        raise RefusalError(why)


def _conv(call: Call) -> str:
    rank, channels = len(call.shape), call.shape[1]
    _needs(rank == 4, f"reads a tensor of {rank} axes: images have 4")
    out, _, *kernel = call["weight"].meta["val"].shape
    groups = call["groups"]
    _needs(
        groups in (1, channels),
        f"has {groups} groups for {channels} channels, which ties them across groups: make it "
        "dense (groups=1) or depthwise",
    )
    stride, dilation, padding = (_pair(call[n]) for n in ("stride", "dilation", "padding"))
    if isinstance(call["padding"], str):
        _needs(call["padding"] in ("same", "valid"), f"has the padding {call['padding']!r}")
        same = call["padding"] == "same"
        total = [d * (k - 1) if same else 0 for k, d in zip(kernel, dilation, strict=True)]
        ends = (*(t // 2 for t in total), *(t - t // 2 for t in total))
    else:
        ends = padding * 2
    attrs: dict[str, AttrValue] = {
        "kernel": tuple(map(int, kernel)),
        "stride": stride,
        "padding": ends,
        "dilation": dilation,
        "groups": groups,
        "out_channels": int(out),
        "bias": call["bias"] is not None,
    }
    return call.layer("conv", attrs, {"weight": call["weight"], "bias": call["bias"]})


def _batch_norm(call: Call) -> str:
    _needs(
        call["running_mean"] is not None,
        "keeps no running statistics: make it track_running_stats=True",
    )
    _needs(call["weight"] is not None, "has no scale and shift: make it affine=True")
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    weights = {ours: call[theirs] for ours, theirs in names.items()}
    return call.layer("batch_norm", {"epsilon": float(call["eps"])}, weights)


def _linear(call: Call) -> str:
    _needs(len(call.shape) == 2, "reads more than one row of features an image: flatten before")
    out = int(call["weight"].meta["val"].shape[0])
    attrs: dict[str, AttrValue] = {"out_features": out, "bias": call["bias"] is not None}
    return call.layer("linear", attrs, {"weight": call["weight"], "bias": call["bias"]})


def _add(call: Call) -> str:
    other = call.tracer.tensor(call["other"])
    _needs(call["alpha"] == 1, "scales what it adds: leave alpha out")
    shape = call.tracer.builder.shape(other)
    _needs(
        shape == call.shape,
        f"adds {call.shape} and {shape}, not channel to channel: make their shapes equal",
    )
    return call.op("add", None, other)


def _pool(kind: str) -> Callable[[Call], str]:
    def rule(call: Call) -> str:
        kernel = _pair(call["kernel_size"])
        stride = _pair(call["stride"]) if call["stride"] else kernel
        padding = _pair(call["padding"])
        attrs: dict[str, AttrValue] = {"kernel": kernel, "stride": stride, "padding": padding * 2}
        _needs(_pair(call.args.get("dilation", 1)) == (1, 1), "skips pixels: take dilation=1")
        _needs(call.args.get("divisor_override") is None, "has a divisor of its own: leave it out")
        if kind == "avg_pool":
            attrs["count_include_pad"] = bool(call["count_include_pad"])
        made = call.op(kind, attrs)
        got = call.tracer.builder.shape(made)[2:]
        _needs(got == call.result[2:], "rounds its size up: take ceil_mode=False")
        return made

    return rule


def _adaptive(kind: str) -> Callable[[Call], str]:
    def rule(call: Call) -> str:
        size = call.result[2:]
        if size == (1, 1):
            return call.op(f"global_{kind}")
        if size == call.shape[2:]:
            return call.x
        divides = not any(n % m for n, m in zip(call.shape[2:], size, strict=True))
        _needs(divides, f"pools {call.shape[2:]} to {size}, which does not divide it")
        kernel = tuple(n // m for n, m in zip(call.shape[2:], size, strict=True))
        attrs: dict[str, AttrValue] = {"kernel": kernel, "stride": kernel, "padding": (0,) * 4}
        if kind == "avg_pool":
            attrs["count_include_pad"] = False
        return call.op(kind, attrs)

    return rule


def _mean(call: Call) -> str:
    axes = sorted(axis % len(call.shape) for axis in call["dim"] or ())
    _needs(axes == [2, 3], f"takes the mean over axes {axes}: only that over all pixels is known")
    pooled = call.op("global_avg_pool")
    if call["keepdim"]:
        return pooled
    name = call.tracer.free_name(f"{pooled}_flat")
    return call.tracer.builder.op("flatten", [pooled], {"axis": 1}, name=name)


def _flatten(call: Call) -> str:
    """Any reshape that leaves an image's values in one row, or all as they were.

    ``(features, 1)`` is a row too, on its way from a pool to a linear layer.
    """
    batch, *rest = call.result
    here = call.shape[1:]
    if tuple(rest) == here:
        return call.x
    _needs(
        batch == 2 and rest[:1] == [math.prod(here)],
        f"makes {(1, *rest)} of {call.shape}: only flattening to (1, features) is known",
    )
    return call.op("flatten", {"axis": 1})


def _slice(call: Call) -> str:
    """``x[:, :, ::2, ::2]`` is a slice for each axis here, and one op again in the graph."""
    axis = call["dim"] % len(call.shape)
    size = call.shape[axis]
    start, stop, _ = slice(call["start"], call["end"]).indices(size if axis else 2)
    if start == 0 and stop >= (size if axis else 2) and call["step"] == 1:
        return call.x
    _needs(axis > 1, "takes some of the images or channels: only pixels can be skipped")
    source, before = call.tracer.cuts.get(call.x, (call.x, {}))
    if axis in before:
        source, before = call.x, {}
    cuts = dict(sorted({**before, axis: (start, stop, call["step"])}.items()))
    starts, stops, steps = zip(*cuts.values(), strict=True)
    attrs = {"axes": tuple(cuts), "starts": starts, "stops": stops, "steps": steps}
    name = call.tracer.free_name("slice")
    made = call.tracer.builder.op("slice", [source], attrs, name=name)
    call.tracer.cuts[made] = (source, cuts)
    return made


def _pad(call: Call) -> str:
    _needs(call.args.get("mode", "constant") == "constant", "pads with what is there, not zeros")
    _needs(not call["value"], f"pads with {call['value']}: only zeros are known")
    pairs = list(call["pad"])  # (begin, end) of the last axis first
    _needs(min(pairs) >= 0, "cuts off its edges: slice instead")
    begins, ends = [0] * len(call.shape), [0] * len(call.shape)
    for i in range(len(pairs) // 2):
        begins[-1 - i], ends[-1 - i] = pairs[2 * i], pairs[2 * i + 1]
    _needs(not begins[0] and not ends[0], "pads the batch")
    return call.op("pad", {"pads": (*begins, *ends), "value": 0.0})


def _hardtanh(call: Call) -> str:
    limits = (call["min_val"], call["max_val"])
    _needs(limits == (0, 6), f"cuts at {limits}: only ReLU6 is known")
    return call.op("relu6")


def _gelu(call: Call) -> str:
    _needs(call["approximate"] == "none", "is an approximate GELU: take the exact one")
    return call.op("gelu")


def _leaky_relu(call: Call) -> str:
    return call.op("leaky_relu", {"alpha": float(call["negative_slope"])})


def _dropout(call: Call) -> str:
    _needs(not call["train"], "drops at inference too: let it follow module.eval()")
    return call.x


def _item(call: Call) -> str:
    _needs(call["1"] == 0, "reads where a maximum lies")
    return call.x


def _unary(kind: str) -> Callable[[Call], str]:
    return lambda call: call.op(kind)


ATEN: Mapping[str, Callable[[Call], str]] = {
    "aten.conv2d": _conv,
    "aten.batch_norm": _batch_norm,
    "aten.linear": _linear,
    "aten.add": _add,
    "aten.relu": _unary("relu"),
    "aten.relu6": _unary("relu6"),
    "aten.hardtanh": _hardtanh,
    "aten.hardswish": _unary("hswish"),
    "aten.silu": _unary("silu"),
    "aten.sigmoid": _unary("sigmoid"),
    "aten.tanh": _unary("tanh"),
    "aten.gelu": _gelu,
    "aten.leaky_relu": _leaky_relu,
    "aten.max_pool2d": _pool("max_pool"),
    "aten.avg_pool2d": _pool("avg_pool"),
    "aten.adaptive_avg_pool2d": _adaptive("avg_pool"),
    "aten.adaptive_max_pool2d": _adaptive("max_pool"),
    "aten.mean": _mean,
    "aten.flatten": _flatten,
    "aten.view": _flatten,
    "aten.reshape": _flatten,
    "aten.squeeze": _flatten,
    "aten.contiguous": _flatten,
    "aten.clone": _flatten,
    "aten.alias": _flatten,
    "aten.slice": _slice,
    "aten.pad": _pad,
    "aten.constant_pad_nd": _pad,
    "aten.dropout": _dropout,
    "aten.feature_dropout": _dropout,
    "<built-in function getitem>": _item,
}
