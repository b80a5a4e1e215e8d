"""Peak memory of one run of an operator, beyond what lay there before.

On a GPU by torch's own count. On the CPU the run has a process of its own, whose peak the system
counts: ``python -P -m hwbench.verify.dash_memory CELL``, with the cell as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from hwbench.devices.cuda.stream import Stream, device_errors
from hwbench.errors import DeviceError
from hwbench.measure.process import QUIET
from hwbench.measure.worker import memory
from hwbench.verify.dash_map import Cell, Layer

_TIMEOUT_S = 120.0


def peak_bytes(stream: Stream, cell: Cell, name: str) -> int | None:
    """Of one run of a cell by an operator; None where the system does not say."""
    if stream.device.type == "cpu":
        return _in_a_process(cell, name)
    cuda: Any = torch.cuda
    with device_errors():
        work = cell.case.works(stream.device)(name)
        work()  # what is kept from run to run is there before
        stream.synchronise()
        cuda.reset_peak_memory_stats()
        before = cuda.memory_allocated()
        work()
        stream.synchronise()
        return int(cuda.max_memory_allocated() - before)


def _in_a_process(cell: Cell, name: str) -> int | None:
    request = json.dumps([asdict(cell.layer), cell.i, cell.training, name])
    done = subprocess.run(
        [sys.executable, "-P", "-m", "hwbench.verify.dash_memory", request],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
        env={**os.environ, **QUIET},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DeviceError(f"measuring the memory of {name} failed: {last[:200]}")
    peak = json.loads(done.stdout)
    return None if peak is None else int(peak)


def _peak_here(request: str) -> int | None:
    layer, i, training, name = json.loads(request)
    torch.set_num_threads(1)
    small = Layer("", layer["dims"], 16, layer["groups"], 1, layer["groups"])
    Cell(small, 1, training).case.works(torch.device("cpu"))(name)()  # libraries are loaded
    work = Cell(Layer(**layer), i, training).case.works(torch.device("cpu"))(name)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    count: Callable[[], dict[str, int | None]] = memory
    before = count()["now"]
    work()
    peak = count()["peak"]
    return None if peak is None or before is None else max(peak - before, 0)


if __name__ == "__main__":
    try:
        found = _peak_here(sys.argv[1])
    except OSError:
        found = None
    sys.stdout.write(json.dumps(found))
