"""Which operations a device's runtime does as one kernel: found out by test cases on the device.

A test case is a small graph, and the runtime's own list of operators for it. An operator bears
the name of one of the operations that it does, so an operation without one of its own was done by
the kernel that it reads from. What no operation accounts for are conversions of layout: their
number tells which kernels work in a layout of the runtime's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hwbench.graph import Graph
from hwbench.measure.jobs import Node
from hwbench.ops import Op
from hwbench.predictors.kernels.kernels import (
    ANY,
    BLOCKED,
    ENTERING,
    PASSING,
    Part,
    Rules,
    Signature,
    conversions,
    fuse,
    kernel_of,
    op_key,
    part_of,
)

#: What onnxruntime writes around the name of a node that it made of others.
_DECORATION = re.compile(r"^fused |_token_\d+|_nchwc$")
#: Its names of nodes made of several, by what they do.
_MADE_OF_SEVERAL = {"quickgelu": "silu", "biasgelu": "gelu", "fastgelu": "gelu"}


@dataclass(frozen=True, slots=True)
class Case:
    """A graph, and the operators that a runtime made of it, in the order in which they ran."""

    graph: Graph
    nodes: tuple[Node, ...]


def nodes_by_op(case: Case) -> tuple[dict[str, list[Node]], list[Node]]:
    """The nodes that bear each operation's name, and those that bear none."""
    names = sorted((op.name for op in case.graph.ops), key=len, reverse=True)
    found: dict[str, list[Node]] = {}
    rest: list[Node] = []
    for node in case.nodes:
        name = _DECORATION.sub("", node.name)
        owner = name if name in names else next((n for n in names if _within(name, n)), None)
        if owner is None:
            rest.append(node)
        else:
            found.setdefault(owner, []).append(node)
    return found, _claimed(case.graph, found, rest)


def _within(name: str, op: str) -> bool:
    return name.startswith(op) and name[len(op)] in "_/"


def _claimed(graph: Graph, found: dict[str, list[Node]], rest: list[Node]) -> list[Node]:
    """Give nodes that lost their names to operations of their kind that have none, in order."""
    left: list[Node] = []
    for node in rest:
        kind = node.kind.lower()
        kind = _MADE_OF_SEVERAL.get(kind, kind)
        wanting = (
            op.name for op in graph.ops if op.name not in found and op.kind.replace("_", "") == kind
        )
        name = next(wanting, None)
        if name is None:
            left.append(node)
        else:
            found[name] = [node]
    return left


def learn_rules(cases: Sequence[Case]) -> Rules:
    """The rules that explain the cases."""
    votes: dict[tuple[Signature, str], Counter[bool]] = {}
    left: list[int] = []
    for case in cases:
        owned, rest = nodes_by_op(case)
        left.append(len(rest))
        for signature, kind, joined in _seen(case.graph, set(owned)):
            for known in (signature, (ANY, *signature[1:])):
                votes.setdefault((known, kind), Counter())[joined] += 1
    rules = Rules({pair: vote[True] > vote[False] for pair, vote in votes.items()})
    return Rules(rules.fused, _layouts([case.graph for case in cases], left, rules))


def _seen(graph: Graph, named: set[str]) -> list[tuple[Signature, str, bool]]:
    """Each chance of an operation to join the kernel that it reads from, and whether it did."""
    uses = Counter(name for op in graph.ops for name in op.inputs) + Counter(graph.outputs)
    kernels: dict[str, list[Op]] = {}
    seen: list[tuple[Signature, str, bool]] = []
    for op in graph.ops:
        kernel = [op]
        for name in reversed(op.inputs):
            before = kernels.get(name)
            if before is None or uses[name] != 1 or op.kind == "constant":
                continue
            together = sum(each.name in named for each in [*before, op])
            joined = together <= 1 and not graph.macs_of(op)
            signature = (op_key(graph, before[0]), *(each.kind for each in before[1:]))
            seen.append((signature, op.kind, joined))
            if joined:
                kernel = [*before, op]
                break
        if op.kind != "constant":
            kernels[op.output] = kernel
    return seen


def _layouts(graphs: Sequence[Graph], left: Sequence[int], rules: Rules) -> dict[str, str]:
    """A layout for each class, so that as many conversions follow as there were.

    Each class in turn takes the layout that explains most, until none changes.
    """
    networks: list[tuple[list[Part], tuple[str, ...], int]] = []
    for graph, observed in zip(graphs, left, strict=True):
        groups = fuse(graph, rules)
        parts = [part_of(graph, ops, kernel_of(graph, ops)) for ops in groups]
        networks.append((parts, graph.outputs, observed))
    kinds = sorted({part.kind for parts, _, _ in networks for part in parts if part.images})
    of_kind = {k: [n for n in networks if any(p.kind == k for p in n[0])] for k in kinds}
    layouts = {
        kind: BLOCKED if "conv" in kind or "depthwise" in kind else "plain" for kind in kinds
    }
    changed = any(left)
    while changed:
        changed = False
        for kind in kinds:
            tried = [layouts[kind], "plain", PASSING, BLOCKED, ENTERING]
            missed = {o: _missed(of_kind[kind], {**layouts, kind: o}) for o in tried}
            best = min(missed, key=lambda option: missed[option])
            if missed[best] < missed[layouts[kind]]:
                layouts[kind], changed = best, True
    return {k: v for k, v in layouts.items() if v != "plain"} if any(left) else {}


def _missed(
    networks: Sequence[tuple[list[Part], tuple[str, ...], int]], layouts: dict[str, str]
) -> int:
    counts = (
        (sum(map(len, conversions(parts, outputs, layouts))), observed)
        for parts, outputs, observed in networks
    )
    return sum(abs(found - observed) for found, observed in counts)
