"""Is a budget that the oracle promises kept when the winner is measured again?

Budgets spread over the range that can be reached. For each, the largest network whose upper
bound lies under it is searched, twice: with the guard (confidence .98) and without (.5). Every
winner is measured in a later session, in fresh processes; kept means that its undisturbed
latency is within the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.devices.profile import PROFILE_PLAN, measure_architectures, sample_profile
from hwbench.errors import DeviceError, InconclusiveError
from hwbench.measure.plan import Failure, Plan
from hwbench.predictors import BudgetOracle, fit_predictor
from hwbench.predictors.measured import provenance_of, training_from
from hwbench.records import Measurement, Verdict
from hwbench.search import SearchResult, random_search_each
from hwbench.spaces import Space, get_space
from hwbench.verify.frame import Claim, Setting

SPACE = "ofa_mbv3"
SAMPLES, QUICK_SAMPLES = 300, 100
BUDGETS, QUICK_BUDGETS = 60, 12
GUARDED, UNGUARDED = 0.98, 0.5
KEPT_BAR, USE_BAR = 0.95, 0.9
#: Winners deserve more than a profile's precision: they decide a promise. As many are loaded at
#: once as in a profile: large networks leave each other less of the caches.
WINNERS_PLAN = Plan(processes=5, seconds=1.0, loaded=PROFILE_PLAN.loaded)

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trial:
    """One budget, the network chosen for it, and what it took when measured."""

    result: SearchResult
    measurement: Measurement

    @property
    def measured_ms(self) -> float:
        """Undisturbed latency of the winner."""
        assert self.measurement.latency_ns is not None
        return self.measurement.latency_ns / 1e6

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        return self.measured_ms <= self.result.budget_ms

    def row(self) -> dict[str, Any]:
        """For the evidence."""
        return {
            "budget_ms": round(self.result.budget_ms, 4),
            "confidence": self.result.confidence,
            "architecture": self.result.text,
            "macs": int(self.result.score),
            "predicted_ms": round(self.result.predicted_ms, 4),
            "upper_ms": round(self.result.upper_ms, 4),
            "measured_ms": round(self.measured_ms, 4),
            "kept": self.kept,
        }


class Budgets(Claim):
    """A budget is promised, measured again, and kept."""

    name = "budgets"
    text = (
        "of the latency budgets promised at confidence .98, at least 95 % are kept when the "
        "winner is measured again, at a mean utilisation of at least .9"
    )
    protocol = (
        "profile and fit; random search for the largest network (MACs, a capacity proxy) under "
        "each budget; every winner measured in a later session"
    )

    def run(self, setting: Setting) -> list[Verdict]:
        """About 8 minutes with the profile; with ``quick`` about 3."""
        space = get_space(SPACE)
        oracle = fitted_oracle(setting, space, QUICK_SAMPLES if setting.quick else SAMPLES)
        count = QUICK_BUDGETS if setting.quick else BUDGETS
        rng = np.random.default_rng(setting.seed + 1)
        budgets = achievable_budgets(space, oracle, count, rng)
        found = [
            result
            for confidence in (GUARDED, UNGUARDED)
            for result in random_search_each(
                space, oracle, list(budgets), rng=rng, confidence=confidence
            )
        ]
        setting.progress("measuring the winners", 0.6)
        trials = measure_winners(setting, space, found)
        evidence = {"quick": setting.quick, **summarise(trials)}
        figure = setting.folder / "budgets.png"
        from hwbench.verify.figures import budgets_figure

        budgets_figure([t for t in trials if t.result.confidence == GUARDED], figure)
        ok = evidence["kept_share"] >= KEPT_BAR and evidence["utilisation_mean"] >= USE_BAR
        return [self.verdict("confirmed" if ok else "refuted", evidence, figure)]


def fitted_oracle(setting: Setting, space: Space, samples: int) -> BudgetOracle:
    """An oracle fitted on a profile of this device, which the store may hold already."""
    profile = sample_profile(setting.device, space, samples, seed=setting.seed)
    for result in profile.run(
        setting.store, PROFILE_PLAN, lambda done: setting.progress("profiling", 0.6 * done)
    ):
        if isinstance(result, Failure) and not isinstance(result.error, InconclusiveError):
            raise DeviceError(f"{result.workload.name}: {result.reason}")
    measured = profile.stored(setting.store)
    training = training_from(space, measured)
    return BudgetOracle(fit_predictor(space, training, provenance_of(measured), seed=setting.seed))


def achievable_budgets(
    space: Space, oracle: BudgetOracle, count: int, rng: np.random.Generator
) -> Array:
    """Budgets evenly spaced in log between the bounds of the fastest and the slowest network."""
    from hwbench.spaces.design import candidates

    upper = oracle.upper(candidates(space, 20_000, rng), GUARDED)
    return np.geomspace(float(upper.min()) * 1.001, float(upper.max()), count)


def measure_winners(setting: Setting, space: Space, found: Sequence[SearchResult]) -> list[Trial]:
    """Measure each distinct winner once, anew."""
    codes = np.unique(np.array([r.code for r in found]), axis=0)
    measured = measure_architectures(
        setting.device,
        space,
        codes,
        setting.store,
        plan=WINNERS_PLAN,
        progress=lambda done: setting.progress("measuring the winners", 0.6 + 0.4 * done),
    )
    by_text = {m.workload.arch: m for m in measured}
    return [Trial(result, by_text[result.text]) for result in found]


def summarise(trials: Sequence[Trial]) -> dict[str, Any]:
    """Shares kept and utilisation, guarded and unguarded, and every trial."""
    guarded = [t for t in trials if t.result.confidence == GUARDED]
    unguarded = [t for t in trials if t.result.confidence == UNGUARDED]
    over = [t.measured_ms / t.result.budget_ms - 1 for t in guarded if not t.kept]
    return {
        "budgets": len(guarded),
        "confidence": GUARDED,
        "kept_share": round(float(np.mean([t.kept for t in guarded])), 3),
        "utilisation_mean": round(
            float(np.mean([t.measured_ms / t.result.budget_ms for t in guarded])), 3
        ),
        "worst_excess_pct": round(100 * max(over, default=0.0), 2),
        "unguarded_kept_share": round(float(np.mean([t.kept for t in unguarded])), 3),
        "unguarded_utilisation_mean": round(
            float(np.mean([t.measured_ms / t.result.budget_ms for t in unguarded])), 3
        ),
        "inconclusive": sum(t.measurement.status != "ok" for t in trials),
        "trials": [t.row() for t in trials],
    }
