"""``nasbench201``: the cell space of NAS-Bench-201 (Dong and Yang, ICLR 2020), 32x32 images.

A cell is a graph of four nodes, node 0 its input, node 3 its output; each of the six edges
carries one of five operations and a node is the sum of its incoming edges. Three stages of five
cells with 16, 32 and 64 channels, a residual block of stride 2 between them. Each convolution
of a cell is ReLU, convolution, batch norm: the norm is folded here, and the ReLU of a node is
computed once for all its edges.

``none`` passes nothing on, so some edges work in vain: they start where nothing arrives, or end
where nothing leads to the output. The graph leaves these out, as ONNX and TFLite runtimes do;
the PyTorch networks behind published GPU latencies run them. Codes and texts keep them: cells
that differ in a dead edge are different rows of the published tables. Where no path leads from
input to output the network is a constant: such a cell has a text and a code, but no graph,
0 MACs, and no part in samples and neighbourhoods.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.errors import GraphError
from hwbench.graph import Graph, GraphBuilder
from hwbench.spaces.base import Choice, Codes, Decision, Space, Value, listed

#: In the order of the published tables' codes.
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
#: (from, to), in the order of the text form.
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NAMES = tuple(f"{source}>{target}" for source, target in EDGES)

_CHANNELS = (16, 32, 64)
_CELLS = 5
_SIZE = 32
_CLASSES = 10
_KERNEL = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}


class NasBench201Space(Space):
    """The 15,625 cells; decisions ``0>1`` … ``2>3`` in the order of :data:`EDGES`."""

    why = "no path leads from its input to its output"

    def __init__(self) -> None:
        super().__init__("nasbench201", [Decision(name, OPERATIONS) for name in NAMES])

    def build(self, choice: Choice) -> Graph:
        code = self.code(choice)
        live = [edge for edge, on in zip(EDGES, self.live(code[None])[0], strict=True) if on]
        b = GraphBuilder(self.name)
        x = b.conv(b.input("image", (1, 3, _SIZE, _SIZE)), _CHANNELS[0], kernel=3)
        for channels in _CHANNELS:
            if channels != b.shape(x)[1]:
                x = _reduction(b, x, channels)
            for _ in range(_CELLS):
                x = _cell(b, x, [(s, t, choice[f"{s}>{t}"]) for s, t in live])
        x = b.op("batch_norm", [x], {"epsilon": 1e-5})  # after an addition: nothing to fold it into
        x = b.global_avg_pool(b.activation(x, "relu"))
        return b.build(b.linear(b.flatten(x), _CLASSES))

    def valid(self, codes: ArrayLike) -> NDArray[np.bool_]:
        return self.connected(codes)

    def connected(self, codes: ArrayLike) -> NDArray[np.bool_]:
        """Which cells (n, 6) have a path from input to output: (n,) bool."""
        return np.asarray(self.live(codes).any(axis=1))

    def live(self, codes: ArrayLike) -> NDArray[np.bool_]:
        """Which edges lie on a path from input to output: (n, 6) bool."""
        there = self.check(codes) != 0
        fed = np.zeros((len(there), 4), dtype=bool)
        wanted = fed.copy()
        fed[:, 0] = wanted[:, 3] = True
        for j, (source, target) in enumerate(EDGES):
            fed[:, target] |= fed[:, source] & there[:, j]
        for j, (source, target) in reversed(list(enumerate(EDGES))):
            wanted[:, source] |= wanted[:, target] & there[:, j]
        sources, targets = np.transpose(EDGES)
        live: NDArray[np.bool_] = there & fed[:, sources] & wanted[:, targets]
        return live

    def views(self, codes: ArrayLike) -> tuple[Codes, ...]:
        """As it is written (PyTorch runs all of it), what leads to the output, and the live edges.

        The second is what a runtime runs that prunes backwards from the output, but does not
        know that a tensor is zero: LiteRT, by published latencies of a Raspberry Pi 5.
        """
        rows = self.check(codes)
        there, wanted = rows != 0, np.zeros((len(rows), 4), dtype=bool)
        wanted[:, 3] = True
        for j, (source, target) in reversed(list(enumerate(EDGES))):
            wanted[:, source] |= wanted[:, target] & there[:, j]
        targets = [target for _, target in EDGES]
        removed = np.int16(0)
        return (
            rows.copy(),
            np.where(wanted[:, targets], rows, removed),
            np.where(self.live(rows), rows, removed),
        )

    def macs(self, codes: ArrayLike) -> NDArray[np.int64]:
        """Multiply-accumulates of each cell's network (n, 6) -> (n,); 0 for a constant one."""
        rows = self.check(codes)
        live = self.live(rows)
        taps = np.array([_KERNEL.get(name, 0) ** 2 for name in OPERATIONS], dtype=np.int64)
        searched = np.where(live, taps[rows], 0).sum(axis=1) * _MACS_OF_A_TAP
        return np.where(live.any(axis=1), searched + _MACS_OUTSIDE, 0)

    def text(self, choice: Choice) -> str:
        """E.g. ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|``."""
        nodes = (
            "|".join(f"{choice[f'{source}>{node}']}~{source}" for source in range(node))
            for node in (1, 2, 3)
        )
        return "+".join(f"|{node}|" for node in nodes)

    def parse(self, text: str) -> dict[str, Value]:
        nodes = text.strip().split("+")
        if len(nodes) != 3:
            raise GraphError(f"{len(nodes)} nodes joined by '+': give 3, like |a~0|+|b~0|c~1|+…")
        choice: dict[str, Value] = {}
        for node, written in enumerate(nodes, start=1):
            edges = written[1:-1].split("|")
            if written[:1] != "|" or written[-1:] != "|" or len(edges) != node:
                raise GraphError(f"node {node} is {written!r}: give {node} edges between '|'")
            for source, edge in enumerate(edges):
                operation, _, origin = edge.partition("~")
                where = f"node {node}, edge {source + 1}"
                if origin != str(source):
                    raise GraphError(f"{where} is {edge!r}: it comes from node {source}: ~{source}")
                if operation not in OPERATIONS:
                    raise GraphError(f"{where} is {edge!r}: give one of {listed(OPERATIONS)}")
                choice[f"{source}>{node}"] = operation
        return choice


def nasbench201() -> NasBench201Space:
    """The space of the benchmark, with 10 classes as for CIFAR-10."""
    return NasBench201Space()


def _cell(b: GraphBuilder, x: str, live: Sequence[tuple[int, int, str]]) -> str:
    """Append a cell's live edges, given as (from, to, operation) in order of the target."""
    nodes = {0: x}
    rectified: dict[int, str] = {}
    for node in (1, 2, 3):
        terms = []
        for source, target, operation in live:
            if target != node:
                continue
            y = nodes[source]
            if operation in _KERNEL:
                if source not in rectified:
                    rectified[source] = b.activation(y, "relu")
                y = b.conv(rectified[source], b.shape(x)[1], kernel=_KERNEL[operation])
            elif operation == "avg_pool_3x3":
                y = b.avg_pool(y, kernel=3, stride=1, padding=1)
            terms.append(y)
        if terms:
            nodes[node] = reduce(b.add, terms)
    return nodes[3]


def _reduction(b: GraphBuilder, x: str, channels: int) -> str:
    """The residual block between stages: halves the size."""
    y = b.conv(b.activation(x, "relu"), channels, kernel=3, stride=2)
    y = b.conv(b.activation(y, "relu"), channels, kernel=3)
    return b.add(b.conv(b.avg_pool(x, kernel=2), channels, kernel=1, bias=False), y)


def _macs_outside() -> int:
    """MACs of stem, reductions and classifier."""
    total, size = 3 * 9 * _CHANNELS[0] * _SIZE**2, _SIZE
    for c_in, c_out in pairwise(_CHANNELS):
        size //= 2
        total += (9 * c_in * c_out + 9 * c_out * c_out + c_in * c_out) * size**2
    return total + _CHANNELS[-1] * _CLASSES


#: One tap of a kernel on one edge, in all cells of all stages.
_MACS_OF_A_TAP = _CELLS * sum((c * _SIZE >> stage) ** 2 for stage, c in enumerate(_CHANNELS))
_MACS_OUTSIDE = _macs_outside()
