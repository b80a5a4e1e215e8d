"""The fronts that a generator promises, and what its networks took that were measured since.

One that answers tasks (EAS) has a front for each task, one of budgets alone (PNAG) has one. Its
bound says what a network takes at most: any budget from there on is kept if that holds. What a
store has measured of its space after it was made, on its device and in the milliseconds of its
calibration, is held against the bounds: its own answers, and whatever else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwbench.records import Measurement, keeps
from hwbench.search.pareto import non_dominated
from hwbench.store.documents import microseconds
from hwbench.watch.charts import Chart, Table, Trace, line, points

if TYPE_CHECKING:
    from hwbench.search.answering import Answering, Generated
    from hwbench.search.eas import Task, TaskGenerator
    from hwbench.search.pnag import Generator

#: Budgets that a generator is asked, over all that it can reach; networks that are held against it.
ASKED, MOST = 60, 500
#: Tasks of which a front is drawn, each in a colour of its own.
_COLOURS = ("--accent", "--seq-3", "--seq-5", "--seq-1", "--muted")
_NS_PER_MS = 1e6
_LOOKS = (
    (True, "measured: within its bound", "var(--winner)", "diamond"),
    (False, "measured: above it", "var(--bad)", "x"),
    (None, "measured: open", "var(--open)", "diamond-open"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """A network that was measured since, with its bound and its quality as predicted.

    Of a generator that answers tasks a network has a quality for each task that it is an answer
    of, maybe none. ``kept`` tells whether all of its interval lies within the bound; ``None``: that
    is open.
    """

    text: str
    ms: float
    bound_ms: float
    qualities: Sequence[float]
    kept: bool | None


@dataclass(frozen=True, slots=True, eq=False)
class GeneratorShown:
    """A generator's file: its distinct answers by task, the fastest first; what was measured since.

    The task of one that answers budgets alone is ``None``. ``quality`` names what it searched for.
    """

    id: str
    name: str
    quality: str
    fronts: Mapping[str | None, Sequence[Generated]]
    measured: Sequence[Measured]


def shown(id: str, path: Path, measurements: Sequence[Measurement]) -> GeneratorShown:
    """A generator's file held against measurements, the oldest first.

    PredictorError for what is no such file.
    """
    from hwbench.search.eas import TaskGenerator
    from hwbench.search.generator_file import load_generator
    from hwbench.search.pnag import Generator
    from hwbench.search.random_search import CAPACITY_PROXY

    generator, header = load_generator(path)
    low, high = generator.range_ms
    budgets = [float(ms) for ms in np.clip(np.geomspace(low, high, ASKED), low, high)]
    since = _since(generator, str(header["created"]), measurements)
    if isinstance(generator, TaskGenerator):
        fronts: dict[str | None, list[Generated]] = {
            task.name: _distinct(generator.generate([(task, ms) for ms in budgets]))
            for task in _tasks(generator)
        }
        answers = [answer for front in fronts.values() for answer in front]
        qualities = [
            [a.accuracy for a in answers if a.text == m.workload.arch and a.accuracy is not None]
            for m in since
        ]
        quality = "accuracy"
    else:
        assert isinstance(generator, Generator), "there is no third kind"
        fronts = {None: _distinct(generator.generate(budgets))}
        qualities = [[each] for each in _predicted(generator, since)]
        quality = str(header.get("objective", "quality"))
        if quality == CAPACITY_PROXY:
            quality = f"share of the most {CAPACITY_PROXY}"
    return GeneratorShown(id, path.name, quality, fronts, _held(generator, since, qualities))


def _distinct(answers: Sequence[Generated]) -> list[Generated]:
    """Each network once, the fastest first."""
    return sorted({a.text: a for a in answers}.values(), key=lambda answer: answer.upper_ms)


def _tasks(generator: TaskGenerator) -> list[Task]:
    """Those whose accuracies it knows, the groups and the whole of them first."""
    from hwbench.search.eas import Task

    groups = generator.groups
    named = {task.classes: task for task in (*groups.groups, groups.every)}
    known = {task: named.get(task) for task in generator.labels.tasks}
    others = [
        Task(", ".join(groups.class_names[c] for c in classes), classes)
        for classes, task in known.items()
        if task is None
    ]
    return [*(task for classes, task in named.items() if classes in known), *others][
        : len(_COLOURS)
    ]


def _since(
    generator: Answering, created: str, measurements: Sequence[Measurement]
) -> list[Measurement]:
    """The newest measurement of each network since then, on its device and by its calibration."""
    place, made = generator.oracle.predictor.meta.provenance, microseconds(created)
    since = {
        str(m.workload.arch): m
        for m in measurements
        if m.workload.space == generator.space.name
        and m.workload.arch
        and m.latency_ns
        and (m.fingerprint.key, m.epoch) == (place.fingerprint_key, place.epoch)
        and microseconds(m.created) >= made  # a session takes longer than the second they share
    }
    return list(since.values())[-MOST:]


def _predicted(generator: Generator, measurements: Sequence[Measurement]) -> list[float]:
    """What a generator of budgets holds each network's quality for."""
    from hwbench.search.accuracy.model import restored

    if not measurements:
        return []
    codes = generator.space.encode([str(m.workload.arch) for m in measurements])
    return [float(each) for each in restored(generator.evaluator.score(codes))]


def _held(
    generator: Answering,
    measurements: Sequence[Measurement],
    qualities: Sequence[Sequence[float]],
) -> list[Measured]:
    if not measurements:
        return []
    texts = [str(m.workload.arch) for m in measurements]
    bounds = generator.oracle.upper(generator.space.encode(texts), generator.confidence)
    found = []
    for m, text, bound, own in zip(measurements, texts, bounds, qualities, strict=True):
        ms, low, high = (
            np.nan if ns is None else ns / _NS_PER_MS for ns in (m.latency_ns, m.low_ns, m.high_ns)
        )
        found.append(Measured(text, ms, float(bound), own, keeps(float(bound), low, high)))
    return found


def front_chart(file: GeneratorShown) -> Chart:
    """Bounds and qualities that it promises, and what was measured."""
    traces: list[Trace] = []
    rows: list[list[str | float]] = []
    for colour, (task, answers) in zip(_COLOURS, file.fronts.items(), strict=False):
        traces += _front(task, answers, f"var({colour})")
        rows += [[a.text, task or "–", a.upper_ms, "–", _said(a.accuracy)] for a in answers]
    for state, name, colour, symbol in _LOOKS:
        own = [(each, q) for each in file.measured if each.kept is state for q in each.qualities]
        if own:
            traces.append(_marks(own, name, colour, symbol))
    rows += [
        [each.text, "–", each.bound_ms, each.ms, _said(*each.qualities)] for each in file.measured
    ]
    headings = ["network", "task", "bound, ms", "measured, ms", file.quality]
    if list(file.fronts) == [None]:
        headings, rows = headings[:1] + headings[2:], [row[:1] + row[2:] for row in rows]
    return Chart(
        key=f"{file.id}-front",
        title="What it promises, and what was measured since",
        summary=_summary(file),
        y_label=f"{file.quality}, as predicted",
        traces=traces,
        layout={"xaxis": {"title": {"text": "latency, ms"}}, "yaxis": {}},
        table=Table("Its answers, then the networks measured since", headings, rows),
    )


def _said(*qualities: float | None) -> float | str:
    """One quality, or what stands for none; of several tasks all."""
    known = [float(q) for q in qualities if q is not None]
    return known[0] if len(known) == 1 else ", ".join(f"{q:.4g}" for q in known) or "–"


def _front(task: str | None, answers: Sequence[Generated], colour: str) -> list[Trace]:
    """Answers, and a line along those than which none is both faster and better."""
    known = [answer for answer in answers if answer.accuracy is not None]
    bounds = np.array([answer.upper_ms for answer in known], dtype=float)
    quality = np.array([answer.accuracy for answer in known], dtype=float)
    best = non_dominated(bounds, quality)
    return [
        line(bounds[best], quality[best])
        | {"line": {"color": colour, "width": 1.5, "shape": "hv"}},
        points(
            bounds,
            quality,
            name="promised" if task is None else task,
            colour=colour,
            names=[answer.text for answer in known],
            hover="at most %{x:.4~g} ms",
        ),
    ]


def _marks(
    networks: Sequence[tuple[Measured, float]], name: str, colour: str, symbol: str
) -> Trace:
    trace = points(
        np.array([each.ms for each, _ in networks]),
        np.array([quality for _, quality in networks]),
        name=name,
        colour=colour,
        names=[each.text for each, _ in networks],
        hover="measured: %{x:.4~g} ms",
    )
    edge: dict[str, Any] = {"color": "var(--surface)", "width": 1}
    trace["marker"] |= {"symbol": symbol, "size": 10, "line": edge}
    return trace


def _summary(file: GeneratorShown) -> str:
    number = len({answer.text for front in file.fronts.values() for answer in front})
    tasks = "" if list(file.fronts) == [None] else f" of {len(file.fronts)} tasks"
    said = f"{number} networks answer all budgets{tasks} that it can keep. "
    if not file.measured:
        return said + "None of its space was measured since it was made."
    kept = [each.kept for each in file.measured]
    return (
        f"{said}{len(kept)} of its space were measured since it was made: {kept.count(True)} "
        f"within their bound, {kept.count(False)} above it, {kept.count(None)} open."
    )
