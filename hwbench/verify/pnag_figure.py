"""Figure of the claim about PNAG: regret by labels, by device, and what the guard costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwbench.verify.figures import log_budgets

_SHOWN = {
    "pnag": "#0b6e4f",
    "best of labelled": "#8d8d8d",
    "rank all": "#3a6ea5",
    "random": "#b8a44c",
    "evolution": "#c1440e",
    "nsga2": "#7b4b94",
}


def pnag_figure(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Three panels: regret over labels; hypervolume by device; the four readings."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12.5, 4.2))
    _by_labels(axes[0], rows)
    _by_device(axes[1], rows)
    _by_reading(axes[2], rows)
    for axis in axes:
        axis.grid(alpha=0.25, lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, ncols=len(_SHOWN), loc="lower center", frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def device_figure(evidence: Mapping[str, Any], path: Path) -> None:
    """Two panels: what measured answers use of their budgets, and accuracy by seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (used, gained) = plt.subplots(1, 2, figsize=(9.5, 4.0))
    shown = {"pnag": evidence["trials"]["guarded"], "evolution": evidence["trials"]["evolution"]}
    for method, trials in shown.items():
        budgets = np.array([trial["budget_ms"] for trial in trials])
        shares = np.array([trial["measured_ms"] for trial in trials]) / budgets
        marker = "o" if method == "pnag" else "s"
        used.plot(budgets, 100 * shares, marker, ms=4, color=_SHOWN[method], label=method)
        own = [row["test_accuracy"] for row in evidence["seeds"] if row["method"] == method]
        judged = budgets[np.linspace(0, len(budgets) - 1, len(own[0])).round().astype(int)]
        low, middle, high = 100 * np.quantile(own, [0, 0.5, 1], axis=0)
        gained.plot(judged, middle, f"{marker}-", ms=4, lw=1, color=_SHOWN[method], label=method)
        gained.fill_between(judged, low, high, color=_SHOWN[method], alpha=0.15, lw=0)
    used.axhline(100, color="#333333", lw=0.8, ls=":")
    used.set_ylabel("measured, % of the budget", fontsize=9)
    gained.set_ylabel("test accuracy, % (median and range of seeds)", fontsize=9)
    for axis in (used, gained):
        log_budgets(axis)
        axis.set_xlabel("budget, ms", fontsize=9)
        axis.grid(alpha=0.25, lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _by_labels(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    counts = sorted({row["labels"] for row in rows})
    for method, colour in _SHOWN.items():
        means, errors = [], []
        for count in counts:
            by_seed: dict[int, list[float]] = {}
            for row in rows:
                if (row["method"], row["labels"]) == (method, count):
                    value = row["confirmed"]["regret_points_mean"]
                    by_seed.setdefault(row["seed"], []).append(value)
            seeds = np.array([np.mean(values) for values in by_seed.values()])
            means.append(seeds.mean())
            errors.append(seeds.std(ddof=1) / np.sqrt(len(seeds)) if len(seeds) > 1 else 0.0)
        axis.errorbar(counts, means, errors, color=colour, marker="o", ms=4, label=method)
    axis.axhline(0.3, color="#333333", lw=0.8, ls=":")
    axis.set_xticks(counts)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("accuracy labels", fontsize=9)
    axis.set_ylabel("regret, points (confirmed)", fontsize=9)


def _by_device(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    most = max(row["labels"] for row in rows)
    devices = list(dict.fromkeys(row["device"] for row in rows))
    for i, (method, colour) in enumerate(_SHOWN.items()):
        values = [
            np.mean(
                [
                    row["confirmed"]["hypervolume"]
                    for row in rows
                    if (row["method"], row["labels"], row["device"]) == (method, most, device)
                ]
            )
            for device in devices
        ]
        axis.plot(values, np.arange(len(devices)) + 0.09 * (i - 2.5), "o", ms=5, color=colour)
    axis.set_yticks(np.arange(len(devices)), devices, fontsize=8)
    axis.set_xlabel(f"share of the true hypervolume ({most} labels)", fontsize=9)


def _by_reading(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    most = max(row["labels"] for row in rows)
    readings = {"raw": "x", "guarded": "s", "calibrated": "D", "confirmed": "o"}
    for method, colour in _SHOWN.items():
        own = [row for row in rows if (row["method"], row["labels"]) == (method, most)]
        regret = [np.mean([row[r]["regret_points_mean"] for row in own]) for r in readings]
        kept = [100 * np.mean([row[r]["satisfaction"] for row in own]) for r in readings]
        axis.plot(kept, regret, "-", lw=0.7, color=colour, alpha=0.6)
        for x, y, marker in zip(kept, regret, readings.values(), strict=True):
            axis.plot(x, y, marker, ms=6, color=colour)
    for reading, marker in readings.items():
        axis.plot([], [], marker, color="#333333", ls="none", label=reading)
    axis.axvline(95, color="#333333", lw=0.8, ls=":")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize=8)
    axis.set_xlabel("budgets kept, %", fontsize=9)
    axis.set_ylabel("regret, points", fontsize=9)
