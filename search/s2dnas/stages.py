"""A split as networks of their own: one a stage, or some stages in one.

A stage's network takes the image and what it reads of earlier stages, as they left it; it gives
its logits, its confidence (the largest softmax), and what later stages read of it. Nothing of a
later stage is in it. Channels of several stages are joined by concatenation, earlier stages first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwbench.graph import GraphBuilder
from hwbench.ops import AttrValue, Op
from hwbench.search.s2dnas.folding import fold
from hwbench.search.s2dnas.split import Split, sliced, with_attrs
from hwbench.search.s2dnas.static import Weights
from hwbench.search.s2dnas.ties import is_depthwise
from hwbench.search.supernet import StandAlone

#: The image's name in a stage's network. All others but these begin with their stage: ``s1.``
IMAGE_INPUT = "image"


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """The network of stage ``number`` (from 1): ``net`` with the image first of its inputs.

    ``takes``: features of earlier stages that it reads, the rest of its inputs; ``logits`` (1,
    classes) and ``confidence`` (1,): two of its outputs; ``gives``: the others, which later stages
    take.
    """

    number: int
    net: StandAlone
    takes: tuple[str, ...]
    logits: str
    confidence: str
    gives: tuple[str, ...]


def stage_graphs(split: Split, wide: Weights) -> tuple[Stage, ...]:
    """One network a stage, with the weights of the wide network (:func:`split.widened`)."""
    return tuple(_joined(split, wide, j, j) for j in range(split.stages))


def prefix(split: Split, wide: Weights, last: int | None = None) -> Stage:
    """Stages 1 to ``last`` (default: all) in one network, with the exit tests of all of them.

    What an input costs that leaves at ``last``, in one piece. It gives the confidences of the
    stages before.
    """
    return _joined(split, wide, 0, (split.stages if last is None else last) - 1)


def _joined(split: Split, wide: Weights, first: int, last: int) -> Stage:
    maker = _Maker(split, wide, first)
    for stage in range(first, last + 1):
        maker.stage(stage)
    *before, confidence = maker.confidences
    gives = before if first < last else _read_later(split, last)
    logits = _name(split.net.output, last)
    graph = maker.builder.build([logits, confidence, *gives])
    net = fold(StandAlone(graph, maker.weights))
    takes = tuple(name for name, _ in graph.inputs if name != IMAGE_INPUT)
    return Stage(last + 1, net, takes, logits, confidence, tuple(gives))


def _read_later(split: Split, stage: int) -> list[str]:
    """Tensors of a stage that a later one reads, in the network's order."""
    read = {
        op.inputs[0]
        for op in split.net.graph.ops
        if op.name in split.reads and split.reads[op.name][stage + 1 :, stage].any()
    }
    return [_name(name, stage) for name in split.net.graph.tensors if name in read]


def _name(tensor: str, stage: int) -> str:
    return f"s{stage + 1}.{tensor}"


class _Maker:
    """The network of some stages under construction."""

    def __init__(self, split: Split, wide: Weights, first: int) -> None:
        self.split, self.wide, self.first = split, wide, first
        graph = split.net.graph
        self.builder = GraphBuilder(graph.name)
        self.weights: dict[str, NDArray[np.float32]] = {}
        self.confidences: list[str] = []
        self._image = self.builder.input(IMAGE_INPUT, graph.inputs[0][1].shape)
        self._there: set[str] = set()

    def stage(self, stage: int) -> None:
        """Add all layers of a stage, and its exit test."""
        for op in self.split.net.graph.ops:
            self._layer(op, stage)
        logits = _name(self.split.net.output, stage)
        shares = self.builder.op("softmax", [logits], {"axis": 1}, name=f"softmax{stage + 1}")
        reduction: dict[str, AttrValue] = {"axes": (1,), "keepdims": False}
        largest = self.builder.op("max", [shares], reduction, name=f"confidence{stage + 1}")
        self.confidences.append(largest)

    def _layer(self, op: Op, stage: int) -> None:
        sources = self.split.sources(op.name, stage)
        inputs = [self._read(name, sources) for name in op.inputs]
        own = self._resized(op, stage)
        name = _name(op.name, stage)
        self.builder.op(op.kind, inputs, dict(own.attrs), name=name)
        for param, array in sliced(self.split, op, stage, self.wide).items():
            self.weights[f"{name}.{param}"] = array

    def _read(self, tensor: str, sources: Sequence[int]) -> str:
        """A tensor of some stages, joined where they are several."""
        if tensor == self.split.net.image:
            return self._image
        parts = [_name(tensor, i) for i in sources]
        for part, i in zip(parts, sources, strict=True):
            if i < self.first and part not in self._there:
                self._there.add(self.builder.input(part, self._shape(tensor, i)))
        if len(parts) == 1:
            return parts[0]
        whole = f"{parts[-1]}.from{''.join(f'_{i + 1}' for i in sources)}"
        if whole not in self._there:
            self._there.add(self.builder.op("concat", parts, {"axis": 1}, name=whole))
        return whole

    def _shape(self, tensor: str, stage: int) -> tuple[int, ...]:
        batch, _, *rest = self.split.net.graph.tensors[tensor].shape
        return (batch, len(self.split.channels(tensor, stage)), *rest)

    def _resized(self, op: Op, stage: int) -> Op:
        """The layer with as many channels as the stage has of it."""
        split, more = self.split, dict[str, AttrValue]()
        width = len(split.channels(op.output, stage))
        if op.kind == "conv":
            more["out_channels"] = width
        if is_depthwise(split.net.graph, op):
            more["groups"] = len(split.channels(op.inputs[0], stage))
        if op.kind == "linear":
            more["out_features"] = width
        if op.kind == "pad":
            pads, axes = list(op["pads"]), len(op["pads"]) // 2
            if pads[1] or pads[axes + 1]:
                own = split.channels(op.output, stage)
                begin, inner = pads[1], split.net.graph.specs(op)[0].shape[1]
                pads[1] = int((own < begin).sum())
                pads[axes + 1] = int((own >= begin + inner).sum())
            more["pads"] = tuple(pads)
        return with_attrs(op, more)
