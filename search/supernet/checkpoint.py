"""A supernet's file: its weights, and where its training stands.

Tensors of a CPU, wherever the net was, numbers and text only, read by :func:`load_tensors`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hwbench.errors import ModelError, UsageError
from hwbench.predictors.files import replace_file
from hwbench.records import digest
from hwbench.search.supernet.net import Learned, Supernet
from hwbench.search.tensor_files import load_tensors
from hwbench.spaces.base import Space

FORMAT = "hwbench-supernet"
VERSION = 1


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Steps done, seconds they took, the optimiser's state, and what identifies the training."""

    step: int
    seconds: float
    optimizer: dict[str, Any]
    run: Mapping[str, Any]


def write_checkpoint(path: Path, net: Supernet, state: Checkpoint) -> None:
    """Write a supernet with its training's state; the old file stays until all is written."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "space": net.space.name,
        "skeleton": _skeleton(net),
        "weights": _on_cpu(net.state_dict()),
        "step": state.step,
        "seconds": state.seconds,
        "optimizer": _on_cpu(state.optimizer),
        "run": dict(state.run),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        replace_file(path, buffer.getvalue())
    except OSError as error:
        raise ModelError(f"cannot write {path}: {error.strerror or error}") from None


def read_checkpoint(path: Path, net: Supernet, run: Mapping[str, Any]) -> Checkpoint:
    """Fill ``net`` from a file, and say where its training stands.

    ModelError where the file is damaged or of another space, UsageError where it is of a
    training other than ``run``.
    """
    content = _read(path, net)
    if content["run"] != dict(run):
        differ = sorted(k for k in run if content["run"].get(k) != run[k])
        raise UsageError(
            f"{path} is of another training ({', '.join(differ)} differ): give another "
            "checkpoint, or remove it to begin anew"
        )
    return Checkpoint(content["step"], content["seconds"], content["optimizer"], run)


def load_supernet(path: Path, space: Space) -> Supernet:
    """The supernet of ``space`` that a file holds, trained to the end; on the CPU.

    ModelError where it is damaged or another's, or where its training was cut short.
    """
    net = Supernet(space)
    content = _read(path, net)
    done, steps = content["step"], content["run"]["plan"]["steps"]
    if done < steps:
        raise ModelError(
            f"{path} was trained for {done} of {steps} steps: run the command that made it again, "
            "it goes on from there"
        )
    run = content["run"]
    net.learned = Learned(run["plan"]["fixed"], run["data"], tasks=bool(run.get("tasks")))
    return net.eval()


def steps_done(path: Path, net: Supernet) -> int:
    """How far the training in a file got; fills ``net`` with its weights. ModelError as above."""
    return int(_read(path, net)["step"])


def _read(path: Path, net: Supernet) -> dict[str, Any]:
    content = load_tensors(path, "a supernet", "give a file that hwbench supernet wrote")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ModelError(f"{path} is not a supernet")
    version = content.get("version")
    if type(version) is not int or version != VERSION:
        shown = version if isinstance(version, int | str) else type(version).__name__
        raise ModelError(
            f"{path} has version {shown!r}, this hwbench reads {VERSION}: train it again"
        )
    if (content.get("space"), content.get("skeleton")) != (net.space.name, _skeleton(net)):
        raise ModelError(
            f"{path} is a supernet of {content.get('space')!r}, not of {net.space.name!r} as it is "
            "now: train one"
        )
    try:
        _check(content, net)
        net.load_state_dict(content["weights"])
    except Exception as error:  # noqa: BLE001 - tensors of unknown kinds raise any kind
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{path} lacks a part of a supernet ({reason}): train it again") from None
    return content


def _check(content: Mapping[str, Any], net: Supernet) -> None:
    """KeyError, ValueError or UsageError where a file's content is no supernet's."""
    step, seconds, run = content["step"], content["seconds"], content["run"]
    if not _is_plain([step, seconds, run]):
        raise ValueError("numbers that are none")
    steps = run["plan"]["steps"]
    if type(step) is not int or type(steps) is not int or not (step >= 0 and steps >= 1):
        raise ValueError("no number of steps")
    if isinstance(seconds, str | bool) or not seconds >= 0:
        raise ValueError("no seconds")
    if not isinstance(run["data"], str) or not isinstance(content["optimizer"], dict):
        raise ValueError("no data or no optimizer")
    net.space.pinned(run["plan"]["fixed"])
    own = net.state_dict()
    for name, weight in content["weights"].items():
        if name in own and weight.dtype != own[name].dtype:
            raise ValueError(f"weights {name} are {weight.dtype}")
        if not torch.isfinite(weight).all():
            raise ValueError(f"weights {name} that are no numbers")


def _is_plain(value: Any) -> bool:
    """Whether it is made of text and finite numbers: what compares, and prints on one line."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int) or _is_finite(value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _on_cpu(state: Any) -> Any:
    """A state with its tensors on the CPU, in which a file has to be read elsewhere."""
    if isinstance(state, torch.Tensor):
        return state.cpu()
    if isinstance(state, Mapping):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list) else state


def _skeleton(net: Supernet) -> str:
    return digest(asdict(net.space.skeleton))
