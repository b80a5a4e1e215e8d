"""Trained-as-usual networks for the claim about S2DNAS, at any width, and with exits put on.

Three families at 28 pixels: VGG with batch norms, ResNet-20 (three blocks in each of three groups,
a stem that halves the image), MobileNetV2. Each is a body and a classifier of its mean over pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwbench.graph import GraphBuilder
from hwbench.ops import AttrValue
from hwbench.search.s2dnas import Stage, StaticNet, trace
from hwbench.search.s2dnas.folding import fold
from hwbench.search.s2dnas.stages import IMAGE_INPUT
from hwbench.search.supernet import StandAlone

CLASSES = 10


class Classifier(nn.Module):
    """Images (n, c, h, w) -> logits (n, classes)."""

    def __init__(self, body: nn.Sequential, width: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).mean((2, 3)))
        return logits


def _conv(read: int, made: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(read, made, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(made)]


class Residual(nn.Module):
    """A basic block, its shortcut a convolution where shapes differ (option B)."""

    def __init__(self, read: int, made: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(*_conv(read, made, 3, stride), nn.ReLU(), *_conv(made, made, 3))
        alike = stride == 1 and read == made
        self.short = nn.Sequential(*([] if alike else _conv(read, made, 1, stride)))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.path(x) + self.short(x))


class Inverted(nn.Module):
    """MobileNetV2's block: expand four times, a depthwise convolution, project."""

    def __init__(self, read: int, made: int, stride: int) -> None:
        super().__init__()
        wide = 4 * read
        self.skips = stride == 1 and read == made
        self.path = nn.Sequential(
            *_conv(read, wide, 1),
            nn.ReLU6(),
            *_conv(wide, wide, 3, stride, groups=wide),
            nn.ReLU6(),
            *_conv(wide, made, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.path(x)
        return x + made if self.skips else made


def _vgg(of: Callable[[int], int]) -> Classifier:
    layers: list[nn.Module] = []
    read = 1
    for width, pool in ((32, 0), (32, 2), (64, 0), (64, 2), (128, 0), (128, 0)):
        pooling = [nn.MaxPool2d(pool)] if pool else []
        layers.append(nn.Sequential(*_conv(read, of(width), 3), nn.ReLU(), *pooling))
        read = of(width)
    return Classifier(nn.Sequential(*layers), read)


def _resnet(of: Callable[[int], int]) -> Classifier:
    layers: list[nn.Module] = [nn.Sequential(*_conv(1, of(32), 3, 2), nn.ReLU())]
    read = of(32)
    for width in (32, 64, 128):
        for block in range(3):
            layers.append(Residual(read, of(width), 2 if width > 32 and not block else 1))
            read = of(width)
    return Classifier(nn.Sequential(*layers), read)


def _mobilenet(of: Callable[[int], int]) -> Classifier:
    layers: list[nn.Module] = [nn.Sequential(*_conv(1, of(32), 3, 2), nn.ReLU6())]
    read = of(32)
    for width in (32, 48, 64):
        for block in range(2):
            layers.append(Inverted(read, of(width), 2 if width > 32 and not block else 1))
            read = of(width)
    layers.append(nn.Sequential(*_conv(read, of(192), 1), nn.ReLU6()))
    return Classifier(nn.Sequential(*layers), of(192))


_FAMILIES = {"vgg": _vgg, "resnet": _resnet, "mobilenet": _mobilenet}
FAMILIES = tuple(_FAMILIES)
#: After how many layers of the body the early exits of the unsplit network are.
_EXITS = {"vgg": (2, 4), "resnet": (4, 7), "mobilenet": (3, 5)}


def network(family: str, seed: int, width: float = 1.0) -> Classifier:
    """A network of a family, its weights random by ``seed``; all layers ``width`` times as wide."""
    torch.manual_seed(seed)
    return _FAMILIES[family](lambda channels: max(8, round(width * channels)))


class Branched(nn.Module):
    """Early exits on an unsplit network: images -> logits (stages, n, classes).

    After "BranchyNet" (Teerapittayanon et al., ICPR 2016), with exits as the last one is: a linear
    layer on the mean over pixels. Its weights begin as those of ``net``.
    """

    def __init__(self, family: str, net: Classifier) -> None:
        super().__init__()
        layers, bounds = list(net.body), (0, *_EXITS[family], len(net.body))
        parts = []
        for start, end in pairwise(bounds):
            body = nn.Sequential(*layers[start:end])
            *_, norm = (m for m in layers[end - 1].modules() if isinstance(m, nn.BatchNorm2d))
            parts.append(Classifier(body, norm.num_features))
        parts[-1].head = net.head
        self.parts = parts
        self.kept = nn.ModuleList(parts)  # makes their weights the net's

    def forward(self, x: Tensor) -> Tensor:
        logits = []
        for part in self.parts:
            x = part.body(x)
            logits.append(part.head(x.mean((2, 3))))
        return torch.stack(logits)

    def stages(self, image_shape: Sequence[int]) -> tuple[Stage, ...]:
        """Its parts as networks of their own, to deploy."""
        stages: list[Stage] = []
        taken, shape = IMAGE_INPUT, tuple(image_shape)
        for number, part in enumerate(self.parts, start=1):
            last = number == len(self.parts)
            stage, shape = _stage(number, trace(part, shape), taken, last)
            stages.append(stage)
            taken = "".join(stage.gives)
        return tuple(stages)


def _stage(number: int, net: StaticNet, taken: str, last: bool) -> tuple[Stage, tuple[int, ...]]:
    """A traced part as a stage that reads ``taken``; and the shape of what it gives."""
    builder = GraphBuilder(net.graph.name)
    own = {net.image: builder.input(taken, net.graph.inputs[0][1].shape)}
    weights = {}
    for op in net.graph.ops:
        inputs = [own[name] for name in op.inputs]
        own[op.output] = builder.op(op.kind, inputs, dict(op.attrs), name=f"s{number}.{op.name}")
        for param in net.graph.params(op):
            weights[f"s{number}.{op.name}.{param}"] = net.weights[f"{op.name}.{param}"]
    logits = own[net.output]
    shares = builder.op("softmax", [logits], {"axis": 1}, name=f"softmax{number}")
    reduction: dict[str, AttrValue] = {"axes": (1,), "keepdims": False}
    confidence = builder.op("max", [shares], reduction, name=f"confidence{number}")
    # The classifier reads the mean over pixels of what the next part reads.
    pooled = next(op for op in reversed(net.graph.ops) if _pixels(net, op.inputs[0]) > 1)
    gives = () if last else (own[pooled.inputs[0]],)
    graph = builder.build([logits, confidence, *gives])
    takes = () if taken == IMAGE_INPUT else (taken,)
    stage = Stage(number, fold(StandAlone(graph, weights)), takes, logits, confidence, gives)
    return stage, net.graph.tensors[pooled.inputs[0]].shape[1:]


def _pixels(net: StaticNet, tensor: str) -> int:
    return math.prod(net.graph.tensors[tensor].shape[2:])


def whole(net: StaticNet) -> Stage:
    """A network that nothing leaves early, as the one stage of a deployed one."""
    stage, _ = _stage(1, net, IMAGE_INPUT, last=True)
    return stage
