"""Tasks of EAS are what they say, from a file or drawn for a training step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwbench.errors import UsageError
from hwbench.search.eas import (
    Task,
    TaskDropout,
    TaskGroups,
    read_tasks,
    task_dropout,
)
from hwbench.search.supernet import Supernet, TrainingPlan, train
from tests.eas import GROUPS, SPACE, rng
from tests.supernets import bars

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_classes_are_named_numbered_or_grouped() -> None:
    assert GROUPS.task("bars:across,2") == Task("across,2", (0, 2))
    assert GROUPS.task("slant,0").classes == (0, 2, 3)
    assert GROUPS.task("3, down").classes == (1, 3)
    assert GROUPS.every == Task("flat+slant", (0, 1, 2, 3))
    assert GROUPS.union(["slant"]).classes == (2, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("digits:0,1", "is of digits, but this knows tasks of bars"),
        ("0,7", "unknown class of bars '7'"),
        ("bars:acros,1", "did you mean 'across'"),
        ("0," + "9" * 5000, r"unknown class of bars '9{100}…'"),
        ("bars:1", "has 1 class: there is nothing to tell apart"),
        ("bars:", "has no classes"),
        ("", "has no classes"),
    ],
)
def test_what_is_no_task_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        GROUPS.task(text)


def test_a_class_of_no_group_is_not_known() -> None:
    few = replace(GROUPS, groups=GROUPS.groups[:1])
    with pytest.raises(UsageError, match="'falling' is in none of the groups that are known: flat"):
        few.task("0,falling")


def test_shares_are_the_mean_over_what_is_active() -> None:
    tasks = [*GROUPS.groups, GROUPS.every, Task("", (0, 2)), Task("", (0, 1, 2))]
    expected = [[1, 0], [0, 1], [0.5, 0.5], [0.5, 0.5], [2 / 3, 1 / 3]]
    assert GROUPS.shares(tasks) == pytest.approx(np.array(expected))
    shared = replace(GROUPS, groups=(Task("a", (0, 1, 2)), Task("b", (2, 3))))
    assert shared.shares([Task("", (1, 2))]) == pytest.approx(np.array([[0.75, 0.25]]))


def test_groups_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps({"flat": ["down", "0"], "slant": ["rising", 2]}))
    assert read_tasks(path, "bars", bars().classes) == GROUPS
    assert TaskGroups.restored(json.loads(json.dumps(GROUPS.plain()))) == GROUPS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": ["across", "sideways"]}', "unknown class of bars 'sideways'"),
        ('{"a": [0, 4]}', "unknown class of bars '4'"),
        ('{"a": [0, true]}', "unknown class of bars 'True'"),
        ('{"a": []}', "task 'a' has no classes"),
        ('{"a": ["down"]}', "task 'a' has 1 class:"),
        ('{"a": ["down", 1]}', "names a class twice"),
        ('{"a": "down"}', "is no list"),
        ('{"a,b": [0, 1]}', "a name is a word without"),
        ('["down"]', "is no object"),
        ("{}", "name at least one"),
        ("{", "is no JSON"),
        ("[" * 10**5, "is no JSON"),
        ('{"a": [0, "' + "9" * 5000 + '"]}', r"unknown class of bars '9{100}…'"),
        ('{"a": [0, 1], "b": [1, 2], "a": [2, 3]}', "task 'a' comes twice"),
        ('{" a": [0, 1]}', "no blanks at its ends"),
        ('{"7": [0, 1]}', "is no number"),
        (" " * (1 << 20) + "{}", "is larger than 1 MiB"),
    ],
)
def test_a_file_of_no_tasks_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=words):
        read_tasks(path, "bars", bars().classes)


def test_a_file_of_tasks_that_never_ends_or_is_not_there_is_refused(tmp_path: Path) -> None:
    for name, words in (("/dev/zero", "a pipe or a device"), (tmp_path / "no", "No such file")):
        with pytest.raises(UsageError, match=f"cannot read {name}: {words}"):
            read_tasks(Path(name), "bars", bars().classes)


def test_a_step_keeps_a_random_subset_of_the_groups() -> None:
    groups = ((0, 1), (2, 3), (3, 4))
    drawn = [TaskDropout(groups)(rng(i)) for i in range(3000)]
    whole = np.mean([classes is None for classes in drawn])
    assert 0.36 < whole < 0.44
    some = [classes for classes in drawn if classes is not None]
    subsets = {(0, 1), (2, 3), (3, 4), (0, 1, 2, 3), (0, 1, 3, 4), (2, 3, 4), (0, 1, 2, 3, 4)}
    assert set(some) == subsets  # the empty one never
    for subset in subsets:  # alike: p = .5 for each group, drawn again where none is kept
        assert 0.11 < np.mean([classes == subset for classes in some]) < 0.175
    assert [TaskDropout(groups)(rng(i)) for i in range(50)] == drawn[:50]


def test_a_checkpoint_knows_the_tasks_it_was_trained_on(tmp_path: Path) -> None:
    plan, path = TrainingPlan(steps=1, batch=4), tmp_path / "supernet.pt"
    train(Supernet(SPACE), bars(), plan, checkpoint=path, tasks=task_dropout(GROUPS))
    train(Supernet(SPACE), bars(), plan, checkpoint=path, tasks=task_dropout(GROUPS))
    for other in (None, task_dropout(replace(GROUPS, groups=GROUPS.groups[:1]))):
        with pytest.raises(UsageError, match=r"another training \(tasks differ"):
            train(Supernet(SPACE), bars(), plan, checkpoint=path, tasks=other)
