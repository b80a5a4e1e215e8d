"""Training a supernet: a random path a step, and resuming after a kill.

Each path learns from the labels (Guo et al., "Single Path One-Shot", ECCV 2020): in minutes of a
CPU, many steps of one path teach more than a few of the largest, the smallest and one between
them, and no path is favoured, so that they rank by what they can do. What a step does follows from
the seed and its number alone, so a training that was killed and goes on from its checkpoint ends
with the same weights as one that was not (on as many threads of a CPU: a GPU adds up in any order).

It runs where the net is: ``train(net.to("cuda"), …)``. The weights begin, and the checkpoint is
written, as on a CPU, so that a training may go on elsewhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hwbench.errors import UsageError
from hwbench.search.data import Dataset, check_fits
from hwbench.search.supernet.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from hwbench.search.supernet.elastic import Norms
from hwbench.search.supernet.net import (
    Learned,
    Supernet,
    resolution_of,
    to_inputs,
)
from hwbench.spaces.base import NOTHING_FIXED, Value

#: The classes of a step, drawn by its random generator: an EAS task. None: all. Its ``repr`` is
#: part of what identifies a training.
Tasks = Callable[[np.random.Generator], Sequence[int] | None]


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast. ``fixed`` pins decisions of all paths, e.g. ``{"r": 28}``.

    Each step runs a path, uniformly drawn, on ``batch`` images: with all decisions fixed, one
    architecture is trained by itself. The learning rate rises over the first twentieth of the
    steps, and falls to zero by a cosine.
    """

    steps: int
    batch: int = 64
    learning_rate: float = 0.3
    weight_decay: float = 3e-5
    seed: int = 0
    fixed: Mapping[str, Value] = field(default_factory=lambda: NOTHING_FIXED)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2:
            raise UsageError("a training needs 1 step, and 2 images in it")
        if not (0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf):
            raise UsageError("learning rate and weight decay have to be positive numbers")

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        rise = max(1, self.steps // 20)
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * min(1.0, (step + 1) / rise) * cosine


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands. Loss and accuracy are those of the last steps' paths."""

    step: int
    steps: int
    loss: float
    accuracy: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """For a search's ledger; the seconds of earlier, interrupted runs included."""

    steps: int
    seconds: float


def train(
    net: Supernet,
    data: Dataset,
    plan: TrainingPlan,
    *,
    checkpoint: Path | None = None,
    save_every_seconds: float = 20.0,
    tasks: Tasks | None = None,
    progress: Callable[[Progress], None] | None = None,
    report_every: int = 20,
) -> TrainingCost:
    """Train all paths of ``net`` on the training images, as planned, on the net's device.

    Where ``checkpoint`` exists, the training goes on from it. It is written every so many seconds
    and at the end, the old one standing until the new one is complete. ``tasks`` draws each
    step's classes; logits of the others play no part in it. ``progress`` is called after the
    first step and every ``report_every``. UsageError where the checkpoint is that of another
    space, plan or data, and where the training diverges.
    """
    skeleton = net.space.skeleton
    check_fits(data, channels=skeleton.in_channels, classes=skeleton.classes, what=net.space.name)
    if plan.batch > len(data.train):
        raise UsageError(f"{data.name} has {len(data.train)} images to train on: take less a step")
    optimizer = _optimizer(net, plan)
    run = {"plan": _plain(plan), "data": data.digest, "tasks": tasks is not None and repr(tasks)}
    if checkpoint is not None and not checkpoint.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {checkpoint.absolute().parent} for the checkpoint")
    done, before = 0, 0.0
    if checkpoint is not None and checkpoint.exists():
        found = read_checkpoint(checkpoint, net, run)
        optimizer.load_state_dict(found.optimizer)
        done, before = found.step, found.seconds
    net.learned = Learned(dict(plan.fixed), data.digest, tasks is not None)
    start = saved = time.monotonic()
    recent: list[tuple[float, float]] = []
    for step in range(done, plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        recent.append(_step(net, data, plan, step, optimizer, tasks))
        if not math.isfinite(recent[-1][0]):
            raise UsageError(
                f"the training diverged at step {step + 1} of {plan.steps}: take a learning rate "
                f"below {plan.learning_rate:g}"
            )
        now = time.monotonic()
        seconds = before + now - start
        due = step == done or (step + 1) % report_every == 0 or step + 1 == plan.steps
        if progress is not None and due:
            loss, accuracy = np.mean(recent, axis=0).tolist()
            left = (plan.steps - step - 1) * (now - start) / (step + 1 - done)
            progress(Progress(step + 1, plan.steps, loss, accuracy, seconds, left))
            recent.clear()
        if checkpoint is not None and (now - saved >= save_every_seconds or step + 1 == plan.steps):
            state = Checkpoint(step + 1, seconds, optimizer.state_dict(), run)
            write_checkpoint(checkpoint, net, state)
            saved = time.monotonic()
    return TrainingCost(plan.steps, before + time.monotonic() - start)


def _step(
    net: Supernet,
    data: Dataset,
    plan: TrainingPlan,
    step: int,
    optimizer: torch.optim.Optimizer,
    tasks: Tasks | None,
) -> tuple[float, float]:
    """One step's loss and accuracy."""
    rng = np.random.default_rng([plan.seed, step])
    classes = None if tasks is None else tasks(rng)
    part = data.train
    if classes is None:
        part = part.take(_rows(len(part), plan, step))
    else:
        of_classes = np.flatnonzero(np.isin(part.labels, classes))
        chosen = rng.choice(of_classes, plan.batch, replace=len(of_classes) < plan.batch)
        part = part.take(chosen).of_classes(classes)
    labels = torch.from_numpy(part.labels).to(net.device)
    (code,) = net.space.sample(1, rng, fixed=plan.fixed)
    images = to_inputs(part.images, resolution_of(net.space, code)).to(net.device)

    optimizer.zero_grad(set_to_none=True)
    logits = net(images, code, Norms())
    logits = logits if classes is None else logits[:, list(classes)]
    loss = functional.cross_entropy(logits, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item(), (logits.argmax(1) == labels).double().mean().item()


def _rows(n: int, plan: TrainingPlan, step: int) -> NDArray[np.int64]:
    """Which images a step takes: each epoch has its own order, what fills no batch is left out."""
    epoch, place = divmod(step, n // plan.batch)
    return _order(n, plan.seed, epoch)[place * plan.batch : (place + 1) * plan.batch]


@lru_cache(maxsize=1)
def _order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch, n]).permutation(n)


def _optimizer(net: Supernet, plan: TrainingPlan) -> torch.optim.Optimizer:
    """Nesterov's, without decay for what scales or shifts channels."""
    matrices = [p for p in net.parameters() if p.dim() > 1]
    vectors = [p for p in net.parameters() if p.dim() <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": vectors},
    ]
    return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=0.9, nesterov=True)


def _plain(plan: TrainingPlan) -> dict[str, Any]:
    return {f.name: getattr(plan, f.name) for f in fields(plan)} | {"fixed": dict(plan.fixed)}
