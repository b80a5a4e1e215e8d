"""Depthwise convolution whose filters' gradient is quick for large kernels on a CPU.

oneDNN has quick code for the gradient of 3x3 depthwise filters alone; that of a 7x7 one takes 20
times as long as the whole forward pass, and most of the training of a small supernet. Here it is
one matrix product per channel: all products of an input and an output position, of which those
that a tap of the filter joins are added up. For images too large for that, and on a GPU, torch's
own is used.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv2d_input

#: Most products of input and output positions a channel (7x7 to 7x7).
_MOST_PAIRS = 49 * 49


def depthwise(x: Tensor, filters: Tensor, stride: int) -> Tensor:
    """(n, c, h, w) with (c, 1, k, k), k odd, padded by k // 2 -> (n, c, h / stride, w / stride)."""
    kernel = filters.shape[-1]
    pairs = (x.shape[2] * x.shape[3]) ** 2 / stride**2
    if kernel == 3 or not x.is_cpu or pairs > _MOST_PAIRS:
        return functional.conv2d(x, filters, None, stride, kernel // 2, groups=len(filters))
    y: Tensor = _Depthwise.apply(x, filters, stride)  # type: ignore[no-untyped-call]
    return y


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, filters: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, filters)
        ctx.stride = stride
        padding = filters.shape[-1] // 2
        return functional.conv2d(x, filters, None, stride, padding, groups=len(filters))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, filters = ctx.saved_tensors
        kernel, stride = filters.shape[-1], ctx.stride
        grad_x = grad_filters = None
        if ctx.needs_input_grad[0]:
            grad_x = conv2d_input(  # type: ignore[no-untyped-call]
                x.shape, filters, grad, stride, kernel // 2, groups=len(filters)
            )
        if ctx.needs_input_grad[1]:
            seen, wanted = (t.transpose(0, 1).flatten(2).contiguous() for t in (x, grad))
            products = seen.transpose(1, 2) @ wanted
            taps, inside = _taps(x.shape[2], x.shape[3], kernel, stride)
            joined = products.flatten(1)[:, taps.flatten()].view(len(filters), *taps.shape)
            grad_filters = torch.einsum("cto,to->ct", joined, inside).view_as(filters)
        return grad_x, grad_filters, None


@lru_cache(maxsize=256)
def _taps(height: int, width: int, kernel: int, stride: int) -> tuple[Tensor, Tensor]:
    """Which products each tap joins, (k * k, outputs), and 1.0 where its input is inside."""
    offsets = torch.arange(kernel) - kernel // 2
    rows = torch.arange(0, height, stride)[None] + offsets[:, None]
    columns = torch.arange(0, width, stride)[None] + offsets[:, None]
    down = rows[:, None, :, None].expand(-1, kernel, -1, columns.shape[1])
    across = columns[None, :, None, :].expand(kernel, -1, rows.shape[1], -1)
    inside = (down >= 0) & (down < height) & (across >= 0) & (across < width)
    sources = torch.where(inside, down * width + across, 0).reshape(kernel**2, -1)
    outputs = sources.shape[1]
    return sources * outputs + torch.arange(outputs), inside.reshape(kernel**2, -1).float()
