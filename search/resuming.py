"""A long search on disk: its folder is its own, and a kill costs seconds of a training.

Tensors, numbers and text only, read by :func:`load_tensors`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hwbench.errors import ModelError, UsageError
from hwbench.predictors.files import replace_file
from hwbench.search.tensor_files import load_tensors

_FORMAT, _VERSION = "hwbench-training", 1


_ABOUT = "search.json"


def claim_folder(folder: Path, about: Mapping[str, Any], result: str) -> None:
    """Make the folder one search's own, by what it is ``about``; that search may come again.

    UsageError where it is another's, something else's, or has a file ``result`` already; ModelError
    where it cannot be written.
    """
    if (folder / result).exists():
        raise UsageError(f"{folder / result} is there already: remove it, or name another folder")
    run = folder / _ABOUT
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not run.exists():
            if any(folder.iterdir()):
                raise UsageError(f"{folder} holds something else: name a new folder")
            replace_file(run, json.dumps(about, indent=1).encode())
            return
        before = json.loads(run.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot write {folder}: {error.strerror or error}") from None
    except ValueError:
        before = None
    if before != about:
        known = before if isinstance(before, dict) else {}
        differ = ", ".join(sorted(name for name in about if known.get(name) != about[name]))
        raise UsageError(
            f"{folder} holds another search ({differ} differ): remove it, or name another folder"
        )


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep a training in the file ``path``, every so many seconds and at its end.

    ``about`` says which training it is: one that says something else does not go on from it.
    """

    path: Path
    about: str
    every_seconds: float = 20.0

    def write(self, net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        """Write it after so many steps; the old file stays until all is written."""
        buffer = io.BytesIO()
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "about": self.about,
            "steps": steps,
            "weights": net.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        torch.save(content, buffer)
        try:
            replace_file(self.path, buffer.getvalue())
        except OSError as error:
            raise ModelError(f"cannot write {self.path}: {error.strerror or error}") from None

    def read(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Fill both from the file; the steps done, 0 where there is none.

        ModelError where it is damaged, UsageError where it is of another training.
        """
        if not self.path.exists():
            return 0
        content = self._content()
        if content.get("about") != self.about:
            raise UsageError(
                f"{self.path} is of another training: remove it, or name another folder"
            )
        try:
            net.load_state_dict(content["weights"])
            optimizer.load_state_dict(content["optimizer"])
            return int(content["steps"])
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise ModelError(f"{self.path} lacks a part ({reason}): remove it") from None

    def _content(self) -> dict[str, Any]:
        content = load_tensors(self.path, "a training", "remove it")
        known = isinstance(content, dict) and content.get("format") == _FORMAT
        if not known or content.get("version") != _VERSION:
            raise ModelError(f"{self.path} is not a training, or damaged: remove it")
        return dict(content)
