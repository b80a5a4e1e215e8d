"""Folders for as long as a run lasts, and the removal of those whose process was killed.

A folder's name tells the machine and the process that made it. Whoever makes one first removes
those whose process is gone from this machine; of other machines' nothing is known, and theirs stay.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

# Nine digits: no system has more, and none is too large to ask about.
_NAME = re.compile(r"hwbench-scratch-([0-9a-f]{8})-([0-9]{1,9})-\w+")


@cache
def machine() -> str:
    """Where a process number means what it says: this host since its start, this container."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def prefix() -> str:
    """What the names of this process's folders begin with."""
    return f"hwbench-scratch-{machine()}-{os.getpid()}-"


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder among the temporary files, removed at the end or by a later run."""
    sweep()
    with tempfile.TemporaryDirectory(prefix=prefix()) as folder:
        yield Path(folder)


def sweep() -> None:
    """Remove the folders of processes of this machine that are gone; what resists stays."""
    import psutil

    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match is None or match[1] != machine() or psutil.pid_exists(int(match[2])):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
