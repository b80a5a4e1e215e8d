"""The devices that a worker lends: who has which, and which of them are set aside."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hwbench.devices import device_class, get_device
from hwbench.devices.base import Device
from hwbench.errors import DeviceError, HwbenchError, InconclusiveError, UsageError
from hwbench.measure.jobs import Canary, Launcher, RunnerSpec, canary_key
from hwbench.records import CanaryEpoch, Fingerprint

#: Times in a row that a device may fail before it is set aside.
MOST_FAILURES = 3


class Lent:
    """A device as the engine sees it, under the name that it has among those of all hosts."""

    def __init__(self, device: Device, host: str | None) -> None:
        self._device = device
        self.name = f"{device.name}@{host}" if host else device.name

    @property
    def python(self) -> str:
        """The interpreter that runs the worker."""
        return self._device.python

    def fingerprint(self, threads: int) -> Fingerprint:
        """The device's own, under this name."""
        return replace(self._device.fingerprint(threads), device=self.name)

    def launcher(self, threads: int) -> Launcher | None:
        """The device's own."""
        return self._device.launcher(threads)

    def canaries(self, threads: int) -> tuple[Canary, ...]:
        """The device's own."""
        return self._device.canaries(threads)

    def backdrop(self, folder: Path, threads: int) -> RunnerSpec:
        """The device's own."""
        return self._device.backdrop(folder, threads)


@dataclass
class Seat:
    """One device: its kind, whether it is at work, and how it has done."""

    kind: str
    device: Device
    target: Lent
    busy: bool = False
    blocks: int = 0
    failures: int = 0
    word: str = ""
    aside: bool = False
    epochs: dict[tuple[str, str, int], CanaryEpoch] = field(default_factory=dict)
    _identity: dict[int, tuple[str, str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The device's name among those of all hosts."""
        return self.target.name

    @property
    def on_host(self) -> bool:
        """Whether its models run on the host's own cores: such devices take turns."""
        launches = type(self.device).launcher is not Device.launcher
        return self.device.name == "shell" or not launches

    def identity(self, threads: int) -> tuple[str, str]:
        """Keys of its fingerprint and of its canaries; a device at work is not asked again."""
        if not self.busy or threads not in self._identity:
            fingerprint = self.target.fingerprint(threads).key
            self._identity[threads] = fingerprint, canary_key(self.target.canaries(threads))
        return self._identity[threads]

    def told(self) -> dict[str, Any]:
        """What ``hwbench fleet status`` says of it: plain values."""
        state = "set aside" if self.aside else "busy" if self.busy else "free"
        return {
            "device": self.name,
            "kind": self.kind,
            "state": state,
            "blocks": self.blocks,
            "word": self.word,
        }


class SetAsideError(DeviceError):
    """All devices of a kind that a worker has are set aside."""


class Seats:
    """All devices of one worker. Threads take one each, and give it back."""

    def __init__(self, seats: Sequence[Seat], most_failures: int = MOST_FAILURES) -> None:
        self._seats, self._most = tuple(seats), most_failures
        self._free = threading.Condition()

    @property
    def resources(self) -> dict[str, float]:
        """What the worker announces: how many devices of each kind."""
        return {kind: float(n) for kind, n in Counter(s.kind for s in self._seats).items()}

    def told(self) -> list[dict[str, Any]]:
        """All seats' :meth:`Seat.told`."""
        return [seat.told() for seat in self._seats]

    def of(self, kind: str) -> list[Seat]:
        """The seats of a kind that are not set aside."""
        return [seat for seat in self._seats if seat.kind == kind and not seat.aside]

    @contextmanager
    def taken(self, kind: str, name: str | None = None) -> Iterator[Seat]:
        """A free device of a kind, or the one of that name; waits until there is one.

        What goes wrong inside by the device's own fault counts against it.

        Raises:
            SetAsideError: none of them is left.
        """
        with self._free:
            while (seat := self._choice(kind, name)) is None:
                self._free.wait()
            seat.busy = True
        try:
            yield seat
        except (UsageError, InconclusiveError):  # of what was asked for; heat, which passes
            raise
        except HwbenchError as error:
            self._failed(seat, error)
            raise
        else:
            seat.failures, seat.word = 0, ""
            seat.blocks += 1
        finally:
            with self._free:
                seat.busy = False
                self._free.notify_all()

    def _choice(self, kind: str, name: str | None) -> Seat | None:
        fit = [seat for seat in self.of(kind) if name in (None, seat.name)]
        if not fit:
            words = [f"{s.name}: {s.word}" for s in self._seats if s.kind == kind and s.aside]
            raise SetAsideError("; ".join(words) or f"there is no {name or kind} here")
        host_at_work = any(seat.busy and seat.on_host for seat in self._seats)
        free = [s for s in fit if not s.busy and not (s.on_host and host_at_work)]
        return min(free, key=lambda seat: seat.failures, default=None)

    def _failed(self, seat: Seat, error: HwbenchError) -> None:
        seat.failures += 1
        seat.word = str(error)
        seat.aside = seat.failures >= self._most


def seats_of(listed: Sequence[str], options: Mapping[str, str], host: str | None) -> list[Seat]:
    """The seats of ``DEVICE`` or ``KIND=DEVICE`` texts; a DEVICE's own kind is its name's.

    ``options`` are those of every device among them that has such ones. Raises UsageError or
    UnknownNameError as :func:`hwbench.devices.get_device` does, and for an option of none; what
    :meth:`Device.named` does.
    """
    seats = []
    unused = set(options)
    for text in listed:
        kind, equals, name = text.rpartition("=")
        base = name.partition(":")[0]
        if (equals and not kind) or not name:
            raise UsageError(f"device {text!r}: write it as cpu, adb:SERIAL, or pixel7=adb:SERIAL")
        known = getattr(device_class(base).options_type, "__dataclass_fields__", {})
        own = {name: value for name, value in options.items() if name in known}
        unused -= set(own)
        device = get_device(name, own).named()
        seats.append(Seat(kind or base, device, Lent(device, host)))
    if unused:
        raise UsageError(f"option {sorted(unused)[0]!r}: none of the devices has it")
    if doubled := [name for name, n in Counter(s.name for s in seats).items() if n > 1]:
        raise UsageError(f"device {doubled[0]} is named twice")
    return seats
