"""Checks of the machine that measures: each finding with its cure."""

from __future__ import annotations

import os
from pathlib import Path

from hwbench.devices.base import Check, Device
from hwbench.devices.models import GraphModel
from hwbench.errors import HwbenchError
from hwbench.graph import GraphBuilder
from hwbench.measure.canary import load_canaries
from hwbench.measure.process import WorkerProcess
from hwbench.measure.scratch import scratch

#: Share of the cores that other processes may keep busy before it is worth a word.
_BUSY = 0.25


def host_checks(device: Device, cure: str) -> list[Check]:
    """The runtime by a real inference, the canaries, and what makes a host wander.

    ``cure`` is what to do where the runtime fails.
    """
    return [_runtime(device, cure), _canaries(device), load(), _governor(), _cores()]


def _runtime(device: Device, cure: str) -> Check:
    builder = GraphBuilder("probe")
    x = builder.input("x", (1, 3, 8, 8))
    graph = builder.build(builder.activation(builder.conv(x, 4), "relu"))
    try:
        with scratch() as folder, WorkerProcess(device.python) as worker:
            worker.load("probe", device.job(GraphModel(graph, "probe"), 1).build(folder))
            worker.ask("check", "probe")
    except HwbenchError as error:
        return Check("runtime", "fail", str(error), cure)
    return Check("runtime", "ok", f"{device.name}: a convolution ran and its output is finite")


def _canaries(device: Device) -> Check:
    try:
        canaries = device.canaries(1)
        with WorkerProcess(device.python) as worker:
            steps = load_canaries(worker, canaries)
            readings = worker.ask("round", [], steps)["readings"][0]
    except HwbenchError as error:
        return Check("canaries", "fail", str(error), "pip install --force-reinstall ai-edge-litert")
    times = ", ".join(f"{c.name} {t / 1e3:.0f} us" for c, t in zip(canaries, readings, strict=True))
    return Check("canaries", "ok", times)


def load() -> Check:
    """How busy other programs keep the cores, over half a second."""
    import psutil

    busy = psutil.cpu_percent(interval=0.5) / 100
    detail = f"{busy:.0%} of {os.cpu_count()} cores busy"
    if busy > _BUSY:
        cure = "close what keeps them so, or intervals get wider and some answers inconclusive"
        return Check("load", "warn", detail, cure)
    return Check("load", "ok", detail)


def _governor() -> Check:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    try:
        governor = path.read_text().strip()
    except OSError:
        return Check("governor", "ok", "not visible here (a virtual machine, or no cpufreq)")
    if governor == "performance":
        return Check("governor", "ok", governor)
    cure = "sudo cpupower frequency-set -g performance steadies the clock"
    return Check("governor", "warn", governor, cure)


def _cores() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if cores == 1:
        cure = "a second core lets the system do its work elsewhere"
        return Check("cores", "warn", "1 core for this process", cure)
    return Check("cores", "ok", f"{cores} cores for this process")
