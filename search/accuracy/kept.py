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
from hwbench.search.accuracy.base import AccuracySource, checked_accuracy
from hwbench.spaces.base import Codes


class KeptAccuracy:
    """A source whose answers are kept in a file; ``about`` names the source they are of.

    UsageError where the file is of another space or source. A last line that was cut short is
    asked for again. ``asked`` counts the architectures that the source itself was asked for.
    """

    def __init__(self, source: AccuracySource, path: Path, about: str) -> None:
        self.space = source.space
        self.asked = 0
        self._source, self._path = source, path
        self._header = {"space": source.space.name, "about": about}
        self._known = self._read()

    def accuracy(self, codes: Codes) -> NDArray[np.float64]:
        """Accuracies (n,) of codes (n, L): from the file, or from the source and then kept.

        New ones are asked for one at a time, so that none is lost.
        """
        rows = self.space.canonical(codes)
        found = []
        for row, text in zip(rows, self.space.decode(rows), strict=True):
            if text not in self._known:
                self._known[text] = float(checked_accuracy(self._source, row[None])[0])
                self.asked += 1
                self._append({"architecture": text, "accuracy": self._known[text]})
            found.append(self._known[text])
        return np.array(found)

    def _append(self, entry: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            # A line of its own, whatever an interruption left at the end.
            file.write(f"\n{json.dumps(entry)}\n")

    def _read(self) -> dict[str, float]:
        if not self._path.exists():
            self._append(self._header)
            return {}
        entries = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue
        if not entries or entries[0] != self._header:
            raise UsageError(
                f"{self._path} holds no labels of {self._header['space']} by "
                f"{self._header['about']}: remove it, or keep these elsewhere"
            )
        try:
            return {str(e["architecture"]): float(e["accuracy"]) for e in entries[1:]}
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{self._path} has a line that is no label ({error})") from None
