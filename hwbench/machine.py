"""Which machine this is: what tells it from others of its make, and says nothing of its owner."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from pathlib import Path
from typing import Final

#: The fact of a fingerprint that holds it.
MACHINE_FACT: Final = "machine_id"
#: Names a machine that has no lasting identity of its own, such as a container.
MACHINE_VARIABLE: Final = "HWBENCH_MACHINE"

_IDS: Final = ("etc/machine-id", "var/lib/dbus/machine-id")
_HOST_NAME: Final = "proc/sys/kernel/hostname"
#: machine-id(5): the id itself is confidential, and to be hashed by a key of the application's.
_PURPOSE: Final = b"hwbench: whose latencies are these"
_DIGITS: Final = 16


def machine_id(root: Path = Path("/")) -> str | None:
    """16 hex digits that stay over restarts; ``None`` where nothing tells machines apart.

    A hash of ``HWBENCH_MACHINE`` where that is set, else of the machine-id that the system was
    given when it was installed, else of the host's name. ``root`` is where its files lie.
    """
    named = os.environ.get(MACHINE_VARIABLE) or _installed(root) or _text(root / _HOST_NAME)
    if not named:
        return None
    return hmac.new(named.encode(), _PURPOSE, hashlib.sha256).hexdigest()[:_DIGITS]


def product(root: Path = Path("/")) -> str | None:
    """What the machine is sold as; ``None`` where it does not tell."""
    names = ("proc/device-tree/model", "sys/class/dmi/id/product_name")
    lines = (_text(root / name).splitlines() for name in names)
    return next((told[0] for told in lines if told), None)


def _installed(root: Path) -> str | None:
    """An image that was never started says "uninitialized", or nothing."""
    told = (_text(root / name) for name in _IDS)
    return next((text for text in told if text and re.fullmatch("[0-9a-f]{32}", text)), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\n")
    except OSError:  # absent, or not ours to read
        return ""
