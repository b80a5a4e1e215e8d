"""What a split is worth, in seconds: by weights that all splits share, and by its stages' costs.

A candidate is judged by the cheapest mean latency that thresholds give it at an accuracy that is
wanted; where none do, by how far its most accurate thresholds fall short. The accuracy is that of
weights that were trained for all splits at once, so it is held against what such weights reach.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwbench.errors import UsageError
from hwbench.search.ledger import SearchLedger
from hwbench.search.s2dnas.costs import StageOracle
from hwbench.search.s2dnas.exits import Exits, all_exits
from hwbench.search.s2dnas.net import MultiStageNet
from hwbench.search.s2dnas.precision import mixed_precision
from hwbench.search.s2dnas.training import recalibrate, stage_logits
from hwbench.search.scoring import Scored
from hwbench.spaces.base import Codes, Space

Array = NDArray[np.float64]

#: Exponent of the latency's share in the reward (Tan et al., MnasNet, CVPR 2019, have -.07).
LATENCY_EXPONENT = -0.06


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """What thresholds give a split: mean latency (m,) in ms, rising, and accuracy (m,), 0 to 1."""

    latency_ms: Array
    accuracy: Array

    def chosen(self, accuracy: float) -> int:
        """The cheapest at least so accurate; the most accurate where none is."""
        good = np.flatnonzero(self.accuracy >= accuracy)
        return int(good[0]) if len(good) else int(self.accuracy.argmax())


def exits_of(
    net: MultiStageNet, images: Tensor, labels: NDArray[np.int64], costs_ms: Array
) -> Exits:
    """All thresholds for a net as it is, judged on images (n, c, h, w) and labels (n,)."""
    logits = stage_logits(net, images).float()
    right = logits.argmax(dim=2).numpy() == labels
    return all_exits(logits.softmax(dim=2).amax(dim=2).numpy(), right, costs_ms)


class SharedJudge:
    """Judges splits in the trained weights of ``net`` (n images to recalibrate, m to validate).

    Its answers may be had in ``bfloat16``: sooner, and as good to compare splits by.
    With ``path`` what was judged is kept, a line each, and not judged again: the file has to be of
    these weights and latencies. ``validations`` counts what was judged now,
    ``stages`` those of a split.
    """

    def __init__(
        self,
        net: MultiStageNet,
        oracle: StageOracle,
        recalibration: Tensor,
        validation: tuple[Tensor, NDArray[np.int64]],
        path: Path | None = None,
        bfloat16: bool = False,
    ) -> None:
        self.space: Space = net.space
        self.validations, self.stages = 0, net.space.stages
        self._net, self._oracle = net, oracle
        self._recalibration, self._validation = recalibration, validation
        self._path, self._bfloat16 = path, bfloat16
        self._known = {} if path is None else _read(path)

    def __call__(self, code: Codes) -> Candidate:
        """The candidate that one code (L,) stands for."""
        (text,) = self.space.decode(code[None])
        if text not in self._known:
            self._known[text] = self._judged(code)
            self.validations += 1
            self._append(text, self._known[text])
        return self._known[text]

    def _judged(self, code: Codes) -> Candidate:
        self._net.use(code)
        costs = self._oracle.stage_costs([stage.net.graph for stage in self._net.stages()])
        with mixed_precision(self._bfloat16):
            recalibrate(self._net, self._recalibration)
            front = exits_of(self._net, *self._validation, costs).front()
        return Candidate(front.cost, front.accuracy)

    def _append(self, text: str, found: Candidate) -> None:
        if self._path is None:
            return
        entry = {
            "split": text,
            "latency_ms": found.latency_ms.tolist(),
            "accuracy": found.accuracy.tolist(),
        }
        with self._path.open("a", encoding="utf-8") as file:
            # A line of its own, whatever an interruption left at the end.
            file.write(f"\n{json.dumps(entry)}\n")


def _read(path: Path) -> dict[str, Candidate]:
    """What a file keeps; a line that was cut short is passed over."""
    found = {}
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in filter(None, text.splitlines()):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        try:
            pair = np.array([entry["latency_ms"], entry["accuracy"]], np.float64)
            name = str(entry["split"])
        except (KeyError, TypeError, ValueError):
            raise UsageError(f"{path} has a line that is no candidate: remove the file") from None
        if pair.ndim != 2 or not pair.size or not np.isfinite(pair).all():
            raise UsageError(f"{path} has a candidate without figures: remove the file")
        found[name] = Candidate(pair[0], pair[1])
    return found


class SplitScores:
    """What a search over splits asks, as :class:`~hwbench.search.scoring.Scores`.

    ``score`` is the mean latency in ms, negated; what is held against the budget is the accuracy
    lost, in points: ``points`` of ``reference`` (0 to 1) may be. ``told`` is called with the number
    of candidates so far.
    """

    def __init__(
        self,
        judge: SharedJudge,
        reference: float,
        points: float,
        ledger: SearchLedger,
        told: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.space, self.points, self.ledger = judge.space, points, ledger
        self._judge, self._reference, self._told = judge, reference, told

    def __call__(self, codes: Codes) -> Scored:
        """Judge codes (n, L)."""
        rows = self.space.canonical(codes)
        latency, lost = np.empty(len(rows)), np.empty(len(rows))
        wanted = self._reference - self.points / 100
        for i, row in enumerate(rows):
            candidate = self._judge(row)
            at = candidate.chosen(wanted)
            latency[i], accuracy = candidate.latency_ms[at], candidate.accuracy[at]
            lost[i] = 100 * (self._reference - accuracy)
            if accuracy >= wanted:  # whatever rounding says
                lost[i] = min(lost[i], self.points)
            self.ledger.evaluator_calls += 1
            self.ledger.oracle_queries += self._judge.stages
            self._told(self.ledger.evaluator_calls)
        return Scored(rows, -latency, lost)

    def rewards(self, found: Scored, static_ms: float) -> Array:
        """The published reward (n,): accuracy times a power of the share of latency left.

        ``ACC * (COST / COST_0) ** w``, for the thresholds that each was judged by.
        """
        accuracy = self._reference - found.upper_ms / 100
        rewards: Array = accuracy * (-found.score / static_ms) ** LATENCY_EXPONENT
        return rewards


@torch.no_grad()
def logits_of(module: torch.nn.Module, images: Tensor) -> Tensor:
    """What a module answers to images (n, c, h, w), some at a time: (n, classes)."""
    return torch.cat([module(images[at : at + 500]) for at in range(0, len(images), 500)])
