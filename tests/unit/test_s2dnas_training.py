"""A multi-stage net learns: one split by itself, and all splits in the weights that they share."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwbench.errors import UsageError
from hwbench.search.s2dnas import (
    MultiStageNet,
    SplitSpace,
    StagePlan,
    recalibrate,
    stage_logits,
    trace,
    train_stages,
)
from hwbench.search.s2dnas.precision import mixed_precision
from hwbench.search.s2dnas.training import StageProgress, learn, stage_loss
from tests.s2dnas_nets import Inverted, settled
from tests.supernets import bars

pytestmark = pytest.mark.usefixtures("one_torch_thread")

PLAN = StagePlan(steps=60, batch=32, learning_rate=0.1)


@cache
def space() -> SplitSpace:
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Inverted(16, 16, 1, 2),
        nn.Conv2d(16, 24, 3, 2, 1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 4),
    )
    return SplitSpace(trace(settled(module), (1, 12, 12)), stages=3, groups=4)


def net_of(seed: int = 0) -> MultiStageNet:
    return MultiStageNet(space(), space().sample(1, np.random.default_rng(seed))[0])


@cache
def train_part() -> tuple[Tensor, Tensor]:
    part = bars().train
    return torch.from_numpy(part.images / np.float32(255)), torch.from_numpy(np.array(part.labels))


def accuracies(net: MultiStageNet) -> list[float]:
    part = bars().validation
    logits = stage_logits(net, torch.from_numpy(part.images / np.float32(255)), batch=17)
    return (logits.argmax(2) == torch.from_numpy(np.array(part.labels))).double().mean(1).tolist()


def test_one_split_learns_in_all_its_stages() -> None:
    net, seen = net_of(), []
    code = space().sample(1, np.random.default_rng(0))
    seconds = train_stages(net, *train_part(), PLAN, codes=code, progress=seen.append)
    assert min(accuracies(net)) >= 0.9
    assert seconds > 0
    assert not net.training
    assert [report.step for report in seen] == [20, 40, 60]
    assert isinstance(seen[0], StageProgress)
    assert seen[-1].loss < seen[0].loss
    assert len(seen[0].accuracies) == 3


def test_shared_weights_serve_splits_that_never_ran_alone() -> None:
    net = net_of()
    train_stages(net, *train_part(), replace(PLAN, steps=150))
    found = []
    for code in space().sample(6, np.random.default_rng(99)):
        net.use(code)
        recalibrate(net, train_part()[0])
        found.append(accuracies(net))
    assert np.mean(found, axis=0).min() >= 0.75  # of 4 classes


def test_the_same_seed_trains_the_same_weights() -> None:
    def weights(seed: int) -> dict[str, np.ndarray]:
        net = net_of()
        train_stages(net, *train_part(), replace(PLAN, steps=4, seed=seed))
        return dict(net.weights())

    first, again, other = weights(1), weights(1), weights(2)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)


def test_recalibration_gives_a_split_statistics_of_its_own_and_moves_nothing_else() -> None:
    net, (x, _) = net_of(), train_part()
    first, second = space().sample(2, np.random.default_rng(5))
    net.use(first)
    recalibrate(net, x)
    kept, logits = net.weights(), stage_logits(net, x)
    net.use(second)
    recalibrate(net, x)
    assert all(
        np.array_equal(kept[name], now) != name.endswith((".mean", ".var")) or name.startswith("1.")
        for name, now in net.weights().items()
    )
    net.use(first)
    recalibrate(net, x)
    assert torch.equal(stage_logits(net, x), logits)
    with torch.no_grad():  # by its own statistics, each norm's output has none left
        seen = functional.conv2d(
            x, net.layers[0].value("weight"), net.layers[0].value("bias"), 2, 1
        )
    assert np.allclose(net.weights()["1.mean"], seen.mean((0, 2, 3)).numpy(), atol=1e-5)
    assert {layer.momentum for layer in net.layers} == {0.1}


def test_the_loss_is_that_of_all_stages_and_the_teacher_moves_each() -> None:
    logits = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.arange(8) % 4
    wanted = sum(functional.cross_entropy(each, labels) for each in logits)
    plain = stage_loss(logits, labels, PLAN, None)
    assert torch.allclose(plain, wanted)
    teacher = logits[1].detach()
    assert torch.equal(stage_loss(logits, labels, replace(PLAN, distillation=0.0), teacher), plain)
    taught = stage_loss(logits, labels, PLAN, teacher)
    assert taught > plain
    (by_labels,) = torch.autograd.grad(plain, logits, retain_graph=True)
    (by_both,) = torch.autograd.grad(taught, logits)
    assert torch.allclose(by_both[1], by_labels[1], atol=1e-6)  # it answers as its teacher does
    assert not torch.allclose(by_both[0], by_labels[0], atol=1e-3)
    assert not torch.allclose(by_both[2], by_labels[2], atol=1e-3)


def test_each_image_is_learned_from_before_any_comes_again() -> None:
    seen: list[int] = []

    class Watched(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.extend(x[:, 0, 0, 0].int().tolist())
            return self.bias.expand(1, len(x), 2)

    images = torch.arange(11.0).view(11, 1, 1, 1)
    learn(Watched(), images, torch.arange(11) % 2, StagePlan(4, batch=5))
    assert len(set(seen[:10])) == len(set(seen[10:])) == 10
    assert seen[:10] != seen[10:]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"steps": 0}, "1 step"),
        ({"batch": 1}, "2 images"),
        ({"learning_rate": 0.0}, "positive"),
        ({"learning_rate": float("nan")}, "positive"),
        ({"temperature": 0.0}, "positive"),
        ({"distillation": -1.0}, "negative"),
        ({"weight_decay": float("inf")}, "negative"),
    ],
)
def test_plans_that_make_no_sense_are_refused(change, match) -> None:
    with pytest.raises(UsageError, match=match):
        replace(PLAN, **change)


def test_data_that_does_not_fit_is_refused() -> None:
    net, (x, y) = net_of(), train_part()
    for images, labels, match in (
        (x[:, :, :8], y, r"\(1, 8, 12\) are not what the network takes: \(1, 12, 12\)"),
        (x, y[:-1], "whole numbers as labels"),
        (x, y.float(), "whole numbers as labels"),
        (x, y + 1, "labels run from 1 to 4, but the network Sequential tells 4 classes"),
        (x, y - 1, "labels run from -1 to 2"),
        (x[:9], y[:9], "9 images to train on"),
    ):
        with pytest.raises(UsageError, match=match):
            train_stages(net, images, labels, PLAN)


def test_a_training_that_diverges_says_so() -> None:
    with pytest.raises(UsageError, match=r"diverged at step .* below 1e\+20"):
        train_stages(net_of(), *train_part(), replace(PLAN, learning_rate=1e20))


@pytest.mark.parametrize("groups", [1, 8])
def test_what_loses_by_bfloat16_is_computed_in_float32(groups: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 3, padding=1, groups=groups, bias=False)
    images = torch.randn(4, 8, 6, 6).bfloat16()  # as a layer before it gives them
    with mixed_precision():
        made = conv(images)
    made.float().sum().backward()
    assert made.dtype == torch.bfloat16
    alone = nn.Conv2d(8, 8, 3, padding=1, groups=groups, bias=False)
    alone.load_state_dict(conv.state_dict())
    exact = alone(images.float())
    exact.sum().backward()
    rounded = exact.detach().bfloat16()
    # In float32 throughout, and rounded once; in bfloat16 the backward pass rounds its sums.
    assert conv.weight.grad is not None
    assert alone.weight.grad is not None
    assert torch.equal(conv.weight.grad, alone.weight.grad) == (groups > 1)
    assert torch.equal(made.detach(), rounded) or groups == 1


def test_a_net_without_mixed_precision_is_left_as_it_is() -> None:
    conv = nn.Conv2d(8, 8, 3, groups=8)
    with mixed_precision(enabled=False):
        assert conv(torch.randn(1, 8, 6, 6)).dtype == torch.float32
