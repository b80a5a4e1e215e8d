"""What processes hold while they go on for hours, and whether it grows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import psutil

MIB = 1 << 20
#: Memory may wander by so much: of a leak of 8 KiB a measurement nothing is overlooked.
MEMORY = "memory MiB"
MEMORY_SLACK = 8.0

Held = Mapping[str, float]


def held(pid: int | None = None) -> dict[str, float]:
    """Memory, open files, threads and living children of a process (of this one)."""
    process = psutil.Process(pid)
    with process.oneshot():
        children = [c for c in process.children(recursive=True) if c.is_running()]
        return {
            MEMORY: process.memory_info().rss / MIB,
            "files": process.num_fds(),
            "threads": process.num_threads(),
            "processes": len(children),
        }


def growth(series: Sequence[float], name: str) -> float:
    """How much more is held in the last quarter of the rounds than in the second.

    The first quarter warms up. Of memory the medians count; of all else the least of the last
    quarter against the most of the second, so that one of whatever is kept every few rounds shows,
    and what comes and goes does not.
    """
    quarter = len(series) // 4
    before, after = series[quarter : 2 * quarter], series[-quarter:]
    if name == MEMORY:
        return statistics.median(after) - statistics.median(before)
    return min(after) - max(before)


def leaks(rounds: Sequence[Mapping[str, Held]]) -> dict[str, float]:
    """What grew, of what each part held at the end of each round, by its name."""
    found = {}
    for part, first in rounds[0].items():
        for name in first:
            by = growth([each[part][name] for each in rounds], name)
            if by > (MEMORY_SLACK if name == MEMORY else 0):
                found[f"{name} of {part}"] = by
    return found
