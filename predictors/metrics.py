"""How good a predictor is, in the figures that the literature reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import PredictorError

Array = NDArray[np.float64]

#: Of fewer seeds none is one in twenty.
_SEEDS = 20


@dataclass(frozen=True)
class Metrics:
    """Predicted against measured latency over ``n`` architectures.

    ``spearman`` and ``kendall`` (tau-b) are rank correlations, ``None`` where all predictions
    are equal; ``within_5`` and ``within_10`` the shares of predictions less than 5 and 10 % of the
    measured latency off; ``rmspe`` the root mean squared relative error in percent;
    ``coverage_90`` the share of measurements inside their 90 % interval, ``width_90`` the mean
    width of that interval over the predicted latency.
    """

    n: int
    spearman: float | None
    kendall: float | None
    within_5: float
    within_10: float
    rmspe: float
    coverage_90: float
    width_90: float


def metrics(measured_ms: Array, predicted_ms: Array, low_ms: Array, high_ms: Array) -> Metrics:
    """Metrics of predictions (n,) with their 90 % intervals ``[low, high]``, n >= 2."""
    from scipy.stats import kendalltau, spearmanr

    if len(measured_ms) < 2:
        raise PredictorError(
            f"{len(measured_ms)} architecture{'s' * (len(measured_ms) != 1)} to test on: a rank "
            "correlation needs at least 2"
        )
    relative = np.abs(predicted_ms / measured_ms - 1)
    ranked = np.ptp(predicted_ms) > 0 and np.ptp(measured_ms) > 0
    inside = (low_ms <= measured_ms) & (measured_ms <= high_ms)
    return Metrics(
        n=len(measured_ms),
        spearman=float(spearmanr(measured_ms, predicted_ms).statistic) if ranked else None,
        kendall=float(kendalltau(measured_ms, predicted_ms).statistic) if ranked else None,
        within_5=float(np.mean(relative < 0.05)),
        within_10=float(np.mean(relative < 0.10)),
        rmspe=float(100 * np.sqrt(np.mean(relative**2))),
        coverage_90=float(inside.mean()),
        width_90=float(np.mean((high_ms - low_ms) / predicted_ms)),
    )


def over_seeds(found: Sequence[Metrics]) -> dict[str, Metrics]:
    """Their mean, and figure by figure the worse end, in this order.

    That is what one seed in twenty does not reach; of fewer than twenty, the worst.
    """
    rows = {name: [getattr(each, name) for each in found] for name in Metrics.__annotations__}
    known = {name: [v for v in values if v is not None] for name, values in rows.items()}
    beyond = 0.05 if len(found) >= _SEEDS else 0.0
    # Errors and widths are worse where they are large.
    ends = {name: 1 - beyond if name in ("rmspe", "width_90") else beyond for name in rows}
    mean = {k: float(np.mean(v)) if v else None for k, v in known.items()}
    worse = {k: float(np.quantile(v, ends[k])) if v else None for k, v in known.items()}
    size = {"n": found[0].n}
    return {
        "mean": Metrics(**{**mean, **size}),  # type: ignore[arg-type]
        "worst 5 %" if beyond else f"worst of {len(found)}": Metrics(**{**worse, **size}),  # type: ignore[arg-type]
    }
