"""Seconds that a long job has taken, kept in a file: those before a kill count as well."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hwbench.predictors.files import replace_file

_EVERY = 5.0


class Work:
    """Counts seconds by what was done, in the file ``path`` of what was counted before.

    It counts seconds of this process's processor, which other work on the machine hardly changes;
    on a machine at rest they pass on the wall clock, or fewer where several threads work.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, float] = {}
        if path.exists():
            self._kept = {k: float(v) for k, v in json.loads(path.read_text("utf-8")).items()}
        self._saved = time.monotonic()
        self._what, self._now, self._last = "", time.process_time, 0.0

    @property
    def seconds(self) -> float:
        """All of them."""
        return sum(self._kept.values())

    @contextmanager
    def on(self, what: str, *, wall: bool = False) -> Iterator[None]:
        """Count what goes on inside; ``wall``: seconds that pass, for what other processes do."""
        self._what, self._now = what, time.monotonic if wall else time.process_time
        self._last = self._now()
        try:
            yield
        finally:
            self._count()
            self._write()
            self._what = ""

    def keep(self) -> None:
        """Call now and then from inside: a kill loses what has passed since."""
        if self._what and time.monotonic() - self._saved > _EVERY:
            self._count()
            self._write()

    def _count(self) -> None:
        now = self._now()
        self._kept[self._what] = self._kept.get(self._what, 0.0) + now - self._last
        self._last = now

    def _write(self) -> None:
        replace_file(self._path, json.dumps(self._kept, indent=1).encode())
        self._saved = time.monotonic()
