"""Small classifiers as users write them, with weights and statistics that are nothing special."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 5
IMAGE = (3, 12, 12)


def plain() -> nn.Module:
    """Convolutions with a bias, no batch norm, a hidden linear layer on flattened pixels."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 10, 3, stride=2),
        nn.SiLU(),
        nn.Dropout2d(0.2),
        nn.Flatten(),
        nn.Linear(10 * 2 * 2, 12),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Identity(),
        nn.Linear(12, CLASSES),
    )


class Vgg(nn.Module):
    """VGG with batch norms: groups of convolutions with pools between."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in (8, 8, 0, 12, 16, 0):
            if not width:
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(True)]
            before = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(before, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


class Block(nn.Module):
    """A basic block; option A skips pixels and pads channels, option B convolves."""

    def __init__(self, before: int, width: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.short = nn.Sequential()
        self.added = 0
        if stride > 1 and option == "A":
            self.added = (width - before) // 2
        elif stride > 1:
            self.short = nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.added:
            y += functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added, self.added))
        else:
            y += self.short(x)
        return functional.relu(y)


class ResNet(nn.Module):
    """Three stages of basic blocks, as for CIFAR-10."""

    def __init__(
        self, option: str, widths: tuple[int, ...] = (8, 12, 16), blocks: int = 1, classes: int = 5
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        before = widths[0]
        for i, width in enumerate(widths):
            strides = [2 if i else 1] + [1] * (blocks - 1)
            made = []
            for stride in strides:
                made.append(Block(before, width, stride, option))
                before = width
            setattr(self, f"layer{i + 1}", nn.Sequential(*made))
        self.linear = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = functional.avg_pool2d(x, x.size()[3])
        return self.linear(x.view(x.size(0), -1))


class Inverted(nn.Module):
    """An inverted residual block."""

    def __init__(self, before: int, width: int, stride: int, expand: int) -> None:
        super().__init__()
        mid = before * expand
        self.skips = stride == 1 and before == width
        self.conv = nn.Sequential(
            nn.Conv2d(before, mid, 1, bias=False),
            nn.BatchNorm2d(mid),
            nn.ReLU6(),
            nn.Conv2d(mid, mid, 3, stride, 1, groups=mid, bias=False),
            nn.BatchNorm2d(mid),
            nn.Hardswish(),
            nn.Conv2d(mid, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skips else self.conv(x)


class MobileNet(nn.Module):
    """Like MobileNetV2, with a mean over the pixels at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            Inverted(8, 8, 1, 2),
            Inverted(8, 12, 2, 3),
            Inverted(12, 12, 1, 2),
        )
        self.head = nn.Conv2d(12, 20, 1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(20, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(functional.relu(self.head(self.features(x))).mean([2, 3]))


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "vgg": Vgg,
    "resnet-a": lambda: ResNet("A"),
    "resnet-b": lambda: ResNet("B"),
    "mobilenet": MobileNet,
}


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """With random weights and statistics, so that no norm is the identity; at inference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if not value.is_floating_point():
                continue
            if name.endswith("running_var") or (value.dim() == 1 and name.endswith("weight")):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.dim() == 1:
                value.normal_(0, 0.3, generator=generator)
            else:
                value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
    return module.eval()
