"""Predictors side by side, as ``fit`` and ``evaluate`` show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hwbench import console

if TYPE_CHECKING:
    from rich.table import Table

    from hwbench.predictors import LatencyPredictor, Metrics, Provenance, TrainingSet
    from hwbench.spaces import Space

#: What every predictor has to beat: the name shown, and its family.
BASELINES = {"MACs line": "macs-line", "constant": "constant"}

_COLUMNS = ("", "±5 %", "±10 %", "Spearman", "RMSPE", "90 % holds", "width")


def fit_baselines(
    space: Space, training: TrainingSet, provenance: Provenance, *, seed: int
) -> dict[str, LatencyPredictor]:
    """The baselines, fitted on the same measurements."""
    from hwbench.predictors import fit_predictor

    return {
        name: fit_predictor(space, training, provenance, seed=seed, kind=kind)
        for name, kind in BASELINES.items()
    }


def table(metrics: Mapping[str, Metrics]) -> Table:
    """One row a predictor: shares within 5 and 10 %, rank correlation, error, intervals."""
    return console.table(_COLUMNS, [(name, *_figures(m)) for name, m in metrics.items()])


def _figures(metrics: Metrics) -> tuple[str | float | None, ...]:
    return (
        f"{metrics.within_5:.1%}",
        f"{metrics.within_10:.1%}",
        metrics.spearman,
        f"{metrics.rmspe:.1f}%",
        f"{metrics.coverage_90:.1%}",
        f"{metrics.width_90:.1%}",
    )
