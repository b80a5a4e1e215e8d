"""The charts of the demo's page: what was measured, what was predicted, and how far off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwbench.watch.charts import (
    Chart,
    Floats,
    Table,
    Trace,
    brief,
    line,
    log_axis,
    padded,
    points,
    sequence,
    short,
)

if TYPE_CHECKING:
    from hwbench.watch.page import Budget, Evaluation, Profile

BANDS_PERCENT = (10, 5)


def latency_over_macs(profile: Profile, budgets: Sequence[Budget]) -> Chart:
    """Every architecture measured, coloured by resolution, with the winners under the budgets."""
    resolutions = np.unique(profile.resolution)
    colours = sequence(len(resolutions))
    groups = [np.flatnonzero(profile.resolution == resolution) for resolution in resolutions]
    macs = profile.macs / 1e6
    traces = [
        points(
            macs[of],
            profile.measured_ms[of],
            name=f"{resolution} px",
            colour=f"var(--seq-{colour})",
            names=[profile.architectures[i] for i in of.tolist()],
            hover="%{x:.0f} M MACs, %{y:.4~g} ms",
        )
        for resolution, colour, of in zip(resolutions, colours, groups, strict=True)
    ]
    rows = zip(
        profile.architectures,
        profile.resolution.tolist(),
        macs.tolist(),
        profile.measured_ms.tolist(),
        profile.low_ms.tolist(),
        profile.high_ms.tolist(),
        strict=True,
    )
    return Chart(
        key="latency-over-macs",
        title="Latency over MACs, by resolution",
        summary=_macs_summary(profile),
        y_label="measured latency, ms",
        traces=[*traces, _winners([b for b in budgets if b.measured])],
        layout={
            "xaxis": {"title": {"text": "million MACs"}, "rangemode": "tozero"},
            "yaxis": {"rangemode": "tozero"},
            "shapes": [_budget_line(budget.budget_ms) for budget in budgets],
            "annotations": [_budget_name(budget.budget_ms) for budget in budgets],
        },
        table=Table(
            "The architectures that the predictor learned from",
            ("architecture", "resolution, px", "million MACs", "latency, ms", "95 % from", "to"),
            [*rows],
        ),
    )


def predicted_against_measured(evaluation: Evaluation) -> Chart:
    """Predictions with their 90 % intervals, on bands of ±5 and ±10 % around the truth."""
    measured, predicted = evaluation.measured_ms, evaluation.predicted_ms
    span = np.array(padded(np.concatenate([measured, predicted])))
    axis = log_axis(*span)
    return Chart(
        key="predicted-against-measured",
        title="Predicted against measured",
        summary=_accuracy_summary(evaluation),
        y_label="predicted latency, ms",
        traces=[
            *(_band(span, percent) for percent in BANDS_PERCENT),
            line(span, span),
            *_predictions(
                evaluation,
                predicted,
                evaluation.low_ms,
                evaluation.high_ms,
                hover="%{y:.4~g} ms predicted, %{x:.4~g} ms measured",
            ),
        ],
        layout={
            "xaxis": {"title": {"text": "measured latency, ms"}, **axis},
            "yaxis": axis,
        },
        table=Table(
            "The architectures that the predictor never saw",
            ("architecture", "measured, ms", "predicted, ms", "90 % from", "to", "error, %"),
            [
                *zip(
                    evaluation.architectures,
                    measured.tolist(),
                    predicted.tolist(),
                    evaluation.low_ms.tolist(),
                    evaluation.high_ms.tolist(),
                    errors_percent(evaluation).tolist(),
                    strict=True,
                )
            ],
        ),
    )


def error_by_latency(evaluation: Evaluation) -> Chart:
    """The same predictions as errors in percent: where on the scale they are good."""
    measured, errors = evaluation.measured_ms, errors_percent(evaluation)
    low, high = (100 * (end / measured - 1) for end in (evaluation.low_ms, evaluation.high_ms))
    span = np.array(padded(measured))
    reach = 1.08 * max(1.2 * BANDS_PERCENT[0], float(np.max(np.abs([low, high]))))
    slowest = np.argsort(measured)
    thirds = [float(np.median(np.abs(errors[part]))) for part in np.array_split(slowest, 3)]
    return Chart(
        key="error-by-latency",
        title="Error by latency",
        summary=f"The median error is {thirds[0]:.1f} % in the fastest third of the "
        f"architectures, {thirds[1]:.1f} % in the middle and {thirds[2]:.1f} % in the slowest.",
        y_label="error of the prediction, %",
        traces=[
            # The axis says where they end: no need of a legend.
            *(_level_band(span, percent) | {"showlegend": False} for percent in BANDS_PERCENT),
            line(span, np.zeros(2)),
            *_predictions(
                evaluation, errors, low, high, hover="%{y:+.1f} % at %{x:.4~g} ms measured"
            ),
        ],
        layout={
            "xaxis": {"title": {"text": "measured latency, ms"}, **log_axis(*span)},
            "yaxis": {
                "range": [-reach, reach],
                "zeroline": False,
                "dtick": max(5, round(reach / 20) * 5),
            },
        },
        table=Table(
            "The error in each third",
            ("architectures", "median error, %"),
            [*zip(("fastest third", "middle third", "slowest third"), thirds, strict=True)],
        ),
    )


# --- what they say --------------------------------------------------------------------------


def errors_percent(evaluation: Evaluation) -> Floats:
    """Signed error of each prediction in percent of the measured latency, shape (m,)."""
    return np.asarray(100 * (evaluation.predicted_ms / evaluation.measured_ms - 1))


def _macs_summary(profile: Profile) -> str:
    macs, latency = profile.macs / 1e6, profile.measured_ms
    text = (
        f"{len(macs)} architectures take {latency.min():.3g} to {latency.max():.3g} ms at "
        f"{macs.min():.0f} to {macs.max():.0f} million MACs."
    )
    middle = float(np.median(macs))
    alike = latency[np.abs(macs / middle - 1) < 0.05]
    if len(alike) > 1:
        text += (
            f" Those within 5 % of {middle:.0f} million MACs still differ by "
            f"{100 * (alike.max() / alike.min() - 1):.0f} % in latency."
        )
    return text


def _accuracy_summary(evaluation: Evaluation) -> str:
    errors, measured = errors_percent(evaluation), evaluation.measured_ms
    off = np.abs(errors)
    inside = (evaluation.low_ms <= measured) & (measured <= evaluation.high_ms)
    worst = int(np.argmax(off))
    return (
        f"Of {len(off)} predictions {int(np.sum(off < 10))} lie within 10 % of the measurement, "
        f"{int(np.sum(off < 5))} within 5 %. The 90 % intervals hold {int(np.sum(inside))} of "
        f"them. The worst is {off[worst]:.1f} % too {'high' if errors[worst] > 0 else 'low'}, at "
        f"{measured[worst]:.3g} ms."
    )


# --- traces and marks -------------------------------------------------------------------------


def _winners(measured: Sequence[Budget]) -> Trace:
    trace = points(
        np.array([budget.macs / 1e6 for budget in measured]),
        np.array([budget.measured_ms for budget in measured]),
        name="winners",
        colour="var(--winner)",
        names=[budget.architecture for budget in measured],
        hover="winner: %{x:.0f} M MACs, %{y:.4~g} ms",
    )
    edge = {"color": "var(--surface)", "width": 2}
    return trace | {
        "marker": {"symbol": "diamond", "size": 15, "color": "var(--winner)", "line": edge}
    }


def _predictions(
    evaluation: Evaluation, y: Floats, low: Floats, high: Floats, *, hover: str
) -> list[Trace]:
    """Points with interval, those beyond the outer band set apart (where there are any)."""
    outer = BANDS_PERCENT[0]
    beyond = np.abs(errors_percent(evaluation)) >= outer
    looks = (
        (f"within ±{outer} %", "var(--accent)", "circle", np.flatnonzero(~beyond)),
        (f"beyond ±{outer} %", "var(--bad)", "x", np.flatnonzero(beyond)),
    )
    traces = []
    for name, colour, symbol, of in looks:
        if not len(of):
            continue
        trace = points(
            evaluation.measured_ms[of],
            y[of],
            name=name,
            colour=colour,
            names=[evaluation.architectures[i] for i in of.tolist()],
            hover=hover,
        )
        trace["marker"]["symbol"] = symbol
        trace["error_y"] = {
            "type": "data",
            "array": short(high[of] - y[of]),
            "arrayminus": short(y[of] - low[of]),
            "color": "var(--interval)" if symbol == "circle" else colour,
            "thickness": 1,
            "width": 0,
        }
        traces.append(trace)
    return traces


def _band(span: Floats, percent: float) -> Trace:
    """±``percent`` around the diagonal; straight on two logarithmic axes."""
    share = percent / 100
    y = np.concatenate([span * (1 - share), span[::-1] * (1 + share)])
    return _area(np.concatenate([span, span[::-1]]), y, percent)


def _level_band(span: Floats, percent: float) -> Trace:
    return _area(span[[0, 1, 1, 0]], percent * np.array([-1.0, -1, 1, 1]), percent)


def _area(x: Floats, y: Floats, percent: float) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"±{percent} %",
        "x": short(x),
        "y": short(y),
        "fill": "toself",
        "fillcolor": f"var(--band-{percent})",
        "line": {"width": 0},
        "hoverinfo": "skip",
    }


def _budget_line(budget_ms: float) -> dict[str, Any]:
    line = {"color": "var(--winner)", "width": 1.5, "dash": "dot"}
    across = {"xref": "paper", "x0": 0, "x1": 1}
    return {"type": "line", **across, "y0": budget_ms, "y1": budget_ms, "line": line}


def _budget_name(budget_ms: float) -> dict[str, Any]:
    return {
        "text": f"budget {brief(budget_ms)} ms",
        "xref": "paper",
        "x": 1,
        "xanchor": "right",
        "y": budget_ms,
        "yanchor": "top",
        "showarrow": False,
        "font": {"color": "var(--winner)", "size": 12},
    }
