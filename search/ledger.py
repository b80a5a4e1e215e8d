"""What a search cost, in one unit for each kind of work, so that methods can be compared."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field


@dataclass
class SearchLedger:
    """Counts of one search, added up as it goes.

    ``validations`` are accuracy labels, ``evaluator_calls`` architectures that a learned evaluator
    scored (again counts again), ``oracle_queries`` architectures whose latency was predicted,
    ``device_measurements`` those that were measured, ``training_steps`` optimiser steps of what
    the search trains. ``by_seed`` is what each of several seeds is worth by itself, where a search
    had more than one.
    """

    training_steps: int = 0
    validations: int = 0
    evaluator_calls: int = 0
    oracle_queries: int = 0
    device_measurements: int = 0
    seconds: float = 0.0
    by_seed: list[float] = field(default_factory=list)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the seconds that the block takes."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began

    def row(self) -> dict[str, float]:
        """For a report: the counts, and the time."""
        counts = {name: value for name, value in asdict(self).items() if name != "by_seed"}
        return {**counts, "seconds": round(self.seconds, 3)}
