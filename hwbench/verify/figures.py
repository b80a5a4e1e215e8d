"""Figures of the claims, drawn with matplotlib into files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hwbench.predictors.metrics import Metrics
    from hwbench.verify.budgets import Trial
    from hwbench.verify.kernels import FileResult
    from hwbench.verify.repeatability import Table

_COLOURS = {
    "hwbench": "#0b6e4f",
    "sequential_median": "#c1440e",
    "torch_adaptive": "#7b4b94",
    "interleaved_minimum": "#3a6ea5",
    "interleaved_median": "#8d8d8d",
}


def repeatability_figure(
    table: Table, methods: Sequence[str], conditions: Sequence[str], path: Path
) -> None:
    """Share of pairs of runs that agree within x per cent, one panel a condition and one across."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = list(range(len(table.models)))
    panels = [*conditions, "across"]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.1 * len(panels), 3.4), sharey=True)
    for axis, panel in zip(axes, panels, strict=True):
        for method in methods:
            values = (
                table.across(method, columns)
                if panel == "across"
                else table.within(method, [panel], columns)
            )
            if values.size:
                ordered = np.sort(np.maximum(values, 0.01))
                share = np.arange(1, ordered.size + 1) / ordered.size * 100
                width = 2.4 if method == "hwbench" else 1.4
                axis.plot(ordered, share, color=_COLOURS[method], lw=width, label=method)
        axis.set_xscale("log")
        axis.set_xlim(0.03, 100)
        axis.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
        axis.set_title({"across": "across conditions"}.get(panel, panel), fontsize=10)
        axis.set_xlabel("difference of two runs, %", fontsize=9)
        axis.grid(alpha=0.25, lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("pairs of runs that agree, %", fontsize=9)
    axes[0].set_ylim(0, 100)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        [label.replace("_", " ") for label in labels],
        ncols=len(methods),
        loc="lower center",
        frameon=False,
        fontsize=9,
    )
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def budgets_figure(trials: Sequence[Trial], path: Path) -> None:
    """Measured latency of each winner as a share of its budget, over the budget."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.4))
    axis.axhline(1, color="#333333", lw=1)
    axis.text(1.0, 1.0, " budget", transform=axis.get_yaxis_transform(), va="center", fontsize=9)
    for kept, colour, label in ((True, "#0b6e4f", "kept"), (False, "#c1440e", "broken")):
        chosen = [t for t in trials if t.kept is kept]
        budgets = [t.result.budget_ms for t in chosen]
        used = [t.measured_ms / t.result.budget_ms for t in chosen]
        axis.plot(budgets, used, "o", ms=4.5, color=colour, label=f"{label} ({len(chosen)})")
        uppers = [t.result.upper_ms / t.result.budget_ms for t in chosen]
        axis.plot(budgets, uppers, "_", ms=6, color="#8d8d8d")
    axis.plot([], [], "_", color="#8d8d8d", label="promised (upper bound)")
    log_budgets(axis)
    axis.set_xlabel("budget, ms", fontsize=9)
    axis.set_ylabel("measured latency / budget", fontsize=9)
    axis.grid(alpha=0.25, lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def log_budgets(axis: Any) -> None:
    """A logarithmic axis of what was drawn, with round ticks in plain numbers."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    axis.set_xscale("log")
    low, high = axis.get_xlim()
    locator = MaxNLocator(6) if high < 5 * low else LogLocator(subs=(1, 2, 5))
    ticks = [t for t in locator.tick_values(low, high) if low <= t <= high]
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.minorticks_off()


def kernels_figure(
    left_out: Mapping[str, Metrics], files: Sequence[FileResult], path: Path
) -> None:
    """Each family predicted without it, and files of others with their intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6))
    names = sorted(left_out, key=lambda name: left_out[name].within_10)
    rows = np.arange(len(names))
    within = [100 * left_out[name].within_10 for name in names]
    held = [100 * left_out[name].coverage_90 for name in names]
    left.barh(rows, within, color="#0b6e4f", label="within 10 %")
    left.plot(held, rows, "|", ms=9, mew=2, color="#c1440e", label="90 % interval holds")
    left.axvline(90, color="#c1440e", lw=0.8, ls=":")
    left.set_yticks(rows, names, fontsize=8)
    left.set_xlim(0, 101)
    left.set_xlabel("networks of a family left out, %", fontsize=9)
    places = np.arange(len(files))
    low = [100 * (file.low_ms / file.predicted_ms - 1) for file in files]
    high = [100 * (file.high_ms / file.predicted_ms - 1) for file in files]
    right.hlines(places, low, high, color="#8d8d8d", lw=4, alpha=0.5, label="90 % interval")
    took = [100 * (file.measured_ms / file.predicted_ms - 1) for file in files]
    right.plot(took, places, "o", ms=5, color="#0b6e4f", label="measured")
    right.axvline(0, color="#333333", lw=1)
    right.set_yticks(places, [file.name.removesuffix(".onnx") for file in files], fontsize=8)
    right.set_xlabel("over its prediction, %", fontsize=9)
    for axis in (left, right):
        axis.grid(alpha=0.25, lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(
            frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2
        )
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
