"""What the networks of a space cost, operation by operation, without building them.

:func:`cost_tables` finds out from ``space.graph`` alone which decisions each operation depends
on, and tabulates its costs over these decisions: an exact decomposition for spaces whose layers
keep their place (the MobileNetV3 family: 2e19 networks from some hundred graphs). The steps:

1. *Anchors*: codes in which every decision exists, so that all operations are there.
2. *Shape*: decisions that change sizes but not the sequence of operations. Operation p of one
   such network is operation p of every other, so comparing them shows what p depends on.
3. *Presence*: decisions that take operations away (depths). Operations of decisions that become
   inactive go; others that are missing belong to that value.
4. *Tables*: every operation is seen in every state of its decisions; layers that share nothing
   but, say, the resolution take their states in turn at the same time.
5. *Proof*: the totals of random architectures must be equal, to the last MAC.

Where a step fails (a choice that makes a block another one has no place to compare), each decision
is tried by itself: what each of its values adds to the totals of a base network, with the same
proof (FBNet: each layer one of nine blocks). Where that fails too the space is no such sum, and the
answer is ``None``: features then come from the decisions alone
(:mod:`hwbench.predictors.features`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwbench.graph import Graph
from hwbench.ops import OP_KINDS, Op
from hwbench.predictors.tables import (
    TableSum,
    scope_states,
    scope_strides,
    symbol_counts,
    symbols,
    table_sum,
)
from hwbench.spaces import Codes, Space

#: The costs of one operation; activations are counted read and written.
COSTS = ("count", "macs", "activation_bytes", "weight_bytes")

#: No more networks than this are built to fill tables.
_MAX_GRAPHS = 4096
_PROOFS = 16
#: Networks that near costs are learned from.
_DRAWN = 200

Cost = tuple[str, int, int, int]
Scope = tuple[int, ...]


@dataclass(frozen=True)
class CostTables:
    """Totals of each cost over each class of operation: ``names[f]`` is (class, cost)."""

    names: tuple[tuple[str, str], ...]
    totals: TableSum


def op_class(graph: Graph, op: Op) -> str:
    """Operations of one class take time in proportion to their costs, more or less.

    Convolutions are told apart by kernel, stride and grouping, pools by kernel, linear layers by
    whether they use each weight more than once (tokens) or not (a classifier).
    """
    if op.kind == "conv":
        groups, channels = op["groups"], graph.specs(op)[0].shape[1]
        grouping = "" if groups == 1 else "depthwise " if groups == channels else "grouped "
        kernel = "x".join(map(str, op["kernel"]))
        stride = "" if max(op["stride"]) == 1 else f" / {max(op['stride'])}"
        dilation = "" if max(op["dilation"]) == 1 else f" dilated {max(op['dilation'])}"
        return f"{grouping}conv {kernel}{stride}{dilation}"
    if op.kind in ("max_pool", "avg_pool"):
        return f"{op.kind} {'x'.join(map(str, op['kernel']))}"
    if op.kind == "linear" and math.prod(graph.specs(op)[0].shape[:-1]) > 1:
        return "linear on tokens"
    return op.kind


def op_costs(graph: Graph) -> list[Cost]:
    """(class, MACs, activation bytes, weight bytes) of each operation that does any work."""
    costs = []
    for op in graph.ops:
        if not OP_KINDS[op.kind].is_view:
            weights = graph.weight_bytes_of(op)
            moved = graph.bytes_moved_of(op)
            costs.append((op_class(graph, op), graph.macs_of(op), moved - weights, weights))
    return costs


@lru_cache(maxsize=8)
def cost_tables(space: Space) -> CostTables | None:
    """The costs of a space's networks as sums over tables; ``None`` where they are no such sum.

    Builds some hundred networks (about 3 ms each) the first time it is asked.
    """
    for find in (_Probe.tables, _Probe.by_decision):
        try:
            probe = _Probe(space)
            found = find(probe)
            probe.prove(found)
        except _NoSumError:
            continue
        return found
    return None


@lru_cache(maxsize=8)
def nearby_costs(space: Space) -> CostTables:
    """Costs as the sum of one share a choice that comes nearest to those of some networks.

    For spaces whose costs are no such sum. The choices are those of the last view
    (:meth:`Space.views`), which leaves out what has no effect.
    """
    counts = symbol_counts(space)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, space.cardinalities, (_DRAWN, len(counts)), dtype=np.int16)
    drawn = space.canonical(drawn)
    drawn = drawn[space.valid(drawn)]
    totals = [_totals(op_costs(space.graph(code))) for code in drawn]
    classes = sorted({name for each in totals for name in each})
    wanted = np.array([np.concatenate([t.get(c, _NOTHING) for c in classes]) for t in totals])
    rows = symbols(space, space.views(drawn)[-1]).astype(int)
    starts = np.cumsum([0, *counts])
    shown = np.zeros((len(rows), starts[-1]))
    np.put_along_axis(shown, rows + starts[:-1], 1.0, axis=1)
    shares = np.linalg.lstsq(shown, wanted, rcond=1e-10)[0]
    names = tuple((c, cost) for c in classes for cost in COSTS)
    tables = np.split(shares, starts[1:-1])
    return CostTables(names, table_sum(counts, [(j,) for j in range(len(tables))], tables))


class _NoSumError(Exception):
    """The networks of this space are not sums of parts in the sense of this module."""


class _Probe:
    def __init__(self, space: Space) -> None:
        self.space = space
        self.rng = np.random.default_rng(0)
        self.counts = symbol_counts(space)
        self.anchor = _full_code(space, self.rng)
        self.kinds = _kinds(space.graph(self.anchor))

    def tables(self) -> CostTables:
        structural, depends = self._dependencies()
        self._add_presence(structural, depends)
        scopes = [tuple(sorted(d)) for d in depends]
        return self._fill(scopes)

    def by_decision(self) -> CostTables:
        """Totals as those of the anchor and what each value of each decision adds to them."""
        if any(d.when is not None for d in self.space.decisions):
            raise _NoSumError
        base = _totals(self.costs(self.anchor))
        added = {
            (j, v): _totals(self.costs(self._with(self.anchor, {j: v})))
            for j in range(len(self.counts))
            for v in self._others(self.anchor, j)
        }
        classes = sorted({name for totals in (base, *added.values()) for name in totals})
        names = tuple((c, cost) for c in classes for cost in COSTS)
        row = {v: np.concatenate([t.get(c, _NOTHING) for c in classes]) for v, t in added.items()}
        whole = np.concatenate([base.get(c, _NOTHING) for c in classes])
        tables = [
            np.stack([row.get((j, v), whole) - whole for v in range(count)])
            for j, count in enumerate(self.counts)
        ]
        tables[0] = tables[0] + whole
        scopes = [(j,) for j in range(len(tables))]
        return CostTables(names, table_sum(self.counts, scopes, tables))

    def costs(self, code: Codes) -> list[Cost]:
        return op_costs(self.space.graph(code))

    def costs_by_place(self, code: Codes) -> list[Cost] | None:
        """Costs of the anchor's operations in another network; ``None`` where it has others."""
        graph = self.space.graph(code)
        return op_costs(graph) if _kinds(graph) == self.kinds else None

    # --- which decisions an operation depends on ----------------------------------------------

    def _dependencies(self) -> tuple[list[int], list[set[int]]]:
        """Decisions that change the sequence of operations; for each place, those that do not."""
        decisions = range(len(self.counts))
        seen = {j: self._variants(self.anchor, j) for j in decisions}
        structural = [j for j in decisions if None in seen[j]]
        shaping = [j for j in decisions if j not in structural]
        depends: list[set[int]] = [set() for _ in self.kinds]
        again = self._redrawn(shaping)
        for base, variants in (
            (self.costs(self.anchor), seen),
            (self.costs(again), {j: self._variants(again, j) for j in shaping}),
        ):
            for j in shaping:
                for variant in variants[j]:
                    if variant is None or len(variant) != len(base):
                        raise _NoSumError
                    for p, (old, new) in enumerate(zip(base, variant, strict=True)):
                        if old != new:
                            depends[p].add(j)
        return structural, depends

    def _variants(self, code: Codes, j: int) -> list[list[Cost] | None]:
        """Costs by place with decision ``j`` at each of its other values."""
        return [self.costs_by_place(self._with(code, {j: v})) for v in self._others(code, j)]

    def _add_presence(self, structural: Sequence[int], depends: list[set[int]]) -> None:
        """Enter what takes each operation away among the decisions that it depends on."""
        base = self.costs(self.anchor)
        for j in structural:
            absent: dict[int, set[int]] = {}
            for value in self._others(self.anchor, j):
                code = self._with(self.anchor, {j: value})
                inactive = set(np.flatnonzero(~self.space.active(code[None])[0]))
                here = [p for p in range(len(base)) if not depends[p] & inactive]
                for i in _missing([base[p] for p in here], self.costs(code)):
                    absent.setdefault(here[i], set()).add(value)
            for p, values in absent.items():
                depends[p].add(self._witness(j, values))

    def _witness(self, j: int, absent: set[int]) -> int:
        """A decision that exists unless ``j`` has one of the ``absent`` values."""
        name, values = self.space.decisions[j].name, self.space.decisions[j].values
        when = (name, tuple(v for i, v in enumerate(values) if i not in absent))
        for c, d in enumerate(self.space.decisions):
            if d.when is not None and (d.when[0], set(d.when[1])) == (name, set(when[1])):
                return c
        raise _NoSumError

    # --- tables -------------------------------------------------------------------------------

    def _fill(self, scopes: Sequence[Scope]) -> CostTables:
        """Tables over each scope, from networks that together show each of its states.

        The tables of layers that come and go keep to their own scopes until they are complete:
        within a larger one, an operation is there also where a decision of others is inactive.
        """
        distinct = sorted(set(scopes))
        seen: dict[Scope, dict[int, list[Cost]]] = {scope: {} for scope in distinct}
        for code in self._covering(distinct):
            states = self._states(code, distinct)
            new = {s for s, state in states.items() if state not in seen[s]}
            if not new:
                continue
            costs = self.costs_by_place(code)
            if costs is None:
                raise _NoSumError
            for cost, scope in zip(costs, scopes, strict=True):
                if scope in new:
                    seen[scope].setdefault(states[scope], []).append(cost)
        classes = sorted({c[0] for rows in seen.values() for row in rows.values() for c in row})
        names = tuple((c, cost) for c in classes for cost in COSTS)
        tables = [self._table(scope, rows, classes) for scope, rows in seen.items()]
        return CostTables(names, table_sum(self.counts, distinct, tables))

    def _covering(self, scopes: Sequence[Scope]) -> Iterator[Codes]:
        """Full codes in which each scope takes every state: shared decisions outside, the
        others of all scopes together inside.
        """
        scopes = [s for s in scopes if not any({*s} < {*other} for other in scopes)]
        shared = sorted({j for j in range(len(self.counts)) if sum(j in s for s in scopes) > 1})
        own = [[j for j in scope if j not in shared] for scope in scopes]
        sizes = [[self.space.cardinalities[j] for j in columns] for columns in own]
        inner = max(math.prod(s) for s in sizes)
        outer = [self.space.cardinalities[j] for j in shared]
        if inner * math.prod(outer) > _MAX_GRAPHS:
            raise _NoSumError
        for values in np.ndindex(*outer):
            for t in range(inner):
                change = dict(zip(shared, values, strict=True))
                for columns, size in zip(own, sizes, strict=True):
                    at = np.unravel_index(t % math.prod(size), size)
                    change |= dict(zip(columns, map(int, at), strict=True))
                yield self._with(self.anchor, change)

    def _states(self, code: Codes, scopes: Sequence[Scope]) -> dict[Scope, int]:
        row = symbols(self.space, code[None])[0].astype(int)
        return {s: int(row[list(s)] @ scope_strides(self.counts, s)) for s in scopes}

    def _table(
        self, scope: Scope, rows: dict[int, list[Cost]], classes: Sequence[str]
    ) -> NDArray[np.float64]:
        """Costs of each state; those never seen have an inactive decision, and cost nothing."""
        table = np.zeros((len(scope_states(self.counts, scope)), len(classes), len(COSTS)))
        column = {name: i for i, name in enumerate(classes)}
        for state, costs in rows.items():
            for name, *values in costs:
                table[state, column[name]] += [1, *values]
        return table.reshape(len(table), -1)

    def prove(self, tables: CostTables) -> None:
        codes = self.space.sample(_PROOFS, self.rng)
        totals = tables.totals(symbols(self.space, codes))
        column = {name: i for i, name in enumerate(tables.names)}
        for code, total in zip(codes, totals, strict=True):
            wanted = np.zeros(len(tables.names))
            for name, *values in self.costs(code):
                for cost, value in zip(COSTS, (1, *values), strict=True):
                    if (name, cost) not in column:
                        raise _NoSumError
                    wanted[column[name, cost]] += value
            if not np.array_equal(wanted, total):
                raise _NoSumError

    # --- codes --------------------------------------------------------------------------------

    def _others(self, code: Codes, j: int) -> Iterator[int]:
        return (v for v in range(self.space.cardinalities[j]) if v != code[j])

    def _with(self, code: Codes, change: dict[int, int]) -> Codes:
        row = code.copy()
        row[list(change)] = list(change.values())
        rows: Codes = self.space.canonical(row[None])
        if not self.space.valid(rows)[0]:
            raise _NoSumError
        changed: Codes = rows[0].copy()
        return changed

    def _redrawn(self, shaping: Sequence[int]) -> Codes:
        """The anchor with every decision that keeps the sequence drawn again."""
        drawn = {j: int(self.rng.integers(self.space.cardinalities[j])) for j in shaping}
        return self._with(self.anchor, drawn)


_NOTHING = np.zeros(len(COSTS))


def _totals(costs: Sequence[Cost]) -> dict[str, NDArray[np.float64]]:
    """Sums of each cost over each class of operation."""
    totals: dict[str, NDArray[np.float64]] = {}
    for name, *values in costs:
        totals[name] = totals.get(name, _NOTHING) + np.array([1, *values])
    return totals


def _kinds(graph: Graph) -> list[str]:
    """What two networks must share for their operations to be compared one for one."""
    return [op.kind for op in graph.ops if not OP_KINDS[op.kind].is_view]


def _full_code(space: Space, rng: np.random.Generator) -> Codes:
    """A random code (L,) in which every decision exists."""
    code = np.array([rng.integers(c) for c in space.cardinalities], dtype=np.int16)
    column = {d.name: j for j, d in enumerate(space.decisions)}
    allowed = [set(range(c)) for c in space.cardinalities]
    for d in space.decisions:
        if d.when is not None:
            parent = column[d.when[0]]
            values = space.decisions[parent].values
            allowed[parent] &= {i for i, v in enumerate(values) if v in d.when[1]}
    for j, keeping in enumerate(allowed):
        if not keeping:
            raise _NoSumError
        if int(code[j]) not in keeping:
            code[j] = min(keeping)
    if not space.valid(code[None])[0]:
        raise _NoSumError
    return code


def _missing(base: Sequence[Cost], costs: Sequence[Cost]) -> list[int]:
    """Places of ``base`` to leave out for ``costs`` to remain, in order."""
    missing, at = [], 0
    for p, cost in enumerate(base):
        if at < len(costs) and costs[at] == cost:
            at += 1
        else:
            missing.append(p)
    if at < len(costs):
        raise _NoSumError
    return missing
