"""Reads memory that no cache holds: the canary of what a conv net does not feel. Stand-alone.

Each run reads the next piece of a block larger than the caches, front to back: what ran before
has no say in it, while a copy within the caches would be slowed by whatever a large model left
there. On huge pages where the system allows: small ones cost translations that differ from
process to process.
"""

import mmap
from time import perf_counter_ns

import numpy as np

_HUGE = 2 << 20


class WalkRunner:
    """Reads ``mib`` MiB a run, on and on through a block of ``block_mib``."""

    def __init__(self, mib, block_mib):
        size = block_mib << 20
        self._map = mmap.mmap(-1, size + _HUGE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(self._map, np.uint8)
        skip = -whole.ctypes.data % _HUGE
        block = whole[skip : skip + size].view(np.float32)
        block[:] = 1.0
        self._pieces = block.reshape(-1, mib << 18)
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


def load(args):
    """Build the runner: ``mib`` a run, ``block_mib`` in all."""
    return WalkRunner(args["mib"], args["block_mib"])
