"""The front that a generator promises, and which of its networks were measured since.

A generator promises of each answer that it takes no longer than its bound: any budget from there on
is kept if that holds. What a store has measured of an answer, after the generator was made, on its
device and in the milliseconds of its calibration, is held against the bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

#: Budgets that a generator is asked, over all that it can reach; and networks measured since that
#: may be answers to others.
ASKED, MOST = 60, 500
_NS_PER_MS = 1e6
_LOOKS = (
    (True, "measured within the bound", "var(--winner)", "diamond"),
    (False, "measured above it", "var(--bad)", "x"),
    (None, "measured: open", "var(--open)", "diamond-open"),
)


@dataclass(frozen=True, slots=True, eq=False)
class GeneratorShown:
    """A generator's file, its distinct answers, and their measurements by the answers' texts."""

    id: str
    name: str
    generator: Generator
    quality: str
    answers: Sequence[Generated]
    measured: Mapping[str, Measurement]

    def kept(self, answer: Generated) -> bool | None:
        """Whether an answer that was measured keeps its bound; ``None``: that is open."""
        m = self.measured[answer.text]
        ends = (np.nan if end is None else end / _NS_PER_MS for end in (m.low_ns, m.high_ns))
        return keeps(answer.upper_ms, *ends)


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
    place = generator.oracle.predictor.meta.provenance
    made = microseconds(str(header["created"]))
    since = {
        str(m.workload.arch): m
        for m in measurements
        if m.workload.space == generator.space.name
        and m.workload.arch
        and m.latency_ns
        and (m.fingerprint.key, m.epoch) == (place.fingerprint_key, place.epoch)
        and microseconds(m.created) > made
    }
    answers = _answers(generator, list(since)[-MOST:])
    measured = {answer.text: since[answer.text] for answer in answers if answer.text in since}
    quality = header.get("objective", "quality")
    if quality == CAPACITY_PROXY:
        quality = f"share of the most {CAPACITY_PROXY}"
    return GeneratorShown(id, path.name, generator, str(quality), answers, measured)


def _answers(generator: Generator, texts: Sequence[str]) -> list[Generated]:
    """Distinct answers to budgets of all that it reaches, and to the bounds of these networks:
    any of them that is its answer to some budget is so to that one.
    """
    low, high = generator.range_ms
    budgets = np.geomspace(low, high, ASKED)
    if texts:
        bounds = generator.oracle.upper(generator.space.encode(list(texts)), generator.confidence)
        budgets = np.concatenate([budgets, bounds])
    found = generator.generate(list(np.unique(np.clip(budgets, low, high))))
    return [*{answer.text: answer for answer in found}.values()]


def front_chart(file: GeneratorShown) -> Chart:
    """Bounds and qualities that it promises, and what was measured of them."""
    answers = sorted(file.answers, key=lambda answer: answer.upper_ms)
    bounds = np.array([answer.upper_ms for answer in answers])
    quality = np.array([answer.accuracy for answer in answers], dtype=float)
    traces: list[Trace] = [
        line(bounds, quality)
        | {"line": {"color": "var(--accent)", "width": 1.5, "shape": "hv"}},
        points(
            bounds, quality, name="promised", colour="var(--accent)",
            names=[answer.text for answer in answers], hover="at most %{x:.4~g} ms",
        ),
    ]  # fmt: skip
    held = [answer for answer in answers if answer.text in file.measured]
    for state, name, colour, symbol in _LOOKS:
        own = [answer for answer in held if file.kept(answer) is state]
        if own:
            traces.append(_measured(file, own, name, colour, symbol))
    return Chart(
        key=f"{file.id}-front",
        title="What it promises, and what was measured",
        summary=_summary(file, held),
        y_label=f"{file.quality}, as predicted",
        traces=traces,
        layout={"xaxis": {"title": {"text": "latency, ms"}}, "yaxis": {}},
        table=Table(
            "Its answers, the fastest first",
            ("network", "predicted, ms", "bound, ms", "measured, ms", file.quality),
            [
                (a.text, a.predicted_ms, a.upper_ms, _ms(file, a) or "–", float(q))
                for a, q in zip(answers, quality, strict=True)
            ],
        ),
    )


def _measured(
    file: GeneratorShown, answers: Sequence[Generated], name: str, colour: str, symbol: str
) -> Trace:
    trace = points(
        np.array([_ms(file, a) for a in answers], dtype=float),
        np.array([a.accuracy for a in answers], dtype=float),
        name=name,
        colour=colour,
        names=[a.text for a in answers],
        hover="measured: %{x:.4~g} ms",
    )
    edge: dict[str, Any] = {"color": "var(--surface)", "width": 1}
    trace["marker"] |= {"symbol": symbol, "size": 11, "line": edge}
    return trace


def _ms(file: GeneratorShown, answer: Generated) -> float | None:
    m = file.measured.get(answer.text)
    return None if m is None or m.latency_ns is None else m.latency_ns / _NS_PER_MS


def _summary(file: GeneratorShown, held: Sequence[Generated]) -> str:
    said = f"{len(file.answers)} networks answer all budgets that it can keep. "
    if not held:
        return said + "None of them was measured since it was made."
    verdicts = [file.kept(answer) for answer in held]
    return (
        f"{said}{len(held)} were measured since it was made: {verdicts.count(True)} within their "
        f"bound, {verdicts.count(False)} above it, {verdicts.count(None)} open."
    )
