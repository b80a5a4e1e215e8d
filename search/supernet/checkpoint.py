"""A supernet's file: its weights, and where its training stands.

Tensors of a CPU, wherever the net was, numbers and text only, read by
``torch.load(weights_only=True)``: no code in a file runs.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hwbench.errors import ModelError, UsageError
from hwbench.predictors.files import replace_file
from hwbench.records import digest
from hwbench.search.supernet.net import Learned, Supernet
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
    net.learned = Learned(content["run"]["plan"]["fixed"], content["run"]["data"])
    return net.eval()


def steps_done(path: Path, net: Supernet) -> int:
    """How far the training in a file got; fills ``net`` with its weights. ModelError as above."""
    return int(_read(path, net)["step"])


def _read(path: Path, net: Supernet) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None
    except pickle.UnpicklingError:  # torch's own text says how to run what is in it
        raise ModelError(
            f"{path} is not a supernet, or damaged: it holds more than tensors, numbers and text, "
            "which is never run"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{path} is not a supernet, or damaged: {reason}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ModelError(f"{path} is not a supernet")
    if content.get("version") != VERSION:
        raise ModelError(
            f"{path} has version {content.get('version')!r}, this hwbench reads {VERSION}: "
            "train it again"
        )
    if (content.get("space"), content.get("skeleton")) != (net.space.name, _skeleton(net)):
        raise ModelError(
            f"{path} is a supernet of {content.get('space')!r}, not of {net.space.name!r} as it is "
            "now: train one"
        )
    try:
        net.load_state_dict(content["weights"])
        run = content["run"]
        _ = content["step"] + run["plan"]["steps"], content["seconds"], content["optimizer"]
        _ = net.space.pinned(run["plan"]["fixed"]), run["data"]
    except (KeyError, RuntimeError, TypeError, AttributeError, UsageError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{path} lacks a part of a supernet ({reason}): train it again") from None
    return content


def _on_cpu(state: Any) -> Any:
    """A state with its tensors on the CPU, in which a file has to be read elsewhere."""
    if isinstance(state, torch.Tensor):
        return state.cpu()
    if isinstance(state, Mapping):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list) else state


def _skeleton(net: Supernet) -> str:
    return digest(asdict(net.space.skeleton))
