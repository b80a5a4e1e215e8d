"""The charts of a store's report: a workload's series, a space's sample, a device's canaries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from hwbench.watch.charts import Chart, Table, Trace, log_axis, padded, plain, short
from hwbench.watch.report import Device, Sample
from hwbench.watch.report_series import ALARM, TRIED, Point, Series

_LEAST_BINNED = 10
_PALETTE = ("--accent", "--winner", "--seq-3", "--seq-5", "--seq-1")


def series_spec(series: Series) -> dict[str, Any]:
    """What the page's scripts read of a series: a chart, the rows of its table, and the quantiles
    of the runs of those points that have some, by their place."""
    traces = _levels(series)
    groups = (
        ("undisturbed", _undisturbed(series.points), "--accent", "circle"),
        (ALARM, [p.left_out == ALARM for p in series.points], "--bad", "triangle-up-open"),
        (TRIED, [p.left_out == TRIED for p in series.points], "--open", "square-open"),
        ("other calibration", _other(series.points), "--muted", "diamond-open"),
        ("inconclusive", _of(series.points, "inconclusive"), "--bad", "x-thin-open"),
        ("as observed", _of(series.points, "observed_only"), "--muted", "circle-open"),
    )
    for name, chosen, colour, symbol in groups:
        of = [n for n, wanted in enumerate(chosen) if wanted and _shown(series.points[n])]
        if of:
            traces.append(_points(series.points, of, name, colour, symbol))
    layout = {
        "xaxis": {"type": "date"},
        "yaxis": {"rangemode": "normal"},
        "shapes": [_change_line(series.forming[c.index].created) for c in series.levels],
    }
    return {
        "traces": traces,
        "layout": layout,
        "rows": [_row(p) for p in series.points],
        "runs": {n: p.runs_ms for n, p in enumerate(series.points) if p.runs_ms},
    }


def _undisturbed(points: Sequence[Point]) -> list[bool]:
    return [p.anchored and not p.left_out for p in points]


def _other(points: Sequence[Point]) -> list[bool]:
    return [p.status == "ok" and not p.anchored for p in points]


def _of(points: Sequence[Point], status: str) -> list[bool]:
    return [p.status == status for p in points]


def _shown(point: Point) -> float:
    """The latency of a point, undisturbed or the median as it was observed; 0 where none."""
    return (point.p50_ms if point.status == "observed_only" else point.ms) or 0.0


def _points(
    points: Sequence[Point], of: Sequence[int], name: str, colour: str, symbol: str
) -> Trace:
    chosen = [points[n] for n in of]
    ms = np.array(list(map(_shown, chosen)))
    high = np.array([_shown(p) if p.high_ms is None else p.high_ms for p in chosen])
    low = np.array([_shown(p) if p.low_ms is None else p.low_ms for p in chosen])
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [p.created for p in chosen],
        "y": short(ms),
        "customdata": list(of),
        "text": [plain(_where(p)) for p in chosen],
        "hovertemplate": "%{y:.4~g} ms<br>%{text}<extra></extra>",
        "marker": {"color": f"var({colour})", "size": 8, "symbol": symbol, "line": {"width": 1}},
        "error_y": {
            "type": "data",
            "array": short(np.maximum(high - ms, 0)),
            "arrayminus": short(np.maximum(ms - low, 0)),
            "color": "var(--interval)" if symbol == "circle" else f"var({colour})",
            "thickness": 1,
            "width": 0,
        },
    }


def _where(point: Point) -> str:
    said = point.created[:16].replace("T", " ")
    return f"{said}, {point.of_commit}" if point.commit else said


def _levels(series: Series) -> list[Trace]:
    """The mean of each level, as a line beneath the points."""
    forming = series.forming
    if len(forming) < 2:
        return []
    ends = [0, *(change.index for change in series.levels), len(forming)]
    x: list[str | None] = []
    y: list[float | None] = []
    for first, last in pairwise(ends):
        level = forming[first:last]
        mean = float(np.exp(np.mean([np.log(p.ms) for p in level if p.ms])))
        x += [level[0].created, level[-1].created, None]
        y += [*short(np.array([mean, mean])), None]
    line = {"color": "var(--muted)", "width": 2}
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "level",
            "x": x,
            "y": y,
            "line": line,
            "hoverinfo": "skip",
        }
    ]


def _change_line(created: str) -> dict[str, Any]:
    line = {"color": "var(--winner)", "width": 1.5, "dash": "dot"}
    across = {"yref": "paper", "y0": 0, "y1": 1}
    return {"type": "line", "x0": created, "x1": created, **across, "line": line}


def _row(point: Point) -> list[Any]:
    """Time, commit, status, the figures in ms, as the page's script puts them in a table, the
    calibration that they rest on, and why it is no part of its level.
    """
    figures = (point.ms, point.low_ms, point.high_ms, point.p50_ms, point.p90_ms, point.p99_ms)
    shown = [None if value is None else float(f"{value:.5g}") for value in figures]
    said = [point.created, point.of_commit, point.status]
    return [*said, *shown, point.calibration, point.left_out]


def histogram(sample: Sample) -> Chart | None:
    """How many architectures of a sample take how long, in bins alike on a logarithmic scale.

    ``None`` where too few have a latency.
    """
    ms = np.array(sample.answered_ms)
    if len(ms) < _LEAST_BINNED:
        return None
    span = padded(ms)
    edges = np.geomspace(*span, 1 + min(30, max(8, round(2 * len(ms) ** 0.5))))
    counts, _ = np.histogram(ms, edges)
    tenths = np.quantile(ms, [0.1, 0.5, 0.9])
    steps = {
        "type": "scatter",
        "mode": "lines",
        "x": short(edges),
        "y": [*counts.tolist(), int(counts[-1])],
        "line": {"color": "var(--accent)", "width": 1.5, "shape": "hv"},
        "fill": "tozeroy",
        "fillcolor": "var(--band-5)",
        "hovertemplate": "%{y} from %{x:.3~g} ms on<extra></extra>",
        "showlegend": False,
    }
    return Chart(
        key=f"{sample.id}-latencies",
        title="Latencies",
        summary=f"Of {len(ms)} architectures a tenth takes less than {tenths[0]:.3g} ms, half less "
        f"than {tenths[1]:.3g} ms, a tenth more than {tenths[2]:.3g} ms.",
        y_label="architectures",
        traces=[steps],
        layout={
            "xaxis": {"title": {"text": "undisturbed latency, ms"}, **log_axis(*span)},
            "yaxis": {"rangemode": "tozero"},
        },
        table=Table(
            "How many take how long",
            ("from, ms", "to, ms", "architectures"),
            [
                (f"{low:.4g}", float(high), int(count))
                for low, high, count in zip(edges, edges[1:], counts, strict=False)
            ],
        ),
    )


def canaries(device: Device) -> Chart | None:
    """How the canaries of a device wandered from their newest calibration, over its sessions."""
    if not device.epochs:
        return None
    epoch = device.epochs[-1]
    runs = [
        run
        for run in device.runs
        if run.canary_key == epoch.canary_key and run.values_ns.shape[-1:] == (len(epoch.names),)
    ]
    if len(runs) < 2:
        return None
    times = [run.created for run in runs]
    values = np.array([np.atleast_2d(run.values_ns)[-1] for run in runs])
    percent = 100 * (values / np.array(epoch.c0_ns) - 1)
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": plain(name),
            "x": times,
            "y": short(percent[:, k]),
            "line": {"color": f"var({_PALETTE[k % len(_PALETTE)]})", "width": 1.5},
            "hovertemplate": "%{y:+.1f} %<extra></extra>",
        }
        for k, name in enumerate(epoch.names)
    ]
    widest = float(np.max(np.abs(percent[-1])))
    return Chart(
        key=f"canaries-{device.id}",
        title="Canaries",
        summary=f"Over {len(runs)} sessions; in the last one they read within {widest:.1f} % of "
        "their canonical times.",
        y_label="from the canonical time, %",
        traces=traces,
        layout={"xaxis": {"type": "date"}, "yaxis": {"zeroline": True}},
        table=Table(
            "Change of each canary from its canonical time, in per cent",
            ("session", *epoch.names),
            [(run.created, *row) for run, row in zip(runs, percent.tolist(), strict=True)],
        ),
    )
