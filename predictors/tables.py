"""Functions of an architecture that are sums over small tables: exact, and fast in bulk.

Most of what a predictor needs of an architecture is additive: each layer contributes its own
MACs, bytes and operations, and those depend on a few decisions (the input resolution, the
layer's kernel and expansion). Such a function of 10^19 architectures is a few tables and one
row of each to add up, whatever the number of features in a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from hwbench.spaces import Space

#: Rows that are summed at a time: their sums stay in the second-level cache.
_CHUNK = 4096

Symbols = NDArray[np.float32]
Floats = NDArray[np.floating]


def symbol_counts(space: Space) -> tuple[int, ...]:
    """Number of symbols of each decision: its values, and one more where it can be inactive."""
    pairs = zip(space.cardinalities, space.decisions, strict=True)
    return tuple(c + (d.when is not None) for c, d in pairs)


def symbols(space: Space, codes: ArrayLike) -> Symbols:
    """Codes (n, L) as symbols (n, L): 0 where a conditional decision is inactive, else code + 1.

    A decision that always exists keeps its code. Whole numbers, as float32 for the matrix
    product that turns them into table rows. GraphError where a code is not of the space.
    """
    rows = space.check(codes)
    conditional = [j for j, d in enumerate(space.decisions) if d.when is not None]
    out = rows.astype(np.float32)
    if conditional:
        shift = np.zeros(rows.shape[1], dtype=np.float32)
        shift[conditional] = 1
        out += shift
        out *= space.active(rows)
    return out


@dataclass(frozen=True)
class TableSum:
    """``f(x) = sum over i of tables[i][state of the decisions scopes[i] in x]``: F values.

    ``counts`` are the symbols of each decision; a scope is a rising tuple of decisions, its
    states count through their symbols with the last one fastest; ``tables[i]`` is (states, F).
    """

    counts: tuple[int, ...]
    scopes: tuple[tuple[int, ...], ...]
    tables: tuple[Floats, ...]

    @property
    def width(self) -> int:
        return int(self.tables[0].shape[1])

    def __call__(self, symbols: Symbols, dtype: DTypeLike = np.float64) -> Floats:
        """The sums (n, F) for architectures given as symbols (n, L)."""
        out = np.empty((len(symbols), self.width), dtype=dtype)
        tables = [np.ascontiguousarray(t, dtype=dtype) for t in self.tables]
        buffer = np.empty((min(_CHUNK, len(symbols)), self.width), dtype=dtype)
        strides = self._strides()
        for start in range(0, len(symbols), _CHUNK):
            part = out[start : start + _CHUNK]
            states = (symbols[start : start + _CHUNK] @ strides).T.astype(np.intp, order="C")
            np.take(tables[0], states[0], axis=0, out=part, mode="clip")
            for table, state in zip(tables[1:], states[1:], strict=True):
                part += np.take(table, state, axis=0, out=buffer[: len(part)], mode="clip")
        return out

    def astype(self, dtype: DTypeLike) -> TableSum:
        return TableSum(self.counts, self.scopes, tuple(t.astype(dtype) for t in self.tables))

    def project(self, matrix: Floats, offset: Floats | float = 0.0) -> TableSum:
        """The tables of ``(f(x) - offset) @ matrix`` for a (F, G) matrix."""
        tables = [t @ matrix for t in self.tables]
        tables[0] = tables[0] - (np.broadcast_to(offset, self.width) @ matrix)
        return TableSum(self.counts, self.scopes, tuple(tables))

    def beside(self, other: TableSum) -> TableSum:
        """The tables of both functions side by side: (n, F of this + F of the other)."""
        return side_by_side([self, other])

    def split(self, decision: int) -> TableSum:
        """The function beside zeros, at a place of its own for each value of a decision.

        (n, values x F); the decision must be in every scope.
        """
        values = np.arange(self.counts[decision])
        tables = []
        for scope, table in zip(self.scopes, self.tables, strict=True):
            here = scope_states(self.counts, scope)[:, scope.index(decision)]
            apart = (here[:, None] == values)[:, :, None] * table[:, None, :]
            tables.append(apart.reshape(len(table), -1))
        return TableSum(self.counts, self.scopes, tuple(tables))

    def fused(self, max_states: int) -> TableSum:
        """The same function over fewer scopes, none of more than ``max_states`` states."""
        scopes: list[tuple[int, ...]] = []
        for scope in sorted(self.scopes):
            for i, other in enumerate(scopes):
                union = tuple(sorted({*scope, *other}))
                if self._states(union) <= max_states:
                    scopes[i] = union
                    break
            else:
                scopes.append(scope)
        tables = [np.zeros((self._states(scope), self.width)) for scope in scopes]
        for scope, table in zip(self.scopes, self.tables, strict=True):
            home = next(i for i, other in enumerate(scopes) if {*scope} <= {*other})
            tables[home] += table[_restrict(self.counts, scopes[home], scope)]
        return TableSum(self.counts, tuple(scopes), tuple(tables))

    def _states(self, scope: Sequence[int]) -> int:
        return math.prod(self.counts[j] for j in scope)

    def _strides(self) -> NDArray[np.float32]:
        strides = np.zeros((len(self.counts), len(self.scopes)), dtype=np.float32)
        for i, scope in enumerate(self.scopes):
            strides[list(scope), i] = scope_strides(self.counts, scope)
        return strides


def side_by_side(parts: Sequence[TableSum]) -> TableSum:
    """The tables of functions of one space side by side: (n, the sum of their F)."""
    width = sum(part.width for part in parts)
    scopes, tables, at = [], [], 0
    for part in parts:
        for scope, table in zip(part.scopes, part.tables, strict=True):
            wide = np.zeros((len(table), width), dtype=table.dtype)
            wide[:, at : at + part.width] = table
            scopes.append(scope)
            tables.append(wide)
        at += part.width
    return table_sum(parts[0].counts, scopes, tables)


def checked_table_sum(
    counts: tuple[int, ...], scopes: Sequence[tuple[int, ...]], tables: Sequence[Floats]
) -> TableSum:
    """A :class:`TableSum` of parts of unknown origin; ValueError where they do not fit."""
    found = TableSum(counts, tuple(scopes), tuple(tables))
    for scope, table in zip(scopes, tables, strict=True):
        within = bool(scope) and all(0 <= j < len(counts) for j in scope)
        if not within or list(scope) != sorted(set(scope)):
            raise ValueError(f"{scope} is no scope of {len(counts)} decisions")
        if table.shape != (found._states(scope), found.width):
            raise ValueError(f"the table of {scope} has shape {table.shape}")
    return found


def scope_strides(counts: Sequence[int], scope: Sequence[int]) -> list[int]:
    """What one step of each decision of a scope adds to the number of its state."""
    sizes = [counts[j] for j in scope]
    return [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]


def scope_states(counts: Sequence[int], scope: Sequence[int]) -> NDArray[np.intp]:
    """The symbols of every state of a scope, in order: (states, len(scope))."""
    sizes = [counts[j] for j in scope]
    return np.array(list(np.ndindex(*sizes)), dtype=np.intp).reshape(math.prod(sizes), len(sizes))


def table_sum(
    counts: tuple[int, ...], scopes: Iterable[tuple[int, ...]], tables: Iterable[Floats]
) -> TableSum:
    """A :class:`TableSum`, with scopes that lie within another one added into it."""
    pairs = sorted(zip(scopes, tables, strict=True), key=lambda pair: -len(pair[0]))
    merged: dict[tuple[int, ...], Floats] = {}
    for scope, table in pairs:
        home = next((other for other in merged if {*scope} <= {*other}), None)
        if home is None:
            merged[scope] = table
        else:
            merged[home] = merged[home] + table[_restrict(counts, home, scope)]
    return TableSum(counts, tuple(merged), tuple(merged.values()))


def _restrict(
    counts: Sequence[int], scope: Sequence[int], inner: Sequence[int]
) -> NDArray[np.intp]:
    """For every state of ``scope``, the number of the state of ``inner`` within it."""
    states = scope_states(counts, scope)
    columns = [scope.index(j) for j in inner]
    strides = np.array(scope_strides(counts, inner), dtype=np.intp)
    numbers: NDArray[np.intp] = states[:, columns] @ strides
    return numbers
