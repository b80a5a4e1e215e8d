"""Trains a multi-stage network: one split of it, or all splits at once in shared weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwbench.errors import UsageError
from hwbench.search.resuming import Keep
from hwbench.search.s2dnas.net import MultiStageNet
from hwbench.search.s2dnas.precision import mixed_precision
from hwbench.spaces.base import Codes


@dataclass(frozen=True, slots=True)
class StagePlan:
    """How long and how fast a multi-stage network is trained.

    The learning rate rises over the first twentieth of the steps and falls to zero by a cosine.
    ``distillation`` weighs what all stages learn from a teacher's answers, softened by
    ``temperature`` (Hinton et al., arXiv 1503.02531), beside what they learn from the labels.
    ``bfloat16`` computes so what gains by it: about twice as fast where the CPU has it, slow
    elsewhere.
    """

    steps: int
    batch: int = 64
    learning_rate: float = 0.05
    weight_decay: float = 5e-4
    distillation: float = 1.0
    temperature: float = 2.0
    bfloat16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2:
            raise UsageError("a training needs 1 step, and 2 images in it")
        if not (0 < self.learning_rate < math.inf and 0 < self.temperature < math.inf):
            raise UsageError("learning rate and temperature have to be positive numbers")
        if not (0 <= self.weight_decay < math.inf and 0 <= self.distillation < math.inf):
            raise UsageError("weight decay and distillation cannot be negative")

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        rise = max(1, self.steps // 20)
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * min(1.0, (step + 1) / rise) * cosine


@dataclass(frozen=True, slots=True)
class StageProgress:
    """Where a training stands: loss, and accuracy of each stage (s,), of the last steps."""

    step: int
    loss: float
    accuracies: tuple[float, ...]


def stage_loss(logits: Tensor, labels: Tensor, plan: StagePlan, teacher: Tensor | None) -> Tensor:
    """The loss of logits (stages, n, classes) on labels (n,): a number.

    The sum of the stages' cross-entropies, and of their divergences from what a teacher answers to
    the same images, (n, classes), if there is one.
    """
    loss = torch.stack([functional.cross_entropy(each, labels) for each in logits]).sum()
    if teacher is not None and plan.distillation:
        wanted = functional.log_softmax(teacher / plan.temperature, dim=1)
        for each in logits:
            given = functional.log_softmax(each / plan.temperature, dim=1)
            apart = functional.kl_div(given, wanted, reduction="batchmean", log_target=True)
            # Soft answers have gradients smaller by the square of their temperature.
            loss = loss + plan.distillation * plan.temperature**2 * apart
    return loss


def train_stages(
    net: MultiStageNet,
    images: Tensor,
    labels: Tensor,
    plan: StagePlan,
    *,
    codes: Codes | None = None,
    teacher: Tensor | None = None,
    keep: Keep | None = None,
    progress: Callable[[StageProgress], None] | None = None,
    report_every: int = 20,
) -> float:
    """Train on images (n, c, h, w), as the network reads them, and labels (n,); the seconds taken.

    Each step runs one split: of ``codes`` (m, L), in turns, or any of the space. One row trains
    one network; none trains the weights that all splits share, each as likely. ``teacher``
    (n, classes): logits of a network that knows the images, to learn from as well. What a step does
    follows from the seed and its number: with ``keep`` a training that was killed goes on where it
    was, and ends with the same weights. The net is left at inference, under the split of the last
    step; :func:`recalibrate` it under the split that is wanted. UsageError where batch, labels or
    images do not fit, and where the training diverges.
    """
    _check(net, images, labels, plan)

    def use(step: int) -> None:
        rng = np.random.default_rng([plan.seed, step])
        net.use(net.space.sample(1, rng)[0] if codes is None else codes[step % len(codes)])

    return learn(net, images, labels, plan, teacher, use, keep, progress, report_every)


def learn(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    plan: StagePlan,
    teacher: Tensor | None = None,
    before: Callable[[int], None] = lambda step: None,
    keep: Keep | None = None,
    progress: Callable[[StageProgress], None] | None = None,
    report_every: int = 20,
) -> float:
    """Train any module of images to logits (stages, n, classes); the seconds taken.

    As :func:`train_stages`, which see; ``before`` is called before each step.
    """
    if plan.batch > len(images):
        raise UsageError(f"there are {len(images)} images to train on: take less a step")
    channels_last(net)
    optimizer = _optimizer(net, plan)
    done = 0 if keep is None else keep.read(net, optimizer)
    began = saved = time.monotonic()
    batches = _Batches(len(labels), plan)
    net.train()
    for step in range(done, plan.steps):
        before(step)
        rows = batches.at(step)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        optimizer.zero_grad(set_to_none=True)
        with mixed_precision(plan.bfloat16):
            logits = net(images[rows])
        logits = logits.float()
        loss = stage_loss(logits, labels[rows], plan, None if teacher is None else teacher[rows])
        if not math.isfinite(loss.item()):
            raise UsageError(
                f"the training diverged at step {step + 1} of {plan.steps}: take a learning rate "
                f"below {plan.learning_rate:g}"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        last = step + 1 == plan.steps
        if progress is not None and ((step + 1) % report_every == 0 or last):
            right = (logits.argmax(dim=2) == labels[rows]).double().mean(dim=1)
            progress(StageProgress(step + 1, loss.item(), tuple(right.tolist())))
        if keep is not None and (last or time.monotonic() - saved >= keep.every_seconds):
            keep.write(net, optimizer, step + 1)
            saved = time.monotonic()
    net.eval()
    return time.monotonic() - began


def channels_last(net: nn.Module) -> None:
    """Lay a network's weights as the CPU's convolutions are fastest: they lay the rest so."""
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _Batches:
    """Which images a step takes: each once before any comes again."""

    def __init__(self, images: int, plan: StagePlan) -> None:
        self._images, self._plan = images, plan
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def at(self, step: int) -> Tensor:
        size = self._plan.batch
        epoch, place = divmod(step, self._images // size)
        if epoch != self._epoch:
            rng = np.random.default_rng([self._plan.seed, epoch, 1])
            self._epoch, self._order = epoch, rng.permutation(self._images)
        return torch.from_numpy(self._order[place * size : (place + 1) * size])


def _optimizer(net: nn.Module, plan: StagePlan) -> torch.optim.Optimizer:
    """Nesterov's, without decay for what scales or shifts channels."""
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in net.parameters() if p.dim() > 1],
            "weight_decay": plan.weight_decay,
        },
        {"params": [p for p in net.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=0.9, nesterov=True)


@torch.no_grad()
def recalibrate(net: MultiStageNet, images: Tensor) -> None:
    """Set the batch norms' statistics to those of images (n, c, h, w), under the present split.

    What was recorded while other splits ran is wrong for this one. The net is left at inference.
    """
    net.train()
    with net.momentum(1.0):
        net(images)
    net.eval()


@torch.no_grad()
def stage_logits(net: nn.Module, images: Tensor, batch: int = 500) -> Tensor:
    """Logits (stages, n, classes) of images (n, c, h, w) at inference, some at a time."""
    net.eval()
    parts = [net(images[start : start + batch]) for start in range(0, len(images), batch)]
    return torch.cat(parts, dim=1)


def _check(net: MultiStageNet, images: Tensor, labels: Tensor, plan: StagePlan) -> None:
    shape, static = tuple(images.shape[1:]), net.space.net
    if shape != static.image_shape:
        raise UsageError(
            f"images of shape {shape} are not what the network takes: {static.image_shape}"
        )
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise UsageError(f"{len(images)} images need as many whole numbers as labels")
    if int(labels.min()) < 0 or int(labels.max()) >= static.classes:
        raise UsageError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but the network "
            f"{static.graph.name} tells {static.classes} classes apart"
        )
