"""What a baseline's name stands for: files beside the models, a commit of git, or the store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hwbench.errors import UsageError
from hwbench.watch.commits import commit_of, file_at, in_clone, tracked

#: The baseline that a store has of a model on the device at hand.
HISTORY: Final = "history"
_LEAST_DIGITS: Final = 7


@dataclass(frozen=True, slots=True)
class Baselines:
    """What is to be held against: the ``files`` that stand for the baselines of models, and the
    ``commit`` that is meant, with the models that are ``unchanged`` since and those that are
    ``new``: in git now, and not in the commit.
    """

    files: Mapping[Path, Path]
    commit: str | None = None
    unchanged: frozenset[Path] = frozenset()
    new: frozenset[Path] = frozenset()


@contextmanager
def baseline_files(reference: str, models: Sequence[Path]) -> Iterator[Baselines]:
    """The baselines of these models.

    A model without a file that git knows nothing of (what a build has made) is for the store to
    compare with, but for one that a folder is :func:`without`. Raises UsageError where the
    reference is nothing that is known.
    """
    given = Path(reference)
    if not reference:  # an unset variable of a build, say; an empty path would be this folder
        raise UsageError("the baseline is empty: name a commit, a file, a folder, or history")
    if given.is_dir():
        files = {m: given / m.name for m in models if (given / m.name).is_file()}
        _require_others(files)
        yield Baselines(files)
    elif given.is_file():
        if len(models) != 1:
            raise UsageError(f"{given} is one file: name a folder of baselines for several models")
        _require_others({models[0]: given})
        yield Baselines({models[0]: given})
    elif reference == HISTORY:
        yield Baselines({})
    else:
        folder = models[0].resolve().parent
        commit = commit_of(reference, folder if folder.is_dir() else None)
        if commit is None and not _is_hash(reference):
            raise UsageError(
                f"baseline {reference!r}: no file, folder, or commit of git; say history for what "
                "the store has"
            )
        with tempfile.TemporaryDirectory(prefix="hwbench-baseline-") as name:
            if commit is None:
                yield Baselines({}, reference)
            else:
                yield _of_commit(reference, commit, models, Path(name))


def _of_commit(reference: str, commit: str, models: Sequence[Path], folder: Path) -> Baselines:
    """The models as a commit has them, written into ``folder``, each with its external data.

    Each by the clone that it lies in: a submodule is one of its own.
    """
    files, unchanged, new = {}, set(), set()
    for index, model in enumerate(models):
        home = model.parent.resolve()
        if not home.is_dir() or not in_clone(home):
            continue
        own = commit_of(reference, home)
        if own is None:
            raise UsageError(f"{model}: the clone of git that it lies in knows no {reference!r}")
        content = file_at(own, home, model.name)
        if content is None:
            if tracked(home, model.name):
                new.add(model)
            continue
        place = folder / str(index) / model.name
        parts = {place: content}
        for location in _external_files(model, content):
            data = file_at(own, home, location)
            if data is not None:  # else whoever opens the model says what is missing
                parts[place.parent / location] = data
        same = [model.parent / part.relative_to(place.parent) for part in parts]
        if all(_has(now, then) for now, then in zip(same, parts.values(), strict=True)):
            unchanged.add(model)
            continue
        for part, data in parts.items():
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
        files[model] = place
    return Baselines(files, commit, frozenset(unchanged), frozenset(new))


def _external_files(model: Path, content: bytes) -> list[str]:
    if model.suffix.lower() != ".onnx":
        return []
    from hwbench.lower.onnx_file import external_files  # loads onnx

    return external_files(content)


def _has(file: Path, content: bytes) -> bool:
    return file.is_file() and file.read_bytes() == content


def _require_others(files: Mapping[Path, Path]) -> None:
    """UsageError where a baseline is the model itself, which nothing can be slower than."""
    for model, baseline in files.items():
        if model.exists() and model.samefile(baseline):
            raise UsageError(f"baseline {baseline} is the model itself: name another file")


def without(folder: str | Path, model: Path) -> str:
    """What to say of a folder of baselines that has none of a model."""
    return f"{model.name}: {folder} has no file of that name to compare with: add one"


def _is_hash(text: str) -> bool:
    return len(text) >= _LEAST_DIGITS and set(text) <= set("0123456789abcdef")
