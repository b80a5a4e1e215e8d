"""What a device hands to the engine: work for a worker or a launcher, and canaries beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from hwbench.errors import DeviceError, HwbenchError, ModelError, UsageError
from hwbench.inputs import Stamp
from hwbench.records import Fingerprint, Workload, digest


@dataclass(frozen=True, slots=True)
class RunnerSpec:
    """A runner file and what its ``load`` is given (JSON values only)."""

    file: str
    args: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Canary:
    """A fixed piece of work whose time tells how disturbed the machine is.

    ``version`` names its implementation: a canary that changes starts a new series. ``kind`` is
    what it stands for: ``compute``, ``memory``, ``cache``, the caches that cores share, or
    ``launch``, the host that hands a device its work, which stands in for ``compute`` where
    launches decide a model's time; canaries of one kind are averaged. A reading is the minimum
    of ``runs`` runs after ``warm`` unmeasured ones. One that takes long is read every
    ``every_s`` seconds only, and stands for the bursts until its next reading.
    """

    name: str
    version: str
    runner: RunnerSpec
    runs: int
    warm: int
    kind: Literal["compute", "memory", "cache", "launch"]
    every_s: float = 0.0


#: Version of how an undisturbed latency is had from readings. Milliseconds of two versions do not
#: mix: a later one has epochs of its own, and measures anew what an earlier one measured.
ESTIMATOR = 3


def canary_key(canaries: Sequence[Canary]) -> str:
    """Digest of the canaries' names and versions and of the estimator's: milliseconds that rest on
    readings of one key are comparable.
    """
    return digest([ESTIMATOR, [[c.name, c.version] for c in canaries]])


@dataclass(frozen=True, slots=True)
class Job:
    """A workload, and how to build its runner when its turn comes.

    ``build`` is given a folder for files that must live as long as the measurement. ``files``
    are those of the user's whose content the workload's hash names.
    """

    workload: Workload
    build: Callable[[Path], RunnerSpec]
    files: tuple[Stamp, ...] = ()

    def require_unchanged(self) -> None:
        """ModelError where a file is another one by now: its time would bear a wrong name."""
        for stamp in self.files:
            if not stamp.holds():
                raise ModelError(
                    f"{stamp.path} changed while it was measured: leave it alone, or measure a "
                    "copy, then again"
                )


@dataclass(frozen=True, slots=True)
class Launched:
    """What one launch answered, in ns: its median run, and what it took to get there."""

    median_ns: float
    init_ns: float
    first_ns: float | None
    peak_memory_bytes: int | None
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of a model as the runtime ran it, fusions included: its time a run, in ns."""

    name: str
    kind: str
    ns: float


@dataclass(frozen=True, slots=True)
class Profiled:
    """The operators of an instrumented pass, in their order, and its whole run in ns."""

    nodes: tuple[Node, ...]
    whole_ns: float


@dataclass(frozen=True, slots=True)
class Script:
    """What became of the launches of one script, in their order.

    ``outcomes`` ends early where the device broke: then ``broken`` says how, and the next launch
    is the one that it broke at.
    """

    outcomes: tuple[Launched | HwbenchError, ...]
    broken: DeviceError | None = None


class Launcher(Protocol):
    """The part of such a device that the session drives. A context: leaving it cleans up."""

    drift: float
    patience_s: float

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def load(self, runner: RunnerSpec) -> str:
        """Bring a model to the device; answers the handle that :meth:`run` takes."""

    def unload(self, handle: str) -> None:
        """Take a model off the device; its handle is then of no more use."""

    def run(self, handles: Sequence[str], seconds: float) -> Script:
        """Launch these models one after the other, about ``seconds`` of runs each."""

    def disturbed(self) -> tuple[str, ...]:
        """What the device says now that spoils a launch: throttling, a low battery.

        Raises ShellError where it does not answer.
        """

    def recover(self) -> None:
        """After the device broke off: wait, within a bound, until it answers again.

        It then holds what was loaded. Raises DeviceError where it does not come back.
        """

    def profile(self, handle: str, seconds: float) -> Profiled:
        """Launch a model with its operators timed. Raises DeviceError where that cannot be."""


def threads_of(jobs: Sequence[Job]) -> int:
    """The number of threads that all jobs ask for; UsageError where they do not agree."""
    found = {job.workload.threads for job in jobs}
    if len(found) != 1:
        raise UsageError("workloads on different numbers of threads need sessions of their own")
    return found.pop()


class Target(Protocol):
    """The part of a device that the engine sees."""

    @property
    def name(self) -> str:
        """The name a user types: ``cpu``, ``adb:SERIAL``."""

    @property
    def python(self) -> str:
        """The interpreter that runs the worker."""

    def fingerprint(self, threads: int) -> Fingerprint:
        """The environment, as it is now."""

    def launcher(self, threads: int) -> Launcher | None:
        """What takes whole launches, on a device that no worker can run models on."""

    def canaries(self, threads: int) -> tuple[Canary, ...]:
        """The canaries for work on so many threads."""

    def backdrop(self, folder: Path, threads: int) -> RunnerSpec:
        """Work like a model's, to run between readings while the canonical time is set."""
