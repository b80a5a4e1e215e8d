"""Files that appear whole or not at all."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hwbench.errors import UsageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path`` to write to; after the block it takes the place of ``path``.

    If the block raises, ``path`` is as before. A link stays, what it points to is replaced; a
    device or a pipe is written to itself. What the disk refuses is a UsageError.
    """
    is_file = path.is_file() or not path.exists()
    real = Path(os.path.realpath(path)) if is_file else path
    # Its suffixes still tell the format.
    draft = real.with_name(f".{os.getpid()}.{path.name}") if is_file else path
    try:
        yield draft
        if is_file:
            os.replace(draft, real)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UsageError(f"cannot write {path}: {reason}: name another place") from error
    finally:
        if is_file:
            draft.unlink(missing_ok=True)


def writing(path: Path) -> IO[bytes] | gzip.GzipFile:
    """``path`` opened for writing, compressed where its name ends with ``.gz``."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "wb", compresslevel=6)
    return path.open("wb")
