"""Latencies that others measured and published, as labels of our spaces.

Two CSV files, gzipped (1 GiB at most when unpacked) or not: architectures (``arch_idx`` and a
column a decision) and latencies in milliseconds (``arch_idx`` and a column a device). The columns
are those of the public tables of HELP (Lee et al., 2021) and HW-NAS-Bench (Li et al., ICLR 2021).
HAT's (Wang et al., ACL 2020) have rows of their own for each pair of columns ``task`` and
``device``, which may be in one file; a device is a pair, as ``wmt14ende/cpu_xeon``, and its latency
that of encoder and decoder together.
"""

from __future__ import annotations

import csv
import gzip
import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import PredictorError, UnknownNameError
from hwbench.inputs import require_inflated
from hwbench.predictors import published_hat as hat
from hwbench.predictors.data import MIN_SAMPLES, TrainingSet, training_set
from hwbench.predictors.metrics import Metrics
from hwbench.predictors.predictor import (
    LatencyPredictor,
    Provenance,
    evaluate,
    fit_predictor,
)
from hwbench.predictors.selection import most_telling
from hwbench.predictors.sources import Sources
from hwbench.spaces import Codes, Space, get_space
from hwbench.spaces.mbv3 import MobileNetV3Space
from hwbench.spaces.ofa_mbv3 import OFA_MBV3

if TYPE_CHECKING:
    import pandas as pd

_INDEX = "arch_idx"
_PAIR = ("task", "device")
#: So many at once, when a query is timed.
QUERIES = 20_000
#: What a compressed table may hold in bytes, and what a header in characters: a bomb, if more.
_MOST_BYTES, _MOST_HEADER = 1 << 30, 1 << 16


@dataclass(frozen=True, eq=False)
class PublishedTable:
    """One device's latencies of ``space``; ``left_out`` counts rows that are no network of it.

    NAS-Bench-201's disconnected cells are such: they take next to no time, and a relative error
    on them says nothing. The labels' ``sources`` are the devices that were named so.
    """

    space: Space
    labels: TrainingSet
    left_out: int


def read_published(
    space: str, archs: Path, latency: Path, device: str, sources: Sequence[str] = ()
) -> PublishedTable:
    """The latencies of one device column, and what the columns ``sources`` know.

    :class:`PredictorError` names the file and what is wrong with it; ``UnknownNameError`` where
    the space or a device is not there.
    """
    if space not in _LAYOUTS:
        raise UnknownNameError("space of a published table", space, _LAYOUTS)
    if device in sources:
        raise PredictorError(f"{device} is the device to learn: it is no source of its own")
    if len(set(sources)) < len(sources):
        raise PredictorError(f"a source is named twice in {', '.join(sources)}")
    layout = _LAYOUTS[space]
    found = layout.space(device)
    table, measured = layout.read(archs, latency, device, sources)
    rows = table[table.index.isin(measured.index)]
    if rows.empty:
        raise PredictorError(f"{archs} and {latency} have no {_INDEX} in common")
    codes = layout.codes(archs, found, rows[list(layout.columns)])
    built = found.valid(codes)
    answers = measured.loc[rows.index[built]]
    _require_positive(latency, answers)
    known = None
    if sources:
        others = answers[list(sources)].to_numpy(np.float64)
        known = Sources(tuple(sources), found.canonical(codes[built]), others)
    # What is no source is a part of the device's own time.
    latency_ms = answers.drop(columns=list(sources)).to_numpy(np.float64).sum(axis=1)
    labels = training_set(found, codes[built], latency_ms, sources=known)
    return PublishedTable(found, labels, int((~built).sum()))


def timed(labels: TrainingSet) -> TrainingSet:
    """Labels whose own error is the resolution of their timer: found on what is learned alone."""
    error = _step(labels.latency_ms) / math.sqrt(12)
    return replace(labels, sd_ms=np.full(len(labels), error))


def timer_resolution(latency_ms: NDArray[np.float64]) -> float:
    """The step in ms that all latencies are multiples of, as a timer of whole ms makes; else 0."""
    # Many values a step, or it is only how many digits were written.
    many = len(np.unique(latency_ms)) <= len(latency_ms) / 4
    return _step(latency_ms) if many else 0.0


def _step(latency_ms: NDArray[np.float64]) -> float:
    """What all latencies are multiples of, be it as few as the digits that were written; else 0."""
    values = np.unique(latency_ms)
    if len(values) < 2:
        return 0.0
    step = float(np.diff(values).min())
    whole = values / step
    return step if np.allclose(whole, np.round(whole), rtol=0, atol=1e-3) else 0.0


@dataclass(frozen=True)
class PublishedMetrics(Metrics):
    """Beside the metrics: what fitting took, and a query, in a batch of ``QUERIES``.

    ``n`` counts the rows tested on: those of architectures that were not learned. ``left_out``
    counts rows that are no network; learned ones are not among them.

    Mean and standard deviation come together: both are the time of the whole answer.
    """

    n_train: int
    left_out: int
    fit_seconds: float
    us_per_query_mean: float
    us_per_query_sd: float


@dataclass(frozen=True, eq=False)
class PublishedFit:
    """A predictor with the rows that it learned, in their order, and those that it is tested on."""

    predictor: LatencyPredictor
    learned: TrainingSet
    tested: TrainingSet
    metrics: PublishedMetrics


def evaluate_published(
    table: PublishedTable,
    test: PublishedTable | None = None,
    *,
    train: int,
    select: Literal["random", "active"] = "random",
    seed: int = 0,
) -> PublishedMetrics:
    """The metrics of :func:`fit_published`."""
    return fit_published(table, test, train=train, select=select, seed=seed).metrics


def fit_published(
    table: PublishedTable,
    test: PublishedTable | None = None,
    *,
    train: int,
    select: Literal["random", "active"] = "random",
    seed: int = 0,
) -> PublishedFit:
    """Fit on ``train`` rows, and test on the others, or on another table.

    An architecture that was learned is not tested on, under whatever index it comes again.
    ``select``: rows at random, or those that tell most of the others, chosen without their labels
    (:mod:`hwbench.predictors.selection`). The same seed takes the same rows.
    :class:`PredictorError` where there are not so many, or fewer than two are left to test on.
    """
    count = len(table.labels)
    most = count - 2 if test is None else count
    if not MIN_SAMPLES <= train <= most:
        raise PredictorError(f"--train {train}: give {MIN_SAMPLES} to {most} of {count} rows")
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    if select == "active":
        labels = table.labels
        chosen = most_telling(table.space, labels.codes, train, rng, sources=labels.sources)
        order = np.concatenate([chosen, np.setdiff1d(order, chosen)])
    learned = timed(table.labels[order[:train]])
    rest = _unlearned(learned, table.labels[order[train:]] if test is None else test.labels)
    unknown = Provenance("published", "", "unknown", 1)
    began = time.perf_counter()
    predictor = fit_predictor(table.space, learned, unknown, seed=seed)
    fitted = time.perf_counter()
    found = evaluate(predictor, rest)
    queries = np.resize(rest.codes, (QUERIES, rest.codes.shape[1]))
    asked = time.perf_counter()
    predictor.predict(queries)
    a_query = 1e6 * (time.perf_counter() - asked) / QUERIES
    metrics = PublishedMetrics(
        **asdict(found),
        n_train=train,
        left_out=(table if test is None else test).left_out,
        fit_seconds=fitted - began,
        us_per_query_mean=a_query,
        us_per_query_sd=a_query,
    )
    return PublishedFit(predictor, learned, rest, metrics)


def _unlearned(learned: TrainingSet, rest: TrainingSet) -> TrainingSet:
    """The rows of ``rest`` whose architectures were not learned; codes are canonical."""
    known = {code.tobytes() for code in learned.codes}
    fresh = np.array([code.tobytes() not in known for code in rest.codes], dtype=bool)
    if fresh.sum() < 2:
        raise PredictorError(
            f"{fresh.sum()} of the {len(rest)} rows to test on are of architectures that were not "
            "learned: give at least 2, or learn from fewer with --train"
        )
    return rest[fresh]


def _require_positive(path: Path, latency_ms: pd.DataFrame) -> None:
    """PredictorError names the first latency that is none; rows are by their index."""
    values = latency_ms.to_numpy(np.float64)
    wrong = ~(np.isfinite(values) & (values > 0))
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise PredictorError(
            f"{path}: {_INDEX} {latency_ms.index[row]} has {values[row, column]:g} for "
            f"{latency_ms.columns[column]}: latencies are positive"
        )


def _read_columns(
    columns: Sequence[str], archs: Path, latency: Path, device: str, sources: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Architectures, and the latencies of a column for each device."""
    named = {device: "device", **dict.fromkeys(sources, "source")}
    return _read(archs, columns, {}), _read(latency, [], named)


def _read_pair(
    archs: Path, latency: Path, device: str, sources: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same of one task and device of HAT."""
    if sources:
        raise PredictorError("hat has other networks for each device: leave the sources out")
    table = _read(archs, hat.COLUMNS, {}, pair=device)
    return table, _read(latency, hat.LATENCIES, {}, pair=device)


def _read(
    path: Path, columns: Iterable[str], named: dict[str, str], *, pair: str | None = None
) -> pd.DataFrame:
    """These columns of a file, by its index; ``named`` are columns that the user named.

    Only the rows of a ``pair``, where they are of tasks and devices.
    """
    import pandas as pd

    try:
        there = _header(path)
        for column, what in named.items():
            if column not in there - {_INDEX}:
                raise UnknownNameError(f"{what} in {path}", column, there - {_INDEX})
        wanted = [_INDEX, *columns, *named]
        labels = [] if pair is None else list(_PAIR)
        if missing := [column for column in labels + wanted if column not in there]:
            raise PredictorError(f"{path} has no column {missing[0]!r}: is it of another space?")
        packed = "gzip" if path.suffix.lower() == ".gz" else None
        text = dict.fromkeys(labels, str)
        table = pd.read_csv(path, usecols=labels + wanted, dtype=text, compression=packed)
    except (OSError, ValueError, EOFError, zlib.error, csv.Error) as error:
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise PredictorError(f"cannot read {path}: {why}") from error
    if table.empty:
        raise PredictorError(f"{path} has no row below its header: give architectures to learn")
    for column in wanted:
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise PredictorError(f"{path}: column {column!r} holds something that is no number")
    if pair is not None:
        pairs = table[labels].fillna("").agg("/".join, axis=1)
        if pair not in set(pairs):
            raise UnknownNameError(f"task/device in {path}", pair, set(pairs))
        table = table.loc[pairs == pair, wanted]
    index = table[_INDEX]
    if (none := ~np.isfinite(index)).any():
        raise PredictorError(f"{path}: row {none.idxmax() + 1} below the header has no {_INDEX}")
    if index.duplicated().any():
        again = index[index.duplicated()].iloc[0]
        raise PredictorError(f"{path}: {_INDEX} {again} is there twice")
    return table.set_index(_INDEX)


def _header(path: Path) -> set[str]:
    """The names of a file's columns; pandas would rename one that is there twice."""
    require_inflated(path, _MOST_BYTES)
    packed = path.suffix.lower() == ".gz"
    with (gzip.open if packed else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
        rows = iter(lambda: file.readline(_MOST_HEADER), "")
        line = next((row for row in rows if row.strip()), "")
    if not 0 < len(line) < _MOST_HEADER:
        raise ValueError("a header that is too long for a table" if line else "it has no columns")
    names = [name for name in next(csv.reader([line])) if name]
    if again := [name for name, times in Counter(names).items() if times > 1]:
        raise PredictorError(f"{path} has two columns {again[0]!r}: name each once")
    return set(names)


def _codes(path: Path, space: Space, rows: pd.DataFrame) -> Codes:
    """Codes (n, L) from the values (n, L) of the decisions, or from their numbers."""
    values = rows.to_numpy()
    codes = np.zeros(values.shape, dtype=np.int16)
    for column, decision in enumerate(space.decisions):
        numbers = all(isinstance(value, int) for value in decision.values)
        known = np.array(decision.values if numbers else range(len(decision.values)))
        at = np.searchsorted(known, values[:, column]).clip(max=len(known) - 1)
        if (bad := known[at] != values[:, column]).any():
            row = int(bad.argmax())
            raise PredictorError(
                f"{path}: {_INDEX} {rows.index[row]} has {values[row, column]} for "
                f"{rows.columns[column]} ({decision.name}): "
                f"{space.name} knows {', '.join(map(str, known))}"
            )
        codes[:, column] = at
    return codes


def _ofa_at_every_resolution() -> Space:
    """The published tables take any multiple of 4; our own choice is every fourth of them."""
    every = tuple(range(128, 225, 4))
    return MobileNetV3Space(replace(OFA_MBV3, name="ofa_mbv3_by4", resolutions=every))


def _numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(count)]


_Read = Callable[[Path, Path, str, Sequence[str]], "tuple[pd.DataFrame, pd.DataFrame]"]


@dataclass(frozen=True)
class _Layout:
    """How a space's tables are read: its columns, and its codes from their values (n, columns).

    ``read`` gives two frames by ``arch_idx``: those columns, and latencies in ms, a column a
    source and those that add up to the device's.
    """

    columns: Sequence[str]
    space: Callable[[str], Space]
    read: _Read
    codes: Callable[[Path, Space, pd.DataFrame], Codes] = _codes

    @classmethod
    def wide(cls, columns: Sequence[str], make: Callable[[], Space]) -> Self:
        """One column a decision, in their order, and one a device."""
        return cls(columns, lambda _: make(), partial(_read_columns, columns))


_LAYOUTS = {
    "nasbench201": _Layout.wide(_numbered("op", 6), partial(get_space, "nasbench201")),
    "fbnet": _Layout.wide(_numbered("op", 22), partial(get_space, "fbnet")),
    "ofa_mbv3": _Layout.wide(
        ["r", *_numbered("d", 5), *_numbered("ks", 20), *_numbered("e", 20)],
        _ofa_at_every_resolution,
    ),
    "hat": _Layout(hat.COLUMNS, hat.space_of_pair, _read_pair, hat.codes_of_averages),
}
