"""The demo's report and the page that shows it: a static folder, opened from disk, offline.

All that the page says is in :class:`DemoReport`; text and tables are rendered here, charts are
drawn by the browser once they are scrolled to. Names of models and facts of a device are hostile
input: every value is escaped by the template, and the content security policy lets nothing run
but the two script files beside the page.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from hwbench.records import CanaryEpoch, Fingerprint, keeps
from hwbench.watch import charts
from hwbench.watch.policy import content_policy

if TYPE_CHECKING:
    import jinja2

    from hwbench.predictors.metrics import Metrics

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]

_TEMPLATES: Final = Path(__file__).with_name("templates")
_ASSETS: Final = ("style.css", "page.js")

#: Control characters but tab and newline, which HTML cannot carry.
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NOT_DEFINED: Final = "–"
_WORDS: Final = {
    "1min": "1 min",
    "c": "°C",
    "cpu": "CPU",
    "id": "ID",
    "kb": "kB",
    "mhz": "MHz",
    "smt": "SMT",
}


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
    """Write the page and the files beside it into ``folder``, and return the page's path.

    Everything is there before ``index.html`` appears, so a page that exists is whole.
    OSError where the folder cannot be written.
    """
    from plotly.offline import get_plotlyjs

    library = get_plotlyjs()
    html = render(report, content_policy(library))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plotly.min.js").write_text(library, encoding="utf-8")
    for name in _ASSETS:
        shutil.copyfile(_TEMPLATES / name, folder / name)
    page = folder / "index.html"
    half_written = folder / "index.html.tmp"
    # A name that is no valid text (a file name's stray bytes) shows as escapes.
    half_written.write_text(html, encoding="utf-8", errors="backslashreplace")
    os.replace(half_written, page)
    return page


def render(report: DemoReport, policy: str) -> str:
    """The page's HTML, under this content security policy."""
    return (
        _environment()
        .get_template("demo.html")
        .render(
            policy=policy,
            report=report,
            latency_chart=charts.latency_over_macs(report.profile, report.budgets),
            parity_chart=charts.predicted_against_measured(report.evaluation),
            error_chart=charts.error_by_latency(report.evaluation),
        )
    )


def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters |= {
        "brief": charts.brief,
        "date": _date,
        "duration": _duration,
        "figure": _figure,
        "label": _label,
        "millions": _millions,
        "percent": _percent,
        "unbroken": _unbroken,
    }
    return environment


def _visible(value: object) -> object:
    """A plain string with its control characters as escapes; all else as it is."""
    if type(value) is not str:  # markup is ours, and escaped already
        return value
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value)


def _figure(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits, without an exponent; an integer as it is."""
    if isinstance(value, int):
        return f"{value:,}"
    if value is None or not math.isfinite(value):
        return _NOT_DEFINED
    whole = math.floor(math.log10(abs(value))) + 1 if value else 1
    return f"{value:,.{max(0, digits - whole)}f}"


def _percent(share: float | None, decimals: int = 1) -> str:
    if share is None or not math.isfinite(share):
        return _NOT_DEFINED
    return f"{100 * share:.{decimals}f}\N{NO-BREAK SPACE}%"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.0f}\N{NO-BREAK SPACE}M"


def _duration(seconds: float) -> str:
    """As a person says it: ``3.4 s``, ``48 s``, ``4 min 52 s``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _date(iso: str) -> str:
    """As ``31 January 2026, 12:00 UTC``."""
    moment = datetime.fromisoformat(iso)
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname() or ''}".rstrip()


def _unbroken(text: str) -> str:
    """A number and its unit stay on one line."""
    return re.sub(r"(?<=\d) (?=%|ms)", "\N{NO-BREAK SPACE}", text)


def _label(name: str) -> str:
    """A fact's name for a reader: ``cpu_model`` is ``CPU model``."""
    words = " ".join(_WORDS.get(word, word) for word in name.split("_"))
    return words[:1].upper() + words[1:]
