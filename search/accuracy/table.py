"""Accuracies from a table that somebody trained: NAS-Bench-201 and the like.

The file is an npz without objects: ``ops`` (n, L) indexes ``op_names`` for each decision in the
space's order, ``acc`` (n, d) are accuracies in per cent and ``acc_names`` (d,) the datasets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import UnknownNameError, UsageError
from hwbench.search.data.files import read_npz
from hwbench.spaces.base import Codes, Space

_ARRAYS = ("ops", "op_names", "acc", "acc_names")


class TableAccuracy:
    """Accuracy by look-up; architectures that the table lacks are refused."""

    def __init__(self, space: Space, codes: Codes, accuracy: NDArray[np.float64]) -> None:
        self.space = space
        rows = space.canonical(codes)
        self._known = {row.tobytes(): float(a) for row, a in zip(rows, accuracy, strict=True)}

    def accuracy(self, codes: Codes) -> NDArray[np.float64]:
        """Accuracies (n,), 0 to 1, of codes (n, L); UsageError names one that is not there."""
        rows = self.space.canonical(codes)
        found = [self._known.get(row.tobytes(), np.nan) for row in rows]
        values = np.array(found, dtype=np.float64)
        if (missing := np.isnan(values)).any():
            (text,) = self.space.decode(rows[missing][:1])
            raise UsageError(f"the table of accuracies has no {text!r} of {self.space.name}")
        return values


def read_table(path: Path, space: Space, dataset: str) -> TableAccuracy:
    """The accuracies of one dataset; UsageError says what is wrong with the file."""
    arrays = read_npz(path, _ARRAYS)
    if missing := [name for name in _ARRAYS if name not in arrays]:
        raise UsageError(f"{path} has no array {missing[0]!r}: is it a table of accuracies?")
    names = _names(path, arrays, "acc_names")
    if dataset not in names:
        raise UnknownNameError(f"dataset of {path}", dataset, names)
    ops, percent = arrays["ops"], arrays["acc"]
    width = len(space.decisions)
    if ops.ndim != 2 or ops.shape[1] != width or percent.shape != (len(ops), len(names)):
        raise UsageError(
            f"{path}: ops {ops.shape} and acc {percent.shape} are not (n, {width}) and "
            f"(n, {len(names)}): is it of another space than {space.name}?"
        )
    if not len(ops):
        raise UsageError(f"{path} has no architectures: give a table with a row for each")
    if percent.dtype.kind not in "fiu":
        raise UsageError(f"{path}: acc are {percent.dtype}: give numbers from 0 to 100")
    accuracy = percent[:, names.index(dataset)].astype(np.float64) / 100
    if not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise UsageError(f"{path}: accuracies of {dataset} are not all from 0 to 100 per cent")
    return TableAccuracy(
        space, _codes(path, space, ops, _names(path, arrays, "op_names")), accuracy
    )


def _codes(path: Path, space: Space, ops: NDArray[Any], op_names: Sequence[str]) -> Codes:
    """Codes (n, L) of the file's own numbering of the operations."""
    if not np.issubdtype(ops.dtype, np.integer) or ops.min() < 0 or ops.max() >= len(op_names):
        raise UsageError(f"{path}: ops does not index the {len(op_names)} op_names")
    columns = []
    for j, decision in enumerate(space.decisions):
        try:
            code = [space.value(decision.name, name) for name in op_names]
        except UsageError as error:
            raise UsageError(f"{path}: op_names: {error}") from None
        columns.append(np.array([decision.values.index(v) for v in code])[ops[:, j]])
    return np.stack(columns, axis=1).astype(np.int16)


def _names(path: Path, arrays: Mapping[str, NDArray[Any]], name: str) -> list[str]:
    found = arrays[name]
    if found.ndim != 1 or found.dtype.kind != "U":
        raise UsageError(f"{path}: {name} are {found.dtype} {found.shape}: give a list of texts")
    return [str(each) for each in found]
