"""Order statistics: percentiles with intervals that assume no distribution, or a refusal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from hwbench.records import Percentile


def percentile(
    samples: NDArray[np.int64] | NDArray[np.float64], q: float, confidence: float = 0.95
) -> Percentile:
    """The q-th percentile (0 < q < 100) of n samples, with a two-sided interval.

    The ranks of the interval's ends come from the binomial distribution of the number of
    samples below the true percentile (Hahn and Meeker, *Statistical Intervals*, 5.2): equal
    tails where the sample reaches that far, else its extreme on one side and what is left of
    the error on the other. Where even the whole sample holds the percentile with less than
    ``confidence``, it is refused: all fields ``None``. At 95 % the smallest samples are
    6 for p50, 29 for p90, 59 for p95, 299 for p99.
    """
    n, p = samples.size, q / 100
    error = 1 - confidence
    above, below = p**n, (1 - p) ** n  # all samples on one side of the true percentile
    if n == 0 or above + below > error:
        return Percentile(q, None, None, None)
    tail_low, tail_high = error / 2, error / 2
    if above > tail_high:
        tail_high, tail_low = above, error - above
    elif below > tail_low:
        tail_low, tail_high = below, error - below
    # The lower end is the largest rank r with P(fewer than r samples below) <= tail.
    low = int(special.bdtrik(tail_low, n, p)) + 1
    if special.bdtr(low - 1, n, p) > tail_low:  # also where even none below is likelier than that
        low -= 1
    high = int(np.ceil(special.bdtrik(1 - tail_high, n, p))) + 1
    low, high = max(low, 1), min(high, n)
    ordered = np.sort(samples)
    value = float(np.quantile(ordered, p, method="median_unbiased"))
    return Percentile(q, value, float(ordered[low - 1]), float(ordered[high - 1]))
