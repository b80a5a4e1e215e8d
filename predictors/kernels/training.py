"""From profiled networks to what the models of kernels and of their sum learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import PredictorError
from hwbench.measure.jobs import Node
from hwbench.predictors.kernels.kernels import CONVERT, Kernel, Rules, split
from hwbench.predictors.kernels.kind_model import KindData
from hwbench.predictors.kernels.rules import Case, learn_rules, nodes_by_op
from hwbench.predictors.kernels.samples import CASES, NetworkSample, network

Array = NDArray[np.float64]

LEAST_NETWORKS = 20
_ROUNDS = 20
#: Units in which the instrument's part is found, in ns.
_INSTRUMENT_NS = 1e3
#: An operator takes at least this.
_SHORTEST_NS = 50.0
#: The least share of a latency that is of operators, whatever a call takes beside them.
_LEAST_WITHIN = 0.2
#: What a moment changes all operators by, relative, and what each is timed amiss by, in ns.
_MOVED, _AMISS_NS = 0.1, 1000.0
#: Conversions by which a network may differ from its rules.
_MOST_AMISS = 0.1


@dataclass(frozen=True, eq=False)
class Profiled:
    """A measured network as its kernels: ``ns`` (k,) are their times, NaN where none is known.

    The times are those of the undisturbed network: what the profiler saw, times what the
    network's latency says of the moment of the profile.
    """

    family: str
    latency_ns: float
    sd: float
    kernels: tuple[Kernel, ...]
    ns: Array


@dataclass(frozen=True, eq=False)
class Training:
    """All measured networks, under the rules that they taught.

    ``instrument_ns`` is what the profiler added to the time of each operator, ``call_ns`` what a
    run takes beside its operators.
    """

    rules: Rules
    networks: tuple[Profiled, ...]
    instrument_ns: float
    call_ns: float

    @cached_property
    def timed(self) -> Mapping[str, KindData]:
        """The timed kernels of each kind, by its name."""
        rows: dict[str, list[tuple[tuple[float, ...], float, str]]] = {}
        for each in self.networks:
            for kernel, ns in zip(each.kernels, each.ns, strict=True):
                if ns > 0:
                    rows.setdefault(kernel.kind, []).append((kernel.sizes, ns, each.family))
        timed = {}
        for kind, measured in sorted(rows.items()):
            sizes, times, families = (np.array(each) for each in zip(*measured, strict=True))
            timed[kind] = KindData(sizes, times, families)
        return timed


def training_from(samples: Sequence[NetworkSample]) -> Training:
    """Rules, and the kernels of each network with their times.

    Networks that the library draws otherwise by now are left out. PredictorError where too few
    are left.
    """
    graphs = [network(sample.family, sample.number) for sample in samples]
    pairs = [(s, g) for s, g in zip(samples, graphs, strict=True) if s.hash == g.hash]
    cases = [Case(graph, sample.nodes) for sample, graph in pairs]
    rules = learn_rules(cases)
    pairs = [(sample, graph) for sample, graph in pairs if sample.family != CASES]
    if len(pairs) < LEAST_NETWORKS:
        raise PredictorError(
            f"{len(pairs)} measured networks are too few to fit kernels on, at least "
            f"{LEAST_NETWORKS} are needed: measure more with -n"
        )
    instrument, call = _instrument([sample for sample, _ in pairs])
    networks = []
    for sample, graph in pairs:
        case = Case(graph, sample.nodes)
        kernels = split(graph, rules)
        ns = _times(case, kernels, instrument)
        own = np.array([_own(node, instrument) for node in sample.nodes])
        within = max(sample.latency_ns - call, _LEAST_WITHIN * sample.latency_ns)
        factor, beside = _moment(own, within)
        ns = np.where(ns == 0, 0, np.maximum(ns * factor + beside, _SHORTEST_NS))
        networks.append(Profiled(sample.family, sample.latency_ns, sample.sd, tuple(kernels), ns))
    return Training(rules, tuple(networks), instrument, call)


def _instrument(samples: Sequence[NetworkSample]) -> tuple[float, float]:
    """What the profiler adds to an operator and what a run takes beside its operators, in ns.

    The operators' times less the latency are the one times their number less the other; of the
    smallest absolute relative errors, and neither negative. Without the second, networks of few
    operators would say that the instrument adds less than it does to those of many.
    """
    from scipy.optimize import nnls

    latency = np.array([sample.latency_ns for sample in samples])
    within = np.array([sum(node.ns for node in sample.nodes) for sample in samples])
    number = np.array([len(sample.nodes) for sample in samples])
    rows, target = np.stack([number / latency, -1 / latency], axis=1), within / latency - 1
    weight, found = np.ones(len(rows)), np.zeros(2)
    for _ in range(_ROUNDS):
        root = np.sqrt(weight)
        found, _ = nnls(rows * root[:, None] * _INSTRUMENT_NS, target * root)
        found *= _INSTRUMENT_NS
        weight = 1 / np.maximum(np.abs(target - rows @ found), 1e-3)
    return float(found[0]), float(found[1])


def _moment(own: Array, within_ns: float) -> tuple[float, float]:
    """A factor and a summand of the operators' times that make their sum what a run spends in them.

    Both are the likeliest: the moment of a profile changes all alike, and what an operator is
    timed amiss by is the same for the shortest.
    """
    moved, amiss = (_MOVED * own.sum()) ** 2, (_AMISS_NS * len(own)) ** 2
    gap = within_ns - own.sum()
    share = moved / (moved + amiss)
    return float(1 + share * gap / own.sum()), float((1 - share) * gap / len(own))


def _own(node: Node, instrument: float) -> float:
    """A node's time without the instrument's, never less than the shortest that there is."""
    return max(node.ns - instrument, _SHORTEST_NS)


def _times(case: Case, kernels: Sequence[Kernel], instrument: float) -> Array:
    """The time (k,) of each kernel; 0 where the runtime did away with it.

    Conversions bear no names: the largest tensor is the one that took longest. Where there are far
    more or fewer than the rules say, their times are not known.
    """
    owned, rest = nodes_by_op(case)
    times = np.array(
        [
            sum(_own(node, instrument) for op in kernel.ops for node in owned.get(op, ()))
            for kernel in kernels
        ],
        dtype=float,
    )
    places = [i for i, kernel in enumerate(kernels) if kernel.kind == CONVERT]
    times[places] = np.nan
    if abs(len(places) - len(rest)) <= _MOST_AMISS * len(places):
        places.sort(key=lambda i: -kernels[i].size("read"))
        longest = sorted((_own(node, instrument) for node in rest), reverse=True)
        for place, ns in zip(places, longest, strict=False):
            times[place] = ns
    return times
