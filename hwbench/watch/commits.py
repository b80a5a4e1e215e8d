"""What git knows of the folder that a measurement was made in, and of the files of a commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hwbench.errors import UsageError

_PATIENCE_S = 20
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def git_tags(folder: Path | None = None) -> dict[str, str]:
    """``commit``, ``branch``, ``dirty`` (yes, no) and ``project`` of a folder's clone; empty
    outside of one. The project is the name of the clone's top folder, in a worktree of the clone
    that it belongs to: another of that name in one store is taken for the same.
    """
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if commit is None:
        return {}
    tags = {
        "commit": commit,
        "dirty": "yes" if _git(folder, "status", "--porcelain", "-uno") else "no",
    }
    shared = _git(folder, "rev-parse", "--path-format=absolute", "--git-common-dir")
    if shared:
        place = Path(shared)  # of a bare clone PROJECT.git, else PROJECT/.git
        tags["project"] = place.parent.name if place.name == ".git" else place.stem
    branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD")
    return {**tags, "branch": branch} if branch and branch != "HEAD" else tags


def commit_of(reference: str, folder: Path | None = None) -> str | None:
    """The full hash of a commit, branch or tag; ``None`` where git knows none of that name."""
    if reference.startswith("-"):
        raise UsageError(f"baseline {reference!r}: name a commit, a branch, a tag or a file")
    return _git(folder, "rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}")


def file_at(commit: str, path: Path) -> bytes | None:
    """The content of a file as of a commit, as a checkout of it has it (large files of Git LFS, if
    that is installed); ``None`` where the commit has no such file.

    UsageError where all there is of it is the pointer that Git LFS keeps.
    """
    place = f"{commit}:./{path.name}"
    content = _run(path.resolve().parent, "cat-file", "--filters", place)
    if content is not None and content.startswith(_LFS_POINTER):
        raise UsageError(f"{path.name}: {commit[:12]} has it in Git LFS: run git lfs install")
    return content


def tracked(path: Path) -> bool:
    """Whether git has a file by that name now, committed or about to be."""
    return _run(path.resolve().parent, "ls-files", "--error-unmatch", "--", path.name) is not None


def _git(folder: Path | None, *arguments: str) -> str | None:
    out = _run(folder, *arguments)
    return None if out is None else out.decode(errors="replace").strip()


def _run(folder: Path | None, *arguments: str) -> bytes | None:
    """What git prints; ``None`` where it refuses, or is not there."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout
