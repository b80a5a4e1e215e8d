"""What can go wrong with a phone, ordered by a test at any time.

An order strikes once (or ``times`` times) at the next shell command, or pushed path, that holds
``match``. A condition (slow link, offline, unauthorised) holds until it is lifted.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True)
class Fault:
    """An order; ``match`` is a part of the shell command or of the remote path."""

    match: str = ""


@dataclass(frozen=True)
class DropPush(Fault):
    """The connection breaks in mid-push; what had come stays on the phone, cut."""

    after_bytes: int = 0


@dataclass(frozen=True)
class CorruptPush(Fault):
    """A pushed file arrives with one byte changed, and is reported as sound."""


@dataclass(frozen=True)
class NoSpace(Fault):
    """The phone's storage is full."""


@dataclass(frozen=True)
class DieInShell(Fault):
    """The connection breaks in the middle of a command: after so much output, or so long.

    ``offline_s`` seconds go by before the phone accepts connections again.
    """

    after_bytes: int | None = None
    after_s: float | None = None
    kill_child: bool = True
    offline_s: float = 0.0

    def __post_init__(self) -> None:
        if self.after_bytes is None and self.after_s is None:
            raise ValueError("say when to die: after_bytes or after_s")


@dataclass(frozen=True)
class TruncateShell(Fault):
    """A command's stream ends cleanly after so many bytes, without an exit code."""

    after_bytes: int = 0


@dataclass(frozen=True)
class Hang(Fault):
    """The phone answers nothing more, on any connection, for ``seconds``."""

    seconds: float = math.inf


F = TypeVar("F", bound=Fault)


@dataclass
class _Order:
    fault: Fault
    left: int


class Faults:
    """The faults of one phone. Thread-safe: a test orders, the daemon's thread takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: list[_Order] = []
        self._bytes_per_s = math.inf
        self._offline_until = 0.0
        self._mute_until = 0.0
        self._authorised = True

    def order(self, fault: Fault, times: int = 1) -> None:
        """Let ``fault`` strike the next ``times`` commands or paths that it matches."""
        with self._lock:
            self._orders.append(_Order(fault, times))

    def pending(self) -> tuple[Fault, ...]:
        """The orders that have not struck as often as ordered."""
        with self._lock:
            return tuple(order.fault for order in self._orders)

    def clear(self) -> None:
        """Lift every order and condition."""
        with self._lock:
            self._orders.clear()
            self._bytes_per_s = math.inf
            self._offline_until = self._mute_until = 0.0
            self._authorised = True

    @contextmanager
    def slow_link(self, bytes_per_s: float) -> Iterator[None]:
        """Both directions together carry so much, while the block runs."""
        self._bytes_per_s = bytes_per_s
        try:
            yield
        finally:
            self._bytes_per_s = math.inf

    def go_offline(self, seconds: float = math.inf) -> None:
        """Connections break, and new ones are refused for so long."""
        with self._lock:
            self._offline_until = max(self._offline_until, time.monotonic() + seconds)

    def come_online(self) -> None:
        """Accept connections again."""
        self._offline_until = 0.0

    def go_mute(self, seconds: float) -> None:
        """Answer nothing for so long."""
        self._mute_until = time.monotonic() + seconds

    def authorise(self, yes: bool) -> None:
        """Whether the phone's owner lets this computer in; asked at each new connection."""
        self._authorised = yes

    # What the daemon asks.

    def take(self, kind: type[F], subject: str) -> F | None:
        """The next order of that kind which matches, used up by one."""
        with self._lock:
            for order in self._orders:
                if isinstance(order.fault, kind) and order.fault.match in subject:
                    order.left -= 1
                    if order.left == 0:
                        self._orders.remove(order)
                    return order.fault
        return None

    @property
    def bytes_per_s(self) -> float:
        return self._bytes_per_s

    @property
    def offline(self) -> bool:
        return time.monotonic() < self._offline_until

    @property
    def mute(self) -> bool:
        return time.monotonic() < self._mute_until

    @property
    def authorised(self) -> bool:
        return self._authorised
