"""Training of the generator of EAS: cross-entropy through a frozen supernet, and latency.

The loss of a scenario (a task and a budget r) is, as specified, the cross-entropy on the task plus
``over`` relu(log(F / (.95 r))) + ``under`` relu(log(r / F)), F the latency. The gates multiply the
supernet's masks, so that the cross-entropy's gradient reaches the logits. What is ours, because
such a generator easily answers everything with one architecture:

- F is that of the likeliest architecture (straight-through), which is what will be answered, and
  the table's sum is corrected, architecture by architecture, to the bound that the oracle gives;
- latency is learned first, by itself, and on more scenarios than the supernet is run for;
- a step's budgets are one from each stratum of the range, its tasks dealt like cards;
- entropy is rewarded, ever less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hwbench.predictors import BudgetOracle
from hwbench.search.data import Part
from hwbench.search.eas.conditional import ConditionalNet, sampled_gates, straight_through
from hwbench.search.eas.latency import ExpectedLatency
from hwbench.search.eas.policy import Choices, TaskPolicy
from hwbench.search.eas.tasks import Task, TaskDropout, TaskGroups, task_dropout
from hwbench.search.pnag.training import stratified
from hwbench.search.supernet import Supernet, to_inputs
from hwbench.spaces.base import Codes

if TYPE_CHECKING:
    from hwbench.search.eas.search import Lesson

Array = NDArray[np.float64]

_AIM = 0.95


def train_policy(
    net: Supernet,
    images: Part,
    oracle: BudgetOracle,
    groups: TaskGroups,
    choices: Choices,
    budgets_ms: Array,
    *,
    confidence: float,
    seed: int,
    plan: Lesson,
    progress: Callable[[float], None] = lambda share: None,
) -> TaskPolicy:
    """Train on labelled images and budgets (K,), ascending; the supernet stays as it is.

    The same arguments give the same policy, on as many threads.
    """
    rng = np.random.default_rng(seed)
    latency = Latency(oracle, choices, confidence, seed)
    batches = _Batches(images, int(str(choices.fixed["r"])))
    requires = [p.requires_grad for p in net.parameters()]
    net.requires_grad_(False)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            student = ConditionalNet(choices, len(groups.groups), budgets_ms, plan.rate)
            deal = _deal(groups, rng)
            for step in range(plan.first + plan.steps):
                share = max(0.0, (step - plan.first) / max(plan.steps - 1, 1))
                asked = stratified(budgets_ms, plan.kept, rng)
                tasks = [next(deal) for _ in asked]
                logits = student.logits(groups.shares(tasks), asked)
                loss = latency.loss(logits, asked, plan)
                loss = loss - plan.entropy * (1 - share) * _entropy(logits, choices)
                if step >= plan.first:
                    parts = np.array_split(np.arange(plan.kept), plan.scenarios)
                    chosen = np.array([rng.choice(part) for part in parts])
                    warmth = _between(plan.temperatures, share)
                    gates = sampled_gates(logits[chosen], warmth)
                    for i, k in enumerate(chosen):
                        x, y, classes = batches.draw(tasks[k], plan.images, rng)
                        answers = relaxed(net, x, gates[i])[:, classes]
                        loss = loss + functional.cross_entropy(answers, y) / plan.scenarios
                student.descend(loss, 0.5 * (1 + math.cos(math.pi * 0.9 * share)))
                progress((step + 1) / (plan.first + plan.steps))
            return student.policy()
    finally:
        for parameter, required in zip(net.parameters(), requires, strict=True):
            parameter.requires_grad_(required)


class Latency:
    """The latency of the likeliest architectures, with a gradient, and what of the loss it is."""

    def __init__(
        self, oracle: BudgetOracle, choices: Choices, confidence: float, seed: int
    ) -> None:
        self._oracle, self._choices, self._confidence = oracle, choices, confidence
        self._table = oracle.table(fixed=choices.fixed, seed=seed)
        self._expected = ExpectedLatency(self._table)

    def __call__(self, logits: Tensor) -> Tensor:
        """Bounds (n,) in ms of padded logits (n, L, C): the oracle's, with the table's gradient."""
        codes: Codes = self._choices.likeliest(logits.detach().numpy())
        bound = self._oracle.upper(codes, self._confidence)
        factor = torch.from_numpy(bound / self._table.latency(codes)).float()
        return factor * self._expected(straight_through(logits.softmax(-1)))

    def loss(self, logits: Tensor, budgets_ms: Array, plan: Lesson) -> Tensor:
        """How far from .95 of their budgets (n,) they are, in log, by the mean."""
        beyond = (self(logits) / torch.from_numpy(budgets_ms).float()).log()
        over = functional.relu(beyond - math.log(_AIM))
        return (plan.over * over + plan.under * functional.relu(-beyond)).mean()


class _Batches:
    """Images of tasks, at the resolution of the search."""

    def __init__(self, part: Part, resolution: int) -> None:
        self._inputs = to_inputs(part.images, resolution)
        self._labels = part.labels

    def draw(
        self, task: Task, n: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, list[int]]:
        """Inputs (n, c, r, r), labels (n,) by place in the task, and the task's classes."""
        rows = np.flatnonzero(np.isin(self._labels, task.classes))
        taken = rng.choice(rows, n, replace=len(rows) < n)
        places = np.searchsorted(task.classes, self._labels[taken])
        return self._inputs[taken], torch.from_numpy(places), list(task.classes)


def relaxed(net: Supernet, images: Tensor, gates: Tensor) -> Tensor:
    """Logits of images by gates (L, C) of all decisions of the supernet's space, padded.

    They run where the supernet is, and come back to where the gates are.
    """
    s, layers = net.space.skeleton, len(net.layers)
    here, gates = gates.device, gates.to(net.device)
    at = 1 + len(s.units)  # after the resolution and the depths
    logits = net.relaxed(
        images.to(net.device),
        kernel=gates[at : at + layers, : len(s.kernels)],
        expansion=gates[at + layers :, : len(s.expansions)],
        depth=gates[1:at, : len(s.depths)],
    )
    return logits.to(here)


def _deal(groups: TaskGroups, rng: np.random.Generator) -> Iterator[Task]:
    """Tasks without end: by turns each group, all together, and as many random unions."""
    drawn: TaskDropout = task_dropout(groups)
    while True:
        unions = [drawn(rng) or groups.every.classes for _ in groups.groups]
        hand = [*groups.groups, groups.every, *(Task("", classes) for classes in unions)]
        for i in rng.permutation(len(hand)):
            yield hand[i]


def _entropy(logits: Tensor, choices: Choices) -> Tensor:
    """Of a decision, by the mean over those that have a choice."""
    free = torch.from_numpy(choices.allowed.sum(axis=1) > 1)
    log_p = logits.log_softmax(-1)[:, free]
    return -(log_p.exp() * log_p.clamp(min=-50)).sum(-1).mean()


def _between(ends: tuple[float, float], share: float) -> float:
    first, last = ends
    return float(first * (last / first) ** share)
