"""Layers that hold the weights of every choice of a layer, and run with any of them.

As in Once-for-All (Cai et al., ICLR 2020): a smaller kernel is the centre of the next larger
one, passed through a small learned matrix; a smaller expansion is the first channels of the
largest. Batch norms hold no running statistics: what is right for one path is wrong for another,
so a path's statistics are taken anew (:class:`Norms`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwbench.errors import UsageError
from hwbench.search.supernet.depthwise import depthwise
from hwbench.spaces.mbv3 import Layer, squeezed

EPSILON = 1e-5
ACTIVATIONS = {"relu": functional.relu, "hswish": functional.hardswish}

#: Mean and variance (c,) of the input of each batch norm of a path, in the order of running.
Statistics = tuple[tuple[Tensor, Tensor], ...]


class Moments(NamedTuple):
    """Of so many values a channel: their mean and variance (c,)."""

    mean: Tensor
    variance: Tensor
    values: int


@dataclass
class Norms:
    """How the batch norms of one forward pass normalise.

    By the batch's own statistics, kept in ``seen`` where ``record`` is set; or, given ``fixed``,
    by those.
    """

    fixed: Statistics | None = None
    record: bool = False
    seen: list[Moments] = field(default_factory=list)
    _next: int = 0

    def __call__(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Normalise (n, c, h, w); ``scale`` and ``shift`` are (c,)."""
        if self.fixed is not None:
            mean, variance = self.fixed[self._next]
            self._next += 1
            return functional.batch_norm(x, mean, variance, scale, shift, eps=EPSILON)
        if not self.record:
            return functional.batch_norm(x, None, None, scale, shift, True, eps=EPSILON)
        mean, variance = torch.zeros_like(scale), torch.zeros_like(scale)
        y = functional.batch_norm(x, mean, variance, scale, shift, True, 1.0, EPSILON)
        self.seen.append(Moments(mean, variance, x.numel() // x.shape[1]))
        return y


@dataclass(frozen=True, slots=True)
class Gates:
    """A layer's choices, relaxed: how much of each kernel (k,), of each expansion (e,), and of
    the layer itself (a number). One-hot and 1 are a choice; gradients pass through all."""

    kernel: Tensor
    expansion: Tensor
    presence: Tensor


class NormalisedConv(nn.Module):
    """Weights of a convolution with the batch norm after it: (c_out, c_in, k, k) and (c_out,)."""

    def __init__(self, c_out: int, c_in: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c_out, c_in, kernel, kernel))
        self.scale = nn.Parameter(torch.ones(c_out))
        self.shift = nn.Parameter(torch.zeros(c_out))
        nn.init.kaiming_normal_(self.weight, mode="fan_in" if c_in == 1 else "fan_out")


class ElasticKernel(nn.Module):
    """Makes every kernel of a depthwise filter out of the largest one's."""

    def __init__(self, kernels: Sequence[int]) -> None:
        super().__init__()
        self.kernels = tuple(sorted(kernels, reverse=True))
        self.matrices = nn.ParameterList(torch.eye(k * k) for k in self.kernels[1:])

    def forward(self, weight: Tensor, kernel: int) -> Tensor:
        """(c, 1, K, K) of the largest kernel K -> (c, 1, kernel, kernel)."""
        for (larger, smaller), matrix in zip(pairwise(self.kernels), self.matrices, strict=True):
            if larger == kernel:
                break
            edge = (larger - smaller) // 2
            centre = weight[:, :, edge : larger - edge, edge : larger - edge]
            weight = (centre.flatten(1) @ matrix.T).view(-1, 1, smaller, smaller)
        return weight


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation of the first channels, through the first hidden ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Parameter(torch.empty(squeezed(channels), channels, 1, 1))
        self.squeeze_bias = nn.Parameter(torch.zeros(squeezed(channels)))
        self.excite = nn.Parameter(torch.empty(channels, squeezed(channels), 1, 1))
        self.excite_bias = nn.Parameter(torch.zeros(channels))
        for weight in (self.squeeze, self.excite):
            nn.init.kaiming_normal_(weight, mode="fan_in")

    def part(self, channels: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Weight and bias of both convolutions for so many channels."""
        few = squeezed(channels)
        squeeze = self.squeeze[:few, :channels], self.squeeze_bias[:few]
        return squeeze, (self.excite[:channels, :few], self.excite_bias[:channels])

    def forward(self, x: Tensor, hidden_share: Tensor | None = None) -> Tensor:
        """Scale the channels of (n, c, h, w); ``hidden_share`` (hidden,) relaxes the hidden."""
        squeeze, excite = self.part(x.shape[1])
        hidden = functional.conv2d(x.mean((2, 3), keepdim=True), *squeeze).relu()
        if hidden_share is not None:
            hidden = hidden * hidden_share[:, None, None]
        return x * functional.hardsigmoid(functional.conv2d(hidden, *excite))


class ElasticLayer(nn.Module):
    """An inverted residual layer (:class:`~hwbench.spaces.mbv3.Layer`) of any kernel, expansion."""

    def __init__(self, layer: Layer, kernels: Sequence[int], expansions: Sequence[int]) -> None:
        super().__init__()
        self.layer = layer
        self.kernels, self.expansions = tuple(kernels), tuple(expansions)
        most = layer.c_in * max(expansions)
        self.expand = NormalisedConv(most, layer.c_in, 1) if max(expansions) > 1 else None
        self.kernel = ElasticKernel(kernels)
        self.depthwise = NormalisedConv(most, 1, max(kernels))
        self.se = SqueezeExcite(most) if layer.se else None
        self.project = NormalisedConv(layer.c_out, most, 1)
        self.shortcut = layer.stride == 1 and layer.c_in == layer.c_out
        self.activation = ACTIVATIONS[layer.activation]
        if self.shortcut:  # each such layer begins as the identity: its presence matters little
            nn.init.zeros_(self.project.scale)

    def forward(self, x: Tensor, kernel: int, expansion: int, norms: Norms) -> Tensor:
        """(n, c_in, h, w) -> (n, c_out, h / stride, w / stride)."""
        mid = self.layer.c_in * expansion
        y = x
        if self.expand is not None and expansion > 1:
            y = functional.conv2d(y, self.expand.weight[:mid])
            y = self.activation(norms(y, self.expand.scale[:mid], self.expand.shift[:mid]))
        y = depthwise(y, self.kernel(self.depthwise.weight[:mid], kernel), self.layer.stride)
        y = self.activation(norms(y, self.depthwise.scale[:mid], self.depthwise.shift[:mid]))
        if self.se is not None:
            y = self.se(y)
        y = functional.conv2d(y, self.project.weight[:, :mid])
        y = norms(y, self.project.scale, self.project.shift)
        return x + y if self.shortcut else y

    def relaxed(self, x: Tensor, gates: Gates, norms: Norms) -> Tensor:
        """Like ``forward``, with gates for choices: at a one-hot choice, what that choice gives.

        Runs at full size, what is not chosen being multiplied by zero, by batch statistics. The
        gates are in the order of ``kernels`` and ``expansions``, of which none is 1.
        """
        if self.expand is None or 1 in self.expansions:
            raise UsageError("choices with an expansion of 1 cannot be relaxed: leave it out")
        inner = [self.layer.c_in * e for e in self.expansions]
        share = _share_of_first(inner, gates.expansion)[:, None, None]
        y = functional.conv2d(x, self.expand.weight)
        y = self.activation(norms(y, self.expand.scale, self.expand.shift)) * share
        y = depthwise(y, self._mixed_kernel(gates.kernel), self.layer.stride)
        y = self.activation(norms(y, self.depthwise.scale, self.depthwise.shift)) * share
        if self.se is not None:
            y = self.se(y, _share_of_first([squeezed(n) for n in inner], gates.expansion))
        y = functional.conv2d(y, self.project.weight)
        y = norms(y, self.project.scale, self.project.shift)
        return x + gates.presence * y if self.shortcut else y

    def _mixed_kernel(self, weights: Tensor) -> Tensor:
        largest = max(self.kernels)
        filters = [
            functional.pad(self.kernel(self.depthwise.weight, k), [(largest - k) // 2] * 4)
            for k in self.kernels
        ]
        return torch.einsum("k,kcoyx->coyx", weights, torch.stack(filters))


def _share_of_first(sizes: Sequence[int], weights: Tensor) -> Tensor:
    """How much of each channel is there, (max(sizes),), if the first ``sizes[i]`` are by
    ``weights[i]``."""
    channels = torch.arange(max(sizes), device=weights.device)
    inside = torch.stack([channels < size for size in sizes])
    return weights @ inside.to(weights.dtype)
