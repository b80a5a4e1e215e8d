"""Cross-correlation by the fast Fourier transform, with a backward pass of real transforms.

The kernel's 2h + 1 taps are numbered from 0, so the input lies behind h zeros. Then the output,
the input's gradient and the kernel's gradient are all slices of circular correlations of length
N >= n + h: what wraps around meets zeros. torch's own backward of a real transform is a complex
one of full length; here it is a real one again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from hwbench.search.dash.mixture import last

_HALF = (torch.float16, torch.bfloat16)


def smooth_length(least: int) -> int:
    """The smallest number from ``least`` on with no prime factor above 5: fast to transform."""
    return int(next_fast_len(least, real=True))


def correlate(x: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """(b, c_in, n, …) with a kernel (c_out, c_in / groups, l, …), l odd -> (b, c_out, n, …).

    Taps that read nothing of x should have been left out: h is at most n - 1. Half precision is
    computed in float32, which the transforms need. Differentiable once.
    """
    if x.dtype in _HALF:
        return correlate(x.float(), kernel.float(), groups).to(x.dtype)
    y: Tensor = _Correlation.apply(x, kernel, groups)  # type: ignore[no-untyped-call]
    return y


class _Correlation(torch.autograd.Function):
    """Spectra are (f, groups, rows, columns), f all frequencies: products are of matrices."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, groups: int) -> Tensor:
        sizes = tuple(x.shape[2:])
        halves = [length // 2 for length in kernel.shape[2:]]
        lengths = [smooth_length(n + h) for n, h in zip(sizes, halves, strict=True)]
        behind_zeros = functional.pad(x, [pad for h in reversed(halves) for pad in (h, 0)])
        signal = _split(_transformed(behind_zeros, lengths), groups).permute(3, 1, 0, 2)
        c_out, c_in = len(kernel) // groups, kernel.shape[1]
        filters = _transformed(kernel, lengths).conj().reshape(groups, c_out, c_in, -1)
        filters = filters.permute(3, 0, 2, 1).resolve_conj()
        if not _is_outer(filters):
            signal, filters = signal.contiguous(), filters.contiguous()
        ctx.geometry = groups, sizes, halves, lengths
        ctx.save_for_backward(signal, filters)
        output = signal * filters if _is_outer(filters) else signal @ filters
        return _inverse(output.permute(2, 1, 3, 0).flatten(1, 2), lengths, [0] * len(sizes), sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        groups, sizes, halves, lengths = ctx.geometry
        signal, filters = ctx.saved_tensors
        outer = _is_outer(filters)
        conjugate = _split(_transformed(gradient, lengths), groups).permute(3, 1, 0, 2).conj()
        conjugate = conjugate.resolve_conj() if outer else conjugate.contiguous().resolve_conj()
        of_x = of_kernel = None
        if ctx.needs_input_grad[0]:
            if outer:
                spectrum = (conjugate * filters).sum(-1, keepdim=True)
            else:
                spectrum = conjugate @ filters.mT
            spectrum = spectrum.permute(2, 1, 3, 0).flatten(1, 2).conj()
            of_x = _inverse(spectrum, lengths, halves, sizes)
        if ctx.needs_input_grad[1]:
            if outer:
                spectrum = (signal * conjugate).sum(-2, keepdim=True)
            else:
                spectrum = signal.mT @ conjugate
            spectrum = spectrum.permute(1, 3, 2, 0).flatten(0, 1)
            taps = [2 * half + 1 for half in halves]
            of_kernel = _inverse(spectrum, lengths, [0] * len(taps), taps)
        return of_x, of_kernel, None


def _transformed(x: Tensor, lengths: Sequence[int]) -> Tensor:
    spectrum: Tensor = torch.fft.rfftn(x, s=list(lengths), dim=list(range(-len(lengths), 0)))
    return spectrum


def _split(spectrum: Tensor, groups: int) -> Tensor:
    """(b, c, f, …) -> (b, groups, c / groups, all f)."""
    batch, channels = spectrum.shape[:2]
    return spectrum.reshape(batch, groups, channels // groups, -1)


def _inverse(
    spectrum: Tensor, lengths: Sequence[int], starts: Sequence[int], sizes: Sequence[int]
) -> Tensor:
    """The real signal (…, n, …) of a spectrum (…, all f): of each dimension, n from a start on."""
    half = [*lengths[:-1], lengths[-1] // 2 + 1]
    dims = list(range(-len(lengths), 0))
    spectrum = spectrum.reshape(*spectrum.shape[:-1], *half)
    signal: Tensor = torch.fft.irfftn(spectrum, s=list(lengths), dim=dims)
    inside = (slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    return signal[last(inside)].contiguous()


def _is_outer(filters: Tensor) -> bool:
    """Whether groups have one input channel: products of matrices are then elementwise."""
    return filters.shape[-2] == 1
