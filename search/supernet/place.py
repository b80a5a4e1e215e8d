"""Where a training runs: ``cpu``, or a GPU that there really is."""

from __future__ import annotations

import re

import torch

from hwbench.devices.cuda.stream import open_stream
from hwbench.errors import UsageError


def training_device(name: str) -> torch.device:
    """The device of ``cpu``, ``cuda`` or ``cuda:1``, for ``net.to``.

    UsageError for another name; DeviceError, with the cure, where there is no such GPU: nothing
    falls back to the CPU.
    """
    if name == "cpu":
        return torch.device("cpu")
    found = re.fullmatch(r"cuda(?::(\d{1,4}))?", name)
    if found is None:
        raise UsageError(f"nothing is trained on {name!r}: give cpu, cuda, or one GPU as cuda:1")
    return open_stream(int(found[1] or 0)).device
