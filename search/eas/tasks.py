"""Tasks: which classes a network has to tell apart.

A file of tasks names groups of classes, ``{"shoes": ["Sandal", "Sneaker"], "tops": [0, 2, 4]}``;
every group is a task, and so is every union of groups. A supernet serves them all if it was trained
with :class:`TaskDropout`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import UnknownNameError, UsageError
from hwbench.inputs import require_finite

Floats = NDArray[np.float32]

_FEWEST = 2
#: Of a file of tasks; of a class' name where it is shown, and of its number.
_MOST_BYTES, _LONG = 1 << 20, 100


@dataclass(frozen=True, slots=True)
class Task:
    """Classes (ascending, each once) that a network has to tell apart, and what they are called."""

    name: str
    classes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TaskGroups:
    """Groups of the classes of one dataset, which tasks are made of; they may overlap.

    ``data`` and ``class_names`` are the dataset's. UsageError where a group has fewer than two
    classes, or classes that are not there.
    """

    data: str
    class_names: tuple[str, ...]
    groups: tuple[Task, ...]

    def __post_init__(self) -> None:
        if not self.groups:
            raise UsageError(f"no groups of {self.data}'s classes: name at least one")
        for group in self.groups:
            _check_size(group.name, group.classes)
            if not all(0 <= c < len(self.class_names) for c in group.classes):
                raise UsageError(f"task {group.name!r} has classes that {self.data} has not")

    @property
    def every(self) -> Task:
        """The task to tell all classes of all groups apart."""
        return self.union([group.name for group in self.groups])

    def union(self, names: Sequence[str]) -> Task:
        """The task of these groups together."""
        by_name = {group.name: group.classes for group in self.groups}
        for name in names:
            if name not in by_name:
                raise UnknownNameError("group of classes", name, by_name)
        classes = sorted({c for name in names for c in by_name[name]})
        return Task("+".join(names), tuple(classes))

    def task(self, text: str) -> Task:
        """The task of ``digits:0,1,7``: classes, their numbers or groups, after the data's name.

        The data's name may be left out. UsageError where it is another's, or a class is unknown.
        """
        data, colon, rest = text.rpartition(":")
        if colon and data != self.data:
            raise UsageError(f"task {text!r} is of {data}, but this knows tasks of {self.data}")
        by_name = {group.name: group.classes for group in self.groups}
        classes: set[int] = set()
        for part in filter(None, (part.strip() for part in rest.split(","))):
            classes |= set(by_name.get(part) or [class_of(part, self.class_names, self.data)])
        task = Task(rest, tuple(sorted(classes)))
        _check_size(rest, task.classes)
        self.shares([task])
        return task

    def shares(self, tasks: Sequence[Task]) -> Floats:
        """(n, T): how much of each task lies in each of the T groups; rows sum to 1.

        Of tasks that are unions of equally large groups: the mean over the groups that are active.
        A class that lies in several groups counts for each alike. UsageError where it is in none.
        """
        inside = np.zeros((len(self.class_names), len(self.groups)), np.float32)
        for column, group in enumerate(self.groups):
            inside[list(group.classes), column] = 1
        for task in tasks:
            for c in task.classes:
                if not inside[c].any():
                    raise UsageError(
                        f"class {self.class_names[c]!r} is in none of the groups that are known: "
                        f"{', '.join(group.name for group in self.groups)}"
                    )
        each = inside / np.maximum(inside.sum(axis=1, keepdims=True), 1)
        shares: Floats = np.stack([each[list(task.classes)].mean(axis=0) for task in tasks])
        return shares

    def plain(self) -> dict[str, Any]:
        """As JSON; :meth:`restored` reads it."""
        groups = {group.name: list(group.classes) for group in self.groups}
        return {"data": self.data, "class_names": list(self.class_names), "groups": groups}

    @classmethod
    def restored(cls, plain: Mapping[str, Any]) -> TaskGroups:
        """From JSON of unknown origin; KeyError, TypeError, ValueError or UsageError."""
        names = tuple(str(name) for name in plain["class_names"])
        if not isinstance(plain["groups"], dict):
            raise TypeError("groups are no object")
        groups = [
            Task(str(name), tuple(int(c) for c in cs)) for name, cs in plain["groups"].items()
        ]
        return cls(str(plain["data"]), names, tuple(groups))


@dataclass(frozen=True)
class TaskDropout:
    """Draws the classes of a training step: those of a random non-empty subset of groups.

    Each group is kept with probability ``kept`` (drawn again where none is), but ``whole`` of the
    steps are on all classes. What is drawn follows from the step's generator alone.
    """

    groups: tuple[tuple[int, ...], ...]
    kept: float = 0.5
    whole: float = 0.4

    def __call__(self, rng: np.random.Generator) -> tuple[int, ...] | None:
        """Classes, ascending; None stands for all."""
        if rng.random() < self.whole:
            return None
        stays = np.zeros(len(self.groups), bool)
        while not stays.any():
            stays = rng.random(len(self.groups)) < self.kept
        chosen = (group for group, stay in zip(self.groups, stays, strict=True) if stay)
        return tuple(sorted({c for group in chosen for c in group}))


def task_dropout(groups: TaskGroups) -> TaskDropout:
    """Task dropout over groups of classes, as specified: p = .5, 40 % of the steps whole."""
    return TaskDropout(tuple(group.classes for group in groups.groups))


def read_tasks(path: Path, data: str, class_names: Sequence[str]) -> TaskGroups:
    """Groups from a JSON file, checked against a dataset's classes: names, or their numbers."""
    try:
        require_finite(path)
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise UsageError(f"{path} is larger than {_MOST_BYTES >> 20} MiB: {_FORM}")
        content = json.loads(text.decode(), object_pairs_hook=partial(_each_once, path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON ({error}): {_FORM}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is no object of groups: {_FORM}")
    groups = []
    for name, classes in content.items():
        if not isinstance(classes, list):
            raise UsageError(f"{path}: task {name!r} is no list: {_FORM}")
        if set(name) & set(",:+") or not name:
            raise UsageError(f"{path}: task {name!r}: a name is a word without ',', ':' and '+'")
        if name != name.strip() or name.isdecimal():
            raise UsageError(
                f"{path}: task {name!r}: a name has no blanks at its ends, and is no number, which "
                "would be a class"
            )
        found = [class_of(c, class_names, data) for c in classes]
        if len(set(found)) < len(found):
            raise UsageError(f"{path}: task {name!r} names a class twice")
        groups.append(Task(name, tuple(sorted(found))))
    return TaskGroups(data, tuple(class_names), tuple(groups))


def _each_once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; UsageError where a name comes twice: the first would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{path}: task {twice!r} comes twice: give each group a name of its own")
    return found


_FORM = 'write {"NAME": ["CLASS", "CLASS", …], …}'


def class_of(written: object, class_names: Sequence[str], data: str) -> int:
    """The number of a class that is named, or numbered; UsageError where there is none."""
    if isinstance(written, str) and written in class_names:
        return class_names.index(written)
    number = written if isinstance(written, int) and not isinstance(written, bool) else -1
    text = str(written)
    if isinstance(written, str) and written.isascii() and written.isdigit():
        number = int(written) if len(written) < _LONG else -1
    if not 0 <= number < len(class_names):
        shown = text if len(text) < _LONG else f"{text[:_LONG]}…"
        raise UnknownNameError(f"class of {data}", shown, class_names)
    return number


def _check_size(name: str, classes: Sequence[int]) -> None:
    if len(classes) < _FEWEST:
        raise UsageError(
            f"task {name!r} has {len(classes) or 'no'} class{'' if len(classes) == 1 else 'es'}: "
            "there is nothing to tell apart, give at least 2"
        )
