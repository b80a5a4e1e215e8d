"""Runs a network on an NVIDIA GPU through torch, or fails. A worker loads this file by its path.

The numbers are GPU time between CUDA events: hwbench.devices.cuda.sampling says exactly what.
"""

from hwbench.devices.cuda.nvml import Nvml
from hwbench.devices.cuda.runner import build_runner
from hwbench.devices.cuda.stream import open_stream


def load(args):
    """Build the runner: ``index`` of the GPU, ``uuid`` where NVML watches it (else None), and
    the work (see ``build_runner``).
    """
    stream = open_stream(args["index"])
    sensor = Nvml(args["uuid"]) if args["uuid"] else None
    return build_runner(args, stream, sensor)
