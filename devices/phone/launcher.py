"""Launches of ``benchmark_model`` on a device's shell: what a phone's session drives."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from hwbench.devices.phone.output import OpRow, parse_launch, parse_ops
from hwbench.devices.phone.script import Section, block_script, split_block
from hwbench.devices.phone.shell import Shell
from hwbench.devices.phone.state import read_state, rejections
from hwbench.devices.phone.tool import ToolOptions, check_delegated, launch_command
from hwbench.errors import DeviceError, HwbenchError, PushError, ShellError, ToolOutputError
from hwbench.measure.jobs import Launched, Node, Profiled, RunnerSpec, Script

#: A session that ends because its phone broke off waits so long to remove its files.
_BACK_FOR_CLEANING_S = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How launches are run, and what of a device's state spoils one.

    A launch hangs when it takes ``launch_s`` longer than its runs should, a canary's ``canary_s``:
    the tool ends warm-up and runs by itself after half of ``launch_s`` each. A phone is back
    within two seconds of a drop, and within ``back_within_s`` of a restart.
    """

    tool: Path
    options: ToolOptions
    drift: float
    patience_s: float
    launch_s: float = 60.0
    canary_s: float = 10.0
    back_within_s: float = 120.0


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model on the device: its file here, where it lies there, and how it is launched."""

    path: Path
    remote: str
    options: ToolOptions
    slowest_s: float


class ToolLauncher:
    """Pushes models and launches them; a context that removes what it pushed."""

    def __init__(self, shell: Shell, settings: Settings) -> None:
        self.settings, self._shell = settings, shell
        self.drift, self.patience_s = settings.drift, settings.patience_s
        self._fresh = shell.fresh()
        self._loaded: dict[str, _Loaded] = {}
        self._numbers = itertools.count()
        self._tool = ""

    def __enter__(self) -> Self:
        self._fresh.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, ShellError | PushError):  # back in a moment, if it was a drop
            with suppress(DeviceError):
                self._shell.wait_until_online(
                    min(_BACK_FOR_CLEANING_S, self.settings.back_within_s)
                )
        self._fresh.__exit__(kind, error, trace)

    def load(self, runner: RunnerSpec) -> str:
        """Push a model, and the tool before the first one. Canaries always run on the CPU."""
        if not self._tool:
            self._tool = self._shell.push(self.settings.tool)
        path = Path(str(runner.args["model"]))
        options, slowest_s = self.settings.options, self.settings.launch_s
        if runner.args.get("canary"):
            options = replace(options, delegate="xnnpack", threads=1)
            slowest_s = self.settings.canary_s
        # Not the remote name: two workloads may be one file, a canary among them.
        handle = f"model{next(self._numbers)}"
        self._loaded[handle] = _Loaded(path, self._shell.push(path), options, slowest_s)
        return handle

    def unload(self, handle: str) -> None:
        """Remove a model's file, unless another model is the same file."""
        remote = self._loaded[handle].remote
        if sum(model.remote == remote for model in self._loaded.values()) == 1:
            self._shell.remove([remote])
        del self._loaded[handle]

    def run(self, handles: Sequence[str], seconds: float) -> Script:
        """One script of launches, each of about ``seconds`` of runs."""
        models = [self._loaded[handle] for handle in handles]
        commands = [self.command(handle, seconds) for handle in handles]
        allowed_s = sum(model.slowest_s + 2 * seconds for model in models)
        broken: DeviceError | None = None
        try:
            output = self._shell.run(block_script(commands), allowed_s).output
        except ShellError as error:
            output, broken = error.partial, error
        except DeviceError as error:
            output, broken = "", error
        sections = split_block(output)
        if broken is None and len(sections) < len(handles):
            broken = ShellError(f"{self._shell.label}: a script's output came back cut short")
        pairs = zip(sections, models, strict=False)
        return Script(tuple(_outcome(section, model.options) for section, model in pairs), broken)

    def command(self, handle: str, seconds: float, *, profile: bool = False) -> tuple[str, ...]:
        """A launch's argument list on the device."""
        model = self._loaded[handle]
        longest = max(self.settings.launch_s / 2, 2 * seconds)
        options = replace(model.options, min_secs=seconds, max_secs=longest)
        return launch_command(self._tool, model.remote, options, profile=profile)

    def disturbed(self) -> tuple[str, ...]:
        """Throttling, capped cores or a low battery, in words."""
        return rejections(read_state(self._shell), self.settings.options.mask)

    def recover(self) -> None:
        """Wait until the phone is back, and bring back what it may have lost."""
        self._shell.wait_until_online(self.settings.back_within_s)
        if self._tool:
            self._shell.push(self.settings.tool)
        for model in self._loaded.values():
            self._shell.push(model.path)

    def profile(self, handle: str, seconds: float) -> Profiled:
        """The operators' times of one launch, and its own, slowed by the instrument."""
        model = self._loaded[handle]
        script = block_script([self.command(handle, seconds, profile=True)])
        done = self._shell.run(script, model.slowest_s + 2 * seconds)
        section = next(iter(split_block(done.output)), None)
        if section is None:
            raise ToolOutputError("benchmark_model's profile did not come back: try again")
        outcome = _outcome(section, model.options)
        if isinstance(outcome, HwbenchError):
            raise outcome
        rows = _told_once(parse_ops(section.text))
        nodes = tuple(Node(r.name, r.node_type, r.mean_ns * r.times_called) for r in rows)
        return Profiled(nodes, outcome.median_ns)


def _outcome(section: Section, options: ToolOptions) -> Launched | HwbenchError:
    """What a launch answered. No number where the tool ended badly, whatever it printed."""
    try:
        launch = parse_launch(section.text)
        if section.code:
            raise ToolOutputError(f"benchmark_model ended with exit code {section.code}")
        share = check_delegated(launch, options)
    except DeviceError as error:
        return error
    median_ns = launch.median_ns or launch.mean_ns  # old builds print no median
    notes = () if share is None else (("delegated", f"{share:.3f}"),)
    return Launched(median_ns, launch.init_ns, launch.first_ns, launch.peak_memory_bytes, notes)


def _told_once(rows: Sequence[OpRow]) -> list[OpRow]:
    """Without the delegates' own nodes, where they tell what is inside: its times are theirs."""
    if not any(row.inside_delegate for row in rows):
        return list(rows)
    return [r for r in rows if r.inside_delegate or "Delegate" not in r.node_type]
