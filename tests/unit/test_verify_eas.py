"""The experiment on EAS: every method is judged alike, and each bar can be met and missed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from hwbench.predictors import BudgetOracle, MacsLine, Provenance, fit_predictor
from hwbench.records import Verdict
from hwbench.search.eas import Lesson, Task, TaskGroups
from hwbench.search.generator_file import load_generator
from hwbench.search.supernet import Supernet, TrainingPlan, train
from hwbench.testing.predictors import made_up_training
from hwbench.verify import eas, get_claim
from hwbench.verify.eas_figure import eas_figure
from hwbench.verify.eas_trial import METHODS, OWN, Arena, paired, timings
from hwbench.watch.report_searches import front_chart, searches
from tests.supernets import bars, tiny_space

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SPACE, FIXED = tiny_space(), {"r": 12}
GROUPS = TaskGroups("bars", bars().classes, (Task("flat", (0, 1)), Task("slant", (2, 3))))
MET = {"seconds_all": 0.005}
MADE = "2026-02-01T12:00:00+00:00"


@pytest.fixture(scope="module")
def arena() -> Arena:
    nets = [Supernet(SPACE, seed) for seed in range(2)]
    for net in nets:
        train(net, bars(), TrainingPlan(steps=10, batch=16, fixed=FIXED, learning_rate=0.2))
    place = Provenance("cpu", "a" * 32, "made up", 1)
    training = made_up_training(SPACE, 40)
    oracle = BudgetOracle(fit_predictor(SPACE, training, place, kind=MacsLine.kind))
    return Arena(
        data=bars(),
        judged=bars(),
        images=20,
        groups=GROUPS,
        tasks=(*GROUPS.groups, GROUPS.every),
        budgets=eas.budgets_of(SPACE, oracle, FIXED),
        oracle=oracle,
        net=nets[0],
        plain=nets[1],
        plan=Lesson(first=40, steps=9, scenarios=4, images=8),
    )


@pytest.fixture(scope="module")
def rows_file(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("eas") / "rows.jsonl"
    eas.kept_row(arena, 1, path, lambda share: None)
    return path


def test_every_method_answers_every_task_within_the_budget(arena: Arena, rows_file: Path) -> None:
    assert arena.calls == 6  # 36 evaluations for 30 scenarios: of 5 of them a task
    whole = rows_file.read_bytes()
    rows_file.write_bytes(b'5\nnull\n[]\n{"x": 1}\n{"seed": "\xff\n' + whole)
    row = eas.kept_row(arena, 1, rows_file, pytest.fail)  # not run again
    rows_file.write_bytes(whole)
    assert {name: np.shape(a) for name, a in row["accuracy"].items()} == dict.fromkeys(
        METHODS, (3, 5)
    )
    codes = SPACE.encode(row["answers"])
    assert len(codes) == 30
    assert (arena.oracle.upper(codes, 0.98) <= np.tile(arena.budgets, 3) * (1 + 1e-6)).all()
    for i, task in enumerate(arena.tasks):
        own = codes[10 * i : 10 * i + 10][1::2]
        assert row["accuracy"][OWN][i] == arena.judge(arena.net, task, own)
        other = codes[10 * ((i + 2) % 3) :][:10][1::2]  # seed 1: of the task after the next
        assert row["accuracy"]["task swapped"][i] == arena.judge(arena.net, task, other)
    rows_file.write_text(f"{rows_file.read_text()}\n{json.dumps(row)[:-9]}")  # cut short
    assert eas.kept_row(arena, 1, rows_file, pytest.fail) == row


def test_what_deploying_takes_is_told_apart(arena: Arena, rows_file: Path) -> None:
    generator, _ = load_generator(rows_file.with_suffix(".1.hwg"), space=SPACE)
    found = timings(arena, generator)
    assert set(found) == {
        "seconds_all", "seconds_forward", "seconds_recalibrate", "seconds_extract",
        "seconds_export",
    }  # fmt: skip
    assert all(seconds > 0 for seconds in found.values())


def rows(arena: Arena, seeds: int = 5, **points: float) -> list[dict]:
    """EAS at .8, others so many points below, give or take."""
    found = []
    for seed in range(seeds):
        level = 0.8 + 0.003 * seed
        below = {m: points.get(m.replace(" ", "_"), 1.0) + 0.1 * (seed % 2) for m in METHODS}
        below[OWN] = 0.0
        accuracy = {m: np.full((3, 5), level - below[m] / 100).tolist() for m in METHODS}
        found.append(
            {
                "seed": seed,
                "accuracy": accuracy,
                "answers": [""] * 30,
                "proposed": 1.0,
                "upper_ms": (0.95 * np.tile(arena.budgets, 3)).tolist(),
                "predicted_ms": (0.9 * np.tile(arena.budgets, 3)).tolist(),
                "distinct": [10, 9, 8],
                "distinct_of_tasks": 2.5,
                "seconds_training": 10.0,
                "seconds_one_search": 5.0,
            }
        )
    return found


def kept(arena: Arena, share: float = 1.0) -> list[float]:
    budgets = np.tile(arena.budgets, 3)
    broken = np.arange(len(budgets)) >= share * len(budgets)
    return np.where(broken, 1.02, 0.9).tolist() * budgets


def bars_of(arena: Arena, found: list[dict], share: float = 1.0, seconds: float = 0.005) -> list:
    measured = list(kept(arena, share))
    evidence = eas.summarise(found, arena, measured, {"seconds_all": seconds})
    json.dumps(evidence)
    return [*evidence["bars"].values()]


def test_all_bars_are_met_where_all_is_well(arena: Arena) -> None:
    assert bars_of(arena, rows(arena)) == [True] * 8
    evidence = eas.summarise(rows(arena), arena, list(kept(arena, 0.9)), MET)
    assert evidence["kept_share"] == 0.9
    assert evidence["worst_excess_pct"] == 2.0
    assert evidence["utilisation_bound"] == 0.95
    assert evidence["distinct_share"] == 0.9
    assert evidence["points_above"]["random"] == pytest.approx(1.04)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({"seconds": 0.02}, 0),
        ({"share": 0.9}, 2),
        ({"task_swapped": -0.05}, 3),
        ({"same_for_all_tasks": -1.0}, 4),
        ({"no_task_dropout": -0.05}, 5),
        ({"random": -2.0}, 6),
        ({"evolution": -0.03}, 7),
    ],
)
def test_each_bar_can_be_missed(arena: Arena, change: dict, missed: int) -> None:
    own = {name: change.pop(name) for name in ("seconds", "share") if name in change}
    found = bars_of(arena, rows(arena, **change), **own)
    assert [i for i, met in enumerate(found) if not met] == [missed]


def test_collapsed_answers_miss_their_bar(arena: Arena) -> None:
    few = [row | {"distinct": [7, 8, 8]} for row in rows(arena)]
    assert bars_of(arena, few)[1] is False


def test_the_trials_of_each_task_are_kept_for_a_report(arena: Arena) -> None:
    measured = list(kept(arena, 0.9))
    measured[1] = math.nan
    trials = eas.summarise(rows(arena), arena, measured, MET)["trials"]
    (search,) = searches([Verdict("a claim", "", "confirmed", {"trials": trials}, None, MADE)])
    assert list(search.sets) == [task.name for task in arena.tasks]
    every = [trial for own in search.sets.values() for trial in own]
    assert len(every) == len(measured) - 1
    assert sum(trial.kept is False for trial in every) == 3
    compared = [trial.quality is not None for trial in every]
    assert compared == [bool(i % 2) for i in range(len(measured)) if i != 1]
    front = front_chart(search)
    assert front is not None
    assert len([1 for trace in front.traces if trace["mode"] == "lines"]) == 3


def test_nothing_measured_keeps_no_budget(arena: Arena) -> None:
    evidence = eas.summarise(rows(arena), arena, [float("nan")] * 30, MET)
    assert [*evidence["bars"].values()][2] is False
    assert evidence["kept_share"] is None


def test_one_seed_shows_nothing(arena: Arena) -> None:
    mean, half = paired(rows(arena, seeds=1), "random")
    assert (mean, half) == (pytest.approx(1.0), float("inf"))
    assert bars_of(arena, rows(arena, seeds=1))[3:] == [False] * 5


def test_conditioning_that_does_nothing_is_refuted(arena: Arena, tmp_path: Path) -> None:
    found = rows(arena, task_swapped=-0.05, same_for_all_tasks=-1.0)
    evidence = eas.summarise(found, arena, list(kept(arena)), MET)
    outcomes = get_claim("eas").verdicts(eas.STATEMENTS, evidence, tmp_path / "eas.png")
    assert [v.outcome for v in outcomes] == ["confirmed", "refuted", "partly"]
    assert [len(v.evidence["bars"]) for v in outcomes] == [3, 1, 4]
    assert "suit their tasks" in outcomes[1].claim
    assert len({v.claim for v in outcomes}) == 3


def test_the_figure_is_drawn(arena: Arena, tmp_path: Path) -> None:
    for seeds in (1, 5):
        eas_figure(rows(arena, seeds), arena, list(kept(arena)), tmp_path / "eas.png")
        assert (tmp_path / "eas.png").stat().st_size > 10_000
