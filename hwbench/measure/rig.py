"""A device that is given scripts of launches, kept fit for them.

Before each script the rig waits, with growing pauses and within a bound, until the device says
that nothing spoils a launch. After a rest or a break it starts with launches that do not count.
A device that broke off is waited for, and given up where it breaks again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hwbench.errors import (
    DeviceError,
    HwbenchError,
    InconclusiveError,
    NoSpaceError,
    PushError,
    ShellError,
)
from hwbench.measure.jobs import Canary, Launched, Launcher, RunnerSpec, Target

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
        self.name, self.launcher = target.name, launcher
        self.canaries: tuple[Canary, ...] = target.canaries(threads)
        self.reasons: tuple[str, ...] = ()
        self._sleep = sleep
        self._cold, self._waited, self._pause = True, 0.0, _PAUSE_S
        self._broken = 0
        self.canary_handles = [self.load(canary.runner) for canary in self.canaries]

    def load(self, runner: RunnerSpec) -> str:
        """Bring a model to the device, again where it broke off; its handle."""
        return self._insist(lambda: self.launcher.load(runner))

    def unload(self, handles: Sequence[str]) -> None:
        """Take models off the device again."""
        for handle in handles:
            self._insist(lambda handle=handle: self.launcher.unload(handle))  # type: ignore[misc]

    def turn(self, handles: Sequence[str], seconds: float) -> Turn:
        """Wait until the device is fit, then launch these, about ``seconds`` of runs each.

        Raises InconclusiveError when it does not become fit within its patience, and the
        device's own error when it does not come back.
        """
        self._settle()
        warm = self.canary_handles if self._cold else []
        script = self.launcher.run([*warm, *handles], seconds)
        outcomes, broke = script.outcomes[len(warm) :], script.broken
        if broke is None:
            self._cold = False
            try:
                spoiled = self._disturbed()
            except ShellError as error:
                broke = error
            else:
                if not spoiled:
                    self._waited, self._pause = 0.0, _PAUSE_S
                return Turn(outcomes, spoiled)
        # The launches that it finished count: each stands between two readings of the canaries.
        self._recover()
        return Turn(outcomes, broke=broke)

    def blame(self, error: DeviceError | None) -> None:
        """Note that no workload, but the device itself, broke the last turn; None: all was well.

        Raises the error when it did so ``MOST_BROKEN`` times in a row.
        """
        self._broken = 0 if error is None else self._broken + 1
        if error is not None and self._broken >= MOST_BROKEN:
            raise error

    def _settle(self) -> None:
        """Pauses grow, and add up, until a script was not spoiled."""
        while self._insist(self._disturbed):
            if self._waited + self._pause > self.launcher.patience_s:
                raise InconclusiveError(
                    f"{self.name} is not fit to be measured ({'; '.join(self.reasons)}), "
                    f"after {self._waited:.0f} s of waiting: let it cool and charge, then again"
                )
            self._sleep(self._pause)
            self._waited += self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)

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
