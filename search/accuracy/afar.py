"""A supernet's accuracies told by the hosts of a fleet: the same numbers, from more cores.

The supernet and the images that judge it travel once to each host, as tensors, numbers and text
that ``torch.load(weights_only=True)`` reads: no code in them runs.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hwbench.fleet.computing import Computing
from hwbench.search.accuracy.judge import Judge
from hwbench.search.accuracy.supernet import Evaluate
from hwbench.search.data import Part
from hwbench.search.hosts import answer, ask
from hwbench.search.supernet import Supernet
from hwbench.spaces import get_space
from hwbench.spaces.base import Codes

if TYPE_CHECKING:
    from distributed import Client


def accuracies_afar(client: Client, judge: Judge) -> Evaluate:
    """What gives the accuracy of each of some rows (L,) by a fleet's hosts.

    Rows are dealt out to all hosts alike, each of which runs one network a core. UsageError where
    a host has other software, NoDeviceError where none computes.
    """
    computing = Computing(client, packed(judge))

    def evaluate(rows: Sequence[Codes]) -> list[float]:
        shares = [list(range(i, len(rows), computing.hosts)) for i in range(computing.hosts)]
        shares = [share for share in shares if share]
        orders = [{"codes": [rows[i].tolist() for i in share]} for share in shares]
        found = [0.0] * len(rows)
        for share, told in zip(shares, ask(computing, accuracies_here, orders), strict=True):
            for i, accuracy in zip(share, told["accuracy"], strict=True):
                found[i] = float(accuracy)
        return found

    return evaluate


def packed(judge: Judge) -> bytes:
    """A judge as bytes."""

    def part(of: Part) -> list[torch.Tensor]:
        return [torch.from_numpy(np.array(x)) for x in (of.images, of.labels)]

    content = {
        "space": judge.net.space.name,
        "weights": {name: tensor.cpu() for name, tensor in judge.net.state_dict().items()},
        "calibration": part(judge.calibration),
        "validation": part(judge.validation),
        "classes": None if judge.classes is None else list(judge.classes),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@lru_cache(maxsize=1)
def unpacked(parcel: bytes) -> Judge:
    """The judge in these bytes, on the CPU. UsageError where its space is not known here."""
    content: dict[str, Any] = torch.load(io.BytesIO(parcel), weights_only=True)
    net = Supernet(get_space(content["space"]))
    net.load_state_dict(content["weights"])
    calibration, validation = (
        Part(*(x.numpy() for x in content[name])) for name in ("calibration", "validation")
    )
    classes = content["classes"]
    own = None if classes is None else tuple(classes)
    return Judge(net.eval(), calibration, validation, own)


def accuracies_here(parcel: bytes, text: str) -> str:
    """Task: the accuracies of an order's codes, or why they are refused; as JSON."""

    def judged(asked: dict[str, Any]) -> dict[str, Any]:
        judge = unpacked(parcel)
        rows = judge.net.space.check(asked["codes"])
        return {"accuracy": judge.accuracies(list(rows))}

    return answer(text, judged)
