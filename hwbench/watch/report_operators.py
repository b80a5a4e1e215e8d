"""Where time goes, operator by operator: from the samples of ``hwbench kernels``, or from what
``hwbench bench --profile-ops --json`` wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwbench.errors import UsageError

#: Rows of a table; what is left is added up in one more.
MOST: Final = 25
_BYTES: Final = 1 << 28


@dataclass(frozen=True, slots=True)
class Row:
    """Operators of a kind or a name: how many, their time, and their share of all time (of 1).

    ``us`` is the median of one, in microseconds.
    """

    name: str
    count: int
    us: float
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Operators:
    """One table: what it is of, what to know of it, and its rows, the largest share first."""

    id: str
    title: str
    note: str
    rows: tuple[Row, ...]


def of_samples(id: str, path: Path) -> list[Operators]:
    """Kinds of operators over all networks of a kernels' file. PredictorError for another file."""
    from hwbench.predictors.kernels import read_samples
    from hwbench.predictors.kernels.samples import CASES

    provenance, samples = read_samples(path)
    networks = [sample for sample in samples if sample.family != CASES]
    times: dict[str, list[float]] = {}
    for sample in networks:
        for node in sample.nodes:
            times.setdefault(node.kind, []).append(node.ns)
    note = (
        f"{len(networks)} networks of {len({s.family for s in networks})} families on "
        f"{provenance.device} ({provenance.runtime}), {provenance.threads} "
        f"thread{'s' * (provenance.threads > 1)}."
    )
    return [Operators(f"{id}-0", path.name, note, rows_of(times))]


def of_profiles(id: str, path: Path) -> list[Operators]:
    """The operators of each model in a document of ``bench``. UsageError for another file."""
    try:
        if path.stat().st_size > _BYTES:
            raise ValueError("it is too large")
        results = json.loads(path.read_text(encoding="utf-8"))["results"]
        profiled = [entry for entry in results if entry.get("operators")]
        found = [_profile(f"{id}-{number}", each) for number, each in enumerate(profiled)]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{path} is nothing that hwbench bench --profile-ops --json writes ({error})"
        ) from None
    if not found:
        raise UsageError(f"{path} tells of no operators: write it with bench --profile-ops --json")
    return found


def _profile(id: str, entry: Mapping[str, Any]) -> Operators:
    operators = entry["operators"]
    times: dict[str, list[float]] = {}
    for op in operators["ops"]:
        name = f"{op['kind']} {op['name']}"
        times.setdefault(name, []).append(1e6 * _time(op["ms"]))
    covered, slowdown = float(operators["covered"]), operators["slowdown"]
    note = f"Its operators cover {covered:.0%} of the instrumented run"
    if slowdown is not None:
        note += f", which took {float(slowdown):.2f} times the undisturbed latency"
    return Operators(id, f"{entry['name']} on {entry['device']}", f"{note}.", rows_of(times))


def _time(value: Any) -> float:
    if isinstance(value, bool) or not 0 <= float(value) < float("inf"):
        raise ValueError(f"{value!r} is no time")
    return float(value)


def rows_of(times: Mapping[str, list[float]]) -> tuple[Row, ...]:
    """Rows from nanoseconds by name, the largest share first."""
    whole = sum(map(sum, times.values())) or 1.0
    rows = [
        Row(name, len(own), float(np.median(own)) / 1e3, sum(own) / whole)
        for name, own in times.items()
    ]
    rows.sort(key=lambda row: -row.share)
    rest = rows[MOST:]
    if rest:
        left = [ns for row in rest for ns in times[row.name]]
        share = sum(row.share for row in rest)
        rows[MOST:] = [Row(f"{len(rest)} more", len(left), float(np.median(left)) / 1e3, share)]
    return tuple(rows)
