"""A device that is given scripts of launches, kept fit for them.

Before each script the rig waits, with growing pauses and within a bound, until the device says
that nothing spoils a launch. After a rest or a break it starts with launches that do not count;
the first of all go one by one, so that a tool that hangs is found in seconds, not minutes.
A device that broke off is waited for, and given up where it breaks again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from hwbench.errors import (
    DeviceError,
    HwbenchError,
    InconclusiveError,
    NoSpaceError,
    PushError,
    ShellError,
)
from hwbench.measure.jobs import Canary, Launched, Launcher, RunnerSpec, Script, Target

#: Times in a row that a device may break off with no workload to blame, before it is given up.
MOST_BROKEN = 3
_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 60.0

Outcome = Launched | HwbenchError
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Turn:
    """What became of a script: its launches in their order, those of the warm-up left out.

    ``outcomes`` ends early where the device ``broke``. ``throttled``: it said so afterwards.
    """

    outcomes: tuple[Outcome, ...]
    throttled: bool = False
    broke: DeviceError | None = None


class Rig:
    """The device of one session, with the canaries on it. Inside the launcher's context only.

    ``reasons`` are the last ones that spoiled a launch. ``sleep`` takes seconds.
    """

    def __init__(
        self, target: Target, launcher: Launcher, threads: int, sleep: Callable[[float], None]
    ) -> None:
        self.name, self.launcher, self.threads = target.name, launcher, threads
        self.canaries: tuple[Canary, ...] = target.canaries(threads)
        self.reasons: tuple[str, ...] = ()
        self._sleep = sleep
        self._cold, self._waited, self._pause = True, 0.0, _PAUSE_S
        self._broken, self._away, self._unsteady = 0, False, False
        self._proven = False
        self.canary_handles = [self.load(canary.runner) for canary in self.canaries]

    def load(self, runner: RunnerSpec) -> str:
        """Bring a model to the device, again where it broke off; its handle."""
        return self._insist(partial(self.launcher.load, runner))

    def unload(self, handles: Sequence[str]) -> None:
        """Take models off the device again."""
        for handle in handles:
            self._insist(partial(self.launcher.unload, handle))

    def turn(self, handles: Sequence[str], seconds: float) -> Turn:
        """Wait until the device is fit, then launch these, about ``seconds`` of runs each.

        Raises InconclusiveError when it does not become fit within its patience, and the
        device's own error when it does not come back after it broke off.
        """
        if self._away:
            self._recover()
        if self._unsteady:
            self._rest()
        while self._insist(self._disturbed):
            self._rest()
        if not self._proven and (spoilt := self._prove(seconds)) is not None:
            return spoilt
        warm = self.canary_handles if self._cold else []
        script = self.launcher.run([*warm, *handles], seconds)
        outcomes = script.outcomes[len(warm) :]
        if script.broken is None:
            self._cold = False
            try:
                return Turn(outcomes, self._disturbed())
            except ShellError as error:
                script = Script(script.outcomes, error)
        # What it finished counts: each launch stands between two readings of the canaries. To
        # wait for the device is the next turn's, after these were noted.
        self._away = True
        return Turn(outcomes, broke=script.broken)

    def _prove(self, seconds: float) -> Turn | None:
        """Warm up by a script for each canary; the turn that this spoilt, None if all ran.

        A script is given the time of all its launches, and ends that late where one hangs.
        """
        for handle in self.canary_handles:
            script = self.launcher.run([handle], seconds)
            self._away = script.broken is not None
            if self._away or not isinstance(script.outcomes[0], Launched):
                return Turn(script.outcomes, broke=script.broken)
        self._cold, self._proven = False, True
        return None

    def unsteady(self, reason: str) -> None:
        """Note that what the last turn measured does not count: the next one rests first."""
        self.reasons, self._unsteady = (reason,), True

    def counted(self) -> None:
        """Note that a launch counted: patience and pauses start anew."""
        self._waited, self._pause = 0.0, _PAUSE_S

    def blame(self, error: DeviceError | None) -> None:
        """Note that no workload, but the device itself, spoiled the last turn; None: all was well.

        Raises the error when it did so ``MOST_BROKEN`` times in a row.
        """
        if error is None:
            self._broken = 0
            return
        self._broken, self._away = self._broken + 1, True  # it may have lost the canaries' files
        if self._broken >= MOST_BROKEN:
            raise error

    def _rest(self) -> None:
        """Pause: each time longer, until a launch counted. Raises InconclusiveError at the end."""
        if self._waited + self._pause > self.launcher.patience_s:
            raise InconclusiveError(
                f"{self.name} is not fit to be measured ({'; '.join(self.reasons)}), "
                f"after {self._waited:.0f} s of waiting: let it cool and charge, or lift what "
                "caps its clock, then again"
            )
        self._sleep(self._pause)
        self._waited += self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)
        self._cold, self._unsteady = True, False

    def _disturbed(self) -> bool:
        found = self.launcher.disturbed()
        if found:
            self.reasons, self._cold = found, True
        return bool(found)

    def _insist(self, do: Callable[[], _T]) -> _T:
        """Do something on the device, again after each time that it broke off."""
        for left in range(MOST_BROKEN - 1, -1, -1):
            try:
                return do()
            except NoSpaceError:
                raise  # it would not fit the next time either
            except (ShellError, PushError):
                if not left:
                    raise
            self._recover()
        raise AssertionError("the last try answers or raises")

    def _recover(self) -> None:
        self._cold = True
        self.launcher.recover()
        self._away = False
