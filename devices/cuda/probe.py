"""Asks a GPU, in a process of its own, what it is, and lets it work.

The asking process would otherwise hold a CUDA context of some hundred MB for as long as it
measures. Run as ``python -P -m hwbench.devices.cuda.probe INDEX``: one JSON object on the last
line of standard output, ``{"error": text}`` where there is nothing to measure on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from hwbench.devices.cuda.stream import Stream, device_errors, open_stream
from hwbench.errors import DeviceError

#: Importing torch, making a context and loading a first kernel: seconds, minutes on a cold disk.
TIMEOUT_S = 180.0
_SIZE = 256


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """A GPU as torch sees it, and the torch that does. ``capability`` is 9.0 for an H100."""

    name: str
    uuid: str
    capability: str
    memory_bytes: int
    l2_bytes: int
    torch: str
    cuda: str
    cudnn: str

    @property
    def version(self) -> tuple[int, int]:
        """The compute capability as two numbers."""
        major, _, minor = self.capability.partition(".")
        return int(major), int(minor)


def look(python: str, index: int) -> GpuFacts:
    """The facts of GPU ``index``, from a process of interpreter ``python``.

    Raises DeviceError, with the cure, unless a kernel ran there and its result is right.
    """
    command = [python, "-P", "-m", "hwbench.devices.cuda.probe", str(index)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"cuda:{index} did not answer within {TIMEOUT_S:.0f} s: does nvidia-smi?"
        ) from None
    except OSError as error:
        raise DeviceError(f"cannot start {python!r}: {error}") from error
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
        raise DeviceError(
            f"asking cuda:{index} ended with code {done.returncode} ({last}): "
            "does python -c 'import torch; torch.zeros(1).cuda()' work?"
        )
    return read_answer(lines[-1])


def read_answer(line: str) -> GpuFacts:
    """The facts in the probe's answer; DeviceError where it is an error, or no answer."""
    try:
        answer = json.loads(line)
        if "error" not in answer:
            return GpuFacts(**answer)
    except (ValueError, TypeError) as error:
        raise DeviceError(f"asking for the GPU gave {line[:80]!r}: reinstall hwbench") from error
    raise DeviceError(str(answer["error"]))


def facts_of(index: int) -> GpuFacts:
    """Ask here, in this process."""
    stream = open_stream(index)
    import torch

    cudnn: Any = torch.backends.cudnn
    with device_errors():
        check_kernel(stream)
        gpu = torch.cuda.get_device_properties(index)
    return GpuFacts(
        name=gpu.name,
        uuid=str(gpu.uuid),
        capability=f"{gpu.major}.{gpu.minor}",
        memory_bytes=gpu.total_memory,
        l2_bytes=gpu.L2_cache_size,
        torch=str(torch.__version__),
        cuda=str(torch.version.cuda),
        cudnn=str(cudnn.version()),
    )


def check_kernel(stream: Stream) -> None:
    """A product of ones, whose result is known to the bit, and whose time is more than none."""
    import torch

    ones = torch.ones(_SIZE, _SIZE, device=stream.device)
    start = stream.mark()
    product = ones @ ones
    end = stream.mark()
    stream.synchronise()
    if not bool((product == _SIZE).all()):
        raise DeviceError("the GPU gives wrong products: run nvidia-smi -q and look for errors")
    if stream.elapsed_ns(start, end) <= 0:
        raise DeviceError("the GPU's clock stands still: update the driver")


def main() -> None:
    """Print the answer."""
    try:
        answer: dict[str, Any] = asdict(facts_of(int(sys.argv[1])))
    except DeviceError as error:
        answer = {"error": str(error)}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
