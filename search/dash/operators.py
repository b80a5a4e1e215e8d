"""Three equal ways to compute a mixture of convolutions (DASH, Shen et al., NeurIPS 2022).

*Mixed results* convolves with each candidate and adds what comes out. *Mixed weights* adds the
dilated kernels and convolves once, with a kernel as long as the longest. *Fourier* adds the
kernels too, and multiplies spectra. Each may leave out taps that are too far from the centre to
read anything of the input (``crop``): the results are the same.

``fourier`` is this project's: cropped, of 5-smooth length, with the backward pass of
:mod:`~hwbench.search.dash.spectral`. ``plain_fourier`` is as published: the kernels' full length
is added to the input's, and the backward pass is left to autograd. (The length is 5-smooth there
too.)

All take an input (b, c_in, n, …), the candidates' weights and their shares (m,), and answer
(b, c_out, ceil(n / stride), …).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from hwbench.search.dash.mixture import Mixture, Placement, aggregated, last, placement
from hwbench.search.dash.spectral import correlate, smooth_length

Operator = Callable[[Mixture, Tensor, Sequence[Tensor], Tensor], Tensor]


def mixed_results(
    mixture: Mixture, x: Tensor, weights: Sequence[Tensor], shares: Tensor, *, crop: bool = False
) -> Tensor:
    """One convolution a candidate."""
    places = _places(mixture, x, weights, shares, crop)
    parts = zip(mixture.candidates, weights, places.parts, strict=True)
    results = (
        share * _convolve(mixture, x, weight[last(part)], d)
        for share, ((_, d), weight, part) in zip(shares.unbind(), parts, strict=True)
    )
    total = next(results)
    for result in results:
        total = total + result
    return total


def mixed_weights(
    mixture: Mixture, x: Tensor, weights: Sequence[Tensor], shares: Tensor, *, crop: bool = False
) -> Tensor:
    """One convolution with the sum of all kernels."""
    places = _places(mixture, x, weights, shares, crop)
    return _convolve(mixture, x, aggregated(weights, shares, places), 1)


def fourier(mixture: Mixture, x: Tensor, weights: Sequence[Tensor], shares: Tensor) -> Tensor:
    """One product of spectra; the output is thinned for a stride. Differentiable once."""
    places = _places(mixture, x, weights, shares, crop=True)
    y = correlate(x, aggregated(weights, shares, places), mixture.groups)
    return y[last([slice(None, None, mixture.stride)] * mixture.dims)]


def plain_fourier(mixture: Mixture, x: Tensor, weights: Sequence[Tensor], shares: Tensor) -> Tensor:
    """The published form; float32 and float64 only."""
    places = _places(mixture, x, weights, shares, crop=False)
    sizes, dims = x.shape[2:], list(range(-mixture.dims, 0))
    lengths = [
        smooth_length(n + length - 1) for n, length in zip(sizes, places.lengths, strict=True)
    ]
    signal = torch.fft.rfftn(x, s=lengths, dim=dims)
    filters = torch.fft.rfftn(aggregated(weights, shares, places), s=lengths, dim=dims)
    batch, g = len(x), mixture.groups
    signal = signal.flatten(2).reshape(batch, g, mixture.c_in // g, -1)
    filters = filters.flatten(2).reshape(g, mixture.c_out // g, mixture.c_in // g, -1).conj()
    if mixture.c_in == g:
        product = signal * filters[:, :, 0]
    else:
        product = torch.einsum("bgif,goif->bgof", signal, filters)
    spectrum = product.reshape(batch, mixture.c_out, *lengths[:-1], lengths[-1] // 2 + 1)
    y: Tensor = torch.fft.irfftn(spectrum, s=lengths, dim=dims)
    y = y.roll(places.halves, dims)
    return y[last(slice(0, n, mixture.stride) for n in sizes)]


def _places(
    mixture: Mixture, x: Tensor, weights: Sequence[Tensor], shares: Tensor, crop: bool
) -> Placement:
    return placement(mixture, mixture.check(x, weights, shares), crop, x.device)


def _convolve(mixture: Mixture, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    convolve = functional.conv1d if mixture.dims == 1 else functional.conv2d
    padding = [dilation * (k // 2) for k in weight.shape[2:]]
    return convolve(x, weight, None, mixture.stride, padding, dilation, mixture.groups)


def cropped_results(
    mixture: Mixture, x: Tensor, weights: Sequence[Tensor], shares: Tensor
) -> Tensor:
    """Mixed results, without taps that read nothing."""
    return mixed_results(mixture, x, weights, shares, crop=True)


def cropped_weights(
    mixture: Mixture, x: Tensor, weights: Sequence[Tensor], shares: Tensor
) -> Tensor:
    """Mixed weights, without taps that read nothing."""
    return mixed_weights(mixture, x, weights, shares, crop=True)


FOURIER, PLAIN = "fourier", "plain fourier"
RESULTS, WEIGHTS = "mixed results", "mixed weights"
CROPPED_RESULTS, CROPPED_WEIGHTS = "mixed results, cropped", "mixed weights, cropped"

OPERATORS: Mapping[str, Operator] = {
    RESULTS: mixed_results,
    CROPPED_RESULTS: cropped_results,
    WEIGHTS: mixed_weights,
    CROPPED_WEIGHTS: cropped_weights,
    PLAIN: plain_fourier,
    FOURIER: fourier,
}
#: What convolves densely: the rivals of the Fourier forms.
DENSE = (RESULTS, CROPPED_RESULTS, WEIGHTS, CROPPED_WEIGHTS)


def is_cropped(mixture: Mixture, sizes: tuple[int, ...]) -> bool:
    """Whether some taps read nothing of inputs of these sizes; else cropping changes nothing."""
    return any(d * (k // 2) >= min(sizes) for k, d in mixture.candidates)
