"""Costs of a space's networks, found by comparing a few hundred of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hwbench.graph import Graph, GraphBuilder
from hwbench.predictors.costs import COSTS, CostTables, cost_tables, op_costs
from hwbench.predictors.tables import symbols
from hwbench.spaces import Choice, Decision, Space, get_space


def totals_of(space: Space, tables: CostTables, code: np.ndarray) -> dict[tuple[str, str], float]:
    values = tables.totals(symbols(space, code[None]))[0]
    return {name: value for name, value in zip(tables.names, values, strict=True) if value}


def totals_from_graph(graph: Graph) -> dict[tuple[str, str], float]:
    totals: Counter[tuple[str, str]] = Counter()
    for name, *values in op_costs(graph):
        for cost, value in zip(COSTS, (1, *values), strict=True):
            totals[name, cost] += value
    return {name: value for name, value in totals.items() if value}


@pytest.mark.parametrize("name", ["ofa_mbv3", "mbv3_small", "fbnet"])
def test_the_sums_are_those_of_the_graphs_to_the_last_byte(name: str) -> None:
    space = get_space(name)
    tables = cost_tables(space)
    assert tables is not None
    for code in space.sample(20, np.random.default_rng(1)):
        assert totals_of(space, tables, code) == totals_from_graph(space.graph(code))


def test_they_add_up_to_macs_and_bytes_of_the_whole() -> None:
    space = get_space("mbv3_small")
    (code,) = space.sample(1, np.random.default_rng(2))
    tables, graph = cost_tables(space), space.graph(code)
    assert tables is not None
    totals = totals_of(space, tables, code)
    by_cost = {c: sum(v for (_, cost), v in totals.items() if cost == c) for c in COSTS}
    assert by_cost["macs"] == graph.macs
    assert by_cost["activation_bytes"] + by_cost["weight_bytes"] == graph.bytes_moved


def test_layers_keep_to_their_own_decisions() -> None:
    tables = cost_tables(get_space("ofa_mbv3"))
    assert tables is not None
    names = [d.name for d in get_space("ofa_mbv3").decisions]
    parts = [{names[j] for j in scope} for scope in tables.totals.scopes]
    assert sorted(parts, key=sorted) == sorted(
        [{"r", f"k{i}", f"e{i}"} for i in range(20)], key=sorted
    )


class Chain(Space):
    """Convolutions in a row; the last ones come and go with the depth."""

    def __init__(self, name: str = "chain") -> None:
        decisions = [
            Decision("size", (8, 12)),
            Decision("depth", (1, 2, 3)),
            *(
                Decision(
                    f"k{i}", (1, 3), when=None if i == 0 else ("depth", tuple(range(i + 1, 4)))
                )
                for i in range(3)
            ),
        ]
        super().__init__(name, decisions)

    def build(self, choice: Choice) -> Graph:
        b = GraphBuilder(self.name)
        x = b.input("x", (1, 4, choice["size"], choice["size"]))
        for i in range(choice["depth"]):
            # The activation depends on no choice but its being there.
            x = b.activation(b.conv(x, 4, kernel=choice[f"k{i}"]), "relu")
        return b.build(x)


def test_operations_without_a_choice_of_their_own_come_and_go_with_the_depth() -> None:
    space = Chain()
    tables = cost_tables(space)
    assert tables is not None
    for code in space.all_codes():
        assert totals_of(space, tables, code) == totals_from_graph(space.graph(code))


class Entangled(Chain):
    """Every layer is as wide as the kernels before it add up to."""

    def build(self, choice: Choice) -> Graph:
        b = GraphBuilder(self.name)
        x = b.input("x", (1, 4, choice["size"], choice["size"]))
        width = 4
        for i in range(choice["depth"]):
            width += choice[f"k{i}"]
            x = b.conv(x, width, kernel=choice[f"k{i}"])
        return b.build(x)


class Moody(Chain):
    """A last layer is there for some pairs of choices only, and no decision says so."""

    def build(self, choice: Choice) -> Graph:
        graph = super().build(choice)
        if (choice["k0"] == 3) == (choice["size"] == 8):
            return graph
        b = GraphBuilder(self.name)
        x = b.conv(b.input("x", (1, 4, choice["size"], choice["size"])), 7, kernel=3)
        return b.build(b.softmax(x))


def test_layers_that_depend_on_all_before_them_still_add_up_exactly() -> None:
    space = Entangled("entangled")
    tables = cost_tables(space)
    assert tables is not None
    for code in space.all_codes():
        assert totals_of(space, tables, code) == totals_from_graph(space.graph(code))


@pytest.mark.parametrize("space", [get_space("nasbench201"), Moody("moody")], ids=lambda s: s.name)
def test_a_space_that_is_no_such_sum_is_found_out(space: Space) -> None:
    assert cost_tables(space) is None
