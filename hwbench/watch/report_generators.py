"""The front that a generator promises, and what its networks took that were measured since.

A generator's bound says what a network takes at most: any budget from there on is kept if that
holds. What a store has measured of its space after it was made, on its device and in the
milliseconds of its calibration, is held against the bounds: its own answers, and whatever else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwbench.errors import UsageError
from hwbench.records import Measurement, keeps
from hwbench.store.documents import microseconds
from hwbench.watch.charts import Chart, Table, Trace, line, points

if TYPE_CHECKING:
    from hwbench.search.answering import Generated
    from hwbench.search.pnag import Generator

#: Budgets that a generator is asked, over all that it can reach; networks that are held against it.
ASKED, MOST = 60, 500
_NS_PER_MS = 1e6
_LOOKS = (
    (True, "measured: within its bound", "var(--winner)", "diamond"),
    (False, "measured: above it", "var(--bad)", "x"),
    (None, "measured: open", "var(--open)", "diamond-open"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """A network that was measured since, with its bound and its quality as predicted.

    ``kept`` tells whether all of its interval lies within the bound; ``None``: that is open.
    """

    text: str
    ms: float
    bound_ms: float
    quality: float
    kept: bool | None


@dataclass(frozen=True, slots=True, eq=False)
class GeneratorShown:
    """A generator's file: its distinct answers, the fastest first, and what was measured since.

    ``quality`` names what it searched for.
    """

    id: str
    name: str
    quality: str
    answers: Sequence[Generated]
    measured: Sequence[Measured]


def shown(id: str, path: Path, measurements: Sequence[Measurement]) -> GeneratorShown:
    """A generator's file held against measurements, the oldest first.

    PredictorError for what is no such file, UsageError for one that answers tasks.
    """
    from hwbench.search.generator_file import load_generator
    from hwbench.search.pnag import Generator
    from hwbench.search.random_search import CAPACITY_PROXY

    generator, header = load_generator(path)
    if not isinstance(generator, Generator):
        raise UsageError(f"{path} answers a budget for a task: the front of one is not drawn")
    low, high = generator.range_ms
    asked = np.clip(np.geomspace(low, high, ASKED), low, high)
    answers = {answer.text: answer for answer in generator.generate(list(asked))}
    place = generator.oracle.predictor.meta.provenance
    made = microseconds(str(header["created"]))
    since = {
        str(m.workload.arch): m
        for m in measurements
        if m.workload.space == generator.space.name
        and m.workload.arch
        and m.latency_ns
        and (m.fingerprint.key, m.epoch) == (place.fingerprint_key, place.epoch)
        and microseconds(m.created) >= made  # a session takes longer than the second they share
    }
    quality = header.get("objective", "quality")
    if quality == CAPACITY_PROXY:
        quality = f"share of the most {CAPACITY_PROXY}"
    return GeneratorShown(
        id,
        path.name,
        str(quality),
        sorted(answers.values(), key=lambda answer: answer.upper_ms),
        _held(generator, list(since.values())[-MOST:]),
    )


def _held(generator: Generator, measurements: Sequence[Measurement]) -> list[Measured]:
    from hwbench.search.accuracy.model import restored

    if not measurements:
        return []
    texts = [str(m.workload.arch) for m in measurements]
    codes = generator.space.encode(texts)
    bounds = generator.oracle.upper(codes, generator.confidence)
    qualities = restored(generator.evaluator.score(codes))
    found = []
    for m, text, bound, quality in zip(measurements, texts, bounds, qualities, strict=True):
        ms, low, high = (
            np.nan if ns is None else ns / _NS_PER_MS for ns in (m.latency_ns, m.low_ns, m.high_ns)
        )
        kept = keeps(float(bound), low, high)
        found.append(Measured(text, ms, float(bound), float(quality), kept))
    return found


def front_chart(file: GeneratorShown) -> Chart:
    """Bounds and qualities that it promises, and what was measured."""
    bounds = np.array([answer.upper_ms for answer in file.answers])
    quality = np.array([answer.accuracy for answer in file.answers], dtype=float)
    traces: list[Trace] = [
        line(bounds, quality) | {"line": {"color": "var(--accent)", "width": 1.5, "shape": "hv"}},
        points(
            bounds,
            quality,
            name="promised",
            colour="var(--accent)",
            names=[answer.text for answer in file.answers],
            hover="at most %{x:.4~g} ms",
        ),
    ]
    for state, name, colour, symbol in _LOOKS:
        own = [each for each in file.measured if each.kept is state]
        if own:
            traces.append(_marks(own, name, colour, symbol))
    rows: list[tuple[str, float, float | str, float]] = [
        (a.text, a.upper_ms, "–", float(q)) for a, q in zip(file.answers, quality, strict=True)
    ]
    rows += [(each.text, each.bound_ms, each.ms, each.quality) for each in file.measured]
    return Chart(
        key=f"{file.id}-front",
        title="What it promises, and what was measured since",
        summary=_summary(file),
        y_label=f"{file.quality}, as predicted",
        traces=traces,
        layout={"xaxis": {"title": {"text": "latency, ms"}}, "yaxis": {}},
        table=Table(
            "Its answers, then the networks measured since",
            ("network", "bound, ms", "measured, ms", file.quality),
            rows,
        ),
    )


def _marks(networks: Sequence[Measured], name: str, colour: str, symbol: str) -> Trace:
    trace = points(
        np.array([each.ms for each in networks]),
        np.array([each.quality for each in networks]),
        name=name,
        colour=colour,
        names=[each.text for each in networks],
        hover="measured: %{x:.4~g} ms",
    )
    edge: dict[str, Any] = {"color": "var(--surface)", "width": 1}
    trace["marker"] |= {"symbol": symbol, "size": 10, "line": edge}
    return trace


def _summary(file: GeneratorShown) -> str:
    said = f"{len(file.answers)} networks answer all budgets that it can keep. "
    if not file.measured:
        return said + "None of its space was measured since it was made."
    kept = [each.kept for each in file.measured]
    return (
        f"{said}{len(kept)} of its space were measured since it was made: {kept.count(True)} "
        f"within their bound, {kept.count(False)} above it, {kept.count(None)} open."
    )
