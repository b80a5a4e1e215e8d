"""The demo's report and the page that shows it: a static folder, opened from disk, offline.

All that the page says is in :class:`DemoReport`; how a page is made is :mod:`.site`'s matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from hwbench.records import CanaryEpoch, Fingerprint, keeps
from hwbench.watch import page_charts
from hwbench.watch.site import environment, write_site

if TYPE_CHECKING:
    from hwbench.predictors.metrics import Metrics

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]

_ASSETS: Final = ("style.css", "page.js")


@dataclass(frozen=True, slots=True)
class Tried:
    """How many architectures were to be measured, and what became of them.

    ``inconclusive`` are among the ``measured``; those that are not gave no latency at all.
    """

    asked: int
    measured: int
    inconclusive: int

    def __str__(self) -> str:
        lost = self.asked - self.measured
        wide = f", {self.inconclusive} of them inconclusive" if self.inconclusive else ""
        failed = f"; {lost} could not be" if lost else ""
        return f"{self.measured} of {self.asked} architectures measured{wide}{failed}"


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """The n architectures that the predictor learned from, all arrays (n,).

    ``[low_ms, high_ms]`` is the 95 % interval of the undisturbed latency; ``resolution`` is that
    of the input image in pixels. ``tried`` tells how many were to be learned from.
    """

    architectures: Sequence[str]
    measured_ms: Floats
    low_ms: Floats
    high_ms: Floats
    macs: Integers
    resolution: Integers
    tried: Tried


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Predictions for m architectures that the predictor never saw, all arrays (m,).

    ``[low_ms, high_ms]`` is the 90 % interval of the prediction. ``scores`` are those of every
    predictor compared, by the name a reader sees, hwbench's own first. ``tried`` tells of how
    many architectures the m are.
    """

    architectures: Sequence[str]
    measured_ms: Floats
    predicted_ms: Floats
    low_ms: Floats
    high_ms: Floats
    scores: Mapping[str, Metrics]
    tried: Tried


@dataclass(frozen=True, slots=True)
class Budget:
    """One promise: the winner of a search under ``budget_ms``, and what it took in the end.

    The search held ``upper_ms``, the predictor's bound at ``confidence``, against the budget.
    ``[low_ms, high_ms]`` is the 95 % interval of ``measured_ms``; all three are NaN where the
    winner gave no latency. It may be too wide to be an answer: ``inconclusive``.
    """

    budget_ms: float
    architecture: str
    macs: int
    predicted_ms: float
    upper_ms: float
    confidence: float
    measured_ms: float
    low_ms: float
    high_ms: float
    inconclusive: bool = False

    @property
    def measured(self) -> bool:
        """Whether there is a latency."""
        return not math.isnan(self.measured_ms)

    @property
    def kept(self) -> bool | None:
        """Whether the promise was kept, by all of the interval; ``None``: open."""
        return keeps(self.budget_ms, self.low_ms, self.high_ms)

    @property
    def used(self) -> float:
        """Share of the budget that the measured latency takes."""
        return self.measured_ms / self.budget_ms


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the demo and what it cost."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class DemoReport:
    """All that the page says. ``created`` is ISO 8601; no epoch: the milliseconds are provisional.

    ``command`` is what a reader types to make the same report.
    """

    title: str
    created: str
    command: str
    space: str
    fingerprint: Fingerprint
    epoch: CanaryEpoch | None
    profile: Profile
    evaluation: Evaluation
    budgets: Sequence[Budget]
    stages: Sequence[Stage]


def write_page(report: DemoReport, folder: Path) -> Path:
    """Write the page and the files beside it into ``folder``; see :func:`write_site`."""
    return write_site(lambda policy: render(report, policy), _ASSETS, folder)


def render(report: DemoReport, policy: str) -> str:
    """The page's HTML, under this content security policy."""
    return (
        environment()
        .get_template("demo.html")
        .render(
            policy=policy,
            report=report,
            latency_chart=page_charts.latency_over_macs(report.profile, report.budgets),
            parity_chart=page_charts.predicted_against_measured(report.evaluation),
            error_chart=page_charts.error_by_latency(report.evaluation),
        )
    )
