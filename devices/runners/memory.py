"""Copies a block of memory: the canary of what a conv net does not feel. Stand-alone.

The block is aligned and, where the system allows, on huge pages: which small pages a process
happens to get would otherwise move this canary by several per cent from process to process.
"""

import mmap
from time import perf_counter_ns

import numpy as np

_HUGE = 2 << 20


class CopyRunner:
    """``numpy.copyto`` between two blocks of ``mib`` MiB."""

    def __init__(self, mib):
        size = mib << 20
        self._map = mmap.mmap(-1, 2 * size + _HUGE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(self._map, np.uint8)
        skip = -whole.ctypes.data % _HUGE
        block = whole[skip : skip + 2 * size].view(np.float32)
        block[:] = 1.0
        self._source, self._target = block[: size // 4], block[size // 4 :]

    def run(self, n):
        """Time n copies, in nanoseconds."""
        source, target, times = self._source, self._target, []
        for _ in range(n):
            start = perf_counter_ns()
            np.copyto(target, source)
            times.append(perf_counter_ns() - start)
        return times


def load(args):
    """Build the runner: ``mib``, the size of the copied block."""
    return CopyRunner(args["mib"])
