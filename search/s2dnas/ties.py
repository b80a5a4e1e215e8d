"""Which channels of a network have to lie in the same stage.

A layer that mixes channels (a convolution, a linear layer) may split its outputs as it likes. All
others pass channels on: what a batch norm, an activation, a pool or a depthwise convolution reads
and writes is one channel, and an addition makes the channels of both its inputs one. What hangs
together so is a *tie*: the skip path of a ResNet with all that is added to it, an expansion with
its depthwise convolution. A shortcut that pads its channels with zeros is in one tie with what it
leads to: each stage then finds its whole shortcut within itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import GraphError, UsageError
from hwbench.graph import Graph
from hwbench.ops import Op
from hwbench.search.s2dnas.static import StaticNet

Ints = NDArray[np.int64]

#: In place of a tie's number: tensors that all stages compute alike from the image, and those of
#: which each stage has all channels, since they become its logits.
IMAGE, CLASSES = -1, -2


@dataclass(frozen=True, slots=True)
class Tie:
    """Channels that are split alike, in so many groups; called by the first layer that makes it."""

    name: str
    groups: int


@dataclass(frozen=True, slots=True, eq=False)
class Ties:
    """The ties of a network.

    ``tie_of`` each tensor: its number, or IMAGE, or CLASSES; ``group_of`` each tensor of a tie:
    the group (c,) of each channel (of a flattened tensor: each feature); ``readers``: the tie that
    a layer reads across its channels, by the layer's name.
    """

    ties: tuple[Tie, ...]
    tie_of: Mapping[str, int]
    group_of: Mapping[str, Ints]
    readers: Mapping[str, int]


def mixes(graph: Graph, op: Op) -> bool:
    """Whether each output channel of a layer reads all of its input channels."""
    return op.kind == "linear" or (op.kind == "conv" and not is_depthwise(graph, op))


def is_depthwise(graph: Graph, op: Op) -> bool:
    """Whether a convolution has a group for each of several input channels."""
    return op.kind == "conv" and 1 < op["groups"] == graph.specs(op)[0].shape[1]


def find_ties(net: StaticNet, groups: int) -> Ties:
    """The ties of a network, each in at most ``groups`` groups of channels.

    A tie has no more groups than its narrowest tensor has channels; where the groups do not divide
    the channels, they differ by one. GraphError names the layer that cannot be split.
    """
    if groups < 1:
        raise UsageError(f"{groups} groups of channels: give at least 1")
    graph = net.graph
    ids, same = _channels(net)
    tied = same.copy()
    for name in graph.tensors:
        tied.join(ids[name], np.full_like(ids[name], ids[name][0]))
    number = {tied.root(int(ids[net.image][0])): IMAGE}
    classes = tied.root(int(ids[net.output][0]))
    number.setdefault(classes, CLASSES)
    makers: list[str] = []
    for op in graph.ops:
        root = tied.root(int(ids[op.output][0]))
        if mixes(graph, op) and number.get(root) == IMAGE:
            raise GraphError(
                f"layer {op.name!r} is added to the image itself, which is in no stage: "
                "put a convolution in between"
            )
        if root not in number:
            number[root] = len(makers)
            makers.append(op.name)
    tie_of = {name: number[tied.root(int(ids[name][0]))] for name in graph.tensors}
    if not makers:
        raise GraphError(f"{graph.name}: no layer between the image and the logits: nothing to cut")
    readers = _readers(graph, tie_of)
    ties: list[Tie] = []
    group_of: dict[str, Ints] = {}
    for i, maker in enumerate(makers):
        tensors = {name: same.roots(ids[name]) for name, tie in tie_of.items() if tie == i}
        tie, of_tensors = _grouped(maker, tensors, groups)
        ties.append(tie)
        group_of |= of_tensors
    return Ties(tuple(ties), tie_of, group_of, readers)


def _channels(net: StaticNet) -> tuple[dict[str, Ints], _Unions]:
    """A number for each channel of each tensor; which numbers are one channel."""
    graph, same = net.graph, _Unions()
    ids = {net.image: same.fresh(net.image_shape[0])}
    for op in graph.ops:
        x = ids[op.inputs[0]]
        shape, out = graph.specs(op)[0].shape, graph.tensors[op.output].shape
        if mixes(graph, op):
            ids[op.output] = same.fresh(out[1])
        elif op.kind == "flatten":
            ids[op.output] = x.repeat(out[1] // shape[1])
        elif is_depthwise(graph, op):
            ids[op.output] = x.repeat(op["out_channels"] // shape[1])
        elif op.kind == "pad":
            begin, end = op["pads"][1], op["pads"][len(shape) + 1]
            ids[op.output] = np.concatenate([same.fresh(begin), x, same.fresh(end)])
        else:
            if op.kind == "add":
                same.join(x, ids[op.inputs[1]])
            ids[op.output] = x
    return ids, same


def _readers(graph: Graph, tie_of: Mapping[str, int]) -> dict[str, int]:
    readers = {}
    for op in graph.ops:
        tie = tie_of[op.inputs[0]]
        pads_channels = op.kind == "pad" and graph.specs(op)[0].shape[1] != _width(graph, op)
        if tie == CLASSES and (mixes(graph, op) or pads_channels):
            raise GraphError(
                f"layer {op.name!r} reads what the logits are added to: each stage makes all of "
                "its logits itself, so end the network with a layer of its own"
            )
        if mixes(graph, op) and tie != IMAGE:
            readers[op.name] = tie
    return readers


def _width(graph: Graph, op: Op) -> int:
    return graph.tensors[op.output].shape[1]


def _grouped(maker: str, tensors: Mapping[str, Ints], groups: int) -> tuple[Tie, dict[str, Ints]]:
    """A tie and the groups of its tensors' channels.

    Channels that lie in the same tensors are shared out evenly, in their order: so every tensor,
    wide or narrow, has its share in every group.
    """
    lies_in: dict[int, list[str]] = {}
    for name, roots in tensors.items():
        for root in dict.fromkeys(roots.tolist()):
            lies_in.setdefault(root, []).append(name)
    alike: dict[tuple[str, ...], list[int]] = {}
    for root, names in lies_in.items():
        alike.setdefault(tuple(names), []).append(root)
    count = min(groups, *(len(set(roots.tolist())) for roots in tensors.values()))
    group = {
        root: place * count // len(bucket)
        for bucket in alike.values()
        for place, root in enumerate(bucket)
    }
    group_of = {}
    for name, roots in tensors.items():
        group_of[name] = np.array([group[root] for root in roots.tolist()], dtype=np.int64)
        if len(set(group_of[name].tolist())) < count:
            raise GraphError(
                f"layer {maker!r} is tied to {name!r}, which has no channels in some of "
                f"{count} groups: ask for fewer groups"
            )
    return Tie(maker, count), group_of


class _Unions:
    """Disjoint sets of numbers (union-find, with path halving)."""

    def __init__(self, parents: list[int] | None = None) -> None:
        self._parents = [] if parents is None else parents

    def copy(self) -> _Unions:
        return _Unions(list(self._parents))

    def fresh(self, n: int) -> Ints:
        first = len(self._parents)
        self._parents.extend(range(first, first + n))
        return np.arange(first, first + n)

    def root(self, i: int) -> int:
        parents = self._parents
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    def roots(self, ids: Ints) -> Ints:
        return np.array([self.root(i) for i in ids.tolist()], dtype=np.int64)

    def join(self, a: Ints, b: Ints) -> None:
        for i, j in zip(a.tolist(), b.tolist(), strict=True):
            low, high = sorted((self.root(i), self.root(j)))
            self._parents[high] = low
