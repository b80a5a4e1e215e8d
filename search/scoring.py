"""The one thing that all searches ask: how good is this architecture, and how slow at most?

Every method of a comparison asks the same :class:`Scorer` of its own ledger, so that calls are
counted alike. In a space that can be listed all answers are computed at once and looked up: that
saves time, and counts as it would without.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import UsageError
from hwbench.search.ledger import SearchLedger
from hwbench.search.random_search import LatencyOracle
from hwbench.spaces.base import ENUMERABLE, Codes, Space

Array = NDArray[np.float64]


class Evaluator(Protocol):
    """A learned order of architectures: the higher the more accurate."""

    def score(self, codes: Codes) -> Array:
        """Scores (n,) of codes (n, L), on any scale."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Architectures (n, L) with their score (n,) and upper latency bound (n,) in ms."""

    codes: Codes
    score: Array
    upper_ms: Array

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: NDArray[np.generic]) -> Scored:
        return Scored(self.codes[rows], self.score[rows], self.upper_ms[rows])

    def joined(self, *others: Scored) -> Scored:
        """With the rows of others, each architecture once (where it came first)."""
        parts = (self, *others)
        codes = np.concatenate([part.codes for part in parts])
        _, first = np.unique(codes, axis=0, return_index=True)
        whole = Scored(
            codes,
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.upper_ms for part in parts]),
        )
        return whole[np.sort(first)]

    def order(self, budgets: Array) -> Array:
        """Rank (n, b) of each under each budget, by which any two compare as specified.

        Both within the budget: the better score first; one within it before one that is not; of
        two beyond it the faster first. Larger is better, equal only where equal.
        """
        within = self.upper_ms[:, None] <= budgets
        by_score = _ranks(self.score)[:, None] + len(self)
        by_speed = _ranks(-self.upper_ms)[:, None]
        return np.where(within, by_score, by_speed).astype(np.float64)


class Scores(Protocol):
    """What the baselines ask: scores and what is held against a budget, counted in a ledger."""

    @property
    def space(self) -> Space:
        """The space of the codes."""

    def __call__(self, codes: Codes) -> Scored:
        """Of valid codes (n, L), in their order."""


class Scorer:
    """Scores by an evaluator and bounds by an oracle at one confidence, counted in a ledger."""

    def __init__(
        self,
        space: Space,
        evaluator: Evaluator,
        oracle: LatencyOracle,
        confidence: float,
        ledger: SearchLedger,
    ) -> None:
        self.space, self.evaluator, self.oracle = space, evaluator, oracle
        self.confidence, self.ledger = confidence, ledger

    def __call__(self, codes: Codes) -> Scored:
        """Scores and bounds of valid codes (n, L); what breaks another limit has no bound."""
        rows = self.space.canonical(codes)
        self.ledger.evaluator_calls += len(rows)
        self.ledger.oracle_queries += len(rows)
        if self.space.raw_size() > ENUMERABLE:
            return self._asked(rows)
        at, listed = self._listed
        return listed[at[self._numbers(rows)]]

    def counted_in(self, ledger: SearchLedger) -> Scorer:
        """The same scorer, that counts in another ledger."""
        other = copy(self)
        other.ledger = ledger
        return other

    @cached_property
    def _listed(self) -> tuple[NDArray[np.intp], Scored]:
        """Every architecture of a small space, and where the code of each number stands."""
        codes = self.space.all_codes()
        at = np.zeros(self.space.raw_size(), dtype=np.intp)
        at[self._numbers(codes)] = np.arange(len(codes))
        return at, self._asked(codes)

    def _numbers(self, codes: Codes) -> NDArray[np.intp]:
        weights = np.cumprod([1, *self.space.cardinalities[:-1]])
        return codes.astype(np.intp) @ weights

    def _asked(self, rows: Codes) -> Scored:
        score = self.evaluator.score(rows)
        if not np.isfinite(score).all():
            raise UsageError("the evaluator gave scores that are no numbers: train it anew")
        upper = np.where(
            self.oracle.within_limits(rows, self.confidence),
            self.oracle.upper(rows, self.confidence),
            np.inf,
        )
        return Scored(rows, score, upper)


class Staircase:
    """The best score within a budget, for any number of budgets: sorted once."""

    def __init__(self, found: Scored) -> None:
        order = np.lexsort((-found.score, found.upper_ms))
        score = found.score[order]
        before = np.concatenate([[-np.inf], np.maximum.accumulate(score)[:-1]])
        steps = order[score > before]
        self._upper_ms = found.upper_ms[steps]
        self._rows = np.concatenate([[-1], steps]).astype(np.intp)

    def best(self, budgets_ms: Array) -> NDArray[np.intp]:
        """Row of the best score within each (b,), the faster of equals; -1 where there is none."""
        return self._rows[np.searchsorted(self._upper_ms, budgets_ms, side="right")]


def best_each(found: Scored, budgets_ms: Array) -> NDArray[np.intp]:
    """:meth:`Staircase.best` of what was found."""
    return Staircase(found).best(budgets_ms)


def _ranks(values: Array) -> NDArray[np.intp]:
    """Dense ranks (n,): 0 for the smallest, equal for equals."""
    return np.unique(values, return_inverse=True)[1].reshape(-1)
