"""The networks whose convolutions are searched: a 1D ResNet and Wide ResNet 16, with plain ones.

Both answer classes, (b, outputs), or with ``dense`` a map as large as the input,
(b, outputs, n, …); then nothing is strided.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from hwbench.errors import UsageError
from hwbench.search.dash.swap import answer
from hwbench.search.dash.tasks import Task
from hwbench.search.s2dnas.loading import build_module

#: Kernel sizes of the three convolutions of a 1D block (Wang et al., arXiv 1611.06455, whose
#: first is 8: an even kernel has no centre).
_KERNELS_1D = (7, 5, 3)


def resnet1d(
    c_in: int, outputs: int, width: int = 16, *, dense: bool = False, depthwise: bool = False
) -> nn.Module:
    """Three blocks of three convolutions, ``width`` channels and then twice as many.

    ``depthwise`` groups every convolution whose input has as many channels as its output (7 of
    the 9), one channel a group.
    """
    widths = (c_in, width, 2 * width, 2 * width)
    blocks = [_Block1d(a, b, depthwise) for a, b in pairwise(widths)]
    if dense:
        return nn.Sequential(*blocks, nn.Conv1d(widths[-1], outputs, 1))
    head = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten())
    return nn.Sequential(*blocks, head, nn.Linear(widths[-1], outputs))


class _Block1d(nn.Module):
    """Convolutions with batch norm and ReLU, added to the input (by a 1x1 where widths differ)."""

    def __init__(self, c_in: int, c_out: int, depthwise: bool) -> None:
        super().__init__()
        reads = (c_in, *[c_out] * (len(_KERNELS_1D) - 1))
        self.convs = nn.ModuleList(
            nn.Conv1d(c, c_out, k, padding=k // 2, groups=c if depthwise and c == c_out else 1)
            for c, k in zip(reads, _KERNELS_1D, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(c_out) for _ in _KERNELS_1D)
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv1d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y))
            if i + 1 < len(self.convs):
                y = functional.relu(y)
        added: Tensor = y + self.shortcut(x)
        return functional.relu(added)


def wide_resnet(c_in: int, outputs: int, widen: float = 1, *, dense: bool = False) -> nn.Module:
    """WRN-16 (Zagoruyko and Komodakis, BMVC 2016): 6 blocks of 16, 32 and 64 times ``widen``
    channels; widths below 1 are for small machines."""
    widths = [max(1, round(widen * width)) for width in (16, 32, 64)]
    blocks: list[nn.Module] = []
    read = 16 if widen >= 1 else widths[0]
    stem = nn.Conv2d(c_in, read, 3, padding=1, bias=False)
    for i, width in enumerate(widths):
        stride = 2 if i and not dense else 1
        blocks += [_WideBlock(read, width, stride), _WideBlock(width, width, 1)]
        read = width
    trunk = [stem, *blocks, nn.BatchNorm2d(read), nn.ReLU()]
    if dense:
        return nn.Sequential(*trunk, nn.Conv2d(read, outputs, 1))
    return nn.Sequential(*trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(read, outputs))


class _WideBlock(nn.Module):
    """Norm and ReLU before each of two 3x3 convolutions."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(c_in), nn.BatchNorm2d(c_out)])
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False),
                nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False),
            ]
        )
        same = c_in == c_out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norms[0](x))
        kept = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(y)
        y = self.convs[1](functional.relu(self.norms[1](self.convs[0](y))))
        added: Tensor = kept + y
        return added


@dataclass(frozen=True, slots=True, eq=False)
class Backbone:
    """A network to search, and the one to train with what was found: of the same form, perhaps
    wider."""

    name: str
    searched: nn.Module
    trained: nn.Module


def backbone_for(
    task: Task, what: str = "auto", width: float | None = None, trained_width: float | None = None
) -> Backbone:
    """``auto`` (by the task: ``resnet1d`` or ``wrn16``), or the user's ``FILE.py:FUNCTION``.

    Widths are the 1D network's channels (default 16), or what the 2D one is widened by (1); that
    of the trained one is by default the searched one's. UsageError where answers do not fit the
    task.
    """
    if what == "auto":
        c_in, one = task.shape[0], task.dims == 1
        name = "resnet1d" if one else "wrn16"
        width = width or (16 if one else 1)
        nets = [
            resnet1d(c_in, task.outputs, round(w), dense=task.dense)
            if one
            else wide_resnet(c_in, task.outputs, w, dense=task.dense)
            for w in (width, trained_width or width)
        ]
    else:
        if width or trained_width:
            raise UsageError("a backbone of your own has its own width: leave out --width")
        name, nets = what, [build_module(what)] * 2
    wanted = (2, task.outputs, *task.shape[1:]) if task.dense else (2, task.outputs)
    for net in nets:
        if (got := tuple(answer(net, task.shape).shape)) != wanted:
            raise UsageError(f"{name} answers {got} to two samples of {task.name}, not {wanted}")
    return Backbone(name, nets[0], nets[1])
