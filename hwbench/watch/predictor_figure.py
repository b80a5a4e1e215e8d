"""A predictor held against measurements, as one figure in a file: four panels.

Where it is right, where it errs, what more samples bring at which cost, and whether its
intervals hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import UsageError
from hwbench.predictors.diagnostics import LearningPoint, coverage, errors_by_latency
from hwbench.watch import charts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from hwbench.predictors import LatencyPredictor, TrainingSet

Floats = NDArray[np.float64]

#: Blue and vermilion of Okabe and Ito's palette, told apart by every eye and in print.
_FIRST: Final = "#0072b2"
_SECOND: Final = "#d55e00"
_MUTED: Final = "#5b636d"
_BAND: Final = "#e4e7ea"
#: What matplotlib writes without any other program; PostScript has no transparent points.
_ENDINGS: Final = (".jpg", ".pdf", ".png", ".svg", ".webp")
_CURVE: Final[Any] = {"ms": 4, "color": _FIRST}
#: What a panel of an inch and a half has room for.
_COST_TICKS = 4
#: A range of latencies wider than this factor reads better on a logarithmic axis.
_WIDE: Final = 5.0
_STYLE: Final[Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": _MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.06,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


@dataclass(frozen=True, eq=False)
class Shown:
    """What is drawn: a predictor, the m measurements that it never saw, and what it is of.

    Without a learning curve ``no_curve`` says why there is none.
    """

    device: str
    predictor: LatencyPredictor
    test: TrainingSet
    curve: Sequence[LearningPoint] = ()
    no_curve: str = ""


def require_writable(path: Path) -> None:
    """Before hours of fitting: UsageError where no figure can be written there."""
    if path.suffix.lower() not in _ENDINGS:
        *others, last = _ENDINGS
        raise UsageError(
            f"{path}: a figure's name ends in {', '.join(others)} or {last}: name it so"
        )
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}: make it first")


def draw_predictor(shown: Shown, path: Path) -> None:
    """Write the figure, 10 x 8 inches. UsageError where ``path`` is of no kind that we write."""
    require_writable(path)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = shown.test.latency_ms
    predicted = shown.predictor.predict(shown.test.codes).mean_ms
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10, 8), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, 2)
        panels = [figure.add_subfigure(grid[place // 2, place % 2]) for place in range(4)]
        meta = shown.predictor.meta
        known = f" and {len(meta.sources)} other devices" if meta.sources else ""
        figure.suptitle(
            f"{shown.device}, {meta.space}: fitted on {meta.n_train:,} architectures{known}, "
            f"tested on {len(measured):,} others",
            fontsize=12,
            parse_math=False,  # a device may have any name
        )
        _draw_predictions(panels[0].subplots(), measured, predicted)
        _draw_errors(panels[1].subplots(), measured, predicted)
        _draw_learning(panels[2], shown)
        _draw_coverage(panels[3], shown)
        figure.savefig(path, dpi=130)


def _draw_predictions(axes: Axes, measured: Floats, predicted: Floats) -> None:
    both = np.concatenate([measured, predicted])
    along = np.array(_scale(axes, "xy", both))
    axes.fill_between(along, 0.9 * along, 1.1 * along, color=_BAND, lw=0, label="±10 %")
    axes.plot(along, along, color="black", lw=0.9, label="equal")
    # Thousands of points are to show where they are many; a dozen, where they are.
    light = float(np.clip(15 / np.sqrt(len(measured)), 0.08, 0.8))
    axes.scatter(
        measured, predicted, s=3 + 13 * light, color=_FIRST, alpha=light, lw=0, rasterized=True
    )
    axes.set(xlabel="measured latency, ms", ylabel="predicted latency, ms")
    axes.set_title("(a) Predicted against measured")
    axes.legend(loc="upper left")


def _draw_errors(axes: Axes, measured: Floats, predicted: Floats) -> None:
    bins = errors_by_latency(measured, predicted)
    _scale(axes, "x", measured)
    axes.axhline(0, color="black", lw=0.9)
    low, high = 100 * bins.low, 100 * bins.high
    axes.stairs(
        high, bins.edges_ms, baseline=low, fill=True, color=_FIRST, alpha=0.2, label="5 to 95 %"
    )
    axes.stairs(100 * bins.median, bins.edges_ms, baseline=None, color=_FIRST, lw=2, label="median")
    for percent, dashes in ((5, (1, 2)), (10, (5, 2))):
        for level, label in ((percent, f"±{percent} %"), (-percent, None)):
            axes.axhline(level, color=_SECOND, lw=1, ls=(0, dashes), label=label)
    lowest, highest = min(-13.0, 1.1 * low.min()), max(13.0, 1.1 * high.max())
    # Above them the legend has its place.
    axes.set(ylim=(lowest, highest + 0.1 * (highest - lowest)))
    axes.set(xlabel="measured latency, ms", ylabel="relative error, %")
    axes.set_title(f"(b) Error by latency, {len(bins.median)} quantile bins")
    axes.legend(loc="upper left", ncols=4)


def _draw_learning(panel: SubFigure, shown: Shown) -> None:
    title = "(c) Learning curve"
    if not shown.curve:
        axes = panel.subplots()
        axes.set_title(title)
        axes.set_axis_off()
        axes.text(0.5, 0.5, shown.no_curve, ha="center", color=_MUTED, wrap=True)
        return
    grid = panel.add_gridspec(2, 2, width_ratios=(1.4, 1))
    within, error, cost = (panel.add_subplot(grid[at]) for at in ((slice(None), 0), (0, 1), (1, 1)))
    samples = [point.samples for point in shown.curve]
    off = [point.metrics.rmspe for point in shown.curve]
    share = 100 * np.array([point.metrics.within_10 for point in shown.curve])
    within.plot(samples, share, "o-", **_CURVE)
    lowest = max(0, 10 * np.floor((share.min() - 5) / 10))
    within.set(ylim=(lowest, 101), ylabel="within ±10 %, % of the predictions")
    within.set_title(title)
    error.plot(samples, off, "o-", **_CURVE)
    error.set(ylim=(0, 1.1 * max(off)), ylabel="RMSPE, %")
    _draw_cost(cost, shown.curve)
    for axes in (within, error, cost):
        axes.set(xscale="log", xlim=(samples[0] / 1.3, 1.3 * samples[-1]), xlabel="samples")
        axes.set_xticks(_round_samples(samples), map(str, _round_samples(samples)))
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3, lw=0.5)


def _draw_cost(axes: Axes, curve: Sequence[LearningPoint]) -> None:
    """Seconds to fit, and to measure where that is known: each line is named at its end."""
    spent = [(point.samples, point.fit_seconds) for point in curve]
    known = [(p.samples, p.measure_seconds) for p in curve if p.measure_seconds]
    axes.plot(*zip(*spent, strict=True), "o-", **_CURVE)
    if known:
        axes.plot(*zip(*known, strict=True), "s--", ms=4, color=_SECOND)
        upper = known[-1][1] > spent[-1][1]
        for name, (at, second), colour, above in (
            ("fit", spent[-1], _FIRST, not upper),
            ("measure", known[-1], _SECOND, upper),
        ):
            axes.annotate(
                name, (at, second), (0, 5 if above else -5), textcoords="offset points",
                ha="right", va="bottom" if above else "top", color=colour, fontsize=8,
            )  # fmt: skip
    seconds = np.array([second for _, second in spent + known])
    _scale(axes, "y", np.r_[seconds.min() / 3, 3 * seconds.max()], most=_COST_TICKS)
    axes.set(ylabel="cost, s" if known else "cost of the fit, s")


def _draw_coverage(panel: SubFigure, shown: Shown) -> None:
    found = coverage(shown.predictor, shown.test)
    held, width = panel.subplots(1, 2, width_ratios=(1.4, 1))
    nominal = 100 * found.levels
    # Sound intervals hold this often in 95 of 100 samples of this size (normal approximation).
    chance = 196 * np.sqrt(found.levels * (1 - found.levels) / len(shown.test))
    held.fill_between(
        nominal, nominal - chance, nominal + chance, color=_BAND, lw=0, label="chance, 95 %"
    )
    held.plot(nominal, nominal, color="black", lw=0.9, label="as promised")
    held.plot(nominal, 100 * found.held, color=_FIRST, lw=2, label="seen")
    lowest = min(50.0, 100 * float(found.held.min()))
    held.set(xlim=(50, 98), ylim=(lowest - 2, 101))
    held.set(xlabel="nominal coverage, %", ylabel="measurements inside the interval, %")
    held.set_title("(d) Coverage of the intervals")
    held.legend(loc="lower right")
    width.plot(nominal, 100 * found.width, color=_FIRST, lw=2)
    width.set(xlim=(50, 98), ylim=(0, None))
    width.set(xlabel="nominal coverage, %", ylabel="mean width, % of predicted latency")
    for axes in (held, width):
        axes.set_xticks(range(50, 100, 10))
        axes.grid(alpha=0.3, lw=0.5)


def _round_samples(samples: Sequence[int]) -> list[int]:
    """Ticks that a small panel has room for: powers of ten, and the last sample."""
    powers = [10**d for d in range(1, len(str(samples[-1])))]
    return [p for p in powers if 2 * p <= samples[-1]] + [samples[-1]]


def _scale(
    axes: Axes, directions: str, values: Floats, most: int = charts.MOST_TICKS
) -> tuple[float, float]:
    """Set the axes of these directions to the values' range, logarithmic where it is wide."""
    low, high = float(values.min()), float(values.max())
    wide = low > 0 and low * _WIDE < high
    margin = 0.05 * (high - low) or 0.05 * high
    ends = charts.padded(values) if wide else (low - margin, high + margin)
    for direction in directions:
        if wide:
            axes.set(**{f"{direction}scale": "log"})
            axis = axes.xaxis if direction == "x" else axes.yaxis
            ticks = charts.log_ticks(*ends, most)
            axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_ticks([], minor=True)
        axes.set(**{f"{direction}lim": ends})
    return ends
