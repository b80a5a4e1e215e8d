"""Sessions on a device by name: what a killed one left there is found, and cleared for certain.

Each session has a folder of its own, named after the process that made it, and all that it starts
on the device carries that name in its environment: children that outlived their connection, or
their parents, are found by it. A session is dead where its process is gone from this machine, or
where nothing came into its folder for a week: other machines use the phone too.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import Iterable

from hwbench.measure.scratch import machine

#: The variable that marks the processes of a session.
MARK = "HWBENCH_SESSION"
# Nine digits: no system has more, and none is too large to ask about.
_NAME = re.compile(r"hwbench-([0-9a-f]{8})-([0-9]{1,9})-[0-9a-f]{16}")
_SILENT_DAYS = 7


def session_name() -> str:
    """A name that nobody can have taken: of this machine, this process, and random."""
    return f"hwbench-{machine()}-{os.getpid()}-{secrets.token_hex(8)}"


def list_commands(base: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Two argument lists: they print the sessions' folders in ``base``, and the silent ones."""
    find = ("find", base, "-maxdepth", "1", "-type", "d", "-name", "hwbench-*")
    return find, (*find, "-mtime", f"+{_SILENT_DAYS - 1}")


def dead_sessions(listed: str, silent: str) -> list[str]:
    """Names of the sessions that are dead, from what :func:`list_commands` printed."""
    silent_ones = set(_names(silent))
    return [name for name in _names(listed) if _is_dead(name, silent=name in silent_ones)]


def _names(printed: str) -> list[str]:
    names = (line.strip().rpartition("/")[2] for line in printed.splitlines())
    return sorted(name for name in names if _NAME.fullmatch(name))


def _is_dead(name: str, *, silent: bool) -> bool:
    import psutil

    match = _NAME.fullmatch(name)
    assert match is not None
    if match[1] == machine():
        return not psutil.pid_exists(int(match[2]))
    return silent


def kill_script(name: str) -> str:
    """Ends every process of a session, whatever became of its parents; no other has its mark."""
    mark = shlex.quote(f"{MARK}={name}")
    return (
        f"for found in $(grep -ls {mark} /proc/[0-9]*/environ); do"
        ' found=${found%/environ}; kill -s KILL "${found#/proc/}" 2>/dev/null; done'
    )


def clear_script(base: str, names: Iterable[str]) -> str:
    """Ends these sessions' processes and removes their folders in ``base``."""
    lines = []
    for name in names:
        lines.append(kill_script(name))
        lines.append(shlex.join(["rm", "-rf", "--", f"{base}/{name}"]))
    return "\n".join(lines)
