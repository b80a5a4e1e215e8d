"""A queue of a GPU's work and time marks in it: all that timing needs to know of CUDA.

The sample loop (:mod:`hwbench.devices.cuda.sampling`) sees :class:`Stream` only. Its other
implementation, on the CPU and for tests, is :mod:`hwbench.devices.cuda.twin`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hwbench.errors import DeviceError

if TYPE_CHECKING:
    import torch

Work = Callable[[], object]

#: Runs on a side stream before a capture: libraries make their workspaces then, which a capture
#: may not.
_CAPTURE_WARM = 3


class Stream(Protocol):
    """Work is queued in order and done later; a mark is a point in that order."""

    @property
    def device(self) -> torch.device:
        """Where tensors have to lie for work to run on this queue."""

    @property
    def l2_bytes(self) -> int:
        """Size of the cache that all of the device's cores share."""

    def mark(self) -> Any:
        """Queue a mark."""

    def synchronise(self) -> None:
        """Wait until all that was queued is done."""

    def elapsed_ns(self, start: Any, end: Any) -> float:
        """Device time between two marks; both must have been passed (synchronise first)."""

    def capture(self, work: Work) -> Work:
        """Record what ``work`` queues; calling the answer queues all of it in one launch."""


class CudaStream:
    """The current stream of a GPU; marks are CUDA events, with a resolution of 0.5 us."""

    def __init__(self, index: int) -> None:
        import torch

        self.device = torch.device("cuda", index)
        torch.cuda.set_device(self.device)
        self.l2_bytes = int(torch.cuda.get_device_properties(index).L2_cache_size)
        self._stream = torch.cuda.current_stream(self.device)

    def mark(self) -> Any:
        """An event, recorded here in the stream."""
        import torch

        cuda: Any = torch.cuda
        event = cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event

    def synchronise(self) -> None:
        """Wait for the stream; an error of an earlier kernel surfaces here."""
        self._stream.synchronize()

    def elapsed_ns(self, start: Any, end: Any) -> float:
        """Time between two events that have been passed."""
        return float(start.elapsed_time(end)) * 1e6

    def capture(self, work: Work) -> Work:
        """A CUDA graph of ``work``, warmed up on a side stream as capturing demands."""
        import torch

        cuda: Any = torch.cuda
        side = cuda.Stream(self.device)
        side.wait_stream(self._stream)
        with cuda.stream(side):
            for _ in range(_CAPTURE_WARM):
                work()
        self._stream.wait_stream(side)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            work()
        replay: Work = graph.replay  # holds the graph
        return replay


def open_stream(index: int) -> CudaStream:
    """The stream of GPU ``index``, numbered as torch does (after CUDA_VISIBLE_DEVICES).

    Raises DeviceError, with the cure, where torch is missing or built without CUDA, where no GPU
    is visible, and where none has that number. There is no fallback to the CPU.
    """
    try:
        built = _built()
    except ImportError:
        raise DeviceError("torch is missing: pip install 'hwbench[cuda]'") from None
    if built.cuda is None:
        raise DeviceError(
            f"torch {built.__version__} was built without CUDA: reinstall it with "
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130"
        )
    import torch

    with device_errors():
        count = torch.cuda.device_count()
        if count == 0:
            raise DeviceError(
                "no GPU is visible to CUDA: does nvidia-smi list one? Check the driver, "
                "CUDA_VISIBLE_DEVICES, and --gpus all of a container"
            )
        if index >= count:
            known = ", ".join(f"cuda:{i}" for i in range(count))
            raise DeviceError(f"there is no GPU cuda:{index}: choose of {known}")
        return CudaStream(index)


def _built() -> Any:
    """torch's module ``version``, without the seconds that all of torch takes to be imported where
    it is not: a torch that has no CUDA is refused at once. Raises ImportError without torch.
    """
    if "torch" not in sys.modules and (found := find_spec("torch")) and found.origin:
        path = Path(found.origin).with_name("version.py")
        spec = spec_from_file_location("version_of_torch", path)
        if path.is_file() and spec and spec.loader:
            built = module_from_spec(spec)
            spec.loader.exec_module(built)
            return built
    import torch

    return torch.version


@contextmanager
def device_errors() -> Iterator[None]:
    """Turn what torch raises for a device in trouble into a DeviceError with the cure."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"out of GPU memory ({_first_line(error)}): take a smaller batch, fewer models at "
            "once, or end other programs on this GPU (nvidia-smi lists them)"
        ) from error
    except torch.AcceleratorError as error:
        raise DeviceError(
            f"the GPU failed ({_first_line(error)}): is the driver new enough for CUDA "
            f"{torch.version.cuda}, and this torch built for this GPU? nvidia-smi -q tells more"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(". ")[:200] if lines else type(error).__name__
