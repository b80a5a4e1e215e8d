"""Files that somebody names: read only where that comes to an end, and as far as they are whole."""

from __future__ import annotations

import errno
import gzip
import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_PART = 1 << 20


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file as it is now: device, inode, bytes, and the time of its last change in ns.

    Where it still holds later, so does what was read after it was taken.
    """

    path: Path
    state: tuple[int, int, int, int]

    @classmethod
    def of(cls, path: Path) -> Self:
        """The file's stamp. OSError where there is none."""
        found = path.stat()
        return cls(path, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))

    def holds(self) -> bool:
        """Whether the file is there, and is the same."""
        try:
            return Stamp.of(self.path) == self
        except OSError:
            return False


def require_finite(path: Path) -> None:
    """OSError for a pipe or a device, which may never end; a folder is refused where it is read."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file")


def require_inflated(path: Path, most: int) -> None:
    """OSError where a ``.gz`` file holds more than ``most`` bytes, or is damaged."""
    require_finite(path)
    if path.suffix.lower() != ".gz":
        return
    size = 0
    with gzip.open(path) as file:
        while part := file.read(_PART):
            size += len(part)
            if size > most:
                raise OSError(errno.EFBIG, f"it holds more than {most >> 20:,} MiB uncompressed")


def json_lines(path: Path) -> list[Any]:
    """What each line of a file holds; one that is no JSON, cut short or damaged, is left out."""
    require_finite(path)
    found = []
    for line in path.read_bytes().split(b"\n"):
        try:
            found.append(json.loads(line.decode()))
        except (ValueError, RecursionError):
            continue
    return found
