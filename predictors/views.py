"""An architecture as runtimes may see it, in one row of symbols: what features are tables over.

A space tells how its codes look to runtimes that prune more or less (:meth:`Space.views`). Their
symbols stand side by side, so that any feature of any view is a sum over tables of one row. What
is learned so is served as tables over the space's own symbols: where there is one view they are
the same, else the space is small and every architecture has its entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from hwbench.predictors.tables import (
    Floats,
    Symbols,
    TableSum,
    scope_states,
    symbol_counts,
    symbols,
)
from hwbench.spaces import Codes, Space
from hwbench.spaces.base import ENUMERABLE

_BATCH = 2048


@dataclass(frozen=True)
class Views:
    """The views of a space that a predictor looks at.

    ``counts`` are the symbols of each decision in each view, the views one after the other. A
    space of several views that is too large to list is seen in its first one only.
    """

    space: Space

    @cached_property
    def number(self) -> int:
        if self.space.raw_size() > ENUMERABLE:
            return 1
        none: Codes = np.zeros((0, len(self.space.decisions)), dtype=np.int16)
        return len(self.space.views(none))

    @property
    def counts(self) -> tuple[int, ...]:
        return symbol_counts(self.space) * self.number

    def symbols(self, codes: ArrayLike) -> Symbols:
        """(n, views x L) symbols of codes (n, L)."""
        views = self.space.views(codes)[: self.number]
        return np.concatenate([symbols(self.space, view) for view in views], axis=1)

    def shifted(self, tables: TableSum, view: int) -> TableSum:
        """A sum over the space's own symbols as one over those of that view."""
        start = view * len(self.space.decisions)
        scopes = tuple(tuple(start + j for j in scope) for scope in tables.scopes)
        return TableSum(self.counts, scopes, tables.tables)

    def tabulated(self, function: Callable[[Symbols], Floats]) -> TableSum:
        """A function of the views' symbols (n, F), with an entry for every code of the space."""
        counts = symbol_counts(self.space)
        scope = tuple(range(len(counts)))
        states = scope_states(counts, scope)
        conditional = np.array([d.when is not None for d in self.space.decisions])
        codes = np.maximum(states - conditional, 0).astype(np.int16)
        parts = [
            function(self.symbols(codes[start : start + _BATCH]))
            for start in range(0, len(codes), _BATCH)
        ]
        return TableSum(counts, (scope,), (np.concatenate(parts),))
