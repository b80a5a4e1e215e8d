"""The device side of adb on loopback, for tests: real clients, real wire, ordered faults."""

from tests.loopback.faults import (
    CorruptPush,
    DieInShell,
    DropPush,
    Faults,
    Hang,
    NoSpace,
    TruncateShell,
)
from tests.loopback.phone import LoopbackPhone

__all__ = [
    "CorruptPush",
    "DieInShell",
    "DropPush",
    "Faults",
    "Hang",
    "LoopbackPhone",
    "NoSpace",
    "TruncateShell",
]
