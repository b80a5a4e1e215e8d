"""NAS-Bench-201 with the latencies and accuracies of a user's tables: where regret is exact.

A folder holds ``nasbench201_acc.npz`` (:mod:`hwbench.search.accuracy.table`) and pairs of CSV files
``nb201_*_archs`` and ``nb201_*_latency`` (:mod:`hwbench.predictors.published`), at any depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.errors import UsageError
from hwbench.predictors import BudgetOracle, LatencyPredictor, TrainingSet
from hwbench.predictors.oracle import Archs
from hwbench.predictors.published import read_published
from hwbench.records import Measurement
from hwbench.search.accuracy.table import read_table
from hwbench.spaces import Codes
from hwbench.spaces.nasbench201 import NasBench201Space

Array = NDArray[np.float64]

_ACCURACY, _DATASET = "nasbench201_acc.npz", "cifar10"
#: Columns that are sums of a model's terms, not measurements.
_ADDITIVE = ("eyeriss", "fpga")


class ListedCells(NasBench201Space):
    """The cells of a table alone: a search that leaves it could not be judged."""

    why = "the tables do not list it, or no path leads from its input to its output"

    def __init__(self, codes: Codes) -> None:
        super().__init__()
        self.name = "nasbench201-listed"
        self._weights = np.cumprod([1, *self.cardinalities[:-1]])
        self._listed = np.zeros(self.raw_size(), dtype=bool)
        self._listed[self.number(codes)] = True

    def valid(self, codes: ArrayLike) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self._listed[self.number(codes)]
        return found

    def number(self, codes: ArrayLike) -> NDArray[np.intp]:
        """A number (n,) of each code (n, L), below :meth:`raw_size`."""
        return self.check(codes).astype(np.intp) @ self._weights


@dataclass(frozen=True, eq=False)
class DeviceTable:
    """What is true of one device: latency (n,) in ms and accuracy (n,) of the cells listed."""

    device: str
    space: ListedCells
    labels: TrainingSet
    known_accuracy: Array

    @property
    def latency_ms(self) -> Array:
        return self.labels.latency_ms

    def latency(self, codes: Codes) -> Array:
        """True latency (n,) of listed codes."""
        return self.latency_ms[self._rows(codes)]

    def accuracy(self, codes: Codes) -> Array:
        """True accuracy (n,), 0 to 1: the table is an accuracy source."""
        return self.known_accuracy[self._rows(codes)]

    def _rows(self, codes: Codes) -> NDArray[np.intp]:
        return self._at[self.space.number(codes)]

    @cached_property
    def _at(self) -> NDArray[np.intp]:
        at = np.full(self.space.raw_size(), -1, dtype=np.intp)
        at[self.space.number(self.labels.codes)] = np.arange(len(self.labels))
        return at


class TableOracle(BudgetOracle):
    """An oracle whose device is the table: to measure is to look up.

    What is looked up is what it is judged by, so that it is known without error.
    """

    def __init__(self, predictor: LatencyPredictor, table: DeviceTable, known: TrainingSet) -> None:
        super().__init__(predictor)
        self._table = table
        self.know(known.codes, known.latency_ms, 0.0)

    def measure(self, archs: Archs) -> list[Measurement]:
        """Look codes up; no measurement was made, so none is returned."""
        codes = self.predictor.space.canonical(archs)
        self.know(codes, self._table.latency(codes), 0.0)
        return []


def find_tables(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Every device column in the folder, with its files of architectures and of latencies."""
    import pandas as pd

    columns: dict[str, tuple[Path, Path]] = {}
    for latency in sorted(folder.rglob("nb201_*_latency.csv*")):
        archs = latency.with_name(latency.name.replace("_latency.csv", "_archs.csv"))
        if archs.exists():
            names = pd.read_csv(latency, nrows=0).columns[1:]
            columns |= {str(name): (archs, latency) for name in names if name not in _ADDITIVE}
    if not columns:
        raise UsageError(
            f"{folder} has no pair of files nb201_*_archs.csv.gz and nb201_*_latency.csv.gz: "
            "name the folder of the NAS-Bench-201 tables"
        )
    return columns


def read_device(folder: Path, device: str, files: tuple[Path, Path]) -> DeviceTable:
    """One device of the tables, without the cells that are no network."""
    accuracies = sorted(folder.rglob(_ACCURACY))
    if not accuracies:
        raise UsageError(f"{folder} has no {_ACCURACY}: regret needs the accuracies too")
    table = read_published("nasbench201", *files, device)
    source = read_table(accuracies[0], table.space, _DATASET)
    codes = table.space.check(table.labels.codes)
    return DeviceTable(device, ListedCells(codes), table.labels, source.accuracy(codes))
