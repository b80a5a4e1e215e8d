"""How to measure: what a user asks of a session, and what it answers where it cannot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from hwbench.errors import HwbenchError, UsageError
from hwbench.records import Workload

#: Processes after which a session that may stop early looks at its intervals.
LOOKS = (3, 5, 8, 13, 21)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure.

    ``processes`` fresh processes share ``seconds`` of wall time a workload (loading included;
    20 times its latency where that is more). With ``precision``, a workload is looked at after
    3, 5, 8, … processes and stops once the relative half-width of its interval is below it; the
    last look spends half of ``1 - confidence``, the others share the rest. ``loaded`` is how
    many workloads are in memory at once. ``pairs``: the first two workloads are held against each
    other, and so on; all are in memory at once, and the two of a pair take their turns one right
    after the other, with fewer readings of the canaries between.
    """

    processes: int = 6
    seconds: float = 1.0
    precision: float | None = None
    confidence: float = 0.95
    loaded: int = 24
    memory: bool = False
    pairs: bool = False
    seed: int | None = None
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.processes < 2:
            raise UsageError("at least 2 processes are needed: one cannot tell how they differ")
        if not 0 < self.seconds < math.inf:
            raise UsageError(f"seconds must be positive and finite, not {self.seconds}")
        if self.precision is not None and not self.precision > 0:
            raise UsageError(f"precision must be positive, not {self.precision}")
        if self.loaded < 1:
            raise UsageError(f"at least 1 workload is loaded at once, not {self.loaded}")
        if not 0.5 <= self.confidence < 1:
            raise UsageError(f"confidence must lie in 0.5 to 1, not {self.confidence}")

    @property
    def looks(self) -> dict[int, float]:
        """Processes after which results are looked at, with the share of the error spent."""
        early = [p for p in LOOKS if p < self.processes] if self.precision else []
        if not early:
            return {self.processes: 1.0}
        return {**dict.fromkeys(early, 0.5 / len(early)), self.processes: 0.5}


@dataclass(frozen=True, slots=True)
class Failure:
    """A workload that could not be measured, and why."""

    workload: Workload
    error: HwbenchError

    @property
    def reason(self) -> str:
        """The error's words without the workload's name, which most begin with."""
        return str(self.error).removeprefix(f"{self.workload.name}: ")


Progress = Callable[[float], None]
