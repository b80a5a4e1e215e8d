"""What charts are made of, as plotly reads it: plain data, no drawing.

Each chart is traces and a layout for the browser, and for a reader without it a summary in
words and a table of the same data. Colours are names of the style sheet's custom properties,
``var(--accent)``; the page's script puts in what they are in the reader's light or dark theme.
Plotly reads some markup in any text, so that names are escaped here as well.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Trace = dict[str, Any]

#: Colours of the style sheet's sequential palette, ``--seq-0`` to ``--seq-6``.
SEQUENCE = 7

_HOVER_COLUMNS = 34
_TICK_FAMILIES = (
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9),
    (1, 1.5, 2, 3, 4, 5, 7),
    (1, 2, 3, 5),
    (1, 2, 5),
    (1, 3),
    (1,),
)
MOST_TICKS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows of text and numbers; the first column names the row."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str | float]]


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """One figure. ``key`` is unique on its page; ``y_label`` stands above the vertical axis."""

    key: str
    title: str
    summary: str
    y_label: str
    traces: Sequence[Trace]
    layout: dict[str, Any]
    table: Table

    @property
    def spec(self) -> dict[str, Any]:
        """What the page's script hands to plotly: JSON."""
        return {"traces": self.traces, "layout": self.layout}


def points(
    x: Floats, y: Floats, *, name: str, colour: str, names: Sequence[str], hover: str
) -> Trace:
    """Marks at (n,) x and y, with what a reader who points at one is told of it."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": short(x),
        "y": short(y),
        "customdata": [plain(text) for text in names],
        "hovertemplate": f"{hover}<br>%{{customdata}}<extra></extra>",
        "marker": {"color": colour, "size": 7, "opacity": 0.85, "line": {"width": 0}},
    }


def line(x: Floats, y: Floats) -> Trace:
    """A thin line that guides the eye and says nothing itself."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": short(x),
        "y": short(y),
        "line": {"color": "var(--muted)", "width": 1},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def log_axis(low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis between two positive values, with round ticks."""
    ticks = log_ticks(low, high)
    return {
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def log_ticks(low: float, high: float, most: int = MOST_TICKS) -> list[float]:
    """Round numbers on a logarithmic axis: as many as read well, ``most`` if there is room."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for family in _TICK_FAMILIES:
        marks = (float(f"{m}e{d}") for d in decades for m in family)
        ticks = [mark for mark in marks if low <= mark <= high]
        if len(ticks) <= most:
            break
    return ticks


def padded(values: Floats) -> tuple[float, float]:
    """The range of positive values with a margin of 6 % of it, on a logarithmic scale."""
    low, high = math.log10(values.min()), math.log10(values.max())
    margin = 0.06 * (high - low) + 0.01
    return 10 ** (low - margin), 10 ** (high + margin)


def sequence(count: int) -> list[int]:
    """``count`` colours spread over the sequential palette, as indices into it."""
    return [int(i) for i in np.linspace(0, SEQUENCE - 1, count).round()]


def short(values: Floats) -> list[float]:
    """Five significant digits: more than a screen shows."""
    return [float(f"{value:.5g}") for value in values]


def brief(value: float) -> str:
    """A budget as its owner would say it: at most four digits, and no zeros after them."""
    return f"{float(f'{value:.4g}'):.12g}"


def plain(text: str) -> str:
    """Text that plotly shows as it is, in lines short enough for a phone."""
    lines: Iterable[str] = textwrap.wrap(text, _HOVER_COLUMNS) or [""]
    return "<br>".join(html.escape(part, quote=False) for part in lines)
