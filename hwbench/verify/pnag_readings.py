"""Four readings of one generator: what stands between its prediction and its promise.

- *raw*: an architecture is taken where its median is within the budget;
- *guarded*: where its bound at confidence .98 is, calibrated on architectures drawn at random;
- *calibrated*: where that bound is, calibrated on what other searches chose, measured before;
- *confirmed*: as calibrated, after measuring where a measurement decides most
  (:mod:`hwbench.search.confirm`).

All choose among the same candidates. Answers are judged in a session after these, in processes of
their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.predictors import BudgetOracle
from hwbench.predictors.oracle import Measurer
from hwbench.records import Measurement
from hwbench.search.confirm import AT_ONCE, CHOSEN, confirm
from hwbench.search.ledger import SearchLedger
from hwbench.search.pnag import Generator
from hwbench.search.scoring import Scored
from hwbench.spaces import Codes, Space
from hwbench.verify.budgets import GUARDED, UNGUARDED

Array = NDArray[np.float64]

READINGS = ("raw", "guarded", "calibrated", "confirmed")


@dataclass(frozen=True, eq=False)
class Answered:
    """Architectures (a, L) for the budgets (a,) that were answered, and their bounds (a,) in ms.

    A budget below all bounds has no answer.
    """

    budgets: Array
    codes: Codes
    upper_ms: Array


def read_generator(
    generator: Generator, budgets: Array, others: Codes, measurer: Measurer, at_most: int
) -> tuple[dict[str, Answered], dict[str, int]]:
    """The answers by reading, and how many were measured for them.

    ``others`` (n, L) are what other searches chose: none of them was learned from. ``at_most`` of
    the generator's own candidates are measured to confirm.
    """
    plain = generator.oracle
    raw = _with(generator, plain, UNGUARDED)
    held = BudgetOracle(plain.predictor, measurer=measurer)
    held.measure(others)
    calibrated = BudgetOracle(plain.predictor, measurer=measurer)
    if len(held.known) >= CHOSEN:
        calibrated.calibrate(held.known)
    found = {
        "raw": answers(raw, budgets),
        "guarded": answers(generator, budgets),
        "calibrated": answers(_with(generator, calibrated, GUARDED), budgets),
    }
    ledger = SearchLedger()
    kept = Scored(
        generator.kept,
        generator.evaluator.score(generator.kept),
        calibrated.upper(generator.kept, GUARDED),
    )
    confirm(kept, calibrated, budgets, GUARDED, at_most, ledger, at_once=AT_ONCE)
    found["confirmed"] = answers(_with(generator, calibrated, GUARDED), budgets)
    return found, {"calibrated": len(held.known), "confirmed": ledger.device_measurements}


def answers(generator: Generator, budgets: Array) -> Answered:
    """What a generator answers to budgets (b,); beyond all that it needs, as to the largest."""
    low, high = generator.range_ms
    asked = budgets[budgets >= low]
    found = generator.generate(list(np.minimum(asked, high)))
    width = generator.kept.shape[1]
    return Answered(
        asked,
        np.array([each.code for each in found], dtype=np.int16).reshape(-1, width),
        np.array([each.upper_ms for each in found]),
    )


def trials_of(
    space: Space, found: Answered, measured: Mapping[str | None, Measurement]
) -> list[dict[str, Any]]:
    """A row for each budget that was answered, judged by a later measurement (by text)."""
    trials = []
    texts = space.decode(found.codes)
    for budget, text, bound in zip(found.budgets, texts, found.upper_ms, strict=True):
        latency_ns = measured[text].latency_ns
        assert latency_ns is not None, "one that was not measured has raised"
        trials.append(
            {
                "budget_ms": round(float(budget), 5),
                "architecture": text,
                "upper_ms": round(float(bound), 5),
                "measured_ms": round(latency_ns / 1e6, 5),
                "kept": bool(latency_ns / 1e6 <= budget),
            }
        )
    return trials


def figures_of(trials: Sequence[Mapping[str, Any]], budgets: int) -> dict[str, float]:
    """Shares of one reading, and how many networks they are of: a few answer many budgets.

    A budget binds where the answer to the largest one is not within it: beyond, by the accuracies
    that the search knows, there is nothing to use it for.
    """
    used = np.array([trial["measured_ms"] / trial["budget_ms"] for trial in trials])
    enough = max(trials, key=lambda trial: float(trial["budget_ms"]))["upper_ms"]
    binding = np.array([trial["budget_ms"] < enough for trial in trials])
    return {
        "answered": len(trials) / budgets,
        "networks": len({trial["architecture"] for trial in trials}),
        "satisfaction": float(np.mean([trial["kept"] for trial in trials])),
        "utilisation_mean": float(used.mean()),
        "binding": int(binding.sum()),
        "utilisation_where_binding": float(used[binding].mean()) if binding.any() else 1.0,
    }


def _with(generator: Generator, oracle: BudgetOracle, confidence: float) -> Generator:
    """The same candidates and controller, by the bounds of another oracle."""
    return Generator(
        generator.policy,
        generator.evaluator,
        oracle,
        generator.kept,
        confidence,
        generator.fixed,
    )
