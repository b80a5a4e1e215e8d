"""The CPU twins of a GPU's stream and sensor: the same loop, tested where no GPU stands.

No device uses them: :class:`hwbench.devices.cuda.Cuda` opens a
:class:`~hwbench.devices.cuda.stream.CudaStream` or fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING

from hwbench.devices.cuda.nvml import GpuState
from hwbench.devices.cuda.stream import Work

if TYPE_CHECKING:
    import torch


class CpuStream:
    """Does work at once, and is as strict as a GPU: a mark can be read only after a wait.

    ``resolution_ns`` rounds the clock down, as a GPU's event timer does.
    """

    def __init__(self, l2_bytes: int = 1 << 20, resolution_ns: int = 1) -> None:
        import torch

        self.device: torch.device = torch.device("cpu")
        self.l2_bytes = l2_bytes
        self._resolution_ns = resolution_ns
        self._marks: list[int] = []
        self._passed = 0
        self._capturing = False

    def mark(self) -> int:
        """The number of this mark."""
        if self._capturing:
            raise RuntimeError("a timing mark cannot be captured")
        self._marks.append(perf_counter_ns() // self._resolution_ns * self._resolution_ns)
        return len(self._marks) - 1

    def synchronise(self) -> None:
        """From here on all marks so far can be read."""
        if self._capturing:
            raise RuntimeError("waiting cannot be captured")
        self._passed = len(self._marks)

    def elapsed_ns(self, start: int, end: int) -> float:
        """Time between two marks; RuntimeError for one that was not waited for."""
        if max(start, end) >= self._passed:
            raise RuntimeError("a mark is read before the device has passed it")
        return float(self._marks[end] - self._marks[start])

    def capture(self, work: Work) -> Work:
        """Runs ``work`` once, as a capture does, and answers it."""
        self._capturing = True
        try:
            work()
        finally:
            self._capturing = False
        return work


class ScriptedSensor:
    """Tells the states it was given, the last one for ever."""

    def __init__(self, states: Iterable[GpuState], others: Sequence[str] = ()) -> None:
        self._states = list(states)
        self._others = tuple(others)

    def facts(self) -> dict[str, str]:
        """One fact."""
        return {"driver": "twin"}

    def state(self) -> GpuState:
        """The next state."""
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]

    def others(self, mine: Iterable[int]) -> tuple[str, ...] | None:
        """The other processes that it was given."""
        return self._others
