"""Figure of the claim about EAS: accuracy over budgets, what each rival lacks, budgets used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwbench.verify.eas_trial import METHODS, OWN, Arena, paired
from hwbench.verify.figures import log_budgets

_COLOURS = dict(
    zip(METHODS, ("#0b6e4f", "#c1440e", "#8d8d8d", "#7b4b94", "#b8a44c", "#3a6ea5"), strict=True)
)


def eas_figure(
    rows: Sequence[Mapping[str, Any]], arena: Arena, measured: Sequence[float], path: Path
) -> None:
    """Three panels: mean accuracy by budget; points above each rival; budgets as measured."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12.5, 4.2))
    for method, colour in _COLOURS.items():
        by_budget = 100 * np.mean([row["accuracy"][method] for row in rows], axis=(0, 1))
        axes[0].plot(arena.some, by_budget, "o-", ms=3.5, lw=1, color=colour, label=method)
    log_budgets(axes[0])
    axes[0].set_xlabel("budget, ms", fontsize=9)
    axes[0].set_ylabel("accuracy, % (mean of the tasks)", fontsize=9)
    _rivals(axes[1], rows)
    budgets = np.tile(arena.budgets, len(arena.tasks))
    axes[2].plot(budgets, np.asarray(measured) / budgets, "o", ms=4, color=_COLOURS[OWN])
    axes[2].axhline(1, color="#333333", lw=0.8, ls=":")
    log_budgets(axes[2])
    axes[2].set_xlabel("budget, ms", fontsize=9)
    axes[2].set_ylabel("measured / budget", fontsize=9)
    for axis in axes:
        axis.grid(alpha=0.25, lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _rivals(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """By how many points EAS is above each, with the 95 % interval over seeds."""
    others = [method for method in METHODS if method != OWN]
    for i, method in enumerate(others):
        mean, half = paired(rows, method)
        shown = half if np.isfinite(half) else 0.0
        axis.errorbar(mean, i, xerr=shown, fmt="o", ms=5, color=_COLOURS[method], capsize=3)
    axis.axvline(0, color="#333333", lw=0.8, ls=":")
    axis.set_yticks(range(len(others)), others, fontsize=8)
    axis.set_xlabel("accuracy of EAS above it, points", fontsize=9)
