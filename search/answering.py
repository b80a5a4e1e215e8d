"""What every generator is: a model that proposes, an oracle that checks, candidates that stand by.

PNAG's answers budgets (:mod:`hwbench.search.pnag.generator`), EAS' tasks and budgets
(:mod:`hwbench.search.eas.generator`). Both keep what :mod:`hwbench.search.generator_file` writes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import UsageError
from hwbench.predictors import BudgetOracle
from hwbench.spaces.base import Codes, Space

Array = NDArray[np.float64]
Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Generated:
    """The answer to one budget, or to one task and budget.

    ``upper_ms`` is within ``budget_ms`` by the oracle at its confidence. ``accuracy`` (0 to 1) is
    predicted, or the label of an architecture that has one, or None where it is not known.
    ``proposed`` tells an answer of the model from one of the candidates kept.
    """

    budget_ms: float
    code: Codes
    text: str
    predicted_ms: float
    upper_ms: float
    accuracy: float | None
    proposed: bool
    task: str | None = None


class Answering(ABC):
    """The part of a generator that all kinds share. ``kept`` are candidates (n, L).

    ``kind`` and ``version`` are those of its file; :meth:`parts` and :meth:`from_parts` what the
    file holds of one kind alone.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1

    def __init__(self, oracle: BudgetOracle, kept: Codes, confidence: float) -> None:
        self.space: Space = oracle.predictor.space
        self.oracle, self.kept, self.confidence = oracle, kept, confidence

    @abstractmethod
    def parts(self) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
        """JSON for the header, and arrays."""

    @classmethod
    @abstractmethod
    def from_parts(
        cls,
        meta: Mapping[str, Any],
        arrays: Arrays,
        oracle: BudgetOracle,
        kept: Codes,
        confidence: float,
    ) -> Self:
        """From parts of unknown origin; KeyError, TypeError or ValueError where they do not fit."""

    @property
    def range_ms(self) -> tuple[float, float]:
        """The least budget that can be kept, and the largest that any network needs."""
        return float(self._kept_upper.min()), float(self._kept_upper.max())

    @cached_property
    def _kept_upper(self) -> Array:
        return self._upper(self.kept)

    def _upper(self, codes: Codes) -> Array:
        """Bounds (n,) in ms of codes (n, L), without end where another limit is broken."""
        if not len(codes):
            return np.zeros(0)
        allowed = self.oracle.within_limits(codes, self.confidence)
        return np.where(allowed, self.oracle.upper(codes, self.confidence), np.inf)

    def _checked(self, budgets_ms: Sequence[float]) -> Array:
        """UsageError where a budget is no positive number, or outside :attr:`range_ms`."""
        low, high = self.range_ms
        for budget in budgets_ms:
            if not (math.isfinite(budget) and budget > 0):
                raise UsageError(f"a budget of {budget} ms cannot be kept: give a positive number")
            if not low <= budget <= high:
                least, most = rounded(low, up=True), rounded(high, up=False)
                raise UsageError(
                    f"a budget of {budget:g} ms is outside what can be reached here: give {least} "
                    f"to {most} ms (bounds at confidence {self.confidence:g}); "
                    + (
                        f"every architecture keeps {budget:g} ms: ask for {most} ms to get the best"
                        if budget > high
                        else f"no architecture keeps {budget:g} ms"
                    )
                )
        return np.asarray(budgets_ms, dtype=np.float64)


def rounded(ms: float, *, up: bool) -> str:
    """Four digits, rounded to the inside of a range that ends here: it can be given itself."""
    step = 10.0 ** (math.floor(math.log10(ms)) - 3)
    steps = round(ms / step)
    text = f"{steps * step:.12g}"
    outside = float(text) < ms if up else float(text) > ms
    return f"{(steps + (1 if up else -1)) * step:.12g}" if outside else text


def codes_of(arrays: Arrays, name: str, space: Space) -> Codes:
    """Codes (n, L) among arrays of unknown origin; ValueError where they are of no network."""
    rows = space.canonical(arrays[name])
    if not space.valid(rows).all():
        raise ValueError(f"{name} has codes of no network")
    return rows


def numbers_of(arrays: Arrays, name: str, most: float) -> Array:
    """Numbers (n,) from 0 to ``most`` among arrays of unknown origin; ValueError if others."""
    values = arrays[name].astype(np.float64)
    if values.ndim != 1:
        raise ValueError(f"{name} has shape {values.shape}")
    if not ((values >= 0) & (values <= most)).all():
        raise ValueError(f"{name} has numbers outside 0 to {most:g}")
    return values


def below(arrays: Arrays, prefix: str) -> dict[str, NDArray[np.generic]]:
    """The arrays whose names begin so, by the rest of their names."""
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
