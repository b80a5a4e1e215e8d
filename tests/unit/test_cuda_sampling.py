"""The sample loop of a GPU, on a queue whose times are known to the nanosecond, and on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwbench.devices.cuda.sampling import (
    FLUSH_L2_SIZES,
    LEAST_SAMPLE_NS,
    MOST_REPEATS,
    Sampler,
    flusher,
    repeats_for,
)
from hwbench.devices.cuda.twin import CpuStream

LAUNCH_NS = 5_000
MARK_NS = 1_000


class Queue:
    """A host and a device with clocks of their own: the device starts what it was already told.

    A launch and a mark cost the host time; the device waits for a launch that comes late.
    """

    device = torch.device("cpu")
    l2_bytes = 1 << 20

    def __init__(self) -> None:
        self.host = self.gpu = self.waits = 0
        self.log: list[str] = []
        self._capture: list[int] | None = None

    def kernel(self, ns: int, name: str = "kernel") -> None:
        self.log.append(name)
        if self._capture is not None:
            self._capture.append(ns)
            return
        self.host += LAUNCH_NS
        self.gpu = max(self.gpu, self.host) + ns

    def mark(self) -> int:
        self.log.append("mark")
        self.host += MARK_NS
        self.gpu = max(self.gpu, self.host)
        return self.gpu

    def synchronise(self) -> None:
        self.waits += 1
        self.log.append("wait")
        self.host = max(self.host, self.gpu)

    def elapsed_ns(self, start: int, end: int) -> float:
        return float(end - start)

    def capture(self, work: Callable[[], object]) -> Callable[[], object]:
        self._capture = []
        work()
        whole, self._capture = sum(self._capture), None
        return lambda: self.kernel(whole, "replay")


def network(queue: Queue, *kernels_ns: int) -> Callable[[], None]:
    """A run of these kernels."""

    def run() -> None:
        for ns in kernels_ns:
            queue.kernel(ns)

    return run


kernel_times = st.lists(st.integers(2 * LAUNCH_NS, 500_000), min_size=1, max_size=20)


@given(kernels=kernel_times, runs=st.integers(1, 20))
def test_where_the_host_is_ahead_launches_leave_no_trace(kernels: list[int], runs: int) -> None:
    queue = Queue()
    sampler = Sampler(queue, network(queue, *kernels))
    assert sampler.times_ns(runs) == [sum(kernels)] * runs


@given(count=st.integers(1, 50), gpu_ns=st.integers(1, LAUNCH_NS // 2))
def test_where_the_host_is_slower_the_gaps_are_in_the_time(count: int, gpu_ns: int) -> None:
    queue = Queue()
    sampler = Sampler(queue, network(queue, *[gpu_ns] * count))
    launches = LAUNCH_NS * count
    for time in sampler.times_ns(10):
        assert launches <= time <= launches + (MARK_NS + gpu_ns) / sampler.repeats + 1


@given(count=st.integers(2, 50), shorter=st.booleans(), data=st.data())
def test_a_run_is_launch_bound_where_its_kernels_are_shorter_than_launches(
    count: int, shorter: bool, data: st.DataObject
) -> None:
    few, many = (1, LAUNCH_NS // 2), (2 * LAUNCH_NS, 20 * LAUNCH_NS)
    kernel = data.draw(st.integers(*few) if shorter else st.integers(*many))
    queue = Queue()
    sampler = Sampler(queue, network(queue, *[kernel] * count), clock=lambda: queue.host)
    assert sampler.launch_bound == shorter


def test_a_graph_of_the_same_kernels_is_not_launch_bound() -> None:
    queue = Queue()
    work = network(queue, *[LAUNCH_NS // 2] * 50)
    assert Sampler(queue, work, clock=lambda: queue.host).launch_bound
    assert not Sampler(queue, work, graph=True, clock=lambda: queue.host).launch_bound


@given(count=st.integers(1, 50), gpu_ns=st.integers(1, LAUNCH_NS // 2))
def test_a_graph_takes_the_gaps_out(count: int, gpu_ns: int) -> None:
    queue = Queue()
    sampler = Sampler(queue, network(queue, *[gpu_ns] * count), graph=True)
    replay_ns = sampler.repeats * count * gpu_ns
    late = max(0, LAUNCH_NS + 2 * MARK_NS - replay_ns)  # a replay is one launch all the same
    assert max(sampler.times_ns(10)) <= count * gpu_ns + late / sampler.repeats + 1


@given(kernels=kernel_times, flush_ns=st.integers(30_000, 10**6))
def test_a_flush_comes_before_each_sample_and_is_not_in_it(
    kernels: list[int], flush_ns: int
) -> None:
    queue = Queue()
    sampler = Sampler(
        queue, network(queue, *kernels), flush=lambda: queue.kernel(flush_ns, "flush")
    )
    queue.log.clear()
    assert sampler.times_ns(3) == [sum(kernels)] * 3
    run = ["kernel"] * len(kernels)
    assert queue.log == [*run, *(["flush", "mark", *run, "mark"] * 3), "wait"]


def test_a_cold_run_is_never_repeated_in_a_sample() -> None:
    queue = Queue()
    work = network(queue, 20_000)
    assert Sampler(queue, work, flush=lambda: queue.kernel(50_000)).repeats == 1
    assert Sampler(queue, work).repeats == 16


def test_a_burst_waits_once_and_is_watched_while_the_device_works() -> None:
    queue = Queue()
    sampler = Sampler(queue, network(queue, 300_000))
    waits, seen = queue.waits, []
    sampler.times_ns(7, lambda: seen.append((queue.waits - waits, queue.gpu - queue.host)))
    assert queue.waits == waits + 1
    ((waited, ahead),) = seen
    assert waited == 0
    assert ahead > 0


@given(ns=st.integers(1, 10**6))
def test_short_runs_are_repeated_until_a_sample_is_long_enough(ns: int) -> None:
    queue = Queue()
    repeats = repeats_for(queue, network(queue, ns))
    assert repeats & (repeats - 1) == 0
    sample_ns = repeats * max(ns, LAUNCH_NS)
    assert sample_ns + MARK_NS + ns >= LEAST_SAMPLE_NS or repeats == MOST_REPEATS
    assert repeats == 1 or sample_ns / 2 < LEAST_SAMPLE_NS


def test_a_graph_holds_all_repetitions_of_a_sample() -> None:
    queue = Queue()
    sampler = Sampler(queue, network(queue, 50_000), graph=True)
    queue.log.clear()
    assert sampler.times_ns(2) == [50_000] * 2
    assert queue.log == ["replay", *(["mark", "replay", "mark"] * 2), "wait"]


def test_a_clock_that_stands_still_is_an_error() -> None:
    stream = CpuStream(resolution_ns=10**18)
    sampler = Sampler(stream, lambda: None, flush=lambda: None)
    with pytest.raises(ValueError, match="a run takes 0 ns: too short for the device's clock"):
        sampler.times_ns(3)


class TestOnTheCpu:
    @pytest.mark.parametrize("graph", [False, True])
    @pytest.mark.parametrize("cold", [False, True])
    def test_each_run_has_a_time_in_whole_nanoseconds(self, graph: bool, cold: bool) -> None:
        stream = CpuStream(resolution_ns=500)
        left, right = torch.randn(2, 64, 64)
        calls: list[Any] = []

        def work() -> None:
            calls.append(left @ right)

        flush = flusher(stream) if cold else None
        sampler = Sampler(stream, work, flush=flush, graph=graph)
        calls.clear()
        times = sampler.times_ns(9)
        assert len(times) == 9
        assert all(type(time) is int and time > 0 for time in times)
        assert len(calls) == 10 * sampler.repeats  # the lead-in is a sample too

    def test_the_flush_overwrites_more_than_the_cache(self) -> None:
        written = flusher(CpuStream(l2_bytes=3 << 20))()
        assert isinstance(written, torch.Tensor)
        assert written.nbytes == FLUSH_L2_SIZES * (3 << 20)
        assert not written.any()

    def test_all_models_of_a_process_share_one_buffer(self) -> None:
        one, other = (flusher(CpuStream(l2_bytes=1 << 20))() for _ in range(2))
        assert isinstance(one, torch.Tensor)
        assert isinstance(other, torch.Tensor)
        assert one.data_ptr() == other.data_ptr()

    def test_without_a_known_cache_there_is_no_cold_time(self) -> None:
        with pytest.raises(ValueError, match="tells no L2 size: measure with the option cache=hot"):
            flusher(CpuStream(l2_bytes=0))

    def test_the_twin_refuses_what_a_gpu_would(self) -> None:
        stream = CpuStream()
        start, end = stream.mark(), stream.mark()
        with pytest.raises(RuntimeError, match="before the device has passed it"):
            stream.elapsed_ns(start, end)
        with pytest.raises(RuntimeError, match="cannot be captured"):
            stream.capture(stream.mark)
        with pytest.raises(RuntimeError, match="cannot be captured"):
            stream.capture(stream.synchronise)
        stream.synchronise()
        assert stream.elapsed_ns(start, end) >= 0
