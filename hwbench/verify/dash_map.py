"""The map of DASH's operators: which cells there are, and the measuring of one.

A row of the map is a layer (sizes, channels, batch, groups); its columns are mixtures of the
first i kernel sizes and dilations. The operators of a cell are timed interleaved, round by round.
Those that are clearly slower than the fastest dense one are tried once, and those that would take
seconds for nothing are left out: the row says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hwbench.devices.cuda.stream import Stream, Work
from hwbench.errors import DeviceError
from hwbench.search.dash import Case, Chooser, Mixture
from hwbench.search.dash.costs import counts, plain_is_hopeless
from hwbench.search.dash.operators import (
    CROPPED_RESULTS,
    DENSE,
    FOURIER,
    PLAIN,
    RESULTS,
    WEIGHTS,
)
from hwbench.search.dash.timing import Race, Ratio

KERNELS = {1: (3, 5, 7, 9, 11, 13, 15), 2: (3, 5, 7, 9)}
DILATIONS = {1: (1, 3, 7, 15, 31, 63, 127), 2: (1, 3, 7, 15)}
#: Work that would take longer, and this many times the fastest dense form, is left out.
MOST_NS = {"cpu": 3e9, "cuda": 1e9}
_HOPELESS = 3.0
#: Dense forms this near to the fastest of them are timed in every round.
_NEAR = 1.5

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Layer:
    """A row of the map. ``axis`` is what differs from the base layer, ``""`` for that itself."""

    axis: str
    dims: int
    length: int
    channels: int
    batch: int
    groups: int = 1

    @property
    def label(self) -> str:
        """For a figure."""
        size = f"{self.length}²" if self.dims == 2 else f"{self.length}"
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        return f"n {size}, c {self.channels}, batch {self.batch}{groups}"

    def case(self, i: int, training: bool) -> Case:
        """With the first i kernel sizes and dilations."""
        c, dims = self.channels, self.dims
        mixture = Mixture.grid(
            KERNELS[dims][:i], DILATIONS[dims][:i], c, c, dims, groups=self.groups
        )
        return Case(mixture, self.batch, (self.length,) * dims, training)


@dataclass(frozen=True, slots=True)
class Cell:
    """One layer, the first i of everything, forward alone or a training step's both ways."""

    layer: Layer
    i: int
    training: bool
    #: Time the rival of a bar in every round: mixed results in 1D, the published form in 2D.
    full: bool = False

    @property
    def case(self) -> Case:
        """Its case."""
        return self.layer.case(self.i, self.training)

    @property
    def rival(self) -> str | None:
        """What is timed in every round, whatever it takes."""
        return (RESULTS if self.layer.dims == 1 else PLAIN) if self.full else None

    @property
    def key(self) -> str:
        """What tells it from others."""
        layer = self.layer
        sizes = f"{layer.dims} {layer.length} {layer.channels} {layer.batch} {layer.groups}"
        return f"{sizes} {self.i} {int(self.training)} {int(self.full)}"


def layers(base: Layer, **others: tuple[int, ...]) -> list[Layer]:
    """A base layer, and those that differ from it in one thing: ``length=(125, 250)``."""
    return [base] + [
        replace(base, axis=axis, **{axis: value}) for axis, vs in others.items() for value in vs
    ]


def cells(rows: list[Layer], columns: Mapping[int, tuple[int, ...]]) -> list[Cell]:
    """All of a map, the base layers and training first; ``columns`` are the i's by dims."""
    found = [
        Cell(layer, i, training, not layer.axis and training and i == max(columns[layer.dims]))
        for layer in rows
        for training in (True, False)
        for i in columns[layer.dims]
    ]
    return sorted(found, key=lambda cell: (bool(cell.layer.axis), not cell.training))


class Mapper:
    """Measures cells on a stream; what a row's earlier cells took tells what to leave out."""

    def __init__(self, stream: Stream, chooser: Chooser, seconds: float, seed: int) -> None:
        self._stream, self._chooser = stream, chooser
        self._seconds, self._seed = seconds, seed
        self._taken: dict[tuple[Layer, bool, str], tuple[str, Case, float]] = {}

    def measured(self, cell: Cell) -> Row:
        """The cell's row: medians in ns, rounds, times over Fourier's with intervals, the choice
        of ``auto`` and its time over that of the fastest (the published form is no choice), and
        what was left out."""
        case = cell.case
        work = case.works(self._stream.device, seed=self._seed)
        race = Race(self._stream, self._seed)
        left_out: dict[str, str] = {}
        for name in self._names(cell):
            why = self._too_long(cell, name, race) or tried(race, name, work(name))
            if why:
                left_out[name] = why
            else:
                self._taken[cell.layer, cell.training, _form(name)] = (
                    name,
                    case,
                    race.trial_ns[name],
                )
        auto = self._chooser.choose(case)
        wanted = {FOURIER, *self._near(race), auto, cell.rival}
        times = race.run([n for n in race.trial_ns if n in wanted], self._seconds)
        ratios = {n: times.ratio(n, FOURIER) for n in race.trial_ns}
        fastest = min((n for n in race.trial_ns if n != PLAIN), key=times.median_ns)
        lost = times.ratio(auto, fastest) if auto in race.trial_ns else Ratio(math.inf, None, None)
        return {
            "key": cell.key,
            "ns": {n: times.median_ns(n) for n in race.trial_ns},
            "rounds": {n: len(times.by_work[n]) for n in race.trial_ns},
            "over_fourier": {n: [r.value, r.low, r.high] for n, r in ratios.items()},
            "auto": auto,
            "auto_over_fastest": [lost.value, lost.low, lost.high],
            "tried": len(self._chooser.near(case)) > 1,
            "left_out": left_out,
        }

    def _names(self, cell: Cell) -> list[str]:
        """The fast ones first: they tell what is hopeless."""
        case = cell.case
        names = [FOURIER, *case.dense]
        if case.dense[0] == CROPPED_RESULTS:
            names.append(RESULTS)
            if not plain_is_hopeless(case):
                names.append(WEIGHTS)
        return [*names, PLAIN]

    def _near(self, race: Race) -> list[str]:
        dense = {n: ns for n, ns in race.trial_ns.items() if n in DENSE}
        return [n for n, ns in dense.items() if ns <= _NEAR * min(dense.values())]

    def _too_long(self, cell: Cell, name: str, race: Race) -> str:
        """Why a work is left out, by what it took with fewer candidates; "" if it is not."""
        known = self._taken.get((cell.layer, cell.training, _form(name)))
        if known is None or name in (FOURIER, cell.rival):
            return ""
        kind, before, ns = known
        expected = ns * counts(name, cell.case).operations / counts(kind, before).operations
        fastest = min((t for n, t in race.trial_ns.items() if n in DENSE), default=0.0)
        if expected < max(MOST_NS[self._stream.device.type], _HOPELESS * fastest):
            return ""
        return f"would take about {expected / 1e9:.1f} s"


def _form(name: str) -> str:
    """An operator, cropped or not."""
    return name.removesuffix(", cropped")


def tried(race: Race, name: str, work: Work) -> str:
    """Add a work to a race; why it cannot run there, "" if it can.

    Memory may be too small, and cuDNN has no algorithm for some kernels.
    """
    try:
        race.add(name, work)
    except DeviceError as error:
        if name == FOURIER or not isinstance(error.__cause__, torch.OutOfMemoryError):
            raise
        return "out of memory"
    except RuntimeError as error:
        if name == FOURIER:
            raise
        return f"torch refuses: {(str(error).splitlines() or [''])[0][:100]}"
    return ""


def kept_rows(
    path: Path, keys: list[str], measure: Callable[[str], Row], go_on: Callable[[], bool]
) -> Iterator[Row]:
    """The row of each key: from the file, else measured and appended to it while ``go_on``."""
    known: dict[str, Row] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:  # empty, or cut short by an interruption
            continue
        known[row["key"]] = row
    with path.open("a", encoding="utf-8") as file:
        for key in keys:
            if key not in known:
                if not go_on():
                    continue
                known[key] = measure(key)
                # A line of its own, whatever an interruption left at the end.
                file.write(f"\n{json.dumps(known[key])}\n")
                file.flush()
            yield known[key]
