"""What a search asks of the hosts of a fleet, and what they answer: JSON both ways.

An order says what software its numbers are to come from, since they depend on it; a host that has
other software refuses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import hwbench
from hwbench.errors import HwbenchError, UsageError
from hwbench.fleet.computing import Computing, Task
from hwbench.predictors import BudgetOracle


def software() -> dict[str, str]:
    """Versions that a network's answers, or its training, may depend on."""
    import onnxruntime

    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    return {"hwbench": hwbench.__version__, **{k: v.partition("+")[0] for k, v in versions.items()}}


def require_plain(oracle: BudgetOracle) -> None:
    """UsageError where an oracle rests on more than its predictor, which alone can travel."""
    if oracle.limited or len(oracle.known):
        raise UsageError(
            "an oracle that has other limits, or knows latencies, is not asked by a fleet's hosts: "
            "train the seeds here"
        )


def order(content: Mapping[str, Any]) -> str:
    """An order of this content."""
    return json.dumps({"software": software(), **content})


def answer(text: str, do: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    """On a host: what ``do`` makes of an order's content, or why it is refused."""
    asked = json.loads(text)
    if asked["software"] != software():
        ours, theirs = (
            " ".join(f"{name} {version}" for name, version in each.items())
            for each in (software(), asked["software"])
        )
        refused = f"it has {ours}, this machine {theirs}: install the same on both"
        return json.dumps({"refused": refused})
    try:
        return json.dumps(do(asked))
    except HwbenchError as error:
        return json.dumps({"refused": str(error)})


def ask(
    computing: Computing,
    task: Task,
    contents: Sequence[Mapping[str, Any]],
    progress: Callable[[float], None] = lambda share: None,
) -> list[dict[str, Any]]:
    """What hosts answer to orders of these contents; UsageError where one refused."""
    return [told(text) for text in computing.answers(task, [order(c) for c in contents], progress)]


def told(text: str) -> dict[str, Any]:
    """What a host answered; UsageError where it refused."""
    found: dict[str, Any] = json.loads(text)
    if "refused" in found:
        raise UsageError(f"a host of the fleet: {found['refused']}")
    return found
