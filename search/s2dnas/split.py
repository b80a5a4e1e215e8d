"""A static network cut into stages: whose each channel is, and which stage reads which.

The *wide* network is the static one with its classifier once for each stage. In it every channel
belongs to one stage, and a split is a mask on the weights of the layers that mix channels: an
output of stage j keeps its weights to the inputs of stage j and of those earlier ones that it
reads; never of a later one. Sliced by stage, it is one network a stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwbench.graph import Graph
from hwbench.ops import AttrValue, Op
from hwbench.search.s2dnas.static import StaticNet, Weights
from hwbench.search.s2dnas.ties import CLASSES, IMAGE, Ints, Ties, is_depthwise, mixes

#: In place of a stage's number: channels that every stage has, and that all read.
EVERY_STAGE = -1

#: For each layer, which stages (from 0) each stage reads: ``reads[layer][j, i]``, j >= i; a stage
#: always reads itself.
Reads = Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class Split:
    """A network of ``stages`` stages.

    ``cuts``: for each tie, how many of its groups each stage has, in order; ``reads``: for each
    layer that mixes the channels of a tie, see :data:`Reads`.
    """

    net: StaticNet
    ties: Ties
    stages: int
    cuts: tuple[tuple[int, ...], ...]
    reads: Reads

    def stage_of(self, tensor: str) -> Ints:
        """The stage (from 0) of each channel of a tensor in the wide network, or EVERY_STAGE."""
        return self._stage_of[tensor]

    def channels(self, tensor: str, stage: int) -> Ints:
        """Channels of a tensor in the wide network that a stage has, ascending."""
        of = self._stage_of[tensor]
        return np.flatnonzero((of == stage) | (of == EVERY_STAGE))

    def sources(self, layer: str, stage: int) -> tuple[int, ...]:
        """The stages whose channels a layer of a stage reads, ascending; itself the last.

        What lies in every stage is read as the stage's own.
        """
        if layer not in self.reads:
            return (stage,)
        return tuple(np.flatnonzero(self.reads[layer][stage]).tolist())

    def mask(self, op: Op) -> NDArray[np.bool_] | None:
        """Which weights (c_out, c_in) a layer of the wide network keeps; None where all."""
        if not mixes(self.net.graph, op):
            return None
        reader, read = self._stage_of[op.output][:, None], self._stage_of[op.inputs[0]]
        if op.name not in self.reads:
            return None
        return np.where(read == EVERY_STAGE, True, self.reads[op.name][reader, read])

    @cached_property
    def _stage_of(self) -> dict[str, Ints]:
        bounds = [np.cumsum(cut) for cut in self.cuts]
        found = {}
        for name, spec in self.net.graph.tensors.items():
            tie = self.ties.tie_of[name]
            if tie == IMAGE:
                found[name] = np.full(spec.shape[1], EVERY_STAGE)
            elif tie == CLASSES:
                found[name] = np.repeat(np.arange(self.stages), spec.shape[1])
            else:
                found[name] = np.searchsorted(bounds[tie], self.ties.group_of[name], side="right")
        return found


def widened(net: StaticNet, ties: Ties, stages: int) -> StaticNet:
    """The wide network: what becomes logits is there once for each stage, stage by stage.

    Each stage's classifier begins as the static network's.
    """
    graph, weights, ops = net.graph, dict(net.weights), []
    for op in graph.ops:
        if ties.tie_of[op.output] != CLASSES:
            ops.append(op)
            continue
        ops.append(_repeated(graph, op, stages))
        for param in graph.params(op):
            array = net.weights[f"{op.name}.{param}"]
            copies = (stages, *(1,) * (array.ndim - 1))
            weights[f"{op.name}.{param}"] = np.tile(array, copies)
    return StaticNet(Graph(graph.name, graph.inputs, graph.outputs, tuple(ops)), weights)


def _repeated(graph: Graph, op: Op, times: int) -> Op:
    more: dict[str, AttrValue] = {}
    if op.kind == "conv":
        more["out_channels"] = op["out_channels"] * times
    if is_depthwise(graph, op):
        more["groups"] = op["groups"] * times
    if op.kind == "linear":
        more["out_features"] = op["out_features"] * times
    return with_attrs(op, more)


def with_attrs(op: Op, changed: Mapping[str, AttrValue]) -> Op:
    """The op with some attributes changed."""
    attrs = tuple((key, changed.get(key, value)) for key, value in op.attrs)
    return Op(op.name, op.kind, op.inputs, op.output, attrs)


def sliced(split: Split, op: Op, stage: int, wide: Weights) -> dict[str, NDArray[np.float32]]:
    """The weights of a layer of one stage, by parameter, out of the wide network's."""
    graph = split.net.graph
    rows = split.channels(op.output, stage)
    found = {}
    for param in graph.params(op):
        array = wide[f"{op.name}.{param}"][rows]
        if param == "weight" and mixes(graph, op):
            read = [split.channels(op.inputs[0], i) for i in split.sources(op.name, stage)]
            array = array[:, np.concatenate(read)]
        found[param] = np.ascontiguousarray(array)
    return found
