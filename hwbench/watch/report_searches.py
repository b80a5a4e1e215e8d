"""What searches promised, and what came of it: trials that claims of the ledger keep as evidence.

A trial is a budget, the network that was chosen for it, and what that took when it was measured
again. Where trials tell how good a network is, the front of those measured is drawn as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwbench.records import Verdict
from hwbench.search.pareto import non_dominated
from hwbench.watch.charts import Chart, Table, Trace, line, log_axis, padded, points

#: What a trial may say of a network's quality, and how a reader calls it.
QUALITIES: Final = {"accuracy": "accuracy", "macs": "million MACs (capacity proxy)"}
_COLOURS: Final = ("--accent", "--seq-3", "--seq-5", "--seq-1", "--muted")
_STATES: Final = ((True, "kept", "circle"), (False, "broken", "x"), (None, "open", "circle-open"))


@dataclass(frozen=True, slots=True)
class Trial:
    """One budget and its network; ``kept`` is ``None`` where that is open."""

    budget_ms: float
    measured_ms: float
    kept: bool | None
    architecture: str
    predicted_ms: float | None
    quality: float | None

    @property
    def used_percent(self) -> float:
        """Of the budget."""
        return 100 * self.measured_ms / self.budget_ms


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """The trials of a claim, newest test, by the name of what was tried (empty: one thing).

    ``quality`` is what the trials tell of networks, a value of :data:`QUALITIES`; empty: nothing.
    """

    id: str
    claim: str
    created: str
    sets: Mapping[str, Sequence[Trial]]
    quality: str


def searches(ledger: Sequence[Verdict]) -> list[Search]:
    """The newest test of each claim that has trials, of a ledger whose newest comes first.

    Claims that share their trials are one search, by the first of them.
    """
    newest: dict[str, Verdict] = {}
    for verdict in ledger:
        newest.setdefault(verdict.claim, verdict)
    found: list[Search] = []
    seen: list[Any] = []
    for verdict in newest.values():
        raw = verdict.evidence.get("trials")
        if not raw or raw in seen:
            continue
        seen.append(raw)
        kind = next((k for k in QUALITIES if _has(raw, k)), None)
        sets = {name: rows for name, rows in _sets(raw, kind) if rows}
        if sets:
            name = QUALITIES[kind] if kind else ""
            found.append(Search(f"f{len(found)}", verdict.claim, verdict.created, sets, name))
    return found


def _has(raw: Any, kind: str) -> bool:
    """Whether some trials tell it: accuracy may be known under every second budget alone."""
    return any(_positive(row.get(kind)) is not None for row in _rows(raw))


def _rows(raw: Any) -> list[Mapping[str, Any]]:
    """All trials' rows, whatever they are kept in."""
    lists = raw.values() if isinstance(raw, Mapping) else [raw]
    return [
        row for rows in lists if isinstance(rows, list) for row in rows if isinstance(row, Mapping)
    ]


def _sets(raw: Any, kind: str | None) -> Iterator[tuple[str, list[Trial]]]:
    """Trials by name: as the evidence has them, or one for each confidence."""
    if isinstance(raw, Mapping):
        for name, rows in raw.items():
            yield str(name), _trials(_rows(rows), kind)
        return
    by_level: dict[float | None, list[Mapping[str, Any]]] = {}
    for row in _rows(raw):
        by_level.setdefault(_positive(row.get("confidence")), []).append(row)
    for level in sorted(by_level, key=lambda each: -(each or 0)):
        name = f"bound at confidence {level:g}" if level is not None else ""
        yield name, _trials(by_level[level], kind)


def _trials(rows: Sequence[Mapping[str, Any]], kind: str | None) -> list[Trial]:
    """Those of the rows that are a budget and its measured network."""
    trials = []
    for row in rows:
        budget, measured = _positive(row.get("budget_ms")), _positive(row.get("measured_ms"))
        kept = row.get("kept")
        if budget is None or measured is None or not (kept is None or isinstance(kept, bool)):
            continue
        quality = _positive(row.get(kind)) if kind else None
        if quality is not None and kind == "macs":
            quality /= 1e6
        trials.append(
            Trial(
                budget, measured, kept, str(row.get("architecture", "")),
                _positive(row.get("predicted_ms")), quality,
            )
        )  # fmt: skip
    return trials


def _positive(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < 1e300 else None


def budgets_chart(search: Search) -> Chart:
    """Share of each budget that its network used: kept below 100 %, broken above."""
    every = [trial for trials in search.sets.values() for trial in trials]
    span = padded(np.array([trial.budget_ms for trial in every]))
    most = max(105.0, max(trial.used_percent for trial in every) * 1.02)
    least = min(95.0, min(trial.used_percent for trial in every) * 0.98)
    traces: list[Trace] = [line(np.array(span), np.array([100.0, 100.0]))]
    for colour, (name, trials) in zip(_cycle(len(search.sets)), search.sets.items(), strict=True):
        for state, word, symbol in _STATES:
            own = [trial for trial in trials if trial.kept is state]
            if own:
                said = f"{name}: {word}" if name else word
                paint = "var(--bad)" if state is False else colour
                traces.append(
                    _marked(own, [t.budget_ms for t in own], [t.used_percent for t in own],
                            said, paint, symbol, "%{y:.1f} % of %{x:.4~g} ms")
                )  # fmt: skip
    return Chart(
        key=f"{search.id}-budgets",
        title="Budgets kept and broken",
        summary=" ".join(_said(name, trials) for name, trials in search.sets.items()),
        y_label="of the budget used, %",
        traces=traces,
        layout={
            "xaxis": {"title": {"text": "budget, ms"}, **log_axis(*span)},
            "yaxis": {"range": [least, most]},
        },
        table=Table(
            "Every budget, and the network chosen for it",
            ("network", "tried", "budget, ms", "measured, ms", "used, %", "kept"),
            [
                (t.architecture or "–", name or "–", t.budget_ms, t.measured_ms,
                 t.used_percent, {True: "kept", False: "broken", None: "open"}[t.kept])
                for name, trials in search.sets.items()
                for t in trials
            ],
        ),
    )  # fmt: skip


def _said(name: str, trials: Sequence[Trial]) -> str:
    kept, broken = (sum(t.kept is state for t in trials) for state in (True, False))
    still = len(trials) - kept - broken
    used = float(np.mean([t.used_percent for t in trials]))
    start = f"{name[:1].upper()}{name[1:]}: " if name else ""
    return (
        f"{start}{kept} of {len(trials)} budgets kept"
        + (f", {broken} broken" if broken else "")
        + (f", {still} open" if still else "")
        + f"; {used:.0f} % of a budget used on average."
    )


def front_chart(search: Search) -> Chart | None:
    """Measured latency against quality, with the front of each set; ``None`` without a quality."""
    if not search.quality:
        return None
    traces: list[Trace] = []
    rows: list[tuple[str, str, float, float]] = []
    for colour, (name, every) in zip(_cycle(len(search.sets)), search.sets.items(), strict=True):
        trials = [t for t in every if t.quality is not None]
        ms = np.array([t.measured_ms for t in trials])
        quality = np.array([t.quality for t in trials], dtype=float)
        front = non_dominated(ms, quality)
        traces.append(
            line(ms[front], quality[front])
            | {"line": {"color": colour, "width": 1.5, "shape": "hv"}}
        )
        for state, word, symbol in _STATES:
            own = [t for t in trials if t.kept is state]
            if own:
                said = f"{name}: {word}" if name else word
                paint = "var(--bad)" if state is False else colour
                traces.append(
                    _marked(own, [t.measured_ms for t in own], [t.quality or 0 for t in own],
                            said, paint, symbol, "%{y:.4~g} at %{x:.4~g} ms")
                )  # fmt: skip
        rows += [
            (trials[i].architecture or "–", name or "–", float(ms[i]), float(quality[i]))
            for i in front
        ]
    return Chart(
        key=f"{search.id}-front",
        title="What the budgets bought",
        summary=f"The line joins the networks than which none measured here is both faster and "
        f"better: {len(rows)} in all.",
        y_label=search.quality,
        traces=traces,
        layout={"xaxis": {"title": {"text": "measured latency, ms"}}, "yaxis": {}},
        table=Table("The front", ("network", "tried", "measured, ms", search.quality), rows),
    )


def _marked(
    trials: Sequence[Trial],
    x: Sequence[float],
    y: Sequence[float],
    name: str,
    colour: str,
    symbol: str,
    hover: str,
) -> Trace:
    """Marks of trials, each with its network."""
    trace = points(
        np.array(x), np.array(y), name=name, colour=colour,
        names=[t.architecture for t in trials], hover=hover,
    )  # fmt: skip
    trace["marker"]["symbol"] = symbol
    return trace


def _cycle(count: int) -> list[str]:
    return [f"var({_COLOURS[n % len(_COLOURS)]})" for n in range(count)]
