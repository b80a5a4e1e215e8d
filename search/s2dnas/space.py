"""The search space of S2DNAS: how a static network can be cut into stages.

After "S2DNAS: Transforming Static CNN Model for Dynamic Inference via Neural Architecture Search"
(arXiv 1911.07033). Each tie's channels, in groups, are cut into one contiguous run of groups a
stage; each layer of a stage reads that stage's channels and, by a bit for each earlier stage,
those of earlier ones.

Every stage has at least one group of each tie. So every code is a network, whatever its bits say,
and a search of any kind runs on the space without drawing again; what an empty stage would save is
a layer of one group, in the later stages only, which few inputs reach.
"""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.errors import UsageError
from hwbench.graph import Graph
from hwbench.search.s2dnas.split import Split, widened
from hwbench.search.s2dnas.stages import prefix
from hwbench.search.s2dnas.static import StaticNet
from hwbench.search.s2dnas.ties import find_ties, mixes
from hwbench.spaces.base import Choice, Codes, Decision, Space, Value

#: Whether each layer has reuse bits of its own, or all that read a tie share them, or there are
#: none and every layer reads all earlier stages.
Reuse = Literal["layer", "tie", "all"]

#: So many ways to cut a tie are still told apart.
_MOST_CUTS = 5000


class SplitSpace(Space):
    """All ways to cut ``net`` into ``stages`` stages, its channels in up to ``groups`` groups.

    Decisions, in the network's order: for each tie its cut (``4+2+2``: groups of each stage), and
    for each layer that reads it (with ``reuse="tie"``: for all of them at once) a bit for each
    pair of stages, ``<layer>:3<1`` that stage 3 reads stage 1. With ``reuse="all"`` there are no
    bits: what is left to search is the cuts, and weights that all splits share differ little from
    one split to the next. UsageError names the layer that has
    fewer groups than there are stages.
    """

    def __init__(
        self, net: StaticNet, *, stages: int = 3, groups: int = 8, reuse: Reuse = "layer"
    ) -> None:
        if stages < 1:
            raise UsageError(f"{stages} stages: give at least 1")
        self.net, self.stages = net, stages
        self.ties = find_ties(net, groups)
        for tie in self.ties.ties:
            if tie.groups < stages:
                raise UsageError(
                    f"layer {tie.name!r} has {tie.groups} groups of channels for {stages} stages: "
                    "ask for fewer stages, or more groups where it has the channels"
                )
        self._pairs = [(j, i) for j in range(stages) for i in range(j)]
        self._bits_of: dict[str, str | None] = {}  # layer -> the name that its bits bear, if any
        decisions = []
        for number, tie in enumerate(self.ties.ties):
            decisions.append(Decision(tie.name, cuts_of(tie.name, tie.groups, stages)))
            layers = [layer for layer, read in self.ties.readers.items() if read == number]
            for layer in layers:
                named = {"layer": layer, "tie": tie.name, "all": None}
                self._bits_of[layer] = named[reuse]
            for name in filter(None, dict.fromkeys(self._bits_of[layer] for layer in layers)):
                decisions += [Decision(_bit(name, j, i), (0, 1)) for j, i in self._pairs]
        graph = net.graph
        shown = re.sub(r"\W+", "_", graph.name)
        name = f"s2dnas-{shown}-{graph.hash[:8]}-{stages}x{groups}-{reuse}"
        super().__init__(name, decisions)

    def split(self, code: ArrayLike) -> Split:
        """The split that one code (L,) stands for."""
        return self._split(self.choice(code))

    def build(self, choice: Choice) -> Graph:
        """All stages as one network, its batch norms folded: what an input runs that never exits
        early."""
        split = self._split(choice)
        return prefix(split, widened(self.net, self.ties, self.stages).weights).net.graph

    def macs(self, codes: ArrayLike) -> NDArray[np.int64]:
        """Multiply-accumulates (n,) of all stages together, equal to the graph's."""
        rows, graph = self.check(codes), self.net.graph
        total = np.zeros(len(rows), np.int64)
        for op in graph.ops:
            macs, channels = graph.macs_of(op), graph.tensors[op.output].shape[1]
            if not macs:
                continue
            made = self._widths(op.output, rows)
            if not mixes(graph, op):
                total += macs // channels * made.sum(axis=1)
                continue
            each = macs // channels // graph.specs(op)[0].shape[1]
            read, bits = self._widths(op.inputs[0], rows), self._reads(op.name, rows)
            total += each * np.einsum("nj,nji,ni->n", made, bits, read)
        return total

    def _widths(self, tensor: str, rows: Codes) -> NDArray[np.int64]:
        """Channels (n, stages) that each stage has of a tensor."""
        tie = self.ties.tie_of[tensor]
        if tie < 0:
            width = self.net.graph.tensors[tensor].shape[1]
            return np.full((len(rows), self.stages), width)
        column = self._column[self.ties.ties[tie].name]
        upto = np.cumsum(np.bincount(self.ties.group_of[tensor]))
        ends = np.cumsum([_parts(cut) for cut in self.decisions[column].values], axis=1)
        widths: NDArray[np.int64] = np.diff(upto[ends - 1], axis=1, prepend=0)[rows[:, column]]
        return widths

    def _reads(self, layer: str, rows: Codes) -> NDArray[np.int64]:
        """(n, reader, read): whether a layer of a stage reads another stage, 0 or 1."""
        bits = np.zeros((len(rows), self.stages, self.stages), np.int64)
        bits[:, range(self.stages), range(self.stages)] = 1
        if layer in self._bits_of:
            name = self._bits_of[layer]
            for j, i in self._pairs:
                bits[:, j, i] = 1 if name is None else rows[:, self._column[_bit(name, j, i)]]
        return bits

    def _split(self, choice: Choice) -> Split:
        cuts = tuple(_parts(choice[tie.name]) for tie in self.ties.ties)
        reads = {}
        for layer, name in self._bits_of.items():
            reads[layer] = np.eye(self.stages, dtype=bool)
            for j, i in self._pairs:
                reads[layer][j, i] = name is None or bool(choice[_bit(name, j, i)])
        return Split(self.net, self.ties, self.stages, cuts, reads)


def cuts_of(what: str, groups: int, stages: int) -> tuple[str, ...]:
    """All ways to share so many groups out to stages, one at least each, as ``"4+2+2"``."""
    found = []
    for bounds in combinations(range(1, groups), stages - 1):
        parts = [b - a for a, b in pairwise((0, *bounds, groups))]
        found.append("+".join(map(str, parts)))
        if len(found) > _MOST_CUTS:
            raise UsageError(
                f"layer {what!r} can be cut in more than {_MOST_CUTS} ways ({groups} groups, "
                f"{stages} stages): ask for fewer of either"
            )
    return tuple(found)


def _parts(cut: Value) -> tuple[int, ...]:
    return tuple(map(int, str(cut).split("+")))


def _bit(name: str, reader: int, read: int) -> str:
    return f"{name}:{reader + 1}<{read + 1}"
