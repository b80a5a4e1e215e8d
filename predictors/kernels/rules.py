"""Which operations a device's runtime does as one kernel: found out by test cases on the device.

A test case is a small graph, and the runtime's own list of operators for it. An operator bears
the name of one of the operations that it does, so an operation without one of its own was done by
the kernel that it reads from. What no operation accounts for are conversions of layout: their
number tells which kernels work in a layout of the runtime's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwbench.graph import Graph
from hwbench.measure.jobs import Node
from hwbench.ops import Op
from hwbench.predictors.kernels.alignment import assigned
from hwbench.predictors.kernels.kernels import (
    ANY,
    BLOCKED,
    ENTERING,
    PASSING,
    RAGGED,
    Part,
    Rules,
    Signature,
    conversions_under,
    fuse,
    joining,
    kernel_of,
    op_key,
    part_of,
    surroundings,
)

#: What onnxruntime writes around the name of a node that it made of others.
_DECORATION = re.compile(r"^fused |_token_\d+|_nchwc$")
#: A layer norm that does the addition before it.
_SKIP_NORM = "SkipLayerNormalization"
#: Nodes that bear no name of ours: what operations of these kinds become.
_BECOMES = {
    "hswish": ("HardSigmoid", "Mul"),
    "silu": ("QuickGelu",),
    "gelu": ("Gelu", "BiasGelu", "FastGelu"),
    "layer_norm": ("LayerNormalization", _SKIP_NORM),
}
#: Nodes that only say how a tensor is looked at: no conversions.
_LOOKS = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
#: Graphs that layouts are learned from, of all that there are.
_MOST_GRAPHS = 100
PLAIN = "plain"
_OPTIONS = (PLAIN, PASSING, BLOCKED, ENTERING)


@dataclass(frozen=True, slots=True)
class Case:
    """A graph, and the operators that a runtime made of it, in the order in which they ran."""

    graph: Graph
    nodes: tuple[Node, ...]


def nodes_by_op(case: Case) -> tuple[dict[str, list[Node]], list[Node]]:
    """The nodes of each operation, by name, and those of none.

    A runtime runs what belongs together in a row: a node without a name is of the next operation
    that it may be.
    """
    ops = case.graph.ops
    names = sorted((op.name for op in ops), key=len, reverse=True)
    index = {op.name: i for i, op in enumerate(ops)}
    owners = [_owner(_DECORATION.sub("", node.name), names) for node in case.nodes]
    named = {owner for owner in owners if owner}
    if not named:  # a runtime that keeps no names
        return assigned(case.graph, case.nodes), []
    found: dict[str, list[Node]] = {}
    rest: list[Node] = []
    last = -1
    for node, owner in zip(case.nodes, owners, strict=True):
        name = owner or next(
            (
                op.name
                for op in (*ops[last + 1 :], *ops[: last + 1])
                if op.name not in named and _may_be(node, op, found.get(op.name, ()))
            ),
            None,
        )
        if name is not None:
            found.setdefault(name, []).append(node)
            last = index[name]
        elif node.kind not in _LOOKS:
            rest.append(node)
    return found, rest


def _owner(name: str, names: Sequence[str]) -> str | None:
    """The operation whose name a node's begins with; ``names`` are the longest first."""
    if name in names:
        return name
    return next((n for n in names if name.startswith(n) and name[len(n)] in "_/"), None)


def _may_be(node: Node, op: Op, has: Sequence[Node]) -> bool:
    """Whether a node without a name may be (a further part of) an operation without a node."""
    becomes = _BECOMES.get(op.kind, (op.kind.replace("_", ""),))
    if node.kind not in becomes and node.kind.lower() != becomes[0]:
        return False
    return node.kind not in [each.kind for each in has]


def learn_rules(cases: Sequence[Case]) -> Rules:
    """The rules that explain the cases."""
    votes: dict[tuple[Signature, str], Counter[bool]] = {}
    left: list[int] = []
    for case in cases:
        owned, rest = nodes_by_op(case)
        left.append(len(rest))
        for signature, kind, joined in _seen(case.graph, owned):
            for known in (signature, (ANY, *signature[1:])):
                votes.setdefault((known, kind), Counter())[joined] += 1
    rules = Rules({pair: vote[True] > vote[False] for pair, vote in votes.items()})
    return Rules(rules.fused, _layouts([case.graph for case in cases], left, rules))


def _seen(graph: Graph, owned: Mapping[str, list[Node]]) -> list[tuple[Signature, str, bool]]:
    """Each chance of an operation to join the kernel that it reads from, and whether it did."""
    taken = {
        name
        for op in graph.ops
        if any(node.kind == _SKIP_NORM for node in owned.get(op.name, ()))
        for name in op.inputs
    }
    uses = Counter(name for op in graph.ops for name in op.inputs) + Counter(graph.outputs)
    kernels: dict[str, list[Op]] = {}
    seen: list[tuple[Signature, str, bool]] = []
    for op in graph.ops:
        kernel = [op]
        for name in reversed(op.inputs):
            before = kernels.get(name)
            if before is None or uses[name] != 1 or op.kind == "constant":
                continue
            together = sum(each.name in owned for each in [*before, op])
            joined = together <= 1 and not graph.macs_of(op) and op.output not in taken
            signature = (op_key(graph, before[0]), *(joining(graph, each) for each in before[1:]))
            seen.append((signature, joining(graph, op), joined))
            if joined:
                kernel = [*before, op]
                break
        if op.kind != "constant":
            kernels[op.output] = kernel
    return seen


@dataclass(frozen=True)
class _Network:
    """A network as far as layouts go: its kernels, its outputs, the conversions seen."""

    parts: tuple[Part, ...]
    outputs: tuple[str, ...]
    observed: int

    @cached_property
    def kinds(self) -> frozenset[str]:
        return frozenset(part.kind for part in self.parts)

    def missed(self, layouts: Mapping[str, str]) -> dict[tuple[str, str], float]:
        """By how many conversions, by the size, those seen are missed with one change of layouts.

        A change is a class and its layout; those of classes that occur here.
        """
        changes = [(kind, option) for kind in layouts if kind in self.kinds for option in _OPTIONS]
        if not changes:
            return {}
        choices = [{**layouts, kind: option} for kind, option in changes]
        needed = conversions_under(self.parts, self.outputs, choices)
        width = -(-len(changes) // 8)
        under = [bits.to_bytes(width, "little") for before in needed for _, bits in before]
        rows = np.frombuffer(b"".join(under), np.uint8).reshape(-1, width)
        counts = np.unpackbits(rows, axis=1, count=len(changes), bitorder="little").sum(axis=0)
        amiss = np.abs(counts.astype(int) - self.observed) / len(self.parts)
        return dict(zip(changes, amiss.tolist(), strict=True))


def _layouts(graphs: Sequence[Graph], left: Sequence[int], rules: Rules) -> dict[str, str]:
    """A layout for each class, so that as many conversions follow as there were.

    Step by step, the one change that explains most is made, until none explains more.
    """
    if not any(left):
        return {}
    networks: list[_Network] = []
    for graph, observed in list(zip(graphs, left, strict=True))[:: -(-len(graphs) // _MOST_GRAPHS)]:
        groups = fuse(graph, rules)
        around = surroundings(graph)
        parts = [part_of(graph, ops, kernel_of(graph, ops, around)) for ops in groups]
        networks.append(_Network(tuple(parts), graph.outputs, observed))
    kinds = sorted(
        {part.kind for each in networks for part in each.parts if part.images or part.joined}
    )
    layouts = {kind: _start(kind) for kind in kinds}
    each = [network.missed(layouts) for network in networks]
    while True:
        missed = {(kind, layout): 0.0 for kind in kinds for layout in _OPTIONS}
        for found in each:
            for change, amiss in found.items():
                missed[change] += amiss
        gains = {(k, option): missed[k, layouts[k]] - missed[k, option] for k, option in missed}
        if max(gains.values(), default=0.0) <= 1e-9:
            return {kind: layout for kind, layout in layouts.items() if layout != PLAIN}
        kind, layout = max(gains, key=gains.__getitem__)
        layouts[kind] = layout
        each = [
            network.missed(layouts) if kind in network.kinds else found  # as it was
            for network, found in zip(networks, each, strict=True)
        ]


def _start(kind: str) -> str:
    """Where the search for a class's layout starts: convolutions gain by blocks of channels."""
    kind, ragged, _ = kind.partition(RAGGED)
    if kind in ("conv of few", "pointwise conv of few"):
        return ENTERING
    if kind in ("conv", "pointwise conv", "depthwise", "grouped conv"):
        return BLOCKED
    return PASSING if kind in ("max_pool", "avg_pool", "relu", "add") and not ragged else PLAIN
