"""Reads memory: the canaries of what a conv net does not feel. Stand-alone.

``WalkRunner`` reads what no cache holds: each run the next piece of a block larger than the
caches, front to back. ``SweepRunner`` reads what the cache that cores share still holds of a
block that would fill most of it. Neither must be moved by what ran before, so the sweep first
reads other memory, and then takes its block back.

On huge pages where the system allows: small ones cost translations that differ from process to
process.
"""

import mmap
from time import perf_counter_ns

import numpy as np

LOADS_TOGETHER = True
_HUGE = 2 << 20
#: Passes over the block, unmeasured, until the cache holds of it what it can.
_TAKE_BACK = 3


def block_of(mib):
    """A block of floats in memory of its own, every page of it touched."""
    size = mib << 20
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared memory has no huge pages of its own
    pages = mmap.mmap(-1, size + _HUGE, flags=private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(pages, np.uint8)
    skip = -whole.ctypes.data % _HUGE
    block = whole[skip : skip + size].view(np.float32)
    block[:: mmap.PAGESIZE // block.itemsize] = 1.0
    return block


class WalkRunner:
    """Reads ``mib`` MiB a run, on and on through a block of ``block_mib``."""

    def __init__(self, mib, block_mib):
        self._pieces = block_of(block_mib).reshape(-1, mib << 18)
        self._next = 0

    def run(self, n):
        """Time n pieces, in nanoseconds."""
        times = []
        for _ in range(n):
            piece = self._pieces[self._next % len(self._pieces)]
            self._next += 1
            start = perf_counter_ns()
            piece.max()
            times.append(perf_counter_ns() - start)
        return times


class SweepRunner:
    """Reads a block of ``mib`` MiB again and again, after twice as much of other memory."""

    def __init__(self, mib):
        self._block, self._other = block_of(mib), block_of(2 * mib)

    def run(self, n):
        """Time n passes, in nanoseconds."""
        self._other.max()
        for _ in range(_TAKE_BACK):
            self._block.max()
        times = []
        for _ in range(n):
            start = perf_counter_ns()
            self._block.max()
            times.append(perf_counter_ns() - start)
        return times


def load(args):
    """Build the runner: ``mib`` a run of a walk through ``block_mib``, or ``sweep_mib``."""
    if "sweep_mib" in args:
        return SweepRunner(args["sweep_mib"])
    return WalkRunner(args["mib"], args["block_mib"])
