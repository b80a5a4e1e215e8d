"""What a device is. An adapter is small: all statistics live in :mod:`hwbench.measure`.

Life cycle of a measurement: ``job(model, threads)`` names the work and knows how to build it;
the engine starts a worker with ``python``, loads the device's ``canaries`` and the job's runner
into it, and asks for bursts; ``fingerprint`` is stored beside the result. ``health`` is what
``hwbench doctor`` prints.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

from hwbench.devices.models import GraphModel, Model
from hwbench.devices.options import parse_options
from hwbench.errors import DeviceError, UsageError
from hwbench.graph import GraphBuilder
from hwbench.measure.fingerprint import last_cache_mib
from hwbench.measure.jobs import Canary, Job, Launcher, RunnerSpec
from hwbench.records import Fingerprint

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a device's health: what was looked at, how it stands, and the cure."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class NoOptions:
    """Of a device that has none."""


class Device(ABC):
    """Base of all adapters. Needs ``fingerprint``, ``health`` and ``job``.

    A runner is a Python file with ``load(args) -> runner`` and ``runner.run(n)``, n integer
    nanoseconds; the worker that loads it may run under another interpreter, ``python``.
    """

    name: str
    description: ClassVar[str] = ""
    #: The ending of the model files that it runs.
    suffix: ClassVar[str] = ".onnx"
    #: A dataclass as :func:`~hwbench.devices.options.parse_options` reads it.
    options_type: ClassVar[type] = NoOptions

    @classmethod
    def open(cls, address: str | None, options: Mapping[str, str]) -> Self:
        """The device that ``-d KIND:ADDRESS --option NAME=VALUE`` names; no ADDRESS here.

        Options go to the constructor as an ``options_type``, where the device has any.
        Nothing is touched yet: what is not there is found when it is asked for something.
        """
        if address is not None:
            raise UsageError(f"there is one {cls.name} only: write it without {address!r}")
        if cls.options_type is NoOptions:
            parse_options(NoOptions, options)
            return cls()
        return cls(parse_options(cls.options_type, options))  # type: ignore[call-arg]

    def named(self) -> Self:
        """Itself, under the name of its own, where what it was asked by leaves that open.

        Raises DeviceError where there is none, or where there are several.
        """
        return self

    @property
    def python(self) -> str:
        """The interpreter that runs the worker."""
        return sys.executable

    @abstractmethod
    def fingerprint(self, threads: int) -> Fingerprint:
        """The environment a latency belongs to, as it is now."""

    @abstractmethod
    def health(self) -> list[Check]:
        """Checks that the device can measure, each with its cure."""

    @abstractmethod
    def job(self, model: Model, threads: int) -> Job:
        """The work of running ``model``. Raises ModelError when it cannot be run here."""

    def launcher(self, threads: int) -> Launcher | None:
        """None, unless the device is given whole launches of a tool (:mod:`…measure.launches`)."""
        return None

    def canaries(self, threads: int) -> tuple[Canary, ...]:
        """Two conv nets in LiteRT, on as many threads as the model, and reads of memory and cache.

        Not onnxruntime: an upgrade of the runtime under test would move both and hide itself.
        ``results/`` has the figures behind this choice.
        """
        return (
            _conv_canary("conv_dw_v1", threads),
            _conv_canary("conv_std_v1", threads),
            *memory_canaries(),
        )

    def backdrop(self, folder: Path, threads: int) -> RunnerSpec:
        """A mid-sized network on this device's own runtime.

        The canaries' canonical time is set while it runs between their readings: caches and
        predictors then hold as much of somebody else as they do beside any model.
        """
        b = GraphBuilder("backdrop")
        x = b.activation(b.conv(b.input("x", (1, 3, 96, 96)), 32, kernel=3, stride=2), "relu")
        for _ in range(3):
            x = b.activation(b.conv(x, 32, kernel=3), "relu")
        x = b.linear(b.linear(b.flatten(b.global_avg_pool(x)), 2048), 1024)
        return self.job(GraphModel(b.build(x), "backdrop"), threads).build(folder)


def memory_canaries() -> tuple[Canary, Canary]:
    """A walk through memory and a sweep of the cache that cores share.

    The same on every device whose worker runs on this host. The sweep reads three quarters of
    the cache: what neighbours take of it moves its time, and that of any network about as large.
    """
    sweep = min(max((last_cache_mib() or 32) * 3 // 4, 2), 96)
    walking = _runner("memory.py", mib=1, block_mib=256)
    sweeping = _runner("memory.py", sweep_mib=sweep)
    return (
        Canary("walk_1mib", "2", walking, 5, 2, "memory"),
        Canary(f"sweep_{sweep}mib", "2", sweeping, 3, 0, "cache", every_s=0.1),
    )


def _runner(file: str, **args: object) -> RunnerSpec:
    return RunnerSpec(str(_HERE / "runners" / file), args)


def _conv_canary(name: str, threads: int) -> Canary:
    import hashlib
    from importlib.metadata import PackageNotFoundError, version

    path = _HERE / "canaries" / f"{name}.tflite"
    content = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    runner = _runner("litert.py", model=str(path), threads=threads)
    try:
        stamp = f"{content} litert {version('ai-edge-litert')}"
    except PackageNotFoundError:
        raise DeviceError(
            "the canaries' runtime is missing: pip install --force-reinstall ai-edge-litert"
        ) from None
    return Canary(name, stamp, runner, 3, 2, "compute")
