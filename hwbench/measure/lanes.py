"""Several sessions at once, each on cores of its own.

Only for models that are held against each other: what the sessions do to one another they do to
both of a pair, and it cancels as any neighbour's work does. A latency by itself needs a machine as
quiet as it can be had.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final, TypeVar

from hwbench.measure.plan import Progress

T = TypeVar("T")

#: Two took no longer than one, and each knew as much as one that was alone (``results/README.md``);
#: more were not tried.
MOST_LANES: Final = 2
_SIBLINGS: Final = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_PATIENCE_S: Final = 0.2

Lane = Collection[int]


class _StoppedError(Exception):
    """Another lane failed, or whoever waits was interrupted."""


def lanes_for(threads: int) -> list[Lane]:
    """The caller's cores in as many equal parts as there may be sessions of so many threads.

    A core's hardware threads stay together. One lane of all cores where there are too few of them,
    or where a system binds no thread to cores.
    """
    if not hasattr(os, "sched_getaffinity"):
        return [()]
    allowed = os.sched_getaffinity(0)
    whole: dict[str, list[int]] = {}
    for cpu in sorted(allowed):
        whole.setdefault(_siblings(cpu), []).append(cpu)
    cores = list(whole.values())
    count = max(1, min(MOST_LANES, len(cores) // threads))
    size = len(cores) // count
    parts = [cores[lane * size : (lane + 1) * size] for lane in range(count)]
    return [frozenset(cpu for core in part for cpu in core) for part in parts]


def _siblings(cpu: int) -> str:
    try:
        return Path(_SIBLINGS.format(cpu)).read_text(encoding="ascii").strip()
    except OSError:
        return str(cpu)


def at_once(
    lanes: Sequence[Lane], run: Callable[[int, Progress | None], T], progress: Progress | None
) -> list[T]:
    """What ``run`` answers of each lane (its number, and whom to tell of progress), all at once.

    Each runs in a thread that is bound to its lane's cores, as are processes that it starts. The
    first error ends the others at their next word of progress, and is raised; so does an interrupt.
    """
    if len(lanes) == 1:
        return [run(0, progress)]
    shares, stop = [0.0] * len(lanes), threading.Event()

    def bound(lane: int) -> T:
        os.sched_setaffinity(0, lanes[lane])  # of this thread alone

        def tell(share: float) -> None:
            if stop.is_set():
                raise _StoppedError
            shares[lane] = share

        return run(lane, tell)

    with ThreadPoolExecutor(len(lanes)) as pool:
        running = [pool.submit(bound, lane) for lane in range(len(lanes))]
        try:
            pending, ended = set(running), False
            while pending and not ended:
                done, pending = wait(pending, _PATIENCE_S, FIRST_EXCEPTION)
                ended = any(each.exception() for each in done)
                if progress and not ended:
                    progress(sum(shares) / len(shares))
        finally:
            stop.set()
    errors = [error for each in running if (error := each.exception())]
    for error in errors:
        if not isinstance(error, _StoppedError):
            raise error
    return [each.result() for each in running]
