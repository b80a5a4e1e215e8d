"""Runners and a device made up for tests of the engine: quick to load, and as bad as asked for."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from hwbench.devices.models import GraphModel
from hwbench.devices.onnx_cpu import OnnxCpu
from hwbench.graph import GraphBuilder
from hwbench.measure.estimate import KINDS
from hwbench.measure.jobs import Canary, Job, RunnerSpec
from hwbench.records import Fingerprint, InputSpec, Workload, digest

#: A runner that works on numpy for about ``args["us"]`` microseconds, and misbehaves on its
#: ``args["at"]``-th run as ``args["fault"]`` says. ``{fault}`` is Python code.
_SOURCE = """
import ctypes, os, signal, sys, time
from time import perf_counter_ns

class Runner:
    def __init__(self, us, at):
        self.us, self.at, self.runs = us, at, 0

    def run(self, n):
        times = []
        for _ in range(n):
            self.runs += 1
            start = perf_counter_ns()
            if self.runs == self.at:
                {fault}
            while perf_counter_ns() - start < 1000 * self.us:
                pass
            times.append(perf_counter_ns() - start)
        return times

def load(args):
    return Runner(args.get("us", 100), args.get("at", 0))
"""


def runner(folder: Path, fault: str = "pass", **args: object) -> RunnerSpec:
    """A runner of ``us`` microseconds that does ``fault``, a line of Python, at run ``at``."""
    return runner_file(folder, _SOURCE.format(fault=fault), **args)


def runner_file(folder: Path, source: str, **args: object) -> RunnerSpec:
    """A runner from its source."""
    path = folder / f"runner_{digest(source)}.py"
    path.write_text(source)
    return RunnerSpec(str(path), args)


def job(name: str, spec: RunnerSpec, *, threads: int = 1) -> Job:
    """A job that runs a runner."""
    inputs = (InputSpec("x", "float32", (1,)),)
    args: Mapping[str, Any] = spec.args
    workload = Workload(name, digest([name, spec.file, dict(args)]), inputs, threads)
    return Job(workload, lambda folder: spec)


def tiny_net(channels: int = 4, name: str | None = None) -> GraphModel:
    """A convolution on 16 px: some microseconds."""
    builder = GraphBuilder("tiny")
    x = builder.input("x", (1, 3, 16, 16))
    graph = builder.build(builder.activation(builder.conv(x, channels), "relu"))
    return GraphModel(graph, name or f"tiny{channels}")


class LocalTarget:
    """A device whose canaries take no runtime, and are loaded in a tenth of a second."""

    name = "local"
    python = sys.executable

    def __init__(self, folder: Path) -> None:
        self._spin = runner(folder, us=50)

    def fingerprint(self, threads: int) -> Fingerprint:
        """Of no machine in particular."""
        return Fingerprint(self.name, {"cpu_model": "Test CPU"})

    def launcher(self, threads: int) -> None:
        """Workers run its models."""

    def canaries(self, threads: int) -> tuple[Canary, ...]:
        """One of each kind."""
        return tuple(Canary(f"spin_{kind}", "1", self._spin, 2, 1, kind) for kind in KINDS)

    def backdrop(self, folder: Path, threads: int) -> RunnerSpec:
        """More of the same."""
        return self._spin


def with_light_canaries(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the cpu device those of :class:`LocalTarget`: for tests that are about no canary."""
    light = LocalTarget(folder)
    monkeypatch.setattr(OnnxCpu, "canaries", lambda self, threads: light.canaries(threads))
    monkeypatch.setattr(
        OnnxCpu, "backdrop", lambda self, folder, threads: light.backdrop(folder, threads)
    )


def workers(parent: int | None = None) -> list[psutil.Process]:
    """Living worker processes below this process (or another)."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        try:
            if any(part.endswith("worker.py") for part in process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


@contextmanager
def leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check that what is done inside leaves no worker, open file or temporary one behind."""
    temporary = folder / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))  # the workers'
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))  # ours
    before = _open_files()
    yield
    assert workers() == []
    assert list(temporary.iterdir()) == []
    if _open_files() - before:
        gc.collect()  # takes long where torch is loaded
    assert _open_files() - before == set()


def _open_files() -> set[tuple[str, str]]:
    """Number and name of every open file, socket and pipe of this process."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # of the listing itself
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found
