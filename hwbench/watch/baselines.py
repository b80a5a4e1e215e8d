"""What a baseline's name stands for: files beside the models, a commit of git, or the store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hwbench.errors import UsageError
from hwbench.watch.commits import commit_of, file_at

#: The baseline that a store has of a model on the device at hand.
HISTORY: Final = "history"
_LEAST_DIGITS: Final = 7


@contextmanager
def baseline_files(
    reference: str, models: Sequence[Path]
) -> Iterator[tuple[Mapping[Path, Path], str | None]]:
    """The files that stand for the baselines of these models, and the commit that is meant.

    A model without one, or whose file in git is the same, is for the store to compare with, but
    for one that a folder is :func:`without`. Raises UsageError where the reference is nothing that
    is known.
    """
    given = Path(reference)
    if not reference:  # an unset variable of a build, say; an empty path would be this folder
        raise UsageError("the baseline is empty: name a commit, a file, a folder, or history")
    if given.is_dir():
        files = {m: given / m.name for m in models if (given / m.name).is_file()}
        _require_others(files)
        yield files, None
    elif given.is_file():
        if len(models) != 1:
            raise UsageError(f"{given} is one file: name a folder of baselines for several models")
        _require_others({models[0]: given})
        yield {models[0]: given}, None
    elif reference == HISTORY:
        yield {}, None
    else:
        folder = models[0].resolve().parent
        commit = commit_of(reference, folder if folder.is_dir() else None)
        if commit is None and not _is_hash(reference):
            raise UsageError(
                f"baseline {reference!r}: no file, folder, or commit of git; say history for what "
                "the store has"
            )
        with tempfile.TemporaryDirectory(prefix="hwbench-baseline-") as name:
            files = {}
            for index, model in enumerate(models if commit else ()):
                content = file_at(commit or "", model)
                if content is not None and content != model.read_bytes():
                    files[model] = Path(name) / str(index) / model.name
                    files[model].parent.mkdir()
                    files[model].write_bytes(content)
            yield files, commit or reference


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
