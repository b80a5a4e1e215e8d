"""Where a series of latencies changed its level.

Points far from what stands around them are first set to the median of their neighbours (Hampel,
1974): a spike is no level. PELT (Killick, Fearnhead and Eckley, 2012; by ruptures) then cuts the
series where that lowers the squared error most, generously, and what it finds is put to the
test: of all cuts the one with the least to say for it goes, until each of the rest divides two
levels by more than chance (Welch's t, for as many places as a cut could have had) and by more than
anybody would mind. Points that resemble the one before them count as fewer (Bartlett, 1946).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

#: Points that a level has at least.
LEAST_POINTS = 2
#: A point this many standard deviations from the median of five is a spike.
SPIKE = 4.0
SIGNIFICANCE = 0.01
#: The relative change that is worth a word.
LEAST_CHANGE = 0.005
_LEAST_SD = 1e-4
#: The noise of the whole series is known as well as that of so many points, of one in eight at most
#: (of short ones it is hardly known: by 3 points in 8, twice as many got an alarm by chance).
_KNOWN, _KNOWN_SHARE = 3.0, 1 / 8
#: Correlation of neighbours beyond which the count of points that it leaves means nothing.
_MOST_ALIKE = 0.9

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Change:
    """A new level: from point ``index`` on, ``ratio`` times the one before, with its p-value."""

    index: int
    ratio: float
    p_value: float


def changes(
    log_latency: Sequence[float] | Array,
    *,
    least: float = LEAST_CHANGE,
    significance: float = SIGNIFICANCE,
) -> list[Change]:
    """The changes of level in a series of log latencies (n,), in the order of time.

    ``least`` is the relative change that is worth a word. ValueError for what is not finite.
    """
    x = np.asarray(log_latency, float)
    if not np.isfinite(x).all():
        raise ValueError("a series of finite log latencies is needed")
    if x.size < 2 * LEAST_POINTS:
        return []
    sd = _noise(x)
    x = _without_spikes(x, sd)
    cuts = _cuts(x / sd)
    while cuts:
        found = _tested(x, cuts, sd)
        weakest = max(found, key=lambda change: (change.p_value, -abs(math.log(change.ratio))))
        trifling = [c for c in found if abs(math.log(c.ratio)) < math.log1p(least)]
        if weakest.p_value <= significance and not trifling:
            return found
        worst = weakest if weakest.p_value > significance else trifling[0]
        cuts.remove(worst.index)
    return []


def _noise(x: Array) -> float:
    """Standard deviation of points around their level: of successive differences, which a few
    changes of level hardly move.
    """
    return max(1.4826 * float(np.median(np.abs(np.diff(x)))) / math.sqrt(2), _LEAST_SD)


def _without_spikes(x: Array, sd: float) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, 2, mode="reflect"), 5)
    middle = np.median(windows, axis=1)
    return np.where(np.abs(x - middle) > SPIKE * sd, middle, x)


def _cuts(z: Array) -> list[int]:
    """Where PELT cuts a series of unit noise: rather too often."""
    import ruptures

    # The linear kernel's cost is the squared error; this PELT is the one written in C.
    algorithm = ruptures.KernelCPD(kernel="linear", min_size=LEAST_POINTS).fit(z.reshape(-1, 1))
    return [int(cut) for cut in algorithm.predict(pen=2 * math.log(z.size))[:-1]]


def _tested(x: Array, cuts: Sequence[int], sd: float) -> list[Change]:
    """Each cut with the p-value of a difference between the levels on both sides."""
    ends = [0, *cuts, x.size]
    alike = _alikeness([x[first:end] for first, end in itertools.pairwise(ends)])
    fewer = math.sqrt((1 - alike) / (1 + alike))
    found = []
    for first, cut, end in zip(ends, ends[1:], ends[2:], strict=False):
        before, after = x[first:cut], x[cut:end]
        step = float(after.mean() - before.mean())
        t, dof = _welch(before, after, sd, min(_KNOWN, _KNOWN_SHARE * x.size))
        t *= fewer
        # A cut could have been anywhere: Bonferroni over the places.
        p = min(1.0, 2 * float(special.stdtr(dof, -abs(t))) * x.size)
        found.append(Change(cut, math.exp(step), p))
    return found


def _alikeness(parts: Sequence[Array]) -> float:
    """Correlation of neighbours around their levels; 0 where it may be by chance (two sd)."""
    off = [part - part.mean() for part in parts]
    size, energy = sum(e.size for e in off), sum(float(e @ e) for e in off)
    if energy == 0:
        return 0.0
    found = sum(float(e[1:] @ e[:-1]) for e in off) / energy
    found += len(off) / size  # what taking each level's own mean away takes from it
    return min(found, _MOST_ALIKE) if found > 2 / math.sqrt(size) else 0.0


def _welch(before: Array, after: Array, sd: float, known: float) -> tuple[float, float]:
    """Statistic and degrees of freedom; two points' variance is believed with that of the series,
    which counts as that of ``known`` points more.
    """
    parts, dofs = [], []
    for part in (before, after):
        dof = part.size - 1 + known
        variance = (((part - part.mean()) ** 2).sum() + known * sd**2) / dof
        parts.append(variance / part.size)
        dofs.append(dof)
    whole = sum(parts)
    dof = whole**2 / sum(p**2 / d for p, d in zip(parts, dofs, strict=True))
    return float((after.mean() - before.mean()) / math.sqrt(whole)), float(dof)
