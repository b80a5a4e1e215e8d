"""The sample loop: device time of a run between two marks in a stream, and nothing else.

What is measured. A sample is the time between two CUDA events around one run, in one stream:
GPU time, from the end of the work before to the end of the run's last kernel. A burst's samples
are queued without waiting in between, behind one run that is not measured, so the host is ahead
of the GPU wherever it is the faster of the two; the launches are then hidden. Where it is not
(many short kernels), the GPU waits for launches and **that waiting is in the time**: it is what a
caller of this model meets. A CUDA graph removes it: all of a sample's kernels are then one launch.
Which of the two it is, is measured once: a sample that the host takes as long to launch as the
device to finish is launch-bound, and feels the host's state instead of the device's.

Hot and cold. Hot, a run finds in the L2 cache what the run before left there. Cold, a buffer of
twice the L2's size is overwritten before each sample, outside its marks.

Resolution. CUDA events tell 0.5 us. Hot runs are therefore repeated within a sample until it
lasts ``LEAST_SAMPLE_NS``, and the time divided. A cold run cannot be repeated (the second would
be hot), so a cold time of 10 us is good to 5 %.

Sources of the method: NVIDIA's nvbench (cold: L2 flushed by its queried size, one sample a flush;
hot: batches) and ``triton.testing.do_bench`` (events queued ahead, one wait at the end;
``do_bench_cudagraph`` unrolls the repetitions into the graph).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from hwbench.devices.cuda.stream import Stream, Work

if TYPE_CHECKING:
    import torch

#: 400 times the resolution of an event: 0.25 %.
LEAST_SAMPLE_NS = 200_000
MOST_REPEATS = 1024
#: The flush overwrites this many times the L2, since its replacement is not strictly by age.
FLUSH_L2_SIZES = 2
_TRIES = 3
#: A sample is launch-bound when the host launched for this share of the time it took.
LAUNCH_SHARE = 0.9


class Sampler:
    """Times runs of ``work`` on ``stream``.

    ``flush`` is queued before each sample, for cold times; ``graph`` replays a captured sample.
    ``repeats`` runs make a sample: chosen here when hot, 1 when cold. ``launch_bound`` says
    whether the host decides its time; ``clock`` is the host's, in ns. Make and use it within
    whatever context (inference mode, precision) the work needs.
    """

    def __init__(
        self,
        stream: Stream,
        work: Work,
        *,
        flush: Work | None = None,
        graph: bool = False,
        clock: Callable[[], int] = perf_counter_ns,
    ) -> None:
        self._stream, self._flush = stream, flush
        for _ in range(_TRIES):
            work()  # algorithms are chosen and memory is claimed before anything is timed
        stream.synchronise()
        self.repeats = 1 if flush else repeats_for(stream, work)
        sample = repeated(work, self.repeats)
        self._sample = stream.capture(sample) if graph else sample
        self.launch_bound = launch_share(stream, self._sample, clock) >= LAUNCH_SHARE

    def times_ns(self, n: int, watch: Callable[[], None] | None = None) -> list[int]:
        """``n`` samples' times a run, in whole nanoseconds.

        ``watch`` is called once while the device works on what was queued. Raises ValueError for
        a sample too short to be told from nothing.
        """
        self._sample()  # a lead for the host, and a device that is awake
        marks: list[tuple[Any, Any]] = []
        for _ in range(n):
            if self._flush:
                self._flush()
            start = self._stream.mark()
            self._sample()
            marks.append((start, self._stream.mark()))
        if watch:
            watch()
        self._stream.synchronise()
        elapsed = self._stream.elapsed_ns
        times = [round(elapsed(start, end) / self.repeats) for start, end in marks]
        if min(times, default=1) <= 0:
            raise ValueError(f"a run takes {min(times)} ns: too short for the device's clock")
        return times


def repeated(work: Work, repeats: int) -> Work:
    """``work``, so many times in a row."""
    if repeats == 1:
        return work

    def several() -> None:
        for _ in range(repeats):
            work()

    return several


def repeats_for(stream: Stream, work: Work, least_ns: float = LEAST_SAMPLE_NS) -> int:
    """Runs (a power of 2, at most ``MOST_REPEATS``) that together last ``least_ns``."""
    repeats = 1
    while repeats < MOST_REPEATS and _shortest_ns(stream, repeated(work, repeats)) < least_ns:
        repeats *= 2
    return repeats


def _shortest_ns(stream: Stream, sample: Work) -> float:
    """The shortest of some samples, each with the lead of one more before it."""
    times = []
    for _ in range(_TRIES):
        sample()
        start = stream.mark()
        sample()
        end = stream.mark()
        stream.synchronise()
        times.append(stream.elapsed_ns(start, end))
    return min(times)


def launch_share(stream: Stream, sample: Work, clock: Callable[[], int]) -> float:
    """Share of a sample's time, on an idle device, for which the host was launching it.

    The median of some: nothing is queued ahead, so a device that is the slower works on when the
    host has done.
    """
    shares = []
    for _ in range(_TRIES):
        stream.synchronise()
        start, began = stream.mark(), clock()
        sample()
        launched, end = clock() - began, stream.mark()
        stream.synchronise()
        shares.append(launched / max(stream.elapsed_ns(start, end), 1.0))
    return sorted(shares)[_TRIES // 2]


def flusher(stream: Stream) -> Work:
    """What empties the L2 cache: overwriting a buffer of ``FLUSH_L2_SIZES`` times its size."""
    size = FLUSH_L2_SIZES * stream.l2_bytes
    if size <= 0:
        raise ValueError("the device tells no L2 size: measure with the option cache=hot")
    return _buffer(stream.device, size).zero_


@lru_cache(maxsize=1)
def _buffer(device: torch.device, size: int) -> torch.Tensor:
    """One for all models that a process holds: it is 100 MB on an H100."""
    import torch

    with torch.inference_mode(False):  # usable outside it too, whoever asks first
        return torch.empty(size, dtype=torch.uint8, device=device)
