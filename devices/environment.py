"""What makes latencies on a device comparable: its facts, and the options that change them."""

from __future__ import annotations

from hwbench.devices.base import Device
from hwbench.devices.models import GraphModel
from hwbench.graph import GraphBuilder
from hwbench.records import digest


def options_of(device: Device, threads: int) -> tuple[tuple[str, str], ...]:
    """The device's options that change what is measured: those that tell workloads apart."""
    b = GraphBuilder("probe")
    graph = b.build(b.conv(b.input("x", (1, 3, 8, 8)), 8))
    return device.job(GraphModel(graph, graph.name), threads).workload.options


def environment_of(device: Device, threads: int = 1) -> str:
    """A key of all that latencies on a device depend on: its facts, and these options."""
    return digest([device.fingerprint(threads).key, options_of(device, threads)])
