"""A convolution that is a mixture, as a layer of a network; and the 1D network of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwbench.errors import UnknownNameError
from hwbench.search.dash.cases import Case
from hwbench.search.dash.choice import Chooser
from hwbench.search.dash.mixture import Mixture
from hwbench.search.dash.operators import OPERATORS


class MixedConv(nn.Module):
    """Weights of every candidate, their shares by softmax of ``logits`` (m,), and a bias (c_out,).

    ``method`` names the operator; a :class:`Chooser` takes the fastest for each shape of input.
    """

    def __init__(self, mixture: Mixture, method: str | Chooser) -> None:
        super().__init__()
        if isinstance(method, str) and method not in OPERATORS:
            raise UnknownNameError("operator", method, OPERATORS)
        self.mixture, self.method = mixture, method
        self.candidates = nn.ParameterList(mixture.initial())
        self.logits = nn.Parameter(torch.zeros(len(mixture.candidates)))
        self.bias = nn.Parameter(torch.zeros(mixture.c_out))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c_in, n, …) -> (b, c_out, ceil(n / stride), …)."""
        weights = list(self.candidates)
        shares = self.logits.softmax(0)
        self.mixture.check(x, weights, shares)
        name = self.method
        if isinstance(name, Chooser):
            case = Case(self.mixture, x.shape[0], tuple(x.shape[2:]), torch.is_grad_enabled())
            name = name.choose(case)
        y = OPERATORS[name](self.mixture, x, weights, shares)
        return y + self.bias.view(-1, *[1] * self.mixture.dims)


@dataclass(frozen=True, slots=True)
class ResNet1d:
    """Three blocks of three convolutions, ``width`` channels and then twice as many.

    ``depthwise`` groups every convolution whose input has as many channels as its output (7 of
    the 9), one channel a group.
    """

    kernels: Sequence[int]
    dilations: Sequence[int]
    width: int = 64
    c_in: int = 1
    classes: int = 10
    depthwise: bool = False

    def build(self, method: str | Chooser) -> nn.Module:
        """The network: (b, c_in, n) -> (b, classes)."""
        widths = (self.c_in, self.width, 2 * self.width, 2 * self.width)
        blocks = [
            _Block([self._mixture(a, b), self._mixture(b, b), self._mixture(b, b)], method)
            for a, b in pairwise(widths)
        ]
        head = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten())
        return nn.Sequential(*blocks, head, nn.Linear(widths[-1], self.classes))

    def _mixture(self, c_in: int, c_out: int) -> Mixture:
        groups = c_in if self.depthwise and c_in == c_out else 1
        return Mixture.grid(self.kernels, self.dilations, c_in, c_out, groups=groups)


class _Block(nn.Module):
    """Convolutions with batch norm and ReLU, added to the input (by a 1x1 where widths differ)."""

    def __init__(self, mixtures: Sequence[Mixture], method: str | Chooser) -> None:
        super().__init__()
        self.convs = nn.ModuleList(MixedConv(m, method) for m in mixtures)
        self.norms = nn.ModuleList(nn.BatchNorm1d(m.c_out) for m in mixtures)
        c_in, c_out = mixtures[0].c_in, mixtures[-1].c_out
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv1d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y))
            if i + 1 < len(self.convs):
                y = functional.relu(y)
        return functional.relu(y + self.shortcut(x))
