"""Is a model warm? A label for the series of its first runs.

Segmentation of the log times by change points, as in Barrett et al., *Virtual Machine Warmup
Blows Hot and Cold* (OOPSLA 2017): the last segment must hold half of the runs.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Label = Literal["flat", "warm-up", "slowdown", "unsteady", "too short"]

#: Segments whose levels differ by less than this are the same for our purpose.
SAME_LEVEL = 0.03
LEAST_RUNS = 10


def classify(times_ns: NDArray[np.int64]) -> Label:
    """Label a series of consecutive run times, the first run included.

    ``flat``: one level from the start; ``warm-up``: the last level, which holds at least half
    of the runs, is the fastest; ``slowdown``: it is slower than an earlier one; ``unsteady``:
    no level holds to the end; ``too short``: fewer than ``LEAST_RUNS`` runs.
    """
    if times_ns.size < LEAST_RUNS:
        return "too short"
    log = np.log(np.maximum(times_ns, 1).astype(float))
    segments = _segments(log)
    levels = np.array([np.median(log[a:b]) for a, b in segments])
    start, end = segments[-1]
    first_same = len(segments) - 1
    while first_same > 0 and abs(levels[first_same - 1] - levels[-1]) < SAME_LEVEL:
        first_same -= 1
    start = segments[first_same][0]
    if end - start < log.size / 2:
        return "unsteady"
    if first_same == 0:
        return "flat"
    return "warm-up" if levels[-1] < levels[:first_same].min() + SAME_LEVEL else "slowdown"


def _segments(log: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Change points of a series, spikes removed by a running median first."""
    import ruptures

    # A slow first run is no spike but warm-up, and stays; a slow last one goes.
    padded = np.concatenate([log[:1], log, log[-2:-1]])
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, 3), axis=1)
    # Of the raw series: neighbours in the smooth one share runs, and differ less than its noise.
    noise = 1.4826 * float(np.median(np.abs(np.diff(log)))) / np.sqrt(2)
    noise = max(noise, SAME_LEVEL / 3)
    penalty = 6 * np.log(log.size) * noise**2
    ends = ruptures.Binseg(model="l2", min_size=2, jump=1).fit(smooth).predict(pen=penalty)
    return list(zip([0, *ends[:-1]], ends, strict=True))
