"""What git knows of the folder that a measurement was made in, and of the files of a commit."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from hwbench.errors import UsageError

_PATIENCE_S = 20.0
#: Large files of Git LFS may have to come from afar.
_FETCH_S = 600.0
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
#: The mode of a symbolic link, as git lists it.
_LINK = b"120000 "


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


def file_at(commit: str, folder: Path, name: str) -> bytes | None:
    """The content of a file below a folder as of a commit that its clone has, as a checkout has it
    (large files of Git LFS, if that is installed); ``None`` where the commit has no such file.

    UsageError where it has one that cannot be had: a link, or what Git LFS keeps elsewhere.
    """
    place, of = f"./{name}", f"{name}: {commit[:12]} has it"
    listed = _ran(folder, "ls-tree", "-z", commit, place)
    if listed.error:
        raise UsageError(f"{name}: git cannot tell whether {commit[:12]} has it: {listed.error}")
    if not listed.out:
        return None
    if listed.out.startswith(_LINK):
        raise UsageError(f"{of} as a link: name the file that it leads to")
    content = _ran(folder, "cat-file", "--filters", f"{commit}:{place}", patience_s=_FETCH_S)
    if content.error:
        raise UsageError(f"{of}, but git cannot bring it: {content.error}")
    if content.out.startswith(_LFS_POINTER):
        raise UsageError(f"{of} in Git LFS: run git lfs install")
    return content.out


def in_clone(folder: Path) -> bool:
    """Whether a folder is of a clone of git."""
    return _git(folder, "rev-parse", "--git-dir") is not None


def tracked(folder: Path, name: str) -> bool:
    """Whether git has a file by that name in a folder now, committed or about to be."""
    return _git(folder, "ls-files", "--error-unmatch", "--", name) is not None


def _git(folder: Path | None, *arguments: str) -> str | None:
    """What git prints; ``None`` where it refuses, or is not there."""
    done = _ran(folder, *arguments)
    return None if done.error else done.out.decode(errors="replace").strip()


class _Ran(NamedTuple):
    """What git printed, or why it did not do what it was asked for."""

    out: bytes
    error: str = ""


def _ran(folder: Path | None, *arguments: str, patience_s: float = _PATIENCE_S) -> _Ran:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, timeout=patience_s, check=False
        )
    except subprocess.TimeoutExpired:
        return _Ran(b"", f"it was not done in {patience_s:.0f} s")
    except OSError as error:
        return _Ran(b"", error.strerror or str(error))
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        return _Ran(b"", said.splitlines()[-1] if said else f"it ended with {done.returncode}")
    return _Ran(done.stdout)
