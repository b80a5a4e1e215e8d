"""What the rows of DASH's map and network say: speed-ups, break-even, exponents, bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from hwbench.search.dash import Case
from hwbench.search.dash.costs import counts
from hwbench.search.dash.operators import (
    CROPPED_RESULTS,
    CROPPED_WEIGHTS,
    DENSE,
    FOURIER,
    PLAIN,
    RESULTS,
    WEIGHTS,
)
from hwbench.search.dash.timing import Ratio
from hwbench.verify.dash_map import Cell, Layer, Row
from hwbench.verify.dash_net import AUTO, NETS

EXPONENT_BAR = 0.3
TIMES_BAR = 10.0
AUTO_BARS = 1.03, 1.10
PLAIN_BAR, RESULTS_BAR = 3.0, 8.0
#: The column of the lines over length, channels and batch.
LINE_COLUMN = 4
COMPARED = (RESULTS, WEIGHTS, FOURIER)

Measured = Sequence[tuple[Cell, Row]]


def speed_up(row: Row, rivals: Sequence[str] = DENSE) -> Ratio:
    """Of Fourier over the fastest rival that ran; NaN where none did."""
    ran = [name for name in rivals if name in row["ns"]]
    if not ran:
        return Ratio(math.nan, None, None)
    fastest = min(ran, key=lambda name: row["ns"][name])
    return Ratio(*row["over_fourier"][fastest])


# --- exponents ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """An operator's times along one axis: log-log slope with its 95 % half-width, and the slope
    that the counts have at the same points."""

    operator: str
    axis: str
    values: tuple[float, ...]
    ns: tuple[float, ...]
    fitted: float
    half: float
    derived: float

    @property
    def row(self) -> dict[str, Any]:
        """For the evidence."""
        return {
            "operator": self.operator,
            "axis": self.axis,
            "points": len(self.values),
            "fitted": round(self.fitted, 3),
            "half_width_95": round(self.half, 3),
            "derived": round(self.derived, 3),
        }


def lines(measured: Measured) -> list[Line]:
    """One for each axis and operator of the 1D map that has three points or more."""
    training = [(c, r) for c, r in measured if c.training and c.layer.dims == 1]
    column = max((c.i for c, _ in training if c.i <= LINE_COLUMN), default=0)
    readings: dict[str, Callable[[Case], float]] = {
        "taps": lambda case: case.mixture.taps,
        "length": lambda case: case.sizes[0],
        "channels": lambda case: case.mixture.c_in,
        "batch": lambda case: case.batch,
    }
    found = []
    for axis, reading in readings.items():
        own = [
            (cell.case, row)
            for cell, row in training
            if cell.layer.axis in ("", axis) and (axis == "taps" or cell.i == column)
        ]
        for operator in COMPARED:
            points = sorted(
                (reading(case), ns, counts(operator, case).operations)
                for case, row in own
                if (ns := _time(operator, row)) is not None
            )
            if len(points) >= 3:
                found.append(_line(operator, axis, points))
    return found


def _time(operator: str, row: Row) -> float | None:
    """In ns; of the cropped form where there is one."""
    cropped = {RESULTS: CROPPED_RESULTS, WEIGHTS: CROPPED_WEIGHTS}.get(operator, operator)
    found: float | None = row["ns"].get(cropped, row["ns"].get(operator))
    return found


def _line(operator: str, axis: str, points: list[tuple[float, float, float]]) -> Line:
    values, ns, operations = (tuple(column) for column in zip(*points, strict=True))
    x = np.log(values)
    fit = stats.linregress(x, np.log(ns))
    half = float(stats.t.ppf(0.975, len(x) - 2) * fit.stderr)
    derived = float(stats.linregress(x, np.log(operations)).slope)
    return Line(operator, axis, values, ns, float(fit.slope), half, derived)


def exponent_bars(found: Sequence[Line]) -> dict[str, bool]:
    """That Fourier grows the least with the candidates' taps, and that all growth is as derived."""
    bars = {}
    taps = {line.operator: line for line in found if line.axis == "taps"}
    own = taps.get(FOURIER)
    for name in (RESULTS, WEIGHTS):
        if own and name in taps:
            above = taps[name].fitted - taps[name].half
            bars[f"taps: Fourier's exponent below that of {name}, intervals apart"] = (
                own.fitted + own.half < above
            )
    for line in found:
        name = (
            f"{line.axis}, {line.operator}: {line.fitted:.2f} is within {EXPONENT_BAR} of the "
            f"derived {line.derived:.2f}"
        )
        bars[name] = abs(line.fitted - line.derived) <= EXPONENT_BAR
    return bars


# --- the map --------------------------------------------------------------------------------------


def break_even(measured: Measured, layer: Layer, training: bool) -> float | None:
    """Candidates from which on Fourier is faster than the fastest dense form, interpolated.

    0 where it is with the fewest measured, None where it is not with the most.
    """
    points = sorted(
        (len(cell.case.mixture.candidates), speed_up(row).value)
        for cell, row in measured
        if cell.layer == layer and cell.training == training
    )
    points = [(m, s) for m, s in points if not math.isnan(s)]
    below = [k for k, (_, s) in enumerate(points) if s < 1]
    if not below:
        return 0.0 if points else None
    if below[-1] + 1 == len(points):
        return None
    (m0, s0), (m1, s1) = points[below[-1]], points[below[-1] + 1]
    share = -math.log(s0) / (math.log(s1) - math.log(s0))
    return math.exp(math.log(m0) + share * (math.log(m1) - math.log(m0)))


def map_table(measured: Measured) -> list[dict[str, Any]]:
    """The map as figures, one entry a layer and direction."""
    table = []
    for layer, training in dict.fromkeys((c.layer, c.training) for c, _ in measured):
        own = [(c, r) for c, r in measured if (c.layer, c.training) == (layer, training)]
        even = break_even(measured, layer, training)
        table.append(
            {
                "layer": f"{layer.dims}D {layer.label}",
                "training": training,
                "break_even_candidates": None if even is None else round(even, 1),
                "columns": [c.i for c, _ in own],
                "over_fastest_dense": [rounded(speed_up(r)) for _, r in own],
                "over_mixed_results": [rounded(speed_up(r, (RESULTS,))) for _, r in own],
                "over_plain_fourier": [rounded(speed_up(r, (PLAIN,))) for _, r in own],
            }
        )
    return table


def rounded(ratio: Ratio) -> list[float | None]:
    """Value, low, high; None where there is none."""
    ends = (ratio.value, ratio.low, ratio.high)
    return [None if v is None or math.isnan(v) else round(v, 3) for v in ends]


def best(measured: Measured) -> tuple[Cell, Ratio]:
    """The cell with the largest speed-up over its fastest dense form; NaN where none ran."""
    found = [(cell, speed_up(row)) for cell, row in measured]
    return max(found, key=lambda pair: np.nan_to_num(pair[1].value))


def auto_losses(measured: Measured) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What the choice takes in each cell, over the fastest."""
    return np.array([row["auto_over_fastest"][0] for _, row in measured])


def auto_bars(losses: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, bool]:
    """The two bars of the choice."""
    mean, worst = AUTO_BARS
    return {
        f"auto takes {mean:g} times the fastest or less, on average": bool(losses.mean() <= mean),
        f"auto takes {worst:g} times the fastest or less, at worst": bool(losses.max() <= worst),
    }


def own_bars(measured: Measured) -> dict[str, bool]:
    """What this project's Fourier form has to reach on one core, in the two cells for that."""
    bars = {}
    for cell, row in measured:
        if cell.full and cell.layer.dims == 2:
            low = speed_up(row, (PLAIN,)).low
            name = (
                f"2D, {cell.layer.label}, {cell.i} x {cell.i}: {PLAIN_BAR:g}x over the plain form"
            )
            bars[name] = low is not None and low >= PLAIN_BAR
        elif cell.full:
            low = speed_up(row, (RESULTS,)).low
            name = (
                f"1D, {cell.layer.label}, {cell.i} x {cell.i}: {RESULTS_BAR:g}x over mixed results"
            )
            bars[name] = low is not None and low >= RESULTS_BAR
    return bars


# --- the network and the headline -----------------------------------------------------------------


def net_table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A step in ms each way, and the speed-ups of both comparisons."""
    table = []
    for row in rows:
        released = [Ratio(*row["over_released"][n]) for n in row["over_released"]]
        fastest = min(released, key=lambda ratio: ratio.value, default=Ratio(math.nan, None, None))
        table.append(
            {
                "kernels_and_dilations": int(row["key"]),
                "step_ms": {n: round(row["ns"][n] / 1e6, 3) for n in NETS if n in row["ns"]},
                "equal_groups_over_fastest_dense": rounded(speed_up(row)),
                "equal_groups_over_mixed_results": rounded(speed_up(row, (RESULTS,))),
                "unequal_as_released_over_fastest_dense": rounded(fastest),
                "auto_over_fourier": rounded(speed_up(row, (AUTO,))),
                "left_out": row["left_out"],
            }
        )
    return table


def headline_bars(measured: Measured, rows: Sequence[Row]) -> dict[str, bool]:
    """10x over the fastest dense form: of one layer, and of the network's step at equal groups."""
    nets = [speed_up(row).value for row in rows]
    return {
        f"one layer: {TIMES_BAR:g}x over the fastest dense form somewhere": (
            best(measured)[1].value >= TIMES_BAR
        ),
        f"the network at equal groups: {TIMES_BAR:g}x over the fastest dense form": (
            max((n for n in nets if not math.isnan(n)), default=0.0) >= TIMES_BAR
        ),
    }


def condition(measured: Measured) -> str:
    """When the Fourier form pays here, in words: by layer, from how many candidates on."""
    parts = []
    for layer in dict.fromkeys(c.layer for c, _ in measured):
        even = break_even(measured, layer, training=True)
        name = f"{layer.dims}D {layer.label}"
        if even is None:
            parts.append(f"{name}: never")
        else:
            parts.append(f"{name}: from {max(math.ceil(even), 1)}")
    return "; ".join(parts)


def summary_of_released(table: Sequence[Mapping[str, Any]]) -> float | None:
    """The largest speed-up of the unequal comparison."""
    values = [entry["unequal_as_released_over_fastest_dense"][0] for entry in table]
    return max((v for v in values if v is not None), default=None)
