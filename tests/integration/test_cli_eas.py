"""``search eas`` and ``generate --task``: from classes to answers, refused in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from hwbench.cli import main
from hwbench.cli.supernet import images_of
from hwbench.predictors import BudgetOracle, MacsLine, Provenance, files, fit_predictor
from hwbench.search.accuracy.judge import Judge
from hwbench.search.data import load_dataset
from hwbench.search.eas import (
    EasCosts,
    TaskGenerator,
    read_tasks,
    task_dropout,
    train_task_generator,
)
from hwbench.search.eas.generator import Labels
from hwbench.search.eas.policy import Choices
from hwbench.search.eas.seeds import TaskCourse
from hwbench.search.generator_file import load_generator, save_generator
from hwbench.search.supernet import Supernet, TrainingPlan, largest, smallest, train
from hwbench.spaces import get_space
from hwbench.testing.predictors import made_up_training
from tests.eas import GROUPS, SHORT, untrained
from tests.fleets import Start, told

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a generator of a space that the verb knows by name."""
    folder = tmp_path_factory.mktemp("made")
    space = get_space("mbv3_small")
    choices, place = Choices(space, {"r": 28}), Provenance("cpu", "0" * 32, "made up", 1)
    training = made_up_training(space, 40)
    asked = BudgetOracle(fit_predictor(space, training, place, kind=MacsLine.kind))
    kept = np.stack([smallest(space, {"r": 28}), largest(space, {"r": 28})])
    labels = Labels([(0, 1)], kept[:1], np.array([0.75]))
    found = TaskGenerator(
        untrained(choices).policy(), GROUPS, choices.fixed, labels, asked, kept, 0.98
    )
    save_generator(found, folder / "tasks.hwg", objective="made up", ledger={})
    return folder


@pytest.fixture
def ready(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of its own."""
    shutil.copy(made / "tasks.hwg", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main([*arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_verb_answers_tasks(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "generate",
        "tasks.hwg",
        "--task",
        "bars:across,1",
        "--budget",
        "1.9ms",
        "--budget",
        "1ms",
    ]
    code, out, err = run(capsys, *command, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert set(found) == {"results", "seconds"}
    assert [r["budget_ms"] for r in found["results"]] == [1.9, 1.0]
    for result in found["results"]:
        assert set(result) == {
            "budget_ms", "task", "architecture", "predicted_ms", "upper_ms", "measured_ms",
            "measured_status", "low_ms", "high_ms", "kept", "accuracy", "from",
        }  # fmt: skip
        assert result["task"] == "across,1"
        assert result["accuracy"] == 0.75
        assert result["upper_ms"] <= result["budget_ms"]
        assert result["architecture"].startswith("r28 ")
    code, out, _ = run(capsys, *command)
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--budget 1ms", "answers a budget for a task: give --task, as bars:flat,"),
        ("--budget 1ms --task 0,9", "unknown class of bars '9'"),
        ("--budget 1ms --task digits:0,1", "is of digits, but this knows tasks of bars"),
        ("--budget 1ms --task 3", "has 1 class"),
        ("--budget 99ms --task flat", "outside what can be reached here"),
        ("--budget 1ms --task flat --measure", "another device or runtime"),
    ],
)
def test_the_verb_refuses_in_one_line(
    ready: Path, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    code, out, err = run(capsys, "generate", "tasks.hwg", *arguments.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


@pytest.fixture(scope="module")
def filled(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a predictor, some digits, a supernet that has hardly begun on them, and groups
    of them.
    """
    ready = tmp_path_factory.mktemp("filled")
    loaded, _ = load_generator(made / "tasks.hwg")
    loaded.oracle.predictor.save(ready / "cpu-mbv3_small.hwp")
    space, plan = get_space("mbv3_small"), TrainingPlan(steps=1, batch=4, fixed={"r": 28})
    groups = {"round": ["0", 6, 8, 9], "straight": [1, 4, 7]}
    (ready / "groups.json").write_text(json.dumps(groups))
    many = {f"g{i}{j}": [i, j] for i, j in combinations(range(7), 2)}
    (ready / "many.json").write_text(json.dumps(many))
    some = load_dataset("digits").train.some(240, 0)
    np.savez(ready / "digits.npz", x=some.images[:, 0], y=some.labels)
    data = images_of(space, str(ready / "digits.npz"))
    tasks = task_dropout(read_tasks(ready / "groups.json", data.name, data.classes))
    train(Supernet(space), data, plan, checkpoint=ready / "net.pt", tasks=tasks)
    (ready / "odd.json").write_text(json.dumps({"odd": ["1", "eleven"]}))
    return ready


@pytest.fixture
def searchable(filled: Path, ready: Path) -> Path:
    """A copy of its own, beside the generator."""
    for path in filled.iterdir():
        shutil.copy(path, ready)
    return ready


SEARCH = "search eas -s mbv3_small --budgets 0.9ms,1.9ms"


def test_the_verb_searches_for_tasks(
    searchable: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less of everything: what is tried is the way from the options to a file that answers."""
    short = EasCosts(labels=1, images=20, plan=replace(SHORT, first=5, steps=1, kept=4))

    def hasty(*arguments, costs: EasCosts, **others):
        assert costs.labels == 21 // 3
        return train_task_generator(*arguments, costs=short, **others)

    monkeypatch.setattr("hwbench.search.eas.train_task_generator", hasty)
    files = "--tasks groups.json --supernet net.pt --data digits.npz --labels 21 --json"
    code, out, err = run(capsys, *SEARCH.split(), *files.split())
    assert code == 0, err
    found = json.loads(out)
    assert found["tasks"] == {"round": ["0", "6", "8", "9"], "straight": ["1", "4", "7"]}
    assert found["data"] == "digits"
    assert "without --tasks" not in err
    command = "generate cpu-mbv3_small.hwg --task digits:0,1,7 --budget 1.5ms --json"
    code, out, err = run(capsys, *command.split())
    assert code == 0, err
    (answer,) = json.loads(out)["results"]
    assert (answer["task"], answer["accuracy"]) == ("0,1,7", None)
    code, _, err = run(capsys, *command.replace("0,1,7", "0,3").split())
    assert (code, "'3' is in none of the groups" in err) == (2, True)
    plan = TrainingPlan(steps=1, batch=4, fixed={"r": 28})
    space = get_space("mbv3_small")
    data = images_of(space, "digits.npz")
    train(Supernet(space), data, plan, checkpoint=searchable / "plain.pt")
    files = files.replace("net.pt", "plain.pt")
    code, _, err = run(capsys, *SEARCH.split(), *files.split(), "-o", "plain.hwg")
    assert code == 0, err
    assert "plain.pt was trained without --tasks" in err


def test_hosts_of_a_fleet_give_the_labels_of_this_machine_and_train_its_seeds(
    searchable: Path,
    start: Start,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = EasCosts(labels=2, images=20, plan=replace(SHORT, first=5, steps=1, kept=4))

    def hasty(*arguments, costs: EasCosts, **others):
        return train_task_generator(*arguments, costs=short, **others)

    monkeypatch.setattr("hwbench.search.eas.train_task_generator", hasty)
    address = told(start("fleet", "scheduler", "tcp://127.0.0.1:0")).split()[-1]
    assert told(start("fleet", "worker", address, "--compute"))
    files_given = "--tasks groups.json --supernet net.pt --data digits.npz --seeds 2 --json -o"
    search = [*SEARCH.split(), *files_given.split()]
    code, told_here, _ = run(capsys, *search, "here.hwg")
    assert code == 0
    monkeypatch.delattr(Judge, "accuracies")  # of this process
    monkeypatch.delattr(TaskCourse, "trained")
    code, told_there, _ = run(capsys, *search, "there.hwg", "--fleet", address)
    assert code == 0
    by_seed = json.loads(told_here)["by_seed"]
    assert {*by_seed} == {"0", "1"}
    assert json.loads(told_there)["by_seed"] == by_seed
    here, there = (files.read(Path(name))[1] for name in ("here.hwg", "there.hwg"))
    assert len(here["accuracy"]) >= 3
    assert here.keys() == there.keys()
    for name in here.keys() - {"predictor"}:
        assert np.array_equal(here[name], there[name]), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (SEARCH, "Missing option '--tasks'"),
        (f"{SEARCH} --supernet net.pt --data digits", "Missing option '--tasks'"),
        (f"{SEARCH} --measurements 3", "No such option: --measurements"),
        (
            f"{SEARCH} --supernet net.pt --data digits.npz --tasks groups.json --on cuda "
            "--fleet local",
            "--fleet evaluates networks on CPUs: leave --on out",
        ),
        (f"{SEARCH} --accuracy table.npz", "No such option: --accuracy"),
        (
            f"{SEARCH} --supernet net.pt --data digits.npz --tasks odd.json",
            "unknown class of digits 'eleven'",
        ),
        (
            f"{SEARCH} --supernet net.pt --data digits.npz --tasks many.json --labels 21",
            "--labels 21 are too few: give at least 22, one for each of the 21 groups",
        ),
        (f"{SEARCH} --supernet no.pt --data digits.npz --tasks groups.json", "cannot read no.pt"),
        (
            f"{SEARCH} --supernet net.pt --data digits.npz --tasks groups.json -o groups.json",
            "groups.json is read here, and would be replaced",
        ),
        (
            "search eas -s mbv3_small --budgets 0.1ms,1.9ms --supernet net.pt --data digits.npz "
            "--tasks groups.json",
            "a budget of 0.1 ms is outside what mbv3_small with r 28 can reach",
        ),
        (
            "search pnag -s mbv3_small --budgets 0.9ms,1.9ms --tasks groups.json",
            "No such option: --tasks",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused_in_one_line(
    searchable: Path, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    code, out, err = run(capsys, *arguments.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
