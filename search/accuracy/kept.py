"""Accuracies that outlive the process: a search that is killed does not pay for its labels twice.

>>> source = KeptAccuracy(source, Path("labels.jsonl"), "supernet of 26 November, seed 0")

One line a label, written as soon as it is known; the first line says of what they are. A search
asks for the same architectures again when it is run again with the same seed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import UsageError
from hwbench.inputs import json_lines, require_finite
from hwbench.search.accuracy.base import AccuracySource, checked_accuracy
from hwbench.spaces.base import Codes

#: How every file begins, and a length that no header reaches.
_BEGIN, _LONGEST_HEADER = b'\n{"space": ', 1 << 16
#: Characters of a foreign line that are shown.
_SHOWN = 60


class KeptAccuracy:
    """A source whose answers are kept in a file; ``about`` names the source they are of.

    UsageError where the file is of another space or source. A last line that was cut short is
    asked for again. ``asked`` counts the architectures that the source itself was asked for,
    ``at_once`` at a time.
    """

    def __init__(self, source: AccuracySource, path: Path, about: str, *, at_once: int = 1) -> None:
        self.space = source.space
        self.asked = 0
        self._source, self._path, self._at_once = source, path, at_once
        self._header = {"space": source.space.name, "about": about}
        self._known = self._read()

    def accuracy(self, codes: Codes) -> NDArray[np.float64]:
        """Accuracies (n,) of codes (n, L): from the file, or from the source and then kept.

        An interruption loses the ``at_once`` that are being asked for, no others.
        """
        rows = self.space.canonical(codes)
        texts = self.space.decode(rows)
        new = {text: row for row, text in zip(rows, texts, strict=True) if text not in self._known}
        names = list(new)
        for start in range(0, len(names), self._at_once):
            some = names[start : start + self._at_once]
            asked = np.stack([new[text] for text in some])
            for text, value in zip(some, checked_accuracy(self._source, asked), strict=True):
                self._known[text] = float(value)
                self._append({"architecture": text, "accuracy": self._known[text]})
            self.asked += len(some)
        return np.array([self._known[text] for text in texts])

    def _append(self, entry: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            # A line of its own, whatever an interruption left at the end.
            file.write(f"\n{json.dumps(entry)}\n")

    def _read(self) -> dict[str, float]:
        if not self._path.exists() or _is_unbegun(self._path):
            # Another search may do the same at this moment: the first header counts for both.
            self._append(self._header)
        entries = json_lines(self._path)
        if not entries or entries[0] != self._header:
            raise UsageError(
                f"{self._path} holds no labels of {self._header['space']} by "
                f"{self._header['about']}: remove it, or keep these elsewhere"
            )
        return dict(self._label(entry) for entry in entries if entry != self._header)

    def _label(self, entry: Any) -> tuple[str, float]:
        match entry:
            case {"architecture": str(text), "accuracy": float(value) | int(value)}:
                if not isinstance(value, bool) and 0 <= value <= 1:
                    return text, float(value)
        raise UsageError(
            f"{self._path} has a line that is no label ({json.dumps(entry)[:_SHOWN]}): remove the "
            "line, it is asked for again"
        )


def _is_unbegun(path: Path) -> bool:
    """Whether nothing, or no more than a part of a header, was written before an interruption."""
    require_finite(path)
    with path.open("rb") as file:
        begin = file.read(_LONGEST_HEADER)
    return b"\n" not in begin[1:] and (begin.startswith(_BEGIN) or _BEGIN.startswith(begin))
