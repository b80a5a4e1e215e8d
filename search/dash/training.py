"""Trains a network for a task, mixtures and their shares together with all other weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from hwbench.errors import UsageError
from hwbench.search.dash.module import MixedConv
from hwbench.search.dash.tasks import Samples, Task
from hwbench.search.resuming import Keep

#: Of a mixture's shares: what their gradient is divided by, and what a place of the receptive field
#: adds to it (the released code's).
_GRADIENT_SCALE, _FIELD_PENALTY = 100.0, 1e-5
_MOST_NORM = 1.0


class DivergedError(UsageError):
    """A training left all numbers."""


@dataclass(frozen=True, slots=True)
class FitPlan:
    """How long and how fast: SGD with Nesterov's momentum, one rise and a cosine to zero.

    ``shares_rate`` is the learning rate of a mixture's logits, which do not decay. The published
    .05 is for some hundred times as many steps.
    """

    steps: int
    batch: int = 64
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    shares_rate: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2:
            raise UsageError("a training needs 1 step, and 2 samples in it")
        if not (0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf):
            raise UsageError("learning rate and weight decay have to be positive numbers")

    def share(self, step: int) -> float:
        """Of the learning rate, at a step."""
        rise = max(1, self.steps // 20)
        return min(1.0, (step + 1) / rise) * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def fit(
    net: nn.Module,
    task: Task,
    plan: FitPlan,
    keep: Keep | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> float:
    """Train on the training samples; the CPU seconds it took, those before a kill included.

    What a step does follows from the seed and its number: with ``keep`` a training that was killed
    goes on where it was. The net is left at inference. DivergedError where the loss is no number.
    """
    if plan.batch > len(task.train):
        raise UsageError(f"{task.name} has {len(task.train)} samples to train on: take less a step")
    optimizer = _optimizer(net, plan)
    optimizer.param_groups[0]["seconds"] = 0.0  # kept with the optimizer's state
    done = 0 if keep is None else keep.read(net, optimizer)
    first = optimizer.param_groups[0]
    before, saved = time.process_time() - first["seconds"], time.monotonic()
    mixtures = [module for module in net.modules() if isinstance(module, MixedConv)]
    net.train()
    for step in range(done, plan.steps):
        x, y = task.train.at(_rows(len(task.train), plan, step))
        for group in optimizer.param_groups:
            group["lr"] = plan.share(step) * group["rate"]
        optimizer.zero_grad(set_to_none=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed * 1_000_003 + step)
            loss = task.loss(net(x), y)
        if not math.isfinite(loss.item()):
            raise DivergedError(
                f"the training diverged at step {step + 1} of {plan.steps}: take a learning rate "
                f"below {plan.learning_rate:g}"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(_weights(net), _MOST_NORM)
        for mixture in mixtures:
            mixture.steer(_GRADIENT_SCALE, _FIELD_PENALTY)
        optimizer.step()
        last = step + 1 == plan.steps
        progress((step + 1) / plan.steps)
        if keep is not None and (last or time.monotonic() - saved >= keep.every_seconds):
            first["seconds"] = time.process_time() - before
            keep.write(net, optimizer, step + 1)
            saved = time.monotonic()
    net.eval()
    return float(first["seconds"]) if done == plan.steps else time.process_time() - before


def _rows(samples: int, plan: FitPlan, step: int) -> torch.Tensor:
    """Which samples a step takes: each once before any comes again."""
    epoch, place = divmod(step, samples // plan.batch)
    order = np.random.default_rng([plan.seed, epoch]).permutation(samples)
    return torch.from_numpy(order[place * plan.batch : (place + 1) * plan.batch])


def _weights(net: nn.Module) -> list[nn.Parameter]:
    """All but the logits of mixtures."""
    shares = {id(m.logits) for m in net.modules() if isinstance(m, MixedConv)}
    return [p for p in net.parameters() if id(p) not in shares]


def _optimizer(net: nn.Module, plan: FitPlan) -> torch.optim.Optimizer:
    """Without decay for what scales or shifts channels."""
    weights = _weights(net)
    logits = [m.logits for m in net.modules() if isinstance(m, MixedConv)]
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in weights if p.dim() > 1],
            "weight_decay": plan.weight_decay,
            "rate": plan.learning_rate,
        },
        {"params": [p for p in weights if p.dim() <= 1], "rate": plan.learning_rate},
        {"params": logits, "rate": plan.shares_rate},
    ]
    return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=0.9, nesterov=True)


@torch.no_grad()
def mean_error(net: nn.Module, task: Task, samples: Samples, batch: int = 500) -> float:
    """The task's metric over samples: lower is better. Infinite where answers are no numbers."""
    net.eval()
    found = []
    for start in range(0, len(samples), batch):
        x, y = samples.at(slice(start, start + batch))
        found.append(task.errors(net(x), y))
    error = float(torch.cat(found).mean())
    return error if math.isfinite(error) else math.inf
