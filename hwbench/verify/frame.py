"""Claims, and what it takes to test one: a claim, a protocol, evidence, a verdict, a figure.

A claim is published (by a paper, or by this project) and run as an experiment on the user's own
machine. It ends in :class:`~hwbench.records.Verdict` records that go to the ledger in the
store, whichever way they fall: a claim that fails is reported as failing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hwbench.devices.base import Device
from hwbench.records import Outcome, Verdict
from hwbench.store import Store


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a claim is tested, and how thoroughly.

    ``progress`` is told what goes on and the share done; figures are written to ``folder``.
    ``tables`` is a folder of published data, for claims that rest on some. A claim that goes in
    parts does those of ``parts`` alone (default: all); where it is to ``prepare``, it trains and
    searches, and leaves to another run what has to be timed on a machine at rest.
    """

    device: Device
    store: Store
    folder: Path
    quick: bool
    seed: int
    progress: Callable[[str, float], None]
    tables: Path | None = None
    parts: tuple[str, ...] = ()
    prepare: bool = False


class Claim(ABC):
    """A claim that can be put to the test; ``in_parts``: some of it now, the rest another time."""

    name: ClassVar[str]
    text: ClassVar[str]
    protocol: ClassVar[str]
    in_parts: ClassVar[bool] = False

    @abstractmethod
    def run(self, setting: Setting) -> list[Verdict]:
        """Run the protocol; one verdict for each statement that it decides, none where it only
        prepares."""

    def verdict(
        self, outcome: Outcome, evidence: Mapping[str, Any], figure: Path | None = None
    ) -> Verdict:
        """A line of the ledger about this claim, made now."""
        created = datetime.now(UTC).isoformat(timespec="seconds")
        shown = None if figure is None else figure.name
        return Verdict(self.text, self.protocol, outcome, evidence, shown, created)

    def verdicts(
        self,
        statements: Sequence[tuple[str | None, slice]],
        evidence: Mapping[str, Any],
        figure: Path,
    ) -> list[Verdict]:
        """One for each statement (None: the claim's own text) by its part of the evidence's bars,
        which they share otherwise.
        """
        names = list(evidence["bars"])
        found = []
        for text, part in statements:
            bars = {name: evidence["bars"][name] for name in names[part]}
            made = self.verdict(by_bars(bars), {**evidence, "bars": bars}, figure)
            found.append(made if text is None else replace(made, claim=text))
        return found


def by_bars(bars: Mapping[str, bool]) -> Outcome:
    """The outcome of a claim that has several bars, by whether they are met."""
    met = bars.values()
    return "confirmed" if all(met) else "partly" if any(met) else "refuted"


def over_seeds(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean over seeds (n,), and the half of its 95 % interval by Student's t; infinite for one."""
    from scipy.stats import t

    n = len(values)
    half = t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n) if n > 1 else math.inf
    return float(values.mean()), float(half)
