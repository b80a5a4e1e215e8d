"""PNAG on this device: budgets promised, measured again, and the accuracy that they bought.

``mbv3_small`` at 28 pixels on Fashion-MNIST (with ``quick`` on digits). One profile, one supernet;
then generators of several seeds, and evolution under each budget with as many accuracy labels and
evaluator calls. Answers of the first seed, in four readings (:mod:`hwbench.verify.pnag_readings`),
are measured in a later session. Accuracy is that of the networks as they are taken out of the
supernet, on test images that nothing else has seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwbench.devices.profile import measure_architectures
from hwbench.errors import TORCH_MISSING
from hwbench.predictors import BudgetOracle
from hwbench.records import Verdict
from hwbench.search.accuracy.kept import KeptAccuracy
from hwbench.search.accuracy.model import fit_accuracy
from hwbench.search.baselines import evolve
from hwbench.search.labels import random_labels
from hwbench.search.ledger import SearchLedger
from hwbench.search.pnag import Costs, Generator, train_generator
from hwbench.search.scoring import Scorer, best_each
from hwbench.spaces import Codes, Space, get_space
from hwbench.spaces.design import extremes
from hwbench.verify.budgets import GUARDED, KEPT_BAR, USE_BAR, WINNERS_PLAN, fitted_oracle
from hwbench.verify.frame import Claim, Setting, by_bars, over_seeds
from hwbench.verify.pnag_readings import (
    READINGS,
    Answered,
    figures_of,
    read_generator,
    trials_of,
)

if TYPE_CHECKING:
    from hwbench.search.accuracy.supernet import SupernetAccuracy
    from hwbench.search.data import Dataset

Array = NDArray[np.float64]

SPACE, FIXED = "mbv3_small", {"r": 28}
METHODS = ("pnag", "evolution")
#: Budgets lie between the bounds of the smallest and of the largest architecture, a bit inside.
INSIDE = (1.03, 0.97)
PIPELINE_SECONDS, SEED_SECONDS = 720.0, 120.0
#: A difference in accuracy that is known less well than this (points) says nothing.
ERROR_BAR = 0.5


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is done.

    ``judged`` of the ``budgets`` are judged by accuracy on ``images``. Bounds are calibrated on
    ``chosen`` architectures at most, ``confirmed`` more are measured for the confirmed reading.
    """

    data: str
    profile: int
    steps: int
    seeds: int
    labels: int
    budgets: int
    judged: int
    images: int
    chosen: int
    confirmed: int


FULL = Extent("fashion-mnist", 120, 3000, 5, 100, 60, 10, 10_000, 60, 20)
QUICK = Extent("digits", 40, 60, 2, 24, 10, 4, 200, 24, 4)


@dataclass(frozen=True, eq=False)
class Arena:
    """What all seeds and methods share."""

    extent: Extent
    space: Space
    oracle: BudgetOracle
    source: KeptAccuracy
    test: SupernetAccuracy
    budgets: Array


@dataclass(frozen=True, eq=False)
class Answers:
    """One method's architecture (b, L) for each budget, and what finding them cost."""

    codes: Codes
    ledger: SearchLedger


@dataclass(frozen=True, eq=False)
class Found:
    """What one seed's searches found, by method; the generator is PNAG's."""

    answers: Mapping[str, Answers]
    generator: Generator


class PnagOnDevice(Claim):
    """A generator's budgets on this device, and what they buy."""

    name = "pnag"
    text = (
        "a PNAG generator of mbv3_small keeps at least 95 % of 60 latency budgets on this device "
        "at confidence .98 and uses .9 of them, with networks no less accurate than those of "
        "evolution under each budget at equal cost, after 12 minutes in all"
    )
    protocol = (
        "profile, fit, a supernet; generators and evolution of several seeds with the same labels "
        "and evaluator calls; answers of the first seed, by bounds calibrated at random, on what "
        "the other searches chose, and confirmed, measured in a later session; accuracy of the "
        "extracted networks on test images"
    )

    def run(self, setting: Setting) -> list[Verdict]:
        """About 20 minutes on two idle cores; with ``quick`` under 4. Resumes where it was."""
        if find_spec("torch") is None:
            reason = f"{TORCH_MISSING}; or give --tables FOLDER"
            return [self.verdict("not testable here", {"reason": reason})]
        from hwbench.verify.pnag_figure import device_figure

        evidence, figure = device_evidence(setting), setting.folder / "pnag-device.png"
        device_figure(evidence, figure)
        return [self.verdict(by_bars(evidence["bars"]), evidence, figure)]


def device_evidence(setting: Setting) -> dict[str, Any]:
    """Run the experiment, or what is left of it; figures, bars, and the measured budgets."""
    extent = QUICK if setting.quick else FULL
    seconds: dict[str, float] = {}
    resumed = _begun(setting, extent)
    arena = _prepared(setting, extent, seconds)
    rows: list[dict[str, Any]] = []
    found: list[Found] = []
    for index, seed in enumerate(range(setting.seed, setting.seed + extent.seeds)):
        setting.progress(f"searching, seed {seed}", 0.5 + 0.3 * index / extent.seeds)
        found.append(_searched(arena, seed))
        rows += list(_judged(arena, seed, found[-1].answers))
    setting.progress("measuring what was chosen", 0.8)
    readings, measured = _readings(setting, arena, found)
    setting.progress("measuring the answers", 0.9)
    trials = _measured(setting, arena, readings)
    evidence: dict[str, Any] = {
        "quick": setting.quick,
        "data": extent.data,
        "resumed": resumed,
        "measured": measured,
    }
    evidence |= summarise(rows, trials, len(arena.budgets))
    if not resumed:  # what an earlier run has done takes no time in this one
        times = times_of(rows, seconds)
        evidence |= {**times, "bars": {**evidence["bars"], **times["bars"]}}
    return evidence


def _begun(setting: Setting, extent: Extent) -> bool:
    """Whether an earlier run has done some of it."""
    key = setting.device.fingerprint(1).key
    held = setting.store.measurements(space=SPACE, fingerprint=key, with_bursts=False)
    return bool(held) or _supernet_file(setting, extent).exists()


def _supernet_file(setting: Setting, extent: Extent) -> Path:
    return setting.folder / f"pnag-{extent.data}-{extent.steps}-{setting.seed}.pt"


def _prepared(setting: Setting, extent: Extent, seconds: dict[str, float]) -> Arena:
    """Oracle, supernet and data: from what an earlier run left, or made."""
    from hwbench.search.accuracy.supernet import SupernetAccuracy, kept_labels
    from hwbench.search.data import load_dataset
    from hwbench.search.supernet import largest, load_supernet, smallest

    space, data = get_space(SPACE), load_dataset(extent.data)
    began = time.monotonic()
    part = replace(setting, progress=lambda what, done: setting.progress(what, done / 4))
    oracle = fitted_oracle(part, space, extent.profile)
    seconds["profile_and_fit"] = time.monotonic() - began
    path = _supernet_file(setting, extent)
    seconds["supernet"] = _train(setting, space, data, extent, path)
    net = load_supernet(path, space)
    # Nothing is chosen by the test part: it stands in for the validation part in the report.
    report = replace(data, validation=data.test_for_the_final_report())
    source = kept_labels(SupernetAccuracy(net, data), path)
    ends = np.stack([smallest(space, FIXED), largest(space, FIXED)])
    low, high = oracle.upper(ends, GUARDED) * np.array(INSIDE)
    return Arena(
        extent,
        space,
        oracle,
        source,
        SupernetAccuracy(net, report, images=extent.images),
        np.geomspace(low, high, extent.budgets),
    )


def _train(setting: Setting, space: Space, data: Dataset, extent: Extent, path: Path) -> float:
    """Train the supernet, or what is left of it; the seconds that it took in all."""
    from hwbench.search.supernet import Supernet, TrainingPlan, train

    return train(
        Supernet(space, setting.seed),
        data,
        TrainingPlan(extent.steps, seed=setting.seed, fixed=FIXED),
        checkpoint=path,
        progress=lambda now: setting.progress("supernet", 0.25 + 0.25 * now.step / now.steps),
    ).seconds


def _searched(arena: Arena, seed: int) -> Found:
    """PNAG, then evolution with as many labels and evaluator calls."""
    extent, budgets = arena.extent, arena.budgets
    ledger = SearchLedger()
    with ledger.timed():
        generator, spent = train_generator(
            arena.source,
            arena.oracle,
            list(budgets[:: max(1, len(budgets) // 10)]),
            costs=Costs(extent.labels),
            fixed=FIXED,
            seed=seed,
        )
        found = generator.generate(list(budgets))
    spent = replace(spent, seconds=ledger.seconds)
    answers = {"pnag": Answers(np.array([each.code for each in found]), spent)}
    ledger, rng = SearchLedger(), np.random.default_rng([seed, 1])
    with ledger.timed():
        labelled = random_labels(arena.source, extent.labels, rng, ledger, FIXED)
        evaluator = fit_accuracy(arena.space, labelled.codes, labelled.accuracy)
        scorer = Scorer(arena.space, evaluator, arena.oracle, GUARDED, ledger)
        # As many calls at least, and the ends of the space to begin with, as PNAG has.
        calls = math.ceil(spent.evaluator_calls / len(budgets))
        ends = extremes(arena.space, rng, fixed=FIXED)
        pool = evolve(scorer, budgets, calls, rng, FIXED, first=ends)
        pool = pool.joined(scorer(labelled.codes))
        best = best_each(pool, budgets)
    # Where nothing of its own keeps the budget, it has the fastest that it found.
    codes = pool.codes[np.where(best >= 0, best, pool.upper_ms.argmin())]
    return Found({**answers, "evolution": Answers(codes, ledger)}, generator)


def _judged(arena: Arena, seed: int, found: Mapping[str, Answers]) -> Iterator[dict[str, Any]]:
    """A row a method: accuracy on test images under some of the budgets."""
    chosen = np.linspace(0, len(arena.budgets) - 1, arena.extent.judged).round().astype(int)
    for method, answers in found.items():
        yield {
            "seed": seed,
            "method": method,
            "test_accuracy": arena.test.accuracy(answers.codes[chosen]).tolist(),
            "distinct": len(np.unique(answers.codes, axis=0)),
            "ledger": answers.ledger.row(),
        }


def _readings(
    setting: Setting, arena: Arena, found: Sequence[Found]
) -> tuple[dict[str, Answered], dict[str, int]]:
    """The first seed's answers in all readings, evolution's beside them; what was measured."""
    first = found[0]
    chosen = np.concatenate(
        [
            answers.codes
            for each in found
            for answers in each.answers.values()
            if answers is not first.answers["pnag"]
        ]
    )
    chosen = np.random.default_rng(setting.seed).permutation(np.unique(chosen, axis=0))
    readings, measured = read_generator(
        first.generator,
        arena.budgets,
        chosen[: arena.extent.chosen],
        lambda codes: measure_architectures(setting.device, arena.space, codes, setting.store),
        arena.extent.confirmed,
    )
    codes = first.answers["evolution"].codes
    rival = Answered(arena.budgets, codes, arena.oracle.upper(codes, GUARDED))
    return {**readings, "evolution": rival}, measured


def _measured(
    setting: Setting, arena: Arena, found: Mapping[str, Answered]
) -> dict[str, list[dict[str, Any]]]:
    """All answers, measured anew: a trial a budget, by reading and method."""
    codes = np.unique(np.concatenate([each.codes for each in found.values()]), axis=0)
    measured = measure_architectures(
        setting.device,
        arena.space,
        codes,
        setting.store,
        plan=WINNERS_PLAN,
        progress=lambda done: setting.progress("measuring the answers", 0.9 + 0.1 * done),
    )
    by_text = {m.workload.arch: m for m in measured}
    return {name: trials_of(arena.space, each, by_text) for name, each in found.items()}


def summarise(
    rows: Sequence[Mapping[str, Any]],
    trials: Mapping[str, Sequence[Mapping[str, Any]]],
    budgets: int,
) -> dict[str, Any]:
    """What the bars say of rows by seed and method, and of the first seed's measured trials."""
    by = {m: [row for row in rows if row["method"] == m] for m in METHODS}
    accuracy = {m: np.array([row["test_accuracy"] for row in by[m]]) for m in METHODS}
    by_seed = 100 * (accuracy["pnag"] - accuracy["evolution"]).mean(axis=1)
    gain, half = over_seeds(by_seed)
    read = {name: figures_of(each, budgets) for name, each in trials.items()}
    kept = {name: figures["satisfaction"] for name, figures in read.items()}
    used = {name: figures["utilisation_mean"] for name, figures in read.items()}
    return {
        "bars": {
            **{
                f"satisfaction >= {KEPT_BAR}, {name}": kept[name] >= KEPT_BAR
                for name in READINGS
                if name != "raw"
            },
            f"utilisation >= {USE_BAR}": used["guarded"] >= USE_BAR,
            f"accuracy at least evolution's, within its error (at most {ERROR_BAR} points)": (
                gain + half >= 0 and half <= ERROR_BAR
            ),
        },
        "budgets": budgets,
        "confidence": GUARDED,
        "satisfaction": kept["guarded"],
        "utilisation_mean": used["guarded"],
        "readings": read,
        "test_accuracy": float(accuracy["pnag"].mean()),
        "gain_over_evolution_points": gain,
        "gain_half_width_95": half,
        "evolution_satisfaction": kept["evolution"],
        "evolution_utilisation_mean": used["evolution"],
        "evolution_test_accuracy": float(accuracy["evolution"].mean()),
        "seeds": rows,
        "trials": trials,
    }


def times_of(rows: Sequence[Mapping[str, Any]], seconds: Mapping[str, float]) -> dict[str, Any]:
    """The same of how long it took: the shared parts by name, and each seed."""
    searching = [row["ledger"]["seconds"] for row in rows if row["method"] == "pnag"]
    pipeline = sum(seconds.values()) + searching[0]
    return {
        "bars": {
            f"pipeline <= {PIPELINE_SECONDS:.0f} s": pipeline <= PIPELINE_SECONDS,
            f"a seed <= {SEED_SECONDS:.0f} s": max(searching) <= SEED_SECONDS,
        },
        "pipeline_seconds": pipeline,
        "seconds": {name: round(each, 1) for name, each in seconds.items()},
    }
