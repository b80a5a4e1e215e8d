"""Changes of level found in simulated series: ``python results/changes.py`` prints two tables.

First 600 series of 60 points, none to two steps of 2 to 10 % in either direction, noise of .3 to
1.5 % of five kinds: normal, Student's t with 3 degrees of freedom, autoregressive (.4), normal with
spikes of 5 to 50 % in one point of 20, and two modes .8 % apart. A change counts as found within
two points. Rivals are thresholds, as plain gates have them: a point against the one before, and
against the median of the ten before; alarms within three points of each other count once.

Then 800 series of 120 to 240 points with what public series of performance tests are known to
have, one trait a series and one kind with all: none to three steps of 3 to 15 %, noise of .5 to 2
%, and besides nothing else ("steps"), a slow drift of 1 to 4 % over the series, outliers of 10 to
200 % in one point of 30, alone or two in a row, two modes 2 to 5 % apart, a weekly season (two days
of seven) of 1 to 3 %, autoregression (.6), or noise that doubles half-way. Steps alone are true
changes, found within three points.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hwbench.watch.segments import changes

POINTS, QUIET = 60, 3
KINDS = ("normal", "heavy tails", "autoregressive", "spikes", "two modes")
TRAITS = ("steps", "drift", "outliers", "bimodal", "season", "autocorrelated", "unequal")
EVERY = "all at once"

Array = NDArray[np.float64]
Maker = Callable[[np.random.Generator, str], tuple[Array, list[int]]]


def series(rng: np.random.Generator, kind: str) -> tuple[Array, list[int]]:
    """Log latencies (POINTS,), and where they change."""
    sd = rng.uniform(0.003, 0.015)
    noise = sd * rng.normal(size=POINTS)
    if kind == "heavy tails":
        noise = sd * rng.standard_t(3, POINTS) / np.sqrt(3)
    elif kind == "autoregressive":
        for i in range(1, POINTS):
            noise[i] = 0.4 * noise[i - 1] + np.sqrt(1 - 0.4**2) * noise[i]
    elif kind == "spikes":
        noise += np.where(rng.random(POINTS) < 0.05, rng.uniform(0.05, 0.5, POINTS), 0)
    elif kind == "two modes":
        noise = noise / 2 + 0.008 * (rng.random(POINTS) < 0.3)
    steps = sorted(rng.choice(np.arange(8, POINTS - 8, 12), rng.integers(0, 3), replace=False))
    for step in steps:
        noise[step:] += rng.choice([-1, 1]) * rng.uniform(0.02, 0.10)
    return noise, [int(step) for step in steps]


def public_style(rng: np.random.Generator, kind: str) -> tuple[Array, list[int]]:
    """Log latencies (n,) with a trait of :data:`TRAITS` (or every), and where their level steps."""
    n, sd = int(rng.integers(120, 241)), rng.uniform(0.005, 0.02)
    noise = rng.normal(size=n)
    has = {trait: kind in (trait, EVERY) for trait in TRAITS}
    if has["autocorrelated"]:
        for i in range(1, n):
            noise[i] = 0.6 * noise[i - 1] + 0.8 * noise[i]
    if has["unequal"]:
        noise[n // 2 :] *= 2
    x = sd * noise
    if has["drift"]:
        x += np.linspace(0, rng.choice([-1, 1]) * rng.uniform(0.01, 0.04), n)
    if has["outliers"]:
        for place in np.flatnonzero(rng.random(n) < 1 / 30):
            x[place : place + rng.integers(1, 3)] += np.log(rng.uniform(1.1, 3.0))
    if has["bimodal"]:
        x += rng.uniform(0.02, 0.05) * (rng.random(n) < rng.uniform(0.2, 0.5))
    if has["season"]:
        x += rng.uniform(0.01, 0.03) * (np.arange(n) % 7 >= 5)
    steps = sorted(rng.choice(np.arange(15, n - 15, 25), rng.integers(0, 4), replace=False))
    for step in steps:
        x[step:] += rng.choice([-1, 1]) * rng.uniform(0.03, 0.15)
    return x, [int(step) for step in steps]


def thinned(alarms: Sequence[int]) -> list[int]:
    """Alarms of which near ones count once."""
    found: list[int] = []
    for alarm in alarms:
        if not found or alarm - found[-1] > QUIET:
            found.append(alarm)
    return found


def against_last(threshold: float) -> Callable[[Array], list[int]]:
    """An alarm where a point is so much off the one before."""
    return lambda x: thinned(np.flatnonzero(np.abs(np.diff(x)) > np.log1p(threshold)) + 1)


def against_ten(threshold: float) -> Callable[[Array], list[int]]:
    """An alarm where a point is so much off the median of up to ten before."""
    return lambda x: thinned(
        [
            i
            for i in range(3, x.size)
            if abs(x[i] - np.median(x[max(0, i - 10) : i])) > np.log1p(threshold)
        ]
    )


METHODS: dict[str, Callable[[Array], list[int]]] = {
    "hwbench": lambda x: [change.index for change in changes(x)],
    "against the last, 5 %": against_last(0.05),
    "against the last, 10 %": against_last(0.10),
    "against ten, 2 %": against_ten(0.02),
    "against ten, 5 %": against_ten(0.05),
}


def shown(kinds: Sequence[str], make: Maker, each: int, near: int) -> None:
    """Print precision and recall by kind of series, and over all; alarms where nothing changed."""
    rng = np.random.default_rng(0)
    data = [(kind, *make(rng, kind)) for _ in range(each) for kind in kinds]
    for name, method in METHODS.items():
        all_alarms = [method(x) for _, x, _ in data]
        parts = []
        for kind in (*kinds, "all"):
            true = found = right = seen = 0
            for (own, _, steps), alarms in zip(data, all_alarms, strict=True):
                if kind in (own, "all"):
                    true, found = true + len(steps), found + len(alarms)
                    right += sum(any(abs(a - s) <= near for s in steps) for a in alarms)
                    seen += sum(any(abs(a - s) <= near for a in alarms) for s in steps)
            parts.append(f"{kind} {right / max(found, 1):.2f} / {seen / max(true, 1):.2f}")
        quiet = [bool(a) for (_, _, steps), a in zip(data, all_alarms, strict=True) if not steps]
        parts.append(f"alarms in {np.mean(quiet):.0%} of {len(quiet)} series without a change")
        sys.stdout.write(f"{name}: precision / recall: {', '.join(parts)}\n")


def main() -> None:
    """Print both tables."""
    shown(KINDS, series, 120, 2)
    shown((*TRAITS, EVERY), public_style, 100, 3)


if __name__ == "__main__":
    main()
