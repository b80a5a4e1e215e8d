"""The page's charts, as plotly reads them: plain data, no drawing.

Each chart is traces and a layout for the browser, and for a reader without it a summary in
words and a table of the same data. Colours are names of the style sheet's custom properties,
``var(--accent)``; the page's script puts in what they are in the reader's light or dark theme.
Plotly reads a little markup in any text, so that names are escaped here as well.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hwbench.watch.page import Budget, Evaluation, Profile

Floats = NDArray[np.float64]
Trace = dict[str, Any]

#: Standard deviations to either side that hold 90 % of a normal distribution.
Z90 = 1.6449
#: Colours of the style sheet's sequential palette, ``--seq-0`` to ``--seq-6``.
SEQUENCE = 7


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows of text and numbers, the first column of which names the row."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str | float]]


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """One figure: ``key`` is unique on its page; ``y_label`` stands above the vertical axis."""

    key: str
    title: str
    summary: str
    y_label: str
    traces: Sequence[Trace]
    layout: dict[str, Any]
    table: Table

    @property
    def spec(self) -> dict[str, Any]:
        """What the page's script hands to plotly; JSON."""
        return {"traces": self.traces, "layout": self.layout}


def latency_over_macs(profile: Profile, budgets: Sequence[Budget]) -> Chart:
    """Every architecture measured, coloured by resolution, with the winners under the budgets."""
    macs = profile.macs / 1e6
    resolutions = np.unique(profile.resolution)
    traces = []
    for colour, resolution in zip(_sequence(len(resolutions)), resolutions, strict=True):
        of = np.flatnonzero(profile.resolution == resolution)
        low, high = profile.low_ms[of], profile.high_ms[of]
        traces.append(
            _points(
                macs[of],
                profile.measured_ms[of],
                name=f"{resolution} px",
                colour=colour,
                custom=zip(
                    _wrapped(profile.architectures[i] for i in of), _short(low), _short(high),
                    strict=True,
                ),
                hover="%{customdata[0]}<br>%{x:.0f} M MACs, %{y:.3~f} ms"
                "<br>95 %: %{customdata[1]:.3~f} to %{customdata[2]:.3~f} ms",
            )
        )
    measured = [b for b in budgets if math.isfinite(b.measured_ms)]
    winners = _points(
        np.array([b.macs / 1e6 for b in measured]),
        np.array([b.measured_ms for b in measured]),
        name="winners",
        colour="var(--winner)",
        custom=[(a, b.budget_ms) for a, b in zip(_wrapped(b.architecture for b in measured), measured, strict=True)],
        hover="winner under %{customdata[1]} ms<br>%{customdata[0]}"
        "<br>%{x:.0f} M MACs, %{y:.3~f} ms measured",
    )
    winners["marker"] |= {"symbol": "diamond", "size": 13, "opacity": 1}
    return Chart(
        key="latency-over-macs",
        title="What was measured, and where the winners lie",
        summary=_latency_summary(profile),
        y_label="measured latency, ms",
        traces=[*traces, winners],
        layout={
            "xaxis": {"title": {"text": "million MACs"}, "rangemode": "tozero"},
            "yaxis": {"rangemode": "tozero"},
            "shapes": [_budget_line(b.budget_ms) for b in budgets],
            "annotations": [_budget_name(b.budget_ms) for b in budgets],
        },
        table=Table(
            "The architectures measured for the predictor",
            ("architecture", "resolution, px", "million MACs", "latency, ms", "95 % from", "to"),
            [
                *zip(
                    profile.architectures, profile.resolution.tolist(), macs.tolist(),
                    profile.measured_ms.tolist(), profile.low_ms.tolist(),
                    profile.high_ms.tolist(), strict=True,
                )
            ],
        ),
    )  # fmt: skip
