"""The page's main charts as one figure in a file, for a README."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hwbench.watch import charts, page_charts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hwbench.watch.page import Budget, Evaluation, Profile

#: The style sheet's light theme.
ACCENT: Final = "#0b6e4f"
BAD: Final = "#b42318"
WINNER: Final = "#c2410c"
MUTED: Final = "#5b636d"
LINE: Final = "#dfe2e6"
BANDS: Final = {10: "#e8f1ed", 5: "#d0e4da"}
SEQUENCE: Final = (
    "#49ac95", "#009799", "#007e9a", "#006396", "#224689", "#322874", "#360657",
)  # fmt: skip

_STYLE: Final[Any] = {
    "font.size": 9,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
}


def predictor_figure(
    profile: Profile, evaluation: Evaluation, budgets: Sequence[Budget], path: Path
) -> None:
    """Predicted against measured beside latency over MACs with the winners, as a PNG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
        _draw_predictions(left, evaluation)
        _draw_profile(right, profile, budgets)
        figure.savefig(path, dpi=160, bbox_inches="tight", pad_inches=0.15)


def _draw_predictions(axes: Axes, evaluation: Evaluation) -> None:
    measured, predicted = evaluation.measured_ms, evaluation.predicted_ms
    ends = np.array(charts.padded(np.concatenate([measured, predicted])))
    for percent in page_charts.BANDS_PERCENT:
        share = percent / 100
        axes.fill_between(
            ends, ends * (1 - share), ends * (1 + share),
            color=BANDS[percent], lw=0, label=f"±{percent} %",
        )  # fmt: skip
    axes.plot(ends, ends, color=MUTED, lw=0.8)
    beyond = np.abs(page_charts.errors_percent(evaluation)) >= page_charts.BANDS_PERCENT[0]
    outer = f"±{page_charts.BANDS_PERCENT[0]} %"
    looks = ((~beyond, ACCENT, "o", f"within {outer}"), (beyond, BAD, "x", f"beyond {outer}"))
    for chosen, colour, marker, label in looks:
        if not chosen.any():
            continue
        # A calibrated interval may lie wholly to one side of the prediction.
        around = np.maximum([predicted - evaluation.low_ms, evaluation.high_ms - predicted], 0)
        axes.errorbar(
            measured[chosen], predicted[chosen], yerr=around[:, chosen],
            fmt=marker, ms=3.5, color=colour, ecolor=colour, elinewidth=0.6, alpha=0.8, label=label,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    for axis in (axes.xaxis, axes.yaxis):
        ticks = charts.log_ticks(*ends)
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.set(xlabel="measured latency, ms", ylabel="predicted latency, ms")
    axes.set_title(f"{len(measured)} architectures never seen")
    axes.legend(loc="upper left")


def _draw_profile(axes: Axes, profile: Profile, budgets: Sequence[Budget]) -> None:
    resolutions = np.unique(profile.resolution)
    for colour, resolution in zip(charts.sequence(len(resolutions)), resolutions, strict=True):
        of = profile.resolution == resolution
        axes.scatter(
            profile.macs[of] / 1e6, profile.measured_ms[of],
            s=11, lw=0, alpha=0.85, color=SEQUENCE[colour], label=f"{resolution} px",
        )  # fmt: skip
    for budget in budgets:
        axes.axhline(budget.budget_ms, color=WINNER, lw=1, ls=":")
        axes.annotate(
            f"budget {charts.brief(budget.budget_ms)} ms", (1, budget.budget_ms), (0, -3),
            xycoords=("axes fraction", "data"), textcoords="offset points", color=WINNER,
            ha="right", va="top",
        )  # fmt: skip
    axes.scatter(
        [b.macs / 1e6 for b in budgets], [b.measured_ms for b in budgets],
        s=64, marker="D", color=WINNER, edgecolor="white", lw=1.2, zorder=3, label="winners",
    )  # fmt: skip
    axes.set(xlabel="million MACs", ylabel="measured latency, ms")
    axes.set(xlim=(0, None), ylim=(0, None))
    axes.set_title("What the generator gave within each budget")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), handletextpad=0.2)
