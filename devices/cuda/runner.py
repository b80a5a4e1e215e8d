"""What a worker holds of a GPU: work on a stream, timed, with the GPU's state read beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch

from hwbench.devices.cuda.network import backends, build_network, check_finite
from hwbench.devices.cuda.nvml import GpuState, Sensor
from hwbench.devices.cuda.options import CudaOptions
from hwbench.devices.cuda.sampling import Sampler, flusher
from hwbench.devices.cuda.stream import Stream, Work, device_errors


class CudaRunner:
    """Times one piece of work; a runner as the worker wants it.

    ``sensor`` is read twice around each :meth:`run`: while the device is busy with it, and after.
    """

    def __init__(
        self, stream: Stream, work: Work, options: CudaOptions, sensor: Sensor | None
    ) -> None:
        self._stream, self._work, self._options, self._sensor = stream, work, options, sensor
        self.states: list[GpuState] = []

    @cached_property
    def _sampler(self) -> Sampler:
        """Made in the first run, to which cuDNN's trials and a capture belong, not to loading."""
        flush = flusher(self._stream) if self._options.cache == "cold" else None
        return Sampler(self._stream, self._work, flush=flush, graph=self._options.cuda_graph)

    @property
    def launch_bound(self) -> bool:
        """Whether the device waits for launches (of the first run on)."""
        return self._sampler.launch_bound

    @contextmanager
    def _context(self) -> Iterator[None]:
        """Inference mode and our own backends, with a device's errors put in words."""
        options = self._options
        with (
            device_errors(),
            torch.inference_mode(),
            backends(options.tf32, options.autotune),
        ):
            yield

    def run(self, n: int) -> list[int]:
        """Device time of n runs, in nanoseconds (see :mod:`hwbench.devices.cuda.sampling`)."""
        self.states.clear()
        with self._context():
            times = self._sampler.times_ns(n, self._read)
        self._read()
        return times

    def _read(self) -> None:
        if self._sensor is not None:
            self.states.append(self._sensor.state())

    def cause(self) -> str | None:
        """``"throttled"`` where the last run's times do not count, else None."""
        return "throttled" if any(state.throttled for state in self.states) else None

    def check(self) -> None:
        """Raise ``ValueError`` when an output is not finite."""
        with self._context():
            check_finite(self._work())


def build_runner(args: Mapping[str, Any], stream: Stream, sensor: Sensor | None) -> CudaRunner:
    """A runner from what :class:`hwbench.devices.cuda.Cuda` writes into its specs.

    ``{"model": …, "options": …}`` is a network, ``{"matmul": size}``, ``{"copy": MiB}`` and
    ``{"launch": number}`` are the canaries, always hot, in fp32 and launched one by one.
    """
    with device_errors():
        if "model" in args:
            options = CudaOptions(**args["options"])
            network = build_network(args["model"], options, stream.device)
            return CudaRunner(stream, network, options, sensor)
        for name, made in _CANARIES.items():
            if name in args:
                return CudaRunner(stream, made(args[name], stream), CudaOptions(), None)
    raise ValueError(f"a runner of {', '.join(args)} is not known")


def _matmul(size: int, stream: Stream) -> Work:
    """A product of two square fp32 matrices of ``size``, into memory of its own."""
    random = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, size, size, generator=random).to(stream.device)
    out = torch.empty(size, size, device=stream.device)
    return lambda: torch.mm(left, right, out=out)


def _copy(mib: int, stream: Stream) -> Work:
    """A copy of ``mib`` MiB within the device's memory."""
    source = torch.ones(mib << 20, dtype=torch.uint8, device=stream.device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _launch(number: int, stream: Stream) -> Work:
    """So many additions of two single numbers: a kernel is over before the next is launched."""
    one = torch.ones(1, device=stream.device)
    out = torch.empty_like(one)

    def launches() -> None:
        for _ in range(number):
            torch.add(one, one, out=out)

    return launches


_CANARIES = {"matmul": _matmul, "copy": _copy, "launch": _launch}
