"""Works timed beside each other: each round runs every one of them once, in random order.

On a GPU a round's works are queued without waiting, behind one that is not measured, and timed by
CUDA events; on the CPU they are simply run. Short works are repeated within a sample, as
:mod:`hwbench.devices.cuda.sampling` does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hwbench.devices.cuda.sampling import LEAST_SAMPLE_NS, MOST_REPEATS, repeated
from hwbench.devices.cuda.stream import Stream, Work, device_errors, open_stream
from hwbench.devices.cuda.twin import CpuStream
from hwbench.measure.stats import percentile

#: The fewest rounds from which a median has a 95 % interval.
ROUNDS = 6
MOST_ROUNDS = 40
#: A first run that is this long needs no second: choosing algorithms was little of it.
ENOUGH_NS = {"cpu": 1e9, "cuda": 2e10}


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times longer one work took than another, with a 95 % interval (or none)."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Times:
    """Nanoseconds of each work by round (rounds,), or the one of a trial (1,)."""

    by_work: Mapping[str, NDArray[np.float64]]

    def median_ns(self, work: str) -> float:
        """Of its rounds."""
        return float(np.median(self.by_work[work]))

    def ratio(self, work: str, to: str) -> Ratio:
        """Median over the rounds of both of time by time; without an interval below ROUNDS."""
        own, other = self.by_work[work], self.by_work[to]
        if len(own) != len(other):
            return Ratio(float(np.median(own) / np.median(other)), None, None)
        ratios = own / other
        found = percentile(ratios, 50)
        return Ratio(float(np.median(ratios)), found.low_ns, found.high_ns)


def stream_of(device: torch.device) -> Stream:
    """The queue of a device's work. DeviceError where the GPU is not there."""
    if device.type == "cpu":
        return CpuStream()
    return open_stream(device.index or 0)


class Race:
    """Works of one case on one stream; each runs twice when it is added, so that libraries choose
    their algorithms and a second run tells how long it takes."""

    def __init__(self, stream: Stream, seed: int = 0) -> None:
        self._stream = stream
        self._random = np.random.default_rng(seed)
        self._works: dict[str, Work] = {}
        self._repeats: dict[str, int] = {}
        self.trial_ns: dict[str, float] = {}

    def add(self, name: str, work: Work, enough_ns: float = math.inf) -> float:
        """Try a work; answers its time in ns: that of a second run, unless the first was long.

        On the CPU ``enough_ns`` is long, too.
        """
        first = self._once(work)
        on_cpu = self._stream.device.type == "cpu"
        enough = min(ENOUGH_NS["cpu"], enough_ns) if on_cpu else ENOUGH_NS["cuda"]
        self.trial_ns[name] = first if first > enough else self._once(work)
        repeats = math.ceil(LEAST_SAMPLE_NS / max(self.trial_ns[name], 1.0))
        self._works[name], self._repeats[name] = work, min(repeats, MOST_REPEATS)
        return self.trial_ns[name]

    def run(
        self,
        names: Sequence[str],
        seconds: float,
        rounds: int = ROUNDS,
        most: int = MOST_ROUNDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> Times:
        """At least ``rounds`` rounds of these works, more while ``seconds`` last; trials of the
        others."""
        samples = {n: repeated(self._works[n], self._repeats[n]) for n in names}
        times: dict[str, list[float]] = {n: [] for n in names}
        start, done = clock(), 0
        while names and (done < rounds or (done < most and clock() - start < seconds)):
            with device_errors():
                for name, elapsed in self._round(samples):
                    times[name].append(elapsed / self._repeats[name])
            done += 1
        rest = {n: [t] for n, t in self.trial_ns.items() if n not in times}
        return Times({n: np.array(t, float) for n, t in (times | rest).items()})

    def _round(self, samples: Mapping[str, Work]) -> list[tuple[str, float]]:
        order = [list(samples)[i] for i in self._random.permutation(len(samples))]
        if self._stream.device.type != "cpu":
            self._works[order[0]]()  # the host's lead
        marks = []
        for name in order:
            start = self._stream.mark()
            samples[name]()
            marks.append((name, start, self._stream.mark()))
        self._stream.synchronise()
        return [(name, self._stream.elapsed_ns(start, end)) for name, start, end in marks]

    def _once(self, work: Work) -> float:
        with device_errors():
            start = self._stream.mark()
            work()
            end = self._stream.mark()
            self._stream.synchronise()
            return self._stream.elapsed_ns(start, end)
