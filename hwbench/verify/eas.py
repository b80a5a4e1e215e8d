"""Does one forward pass give an architecture for a task and a budget, and does the task matter?

One supernet of ``mbv3_small`` with task dropout and one without are trained on Fashion-MNIST; over
each, generators of several seeds. 50 scenarios: five tasks, ten budgets.
:mod:`hwbench.verify.eas_trial` has one seed. Answers are judged on the test images, which nothing
else has seen; those of the first seed are measured on the device in a later session.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import hwbench
from hwbench.errors import TORCH_MISSING, UsageError
from hwbench.inputs import json_lines
from hwbench.predictors import BudgetOracle
from hwbench.records import Verdict, digest
from hwbench.search.eas import Lesson, Task, TaskGenerator, TaskGroups, task_dropout
from hwbench.search.generator_file import load_generator, save_generator
from hwbench.spaces import Space, get_space
from hwbench.verify.eas_trial import (
    CONFIDENCE,
    EVOLUTION,
    METHODS,
    OWN,
    PLAIN,
    RANDOM,
    SAME,
    SWAPPED,
    Arena,
    paired,
    run_trial,
    timings,
)
from hwbench.verify.frame import Claim, Setting

if TYPE_CHECKING:
    from hwbench.search.data import Dataset
    from hwbench.search.supernet import Supernet

Array = NDArray[np.float64]
Row = Mapping[str, Any]

SPACE, FIXED = "mbv3_small", {"r": 28}
BUDGETS = 10
#: Budgets lie between the bounds of the smallest and of the largest architecture, a bit inside.
_INSIDE = (1.06, 0.96)
SECONDS_BAR = 0.010
DISTINCT_BAR, SATISFACTION_BAR = 0.8, 0.95


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is done: on what data, with how many seeds, images and steps."""

    data: str
    groups: Mapping[str, tuple[int, ...]]
    judged: tuple[str, ...]
    seeds: int
    profile: int
    images: int
    supernet_steps: int
    lesson: Lesson


#: Clothes for the upper body by what is hard to tell apart, shoes, and what is left.
FULL = Extent(
    data="fashion-mnist",
    groups={"light": (0, 3, 6), "warm": (2, 4), "shoes": (5, 7, 9), "rest": (1, 8)},
    judged=("light", "warm", "shoes", "light+warm", "light+warm+shoes+rest"),
    seeds=5,
    profile=120,
    images=600,
    supernet_steps=700,
    lesson=Lesson(steps=48),
)
#: Digits by the shape of their strokes; a supernet that has hardly begun.
QUICK = Extent(
    data="digits",
    groups={"round": (0, 6, 8, 9), "straight": (1, 4, 7), "open": (2, 3, 5)},
    judged=("round", "straight", "open", "round+open", "round+straight+open"),
    seeds=2,
    profile=40,
    images=200,
    supernet_steps=120,
    lesson=Lesson(steps=15),
)


class Eas(Claim):
    """A generator that answers tasks and budgets, and whether it is any good."""

    name = "eas"
    text = (
        "EAS gives compact architectures for 50 scenarios of tasks and budgets within 0.1 s (here: "
        "10 ms, the oracle's check included), different ones for different budgets, and at least "
        "95 % keep their budgets"
    )
    protocol = (
        "one supernet with task dropout and one without, frozen; generators of several seeds "
        "learn on validation images; 5 tasks x 10 budgets, accuracy compared under every second; "
        "judged on test images; answers of the first seed measured in a later session"
    )

    def run(self, setting: Setting) -> list[Verdict]:
        """Some 16 minutes of one core, and the measuring. Resumes where it was."""
        if find_spec("torch") is None:
            return [self.verdict("not testable here", {"reason": TORCH_MISSING})]
        extent = QUICK if setting.quick else FULL
        arena, oracle_key = prepared(setting, extent)
        path = setting.folder / f"eas-{_key(arena, extent, oracle_key)}.jsonl"
        seeds = range(setting.seed, setting.seed + extent.seeds)
        rows = []
        for i, seed in enumerate(seeds):

            def tell(share: float, i: int = i, seed: int = seed) -> None:
                done = (i + share) / len(seeds)
                setting.progress(f"generators, seed {seed}", 0.4 + 0.5 * done)

            rows.append(kept_row(arena, seed, path, tell))
        setting.progress("measuring the answers", 0.9)
        generator, _ = load_generator(path.with_suffix(f".{setting.seed}.hwg"))
        assert isinstance(generator, TaskGenerator), "kept_row wrote it"
        seconds = timings(arena, generator)
        measured = measure_answers(setting, arena, rows[0])
        found = summarise(rows, arena, measured, seconds)
        evidence = {"quick": setting.quick, "data": extent.data, **found}
        figure = setting.folder / "eas.png"
        from hwbench.verify.eas_figure import eas_figure

        eas_figure(rows, arena, measured, figure)
        return self.verdicts(STATEMENTS, evidence, figure)


# --- what is shared -------------------------------------------------------------------------------


def prepared(setting: Setting, extent: Extent) -> tuple[Arena, str]:
    """Data, oracle and supernets: from what an earlier run left, or made."""
    from hwbench.verify.budgets import fitted_oracle

    space = get_space(SPACE)
    data = _data(extent)
    groups = groups_of(data, extent)
    quarter = replace(setting, progress=lambda what, done: setting.progress(what, done / 6))
    oracle = fitted_oracle(quarter, space, extent.profile)
    nets = [
        _supernet(setting, space, data, groups if dropout else None, extent)
        for dropout in (True, False)
    ]
    arena = Arena(
        data=data,
        judged=replace(data, validation=data.test_for_the_final_report()),
        images=extent.images,
        groups=groups,
        tasks=tuple(groups.union(name.split("+")) for name in extent.judged),
        budgets=budgets_of(space, oracle, FIXED),
        oracle=oracle,
        net=nets[0],
        plain=nets[1],
        plan=extent.lesson,
    )
    return arena, oracle.predictor.meta.provenance.fingerprint_key


def _data(extent: Extent) -> Dataset:
    from hwbench.search.data import load_dataset

    try:
        return load_dataset(extent.data)
    except UsageError as error:
        raise UsageError(f"{error}; or test the claim on digits, with --quick") from None


def groups_of(data: Dataset, extent: Extent) -> TaskGroups:
    """The groups of classes that tasks are made of."""
    groups = [Task(name, classes) for name, classes in extent.groups.items()]
    return TaskGroups(data.name, data.classes, tuple(groups))


def budgets_of(space: Space, oracle: BudgetOracle, fixed: Mapping[str, Any]) -> Array:
    """Ten budgets, evenly spaced in log, that can all be kept and used."""
    from hwbench.search.supernet import largest, smallest

    ends = np.stack([smallest(space, fixed), largest(space, fixed)])
    low, high = oracle.upper(ends, CONFIDENCE) * np.array(_INSIDE)
    return np.geomspace(low, high, BUDGETS)


def _supernet(
    setting: Setting, space: Space, data: Dataset, groups: TaskGroups | None, extent: Extent
) -> Supernet:
    """One with dropout of these groups, or without; trained on where an earlier run stopped."""
    from hwbench.search.supernet import Progress, Supernet, TrainingPlan, train

    what, begins = ("plain", 0.28) if groups is None else ("dropout", 0.16)
    net = Supernet(space)

    def tell(progress: Progress) -> None:
        done = begins + 0.12 * progress.step / progress.steps
        setting.progress(f"training the supernet ({what})", done)

    plan = TrainingPlan(steps=extent.supernet_steps, fixed=FIXED)
    path = setting.folder / f"eas-{what}-{digest([data.digest, plan.steps])[:8]}.pt"
    tasks = None if groups is None else task_dropout(groups)
    train(net, data, plan, checkpoint=path, tasks=tasks, progress=tell)
    return net.eval()


def _key(arena: Arena, extent: Extent, oracle_key: str) -> str:
    """Changes with the supernets, the data, the oracle and the protocol."""
    weights = hashlib.sha256()
    for net in (arena.net, arena.plain):
        for value in net.state_dict().values():
            weights.update(value.numpy().tobytes())
    content = [weights.hexdigest(), arena.data.digest, arena.budgets.tolist(), oracle_key]
    return digest([content, asdict(extent), METHODS, hwbench.__version__])[:8]


def kept_row(
    arena: Arena, seed: int, path: Path, progress: Callable[[float], None]
) -> dict[str, Any]:
    """The row of one seed: from the file, or run and appended to it; its generator beside it."""
    held: list[Any] = json_lines(path) if path.exists() else []
    for known in held:
        if isinstance(known, dict) and known.get("seed") == seed:
            return known
    row, generator = run_trial(arena, seed, progress)
    save_generator(generator, path.with_suffix(f".{seed}.hwg"), objective="tasks", ledger={})
    with path.open("a", encoding="utf-8") as file:
        # A line of its own, whatever an interruption left at the end.
        file.write(f"\n{json.dumps(row)}\n")
    return row


def measure_answers(setting: Setting, arena: Arena, row: Row) -> list[float]:
    """Undisturbed latency in ms of each answer of a row, in its order; measured once each."""
    from hwbench.devices.profile import measure_architectures
    from hwbench.verify.budgets import WINNERS_PLAN

    codes = np.unique(arena.space.encode(row["answers"]), axis=0)
    found = measure_architectures(
        setting.device,
        arena.space,
        codes,
        setting.store,
        plan=WINNERS_PLAN,
        progress=lambda done: setting.progress("measuring the answers", 0.9 + 0.1 * done),
    )
    by_text = {
        str(m.workload.arch): math.nan if m.latency_ns is None else m.latency_ns / 1e6
        for m in found
    }
    return [by_text[text] for text in row["answers"]]


# --- the bars -------------------------------------------------------------------------------------


def summarise(
    rows: Sequence[Row], arena: Arena, measured: Sequence[float], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Figures, and what each bar says."""
    budgets = np.tile(arena.budgets, len(arena.tasks))
    latency = np.asarray(measured)
    known = ~np.isnan(latency)
    used = latency[known] / budgets[known]
    kept = used <= 1
    upper = np.array([row["upper_ms"] for row in rows])
    distinct = float(np.mean([row["distinct"] for row in rows]) / len(arena.budgets))
    above = {method: paired(rows, method) for method in METHODS if method != OWN}
    bars = {
        f"50 scenarios in {1e3 * SECONDS_BAR:.0f} ms, the oracle included": (
            seconds["seconds_all"] <= SECONDS_BAR
        ),
        f"distinct architectures for {DISTINCT_BAR:.0%} of the budgets": distinct >= DISTINCT_BAR,
        f"{SATISFACTION_BAR:.0%} of the budgets kept when measured": (
            bool(len(kept)) and float(kept.mean()) >= SATISFACTION_BAR
        ),
        "swapping the task costs accuracy": _is_above(above[SWAPPED]),
        "better than one architecture for all tasks": _is_above(above[SAME]),
        "better than over a supernet without task dropout": _is_above(above[PLAIN]),
        "better than random search at matched evaluations": _is_above(above[RANDOM]),
        "better than evolution at matched evaluations": _is_above(above[EVOLUTION]),
    }
    accuracy = {m: np.array([row["accuracy"][m] for row in rows]) for m in METHODS}
    return {
        "bars": bars,
        "seeds": len(rows),
        "scenarios": len(budgets),
        **{name: round(value, 6) for name, value in seconds.items()},
        **{
            name: round(float(np.median([row[name] for row in rows])), 1)
            for name in ("seconds_training", "seconds_one_search")
        },
        "distinct_share": round(distinct, 3),
        "distinct_of_tasks_at_a_budget": round(
            float(np.mean([row["distinct_of_tasks"] for row in rows])), 2
        ),
        "proposed_share": round(float(np.mean([row["proposed"] for row in rows])), 3),
        "measured": int(known.sum()),
        "measured_networks": len(set(rows[0]["answers"])),
        "kept_share": round(float(kept.mean()), 3) if len(kept) else None,
        "worst_excess_pct": round(100 * float((used - 1).max(initial=0.0)), 2),
        "utilisation_measured": round(float(used.mean()), 3) if len(used) else None,
        "utilisation_bound": round(float((upper / budgets).mean()), 3),
        "accuracy_mean": {m: round(float(a.mean()), 4) for m, a in accuracy.items()},
        "accuracy_by_task": {
            task.name: {m: round(float(a[:, i].mean()), 4) for m, a in accuracy.items()}
            for i, task in enumerate(arena.tasks)
        },
        "points_above": {m: round(mean, 3) for m, (mean, _) in above.items()},
        "half_width_95": {
            m: None if math.isinf(half) else round(half, 3) for m, (_, half) in above.items()
        },
        "evaluations_a_task": arena.calls,
        "trials": trials_of(rows[0], arena, measured),
    }


def trials_of(row: Row, arena: Arena, measured: Sequence[float]) -> dict[str, list[dict[str, Any]]]:
    """Each task's budgets, and what answered them as measured (ms), of one seed.

    With accuracy on test images under the budgets where that is compared.
    """
    own = np.full((len(arena.tasks), len(arena.budgets)), np.nan)
    own[:, 1::2] = row["accuracy"][OWN]
    told: dict[str, list[dict[str, Any]]] = {task.name: [] for task in arena.tasks}
    for i, (task, budget) in enumerate(arena.scenarios):
        accuracy, ms = own.flat[i], measured[i]
        told[task.name].append(
            {
                "budget_ms": round(budget, 6),
                "architecture": row["answers"][i],
                "predicted_ms": round(row["predicted_ms"][i], 6),
                "measured_ms": None if math.isnan(ms) else round(ms, 6),
                "kept": None if math.isnan(ms) else bool(ms <= budget),
                "accuracy": None if math.isnan(accuracy) else round(float(accuracy), 4),
            }
        )
    return told


def _is_above(difference: tuple[float, float]) -> bool:
    mean, half = difference
    return mean - half > 0


#: What each verdict rests on: statements beside the claim's own, and their bars by place.
STATEMENTS = (
    (None, slice(0, 3)),
    ("the architectures of EAS suit their tasks: another task's cost accuracy", slice(3, 4)),
    (
        "EAS finds better architectures than one for all tasks, than without task dropout, and "
        "than random search and evolution at matched evaluations",
        slice(4, 8),
    ),
)
