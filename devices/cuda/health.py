"""What ``hwbench doctor`` looks at on a GPU: each finding with its cure."""

from __future__ import annotations

import os
from collections.abc import Mapping

from hwbench.devices.base import Check
from hwbench.devices.cuda.nvml import UNKNOWN, GpuState, Sensor
from hwbench.devices.cuda.probe import GpuFacts


def kernel(facts: GpuFacts) -> Check:
    """That there is a GPU, and that it computes (else there are no facts)."""
    memory = facts.memory_bytes / 2**30
    return Check(
        "gpu",
        "ok",
        f"{facts.name}, {memory:.0f} GiB, compute capability {facts.capability}, torch "
        f"{facts.torch} with CUDA {facts.cuda} and cuDNN {facts.cudnn}: a kernel ran",
    )


def watched(sensor: Sensor) -> list[Check]:
    """All that NVML tells."""
    facts = sensor.facts()
    return [
        Check("nvml", "ok", f"driver {facts['driver']}"),
        throttling(sensor.state()),
        others(sensor.others([os.getpid()])),
        persistence(facts),
        slices(facts),
    ]


def blind(reason: str) -> Check:
    """Without NVML nobody sees a GPU that is held back."""
    what, _, cure = reason.partition(": ")
    return Check(
        "nvml", "warn", f"{what}: throttled runs cannot be told from others", cure or reason
    )


def throttling(state: GpuState) -> Check:
    """Whether the GPU is held back now."""
    if state.reasons is None:
        return Check(
            "throttling",
            "warn",
            "the driver does not tell",
            "measure where it does: on a virtual GPU, ask its host's owner",
        )
    told = state.texts
    detail = f"SM clock {told['sm_clock_mhz']} MHz, {told['temperature_c']} C, {told['power_w']} W"
    if not state.throttled:
        return Check("throttling", "ok", f"none; {detail}")
    cure = (
        "let it cool down, raise the power limit (nvidia-smi -pl), or lock a clock that it can "
        "hold (nvidia-smi -lgc): throttled bursts are rejected"
    )
    return Check("throttling", "warn", f"{', '.join(state.throttled)}; {detail}", cure)


def others(found: tuple[str, ...] | None) -> Check:
    """Whether the GPU is shared with somebody."""
    if found is None:
        return Check(
            "processes",
            "warn",
            "the driver does not tell who uses the GPU",
            "look at nvidia-smi on the host: another program would be in every time",
        )
    if found:
        cure = "end them, or give them another GPU: they share cores, caches and memory"
        return Check("processes", "warn", f"also used by {', '.join(found[:5])}", cure)
    return Check("processes", "ok", "nobody else uses the GPU")


def persistence(facts: Mapping[str, str]) -> Check:
    """Without it the driver lets go of an idle GPU, and each process starts it anew."""
    mode = facts.get("persistence", UNKNOWN)
    if mode == "off":
        return Check("persistence", "warn", "off: an idle GPU is reset", "sudo nvidia-smi -pm 1")
    return Check("persistence", "ok", mode)


def slices(facts: Mapping[str, str]) -> Check:
    """A slice of a GPU (MIG) shares power and clocks with the other slices."""
    mode = facts.get("mig", UNKNOWN)
    if mode == "on":
        cure = "sudo nvidia-smi -mig 0 gives the whole GPU; power and clocks are shared by slices"
        return Check("mig", "warn", "on: this is a slice of a GPU", cure)
    return Check("mig", "ok", mode)
