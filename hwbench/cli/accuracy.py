"""The accuracy of predictors side by side, as ``fit`` and ``evaluate`` show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hwbench import console

if TYPE_CHECKING:
    from rich.table import Table

    from hwbench.predictors import Metrics

#: What every predictor has to beat.
BASELINES = {"constant": "constant", "MACs-only line": "macs-line"}

_COLUMNS = ("predictor", "±5 %", "±10 %", "Spearman", "RMSPE", "90 % holds", "width")


def accuracy_table(metrics: Mapping[str, Metrics]) -> Table:
    """One row a predictor: shares within 5 and 10 %, rank correlation, error, intervals."""
    return console.table(_COLUMNS, [(name, *_figures(m)) for name, m in metrics.items()])


def _figures(metrics: Metrics) -> tuple[str | float, ...]:
    return (
        f"{metrics.within_5:.1%}",
        f"{metrics.within_10:.1%}",
        metrics.spearman,
        f"{metrics.rmspe:.1f}%",
        f"{metrics.coverage_90:.1%}",
        f"{metrics.width_90:.1%}",
    )
