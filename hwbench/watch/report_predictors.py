"""How good predictors are over time: a predictor's file against a store, and claims of the ledger.

A file is held against each session that measured architectures of its space on its device, in the
milliseconds of its calibration. What was measured before it was fitted it may have learned from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwbench.records import Measurement, Verdict
from hwbench.store.documents import microseconds
from hwbench.watch.charts import Chart, Table, Trace, plain, short
from hwbench.watch.report_searches import searches

if TYPE_CHECKING:
    from hwbench.predictors import LatencyPredictor

#: A session of fewer architectures says little of a predictor.
LEAST = 3
_NS_PER_MS = 1e6
_COLOURS = ("--accent", "--seq-3", "--winner", "--seq-5", "--seq-1")

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Held:
    """A predictor against the n architectures of one session.

    ``errors`` are the 5th, 50th and 95th percentile of its relative error; shares are of n.
    ``later`` tells that the session began after it was fitted.
    """

    created: str
    n: int
    errors: tuple[float, float, float]
    within_5: float
    within_10: float
    held_90: float
    later: bool


@dataclass(frozen=True, slots=True, eq=False)
class PredictorShown:
    """A predictor's file and what the store says of it, the oldest session first."""

    id: str
    name: str
    predictor: LatencyPredictor
    sessions: Sequence[Held]

    @property
    def later(self) -> list[Held]:
        """The sessions that it cannot have learned from."""
        return [each for each in self.sessions if each.later]


@dataclass(frozen=True, slots=True)
class Tested:
    """What one test of a claim found of predictions; ``None``: it does not tell."""

    claim: str
    created: str
    n: int | None
    within_5: float | None
    within_10: float
    held_90: float | None


def shown(id: str, path: Path, measurements: Sequence[Measurement]) -> PredictorShown:
    """A predictor's file held against measurements. PredictorError for what is no such file."""
    from hwbench.predictors import load_predictor

    predictor = load_predictor(path)
    place = predictor.meta.provenance
    sessions: dict[str, list[Measurement]] = {}
    for m in measurements:
        work = m.workload
        here = m.fingerprint.key, work.threads, work.options, m.epoch, work.space
        there = (
            place.fingerprint_key, place.threads, place.options, place.epoch, predictor.space.name
        )  # fmt: skip
        if here == there and m.status == "ok" and m.latency_ns and work.arch is not None:
            sessions.setdefault(m.session, []).append(m)
    held = [_held(predictor, own) for own in sessions.values() if len(own) >= LEAST]
    return PredictorShown(id, path.name, predictor, held)


def _held(predictor: LatencyPredictor, measured: Sequence[Measurement]) -> Held:
    codes = predictor.space.encode([str(m.workload.arch) for m in measured])
    ms = np.array([m.latency_ns for m in measured], dtype=float) / _NS_PER_MS
    low, high = predictor.interval(codes, 0.9)
    off = predictor.predict(codes).mean_ms / ms - 1
    least, middle, most = (float(q) for q in np.quantile(off, [0.05, 0.5, 0.95]))
    return Held(
        created=measured[0].created,
        n=len(measured),
        errors=(least, middle, most),
        within_5=float(np.mean(np.abs(off) < 0.05)),
        within_10=float(np.mean(np.abs(off) < 0.1)),
        held_90=float(np.mean((low <= ms) & (ms <= high))),
        later=microseconds(measured[0].created) >= microseconds(predictor.meta.created),
    )


def error_chart(file: PredictorShown) -> Chart | None:
    """Its errors session by session; ``None`` where none was held against it."""
    if not file.sessions:
        return None
    traces: list[Trace] = []
    looks = ((False, "before it was fitted", "--muted"), (True, "since then", "--accent"))
    for later, name, colour in looks:
        own = [each for each in file.sessions if each.later is later]
        if own:
            low, middle, high = (100 * np.array([e.errors[k] for e in own]) for k in range(3))
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "x": [each.created for each in own],
                    "y": short(middle),
                    "text": [f"{each.n} architectures" for each in own],
                    "hovertemplate": "%{y:+.1f} %, half of %{text}<extra></extra>",
                    "marker": {"color": f"var({colour})", "size": 9},
                    "error_y": {
                        "type": "data",
                        "array": short(high - middle),
                        "arrayminus": short(middle - low),
                        "color": f"var({colour})",
                        "thickness": 1.5,
                        "width": 4,
                    },
                }
            )
    reach = 1.1 * max(11.0, *(100 * abs(end) for e in file.sessions for end in e.errors))
    return Chart(
        key=f"{file.id}-errors",
        title="Error, session by session",
        summary=_summary(file),
        y_label="error of the prediction, %: median, and 5 to 95 % of the architectures",
        traces=traces,
        layout={
            "xaxis": {"type": "date"},
            "yaxis": {"range": [-reach, reach]},
            "shapes": [_level(10), _level(-10)],
        },
        table=Table(
            "Predictions against each session",
            ("session", "architectures", "median error, %", "within ±5 %, %", "within ±10 %, %",
             "90 % interval holds, %", ""),
            [
                (each.created[:16].replace("T", " "), each.n, 100 * each.errors[1],
                 100 * each.within_5, 100 * each.within_10, 100 * each.held_90,
                 "" if each.later else "before its fit")
                for each in file.sessions
            ],
        ),
    )  # fmt: skip


def _summary(file: PredictorShown) -> str:
    later = file.later
    if not later:
        return (
            "No session was measured since it was fitted: it may have learned from all of these, "
            "which says nothing of others."
        )
    n = sum(each.n for each in later)
    within = sum(each.n * each.within_10 for each in later) / n
    return (
        f"Of {n} architectures measured since it was fitted, in "
        f"{len(later)} session{'s' * (len(later) > 1)}, {100 * within:.0f} % were predicted to "
        "within 10 %."
    )


def _level(percent: float) -> dict[str, Any]:
    line = {"color": "var(--muted)", "width": 1, "dash": "dot"}
    across = {"xref": "paper", "x0": 0, "x1": 1}
    return {"type": "line", **across, "y0": percent, "y1": percent, "line": line}


def tested(ledger: Sequence[Verdict]) -> list[Tested]:
    """What each test of a claim about predictions found, the newest first as the ledger is."""
    found = []
    for verdict in ledger:
        evidence = verdict.evidence
        share = _share(evidence.get("within_10"))
        if share is not None:
            n = evidence.get("networks")
            found.append(
                Tested(
                    verdict.claim, verdict.created, n if isinstance(n, int) else None,
                    _share(evidence.get("within_5")), share, _share(evidence.get("coverage_90")),
                )
            )  # fmt: skip
        elif (off := _errors(verdict)) is not None:
            within_5, within_10 = (float(np.mean(off < most)) for most in (0.05, 0.1))
            found.append(
                Tested(verdict.claim, verdict.created, len(off), within_5, within_10, None)
            )
    return found


def _share(value: Any) -> float | None:
    """A share of 1; ``None`` for whatever is none."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and 0 <= value <= 1 else None


def _errors(verdict: Verdict) -> Array | None:
    """How far predictions of a claim's networks were off; ``None`` where it has none."""
    networks: Mapping[str, float] = {
        trial.architecture: abs(trial.predicted_ms / trial.measured_ms - 1)
        for search in searches([verdict])
        for trials in search.sets.values()
        for trial in trials
        if trial.predicted_ms is not None
    }
    return np.array([*networks.values()]) if networks else None


def tested_chart(found: Sequence[Tested]) -> Chart | None:
    """Share within ±10 % over time by claim; ``None`` where no claim was tested twice."""
    claims: dict[str, list[Tested]] = {}
    for each in reversed(found):
        claims.setdefault(each.claim, []).append(each)
    if all(len(own) < 2 for own in claims.values()):
        return None
    traces: list[Trace] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": plain(claim if len(claim) < 60 else f"{claim[:59]}…"),
            "x": [each.created for each in own],
            "y": short(np.array([100 * each.within_10 for each in own])),
            "line": {"color": f"var({_COLOURS[n % len(_COLOURS)]})", "width": 1.5},
            "hovertemplate": "%{y:.1f} % within ±10 %<extra></extra>",
        }
        for n, (claim, own) in enumerate(claims.items())
    ]
    return Chart(
        key="tested-over-time",
        title="Claims’ predictions over time",
        summary="Share of the networks that were predicted to within 10 %, test by test.",
        y_label="within ±10 %, %",
        traces=traces,
        layout={"xaxis": {"type": "date"}, "yaxis": {"range": [0, 101]}},
        table=Table(
            "Every test",
            ("claim", "when", "within ±10 %, %"),
            [(each.claim, each.created[:16].replace("T", " "), 100 * each.within_10)
             for each in found],
        ),
    )  # fmt: skip
