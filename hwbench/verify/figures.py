"""Figures of the claims, drawn with matplotlib into files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
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
        handles, [label.replace("_", " ") for label in labels], ncols=len(methods),
        loc="lower center", frameon=False, fontsize=9,
    )
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, dpi=150)
    plt.close(figure)
