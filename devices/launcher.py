"""Launches of ``benchmark_model`` on a device's shell: what a phone's session drives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from hwbench.devices.adb import AdbShell
from hwbench.devices.benchmark_model import ToolOptions, check_delegated, launch_command
from hwbench.devices.benchmark_output import OpRow, parse_launch, parse_ops
from hwbench.devices.phone_state import read_state, rejections
from hwbench.devices.shell import Section, Shell, block_script, split_block
from hwbench.errors import DeviceError, HwbenchError, ShellError, ToolOutputError
from hwbench.measure.jobs import Launched, RunnerSpec, Script

#: Beside its runs a launch starts, loads, and warms up for half a second.
_OVERHEAD_S = 20.0
#: The tool stops a launch that takes longer, between two runs.
_MOST_S = 30.0
#: A phone is back within two seconds of a drop, and within a minute or so of a restart.
BACK_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How launches are run, and what of a device's state spoils one."""

    tool: Path
    options: ToolOptions
    drift: float
    patience_s: float


class ToolLauncher:
    """Pushes models and launches them; a context that removes what it pushed."""

    def __init__(self, shell: Shell, settings: Settings) -> None:
        self._shell, self._settings = shell, settings
        self.drift, self.patience_s = settings.drift, settings.patience_s
        self._fresh = shell.fresh()
        self._local: dict[str, Path] = {}
        self._canaries: set[str] = set()
        self._tool = ""

    def __enter__(self) -> Self:
        self._fresh.__enter__()
        try:
            self._tool = self._shell.push(self._settings.tool)
        except BaseException as error:
            self._fresh.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._fresh.__exit__(kind, error, trace)

    def load(self, runner: RunnerSpec) -> str:
        """Push a model; the handle is where it lies. Canaries always run on the CPU."""
        path = Path(str(runner.args["model"]))
        remote = self._shell.push(path)
        self._local[remote] = path
        if runner.args.get("canary"):
            self._canaries.add(remote)
        return remote

    def run(self, handles: Sequence[str], seconds: float) -> Script:
        """One script of launches, each of about ``seconds`` of runs."""
        commands = [self._command(handle, seconds) for handle in handles]
        allowed = len(handles) * (_OVERHEAD_S + max(seconds, _MOST_S / 10))
        broken: DeviceError | None = None
        try:
            output = self._shell.run(block_script(commands), allowed).output
        except ShellError as error:
            output, broken = error.partial, error
        except DeviceError as error:
            output, broken = "", error
        sections = split_block(output)
        if broken is None and len(sections) < len(handles):
            broken = ShellError(f"{self._shell.label}: a script's output came back cut short")
        pairs = zip(sections, handles, strict=False)
        return Script(tuple(self._outcome(s, handle) for s, handle in pairs), broken)

    def _command(self, handle: str, seconds: float, *, profile: bool = False) -> tuple[str, ...]:
        return launch_command(self._tool, handle, self._options(handle, seconds), profile=profile)

    def _options(self, handle: str, seconds: float) -> ToolOptions:
        options = replace(
            self._settings.options, min_secs=seconds, max_secs=max(_MOST_S, 2 * seconds)
        )
        if handle in self._canaries:
            options = replace(options, delegate="xnnpack", threads=1)
        return options

    def _outcome(self, section: Section, handle: str) -> Launched | HwbenchError:
        try:
            launch = parse_launch(section.text)
            if section.code:
                raise ToolOutputError(f"benchmark_model ended with exit code {section.code}")
            share = check_delegated(launch, self._options(handle, 1.0))
        except DeviceError as error:
            return error
        median = launch.median_ns or launch.mean_ns
        notes = () if share is None else (("delegated", f"{share:.3f}"),)
        peak = launch.peak_memory_bytes
        return Launched(median, launch.init_ns, launch.first_ns, peak, notes)

    def disturbed(self) -> tuple[str, ...]:
        """Throttling, capped cores or a low battery, in words."""
        try:
            return rejections(read_state(self._shell))
        except ShellError:  # dropped in between: the next script will tell
            return ()

    def recover(self) -> None:
        """Wait until the phone is back, and bring back what it may have lost."""
        if isinstance(self._shell, AdbShell):
            self._shell.wait_until_online(BACK_WITHIN_S)
        self._tool = self._shell.push(self._settings.tool)
        for path in self._local.values():
            self._shell.push(path)

    def operators(self, handle: str, seconds: float) -> tuple[tuple[OpRow, ...], Launched]:
        """The operators' times of one launch, and its own, slowed by the instrument."""
        command = self._command(handle, seconds, profile=True)
        output = self._shell.run(block_script([command]), _OVERHEAD_S + _MOST_S).output
        for section in split_block(output):
            outcome = self._outcome(section, handle)
            if isinstance(outcome, HwbenchError):
                raise outcome
            return parse_ops(section.text), outcome
        raise ToolOutputError("benchmark_model gave no profile")
