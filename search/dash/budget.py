"""A latency budget in the decode: what every choice of each convolution costs on a device.

Each convolution is measured by itself, as every one of its candidates; differences of these are
added to the latency of a whole network. So what a runtime takes for any network cancels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import nn

from hwbench.errors import UsageError
from hwbench.graph import Graph, GraphBuilder
from hwbench.ops import AttrValue
from hwbench.predictors.files import replace_file
from hwbench.search.dash.swap import Candidates, Choice, Conv, Pair
from hwbench.search.s2dnas.costs import GraphMeasurer, StageOracle

Array = NDArray[np.float64]
#: For each convolution a number for each candidate (m,).
Table = Mapping[str, Array]


def best_within(worth: Table, cost: Table, budget: float) -> dict[str, int]:
    """Of each convolution the candidate, so that their worths' sum is largest and their costs' no
    more than the budget: exactly, as a mixed-integer program.

    UsageError where the cheapest of all is beyond it.
    """
    names = list(worth)
    least = math.fsum(float(cost[name].min()) for name in names)
    if least > budget:
        raise UsageError(f"the cheapest choice costs {least:.4g}, the budget is {budget:.4g}")
    owner = np.repeat(np.arange(len(names)), [len(worth[name]) for name in names])
    gains, costs = (np.concatenate([table[name] for name in names]) for table in (worth, cost))
    each = (owner[None] == np.arange(len(names))[:, None]).astype(float)
    found = milp(
        -gains,
        constraints=[LinearConstraint(each, 1, 1), LinearConstraint(costs[None], ub=budget)],
        integrality=np.ones(len(gains)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:  # rounding, where the cheapest choice is the only one
        return {name: int(cost[name].argmin()) for name in names}
    return {name: int(found.x[owner == i].argmax()) for i, name in enumerate(names)}


class ConvCosts:
    """What the candidates of a network's convolutions take on a device, measured once and kept."""

    def __init__(self, measurer: GraphMeasurer, path: Path | None = None) -> None:
        self._path = path
        self.oracle = StageOracle(measurer, {} if path is None else _kept(path))

    def table(
        self, net: nn.Module, candidates: Candidates, sizes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Array]:
        """Latency (m,) in ms of each candidate of each convolution, by itself."""
        graphs = {
            name: [_alone(net.get_submodule(name), pair, sizes[name]) for pair in pairs]  # type: ignore[arg-type]
            for name, pairs in candidates.items()
        }
        self.of([graph for own in graphs.values() for graph in own])
        known = self.oracle.known
        return {n: np.array([known[g.hash] for g in own]) for n, own in graphs.items()}

    def of(self, graphs: Sequence[Graph]) -> Array:
        """Latency (n,) in ms of whole networks: measured, or known from before."""
        unknown = {g.hash: g for g in graphs if g.hash not in self.oracle.known}
        if unknown:
            self.oracle.measure(list(unknown.values()))
            if self._path is not None:
                replace_file(self._path, json.dumps(dict(self.oracle.known)).encode())
        return np.array([self.oracle.known[graph.hash] for graph in graphs])


def _alone(conv: Conv, pair: Pair, sizes: Sequence[int]) -> Graph:
    (k, d), dims = pair, len(sizes)
    builder = GraphBuilder(f"conv {conv.in_channels}-{conv.out_channels} k{k} d{d} at {sizes}")
    x = builder.input("x", (1, conv.in_channels, *sizes))
    attrs: dict[str, AttrValue] = {
        "kernel": (k,) * dims,
        "stride": tuple(conv.stride),
        "padding": (d * (k // 2),) * (2 * dims),
        "dilation": (d,) * dims,
        "groups": conv.groups,
        "out_channels": conv.out_channels,
        "bias": True,  # of the norm that follows, or its own
    }
    return builder.build(builder.op("conv", [x], attrs))


def _kept(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    try:
        found = {str(k): float(v) for k, v in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError):
        raise UsageError(f"{path} is damaged: remove it, to measure again") from None
    if not all(math.isfinite(ms) and ms > 0 for ms in found.values()):
        raise UsageError(f"{path} has latencies that cannot be: remove it, to measure again")
    return found


def named(candidates: Candidates, places: Mapping[str, int]) -> Choice:
    """The pair at each place."""
    return {name: candidates[name][place] for name, place in places.items()}
