"""Kernels: what a runtime executes as one operator, and the rules by which it makes them.

A runtime folds an activation into the convolution before it, joins an addition, and turns tensors
into a layout of its own where it pays. Which of this a device does is data, not code: the
:class:`Rules` that test cases on the device gave (:mod:`hwbench.predictors.kernels.rules`).
``split(graph, rules)`` is then a network as that device runs it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.graph import Graph
from hwbench.ops import OP_KINDS, UNARY, Op

#: What a kernel's configuration is told by: sizes as they are, of its main operation.
FEATURES = (
    "macs",
    "read",
    "written",
    "weights",
    "deep",
    "wide",
    "groups",
    "rows",
    "inner",
    "window",
    "stride",
    "dilation",
    "operands",
    "joined",
    "function",
    "resident",
    "traffic",
)

CONVERT = "convert"
ANY = "*"
_OWN = BLOCKED, ENTERING, PASSING = "blocked", "entering", "passing"
RAGGED = ", ragged"

#: Fused functions by what they cost: a comparison, some arithmetic, an exponential.
_CHEAP = {"relu", "relu6", "clip", "leaky_relu", "batch_norm"}
_DEAR = {"sigmoid", "tanh", "silu", "gelu", "exp", "erf", "elu"}
_BLOCK, _QUARTER = 16, 4

Signature = tuple[str, ...]
Surroundings = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One operator of a runtime: ``ops`` are the graph's operations that it does, in order.

    ``kind`` is the class of its main operation, ``sizes`` a value for each of :data:`FEATURES`.
    A conversion of layout has no operation of the graph.
    """

    name: str
    kind: str
    ops: tuple[str, ...]
    sizes: tuple[float, ...]

    def size(self, feature: str) -> float:
        return self.sizes[FEATURES.index(feature)]


@dataclass(frozen=True)
class Rules:
    """How a device's runtime makes kernels of operations.

    ``fused`` says whether an operation joins a kernel: by the classes of what that consists of
    so far (its first by :func:`op_key`, or ``"*"`` for any; the others by :func:`joining`) and by
    its own. ``layouts`` are the classes (of :class:`Part`) that work on images in a layout of the
    runtime's own (``blocked``), that take plain ones and make such (``entering``), or that keep
    what they get (``passing``); all others are plain. Where layouts meet, a kernel converts.
    """

    fused: Mapping[tuple[Signature, str], bool] = field(default_factory=dict)
    layouts: Mapping[str, str] = field(default_factory=dict)

    def joins(self, signature: Signature, kind: str) -> bool:
        """Whether an operation of ``kind`` is done by the kernel that it reads from.

        Of kernels that were not seen with a batch norm, as of those without: where it has joined,
        it is folded into the weights.
        """
        folded = tuple(part for part in signature if part != "batch_norm")
        for known in (signature, folded, (ANY, *signature[1:]), (ANY, *folded[1:])):
            if (known, kind) in self.fused:
                return self.fused[known, kind]
        return False


def op_key(graph: Graph, op: Op) -> str:
    """The class of an operation within which kernels resemble each other.

    Convolutions differ by grouping and by whether their channels fill vectors (blocks of 16, at
    least quarters of one); element-wise operations by whether they broadcast.
    """
    specs, out = graph.specs(op), graph.tensors[op.output]
    if op.kind == "conv":
        return _conv_key(op, specs[0].shape[1], out.shape[1], len(out.shape) - 2)
    if op.kind in ("linear", "matmul"):
        rows = out.elements // out.shape[-1]
        return f"{op.kind} vector" if rows == 1 else op.kind
    if OP_KINDS[op.kind].arity == 2 and specs[0].shape != specs[1].shape:
        return joining(graph, op) if reads_constant(graph, op) else f"{op.kind} broadcast"
    return op.kind


def joining(graph: Graph, op: Op) -> str:
    """An operation as one that may join a kernel: what is constant can be folded into weights."""
    return f"{op.kind} constant" if reads_constant(graph, op) else op.kind


def reads_constant(graph: Graph, op: Op) -> bool:
    """Whether an operand is a constant of the network."""
    return any(f"{name}.value" in graph.weights for name in op.inputs)


def _conv_key(op: Op, channels: int, out: int, axes: int) -> str:
    groups, deep = op["groups"], channels // op["groups"]
    if groups == channels and out == groups > 1:
        form, whole = "depthwise", channels % _QUARTER == 0
    elif groups > 1:
        form, whole = "grouped conv", deep % _BLOCK == 0 and out // groups % _BLOCK == 0
    else:
        form = "pointwise conv" if math.prod(op["kernel"]) == 1 else "conv"
        whole = deep % _QUARTER == 0 if deep >= _BLOCK else True
        form += " of few" if deep < _BLOCK else ""
    form += "" if whole else " of odd"
    return form if axes == 2 else f"{form} {axes}d"


def split(graph: Graph, rules: Rules) -> list[Kernel]:
    """The kernels that a device makes of a graph, conversions of layout included."""
    groups = fuse(graph, rules)
    around = surroundings(graph)
    kernels = [kernel_of(graph, ops, around) for ops in groups]
    return _with_conversions(graph, rules, groups, kernels, around)


def surroundings(graph: Graph) -> Surroundings:
    """Whether weights are still in a cache in the next run depends on what else a run touches.

    ``resident`` are bytes of all weights and of the largest tensor, ``traffic`` all bytes that
    operations read and write.
    """
    weights = sum(_weight_bytes(graph, op) for op in graph.ops)
    largest = max(graph.tensors[op.output].bytes for op in graph.ops)
    return {"resident": float(weights + largest), "traffic": float(graph.bytes_moved)}


def fuse(graph: Graph, rules: Rules) -> list[list[Op]]:
    """The graph's operations by the kernel that does them, in the order of their first."""
    uses = Counter(name for op in graph.ops for name in op.inputs) + Counter(graph.outputs)
    holder: dict[str, _Group] = {}
    groups: list[_Group] = []
    for op in graph.ops:
        if op.kind == "constant":
            continue
        kind = joining(graph, op)
        before = (holder[name] for name in reversed(op.inputs) if name in holder)
        joined = (g for g in before if uses[g.made] == 1 and rules.joins((*g.signature,), kind))
        group = next(joined, None)
        if group is None:
            group = _Group([op_key(graph, op)], [op])
            groups.append(group)
        else:
            group.signature.append(kind)
            group.ops.append(op)
        holder[op.output] = group
    return [group.ops for group in groups]


@dataclass(slots=True)
class _Group:
    signature: list[str]
    ops: list[Op]

    @property
    def made(self) -> str:
        return self.ops[-1].output


def kernel_of(graph: Graph, ops: list[Op], around: Surroundings) -> Kernel:
    """The kernel of operations that a runtime does as one."""
    main = max(ops, key=graph.macs_of)  # the first, where none multiplies
    made = {op.output for op in ops}
    read = {name for op in ops for name in op.inputs if name not in made}
    sizes = {
        "macs": sum(map(graph.macs_of, ops)),
        "read": sum(graph.tensors[name].bytes for name in read),
        "written": graph.tensors[ops[-1].output].bytes,
        "weights": sum(_weight_bytes(graph, op) for op in ops),
        "operands": len(read),
        "joined": sum(OP_KINDS[op.kind].arity != 1 for op in ops[1:]),
        "function": max((_function(op.kind) for op in ops[1:]), default=0),
        **around,
        **_shape(graph, main),
    }
    row = tuple(float(sizes[name]) for name in FEATURES)
    kind = op_key(graph, main)
    if not graph.macs_of(main):  # an addition with a layer norm is neither
        kind = " ".join([kind, *(op.kind for op in ops[1:] if op.kind not in UNARY)])
    return Kernel(ops[-1].name, kind, tuple(op.name for op in ops), row)


def _weight_bytes(graph: Graph, op: Op) -> int:
    """Bytes of parameters that an operation reads."""
    if OP_KINDS[op.kind].is_view:
        return 0
    tensors = (*graph.specs(op), graph.tensors[op.output])
    return graph.bytes_moved_of(op) - sum(spec.bytes for spec in tensors)


def _function(kind: str) -> int:
    if OP_KINDS[kind].arity != 1:
        return 0
    return 1 if kind in _CHEAP else 3 if kind in _DEAR else 2


def _shape(graph: Graph, op: Op) -> Mapping[str, float]:
    """Sizes by which kernels of one kind differ beyond their costs.

    ``deep`` and ``wide`` are what each group of a product reads and makes at a place, ``rows`` the
    places, ``inner`` the run of them that lies together in memory.
    """
    specs, out = graph.specs(op), graph.tensors[op.output].shape
    source = specs[0].shape if specs else out
    sizes: dict[str, float] = dict.fromkeys(("groups", "window", "stride", "dilation"), 1.0)
    attrs: dict[str, Any] = dict(op.attrs)
    if op.kind in ("linear", "matmul"):
        sizes |= {"deep": source[-1], "wide": out[-1], "rows": math.prod(out[:-1])}
        return sizes | {"inner": out[-2] if len(out) > 1 else 1}
    groups = attrs.get("groups", 1)
    sizes |= {"groups": groups, "dilation": max(attrs.get("dilation", (1,)))}
    sizes |= {"deep": (source[1] if len(source) > 1 else 1) // groups}
    sizes |= {"wide": (out[1] if len(out) > 1 else 1) // groups}
    if "kernel" in attrs:
        sizes |= {"window": math.prod(attrs["kernel"]), "stride": max(attrs["stride"])}
    elif op.kind == "softmax":
        sizes["window"] = source[attrs["axis"]]
    else:  # what is reduced, or repeated
        sizes["window"] = math.prod(source) / math.prod(out)
    return sizes | {"rows": math.prod(out[2:]), "inner": _run(op, [s.shape for s in specs], out)}


def _run(op: Op, shapes: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> int:
    """How many numbers lie together that an operation treats alike."""
    attrs: dict[str, Any] = dict(op.attrs)
    last = len(out)
    if op.kind == "softmax":
        last = attrs["axis"] + 1
    elif op.kind == "concat":
        last = attrs["axis"]
    elif op.kind == "transpose":
        while last and attrs["perm"][last - 1] == last - 1:
            last -= 1
    elif len(shapes) == 2 and shapes[0] != shapes[1]:
        small = min(shapes, key=math.prod)
        small = (1,) * (len(out) - len(small)) + small
        alike = [a == b for a, b in zip(small, out, strict=True)]
        while last and alike[last - 1] == alike[-1]:
            last -= 1
    elif "axes" in attrs and shapes:
        reduced = [axis in attrs["axes"] for axis in range(len(shapes[0]))]
        out, last = shapes[0], len(shapes[0])
        while last and reduced[last - 1] == reduced[-1]:
            last -= 1
    else:
        last = max(last - 1, 0)
    return math.prod(out[last:])


# -- layouts ----------------------------------------------------------------------------------


def _with_conversions(
    graph: Graph,
    rules: Rules,
    groups: list[list[Op]],
    kernels: list[Kernel],
    around: Surroundings,
) -> list[Kernel]:
    parts = [part_of(graph, ops, kernel) for ops, kernel in zip(groups, kernels, strict=True)]
    needed = conversions(parts, graph.outputs, rules.layouts)
    every: list[Kernel] = []
    for kernel, tensors in zip([*kernels, None], needed, strict=True):
        every += [_conversion(graph, tensor, around) for tensor in tensors]
        every += [kernel] if kernel else []
    return every


@dataclass(frozen=True, slots=True)
class Part:
    """A kernel as far as layouts go: its class, the images that it reads, and what it makes.

    ``joined`` are the images that what joined it reads, an addition's other operand.
    """

    kind: str
    images: tuple[str, ...]
    joined: tuple[str, ...]
    made: str


def part_of(graph: Graph, ops: list[Op], kernel: Kernel) -> Part:
    """The images are tensors of four axes; where their channels fill no blocks, layouts differ."""
    made = {op.output for op in ops}
    read = dict.fromkeys(name for op in ops for name in op.inputs if name not in made)
    images = [name for name in read if len(graph.tensors[name].shape) == 4]
    ragged = any(graph.tensors[name].shape[1] % _BLOCK for name in images)
    first = tuple(name for name in images if name in ops[0].inputs)
    joined = tuple(name for name in images if name not in first)
    return Part(f"{kernel.kind}{RAGGED if ragged else ''}", first, joined, ops[-1].output)


def conversions(
    parts: Sequence[Part], outputs: Sequence[str], layouts: Mapping[str, str]
) -> list[list[str]]:
    """Tensors to convert before each part, and at the end; each is converted once."""
    needed = conversions_under(parts, outputs, [layouts])
    return [[name for name, under in before if under] for before in needed]


def conversions_under(
    parts: Sequence[Part], outputs: Sequence[str], choices: Sequence[Mapping[str, str]]
) -> list[list[tuple[str, int]]]:
    """The same of many layouts in one pass: a tensor, and in bit i whether ``choices[i]`` needs it.

    A network has hundreds of parts, and a search tries more layouts: one by one they would take
    most of a fit.
    """
    kinds = dict.fromkeys(part.kind for part in parts)
    works = {(k, each): _under(choices, k, each) for k in kinds for each in _OWN}
    blocked: dict[str, int] = defaultdict(int)
    entered: dict[str, int] = defaultdict(int)
    left: dict[str, int] = defaultdict(int)
    needed: list[list[tuple[str, int]]] = []
    for part in parts:
        keeps = works[part.kind, PASSING] if part.images else 0
        for name in part.images:
            keeps &= blocked[name]
        wants = works[part.kind, BLOCKED] | keeps
        makes = works[part.kind, ENTERING] | wants
        before = []
        read = [(name, wants) for name in part.images] + [(name, makes) for name in part.joined]
        for name, wanted in read:
            enters = wanted & ~blocked[name] & ~entered[name]
            leaves = blocked[name] & ~wanted & ~left[name]
            entered[name] |= enters
            left[name] |= leaves
            before.append((name, enters | leaves))
        needed.append(before)
        blocked[part.made] = makes
    return [*needed, [(name, blocked[name] & ~left[name]) for name in outputs]]


def _under(choices: Sequence[Mapping[str, str]], kind: str, layout: str) -> int:
    """Bit i is whether a class works so by ``choices[i]``."""
    return sum(1 << i for i, each in enumerate(choices) if each.get(kind) == layout)


def _conversion(graph: Graph, tensor: str, around: Surroundings) -> Kernel:
    spec = graph.tensors[tensor]
    sizes = dict.fromkeys(FEATURES, 1.0)
    sizes |= dict.fromkeys(("macs", "weights", "joined", "function"), 0.0)
    sizes |= {"read": float(spec.bytes), "written": float(spec.bytes), **around}
    sizes |= {"deep": float(spec.shape[1]), "rows": float(math.prod(spec.shape[2:]))}
    return Kernel(tensor, CONVERT, (), tuple(sizes[name] for name in FEATURES))


def table(kernels: Sequence[Kernel]) -> NDArray[np.float64]:
    """Sizes of n kernels, (n, F) in the order of :data:`FEATURES`."""
    return np.array([kernel.sizes for kernel in kernels]).reshape(-1, len(FEATURES))
