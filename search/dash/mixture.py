"""A convolution whose kernel size and dilation are not decided: candidates, and where taps lie.

Offsets count from the centre: tap j of k at dilation d reads the input (j - k // 2) d places from
where the output lies. Padding is always ``same``: the output of stride s has ceil(n / s) places.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import torch
from torch import Tensor

from hwbench.errors import UsageError


@dataclass(frozen=True, slots=True)
class Mixture:
    """The candidates (kernel size, dilation) of one convolution, and all that is decided of it.

    Candidate i has weights (c_out, c_in / groups, k, …) with ``dims`` times k, and the share a_i
    in the output. Raises UsageError for what no convolution can be.
    """

    candidates: tuple[tuple[int, int], ...]
    c_in: int
    c_out: int
    dims: int = 1
    groups: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        if not self.candidates:
            raise UsageError("no candidates: name at least one pair of kernel size and dilation")
        for k, d in self.candidates:
            if k < 1 or k % 2 == 0:
                raise UsageError(f"kernel size {k}: it has no centre; take an odd number")
            if d < 1:
                raise UsageError(f"dilation {d}: it is a positive number")
        if self.dims not in (1, 2):
            raise UsageError(f"dims {self.dims}: convolutions here have 1 or 2")
        if min(self.c_in, self.c_out, self.groups, self.stride) < 1:
            raise UsageError("channels, groups and stride are positive numbers")
        if self.c_in % self.groups or self.c_out % self.groups:
            raise UsageError(
                f"{self.groups} groups do not divide {self.c_in} and {self.c_out} channels"
            )

    @classmethod
    def grid(
        cls,
        kernels: Sequence[int],
        dilations: Sequence[int],
        c_in: int,
        c_out: int,
        dims: int = 1,
        groups: int = 1,
        stride: int = 1,
    ) -> Mixture:
        """All pairs of a kernel size and a dilation."""
        pairs = tuple(product(kernels, dilations))
        return cls(pairs, c_in, c_out, dims, groups, stride)

    @property
    def taps(self) -> int:
        """Taps of all candidates together, of one pair of channels."""
        return sum(k**self.dims for k, _ in self.candidates)

    def initial(
        self, dtype: torch.dtype | None = None, random: torch.Generator | None = None
    ) -> list[Tensor]:
        """Random weights of each candidate, scaled as for a convolution of its own (He).

        They lie where ``random`` is, by default torch's own generator of the CPU.
        """
        c_in, device = self.c_in // self.groups, random.device if random else None
        return [
            math.sqrt(2 / (c_in * k**self.dims))
            * torch.randn(
                (self.c_out, c_in, *[k] * self.dims), generator=random, dtype=dtype, device=device
            )
            for k, _ in self.candidates
        ]

    def check(self, x: Tensor, weights: Sequence[Tensor], shares: Tensor) -> tuple[int, ...]:
        """The sizes n of an input (b, c_in, n, …). UsageError where it, or what goes with it,
        does not fit."""
        if not x.dtype.is_floating_point:
            raise UsageError(f"input of {x.dtype}: convert it to floats first")
        if x.dim() != 2 + self.dims or x.shape[1] != self.c_in:
            wanted = ", ".join(["batch", str(self.c_in), *["n"] * self.dims])
            raise UsageError(f"input of shape {tuple(x.shape)}: it has to be ({wanted})")
        sizes = tuple(x.shape[2:])
        largest = max(k for k, _ in self.candidates)
        if largest > min(sizes):
            raise UsageError(
                f"a kernel of {largest} taps does not fit into {min(sizes)} places: leave out the "
                "larger kernels"
            )
        if len(weights) != len(self.candidates) or shares.shape != (len(self.candidates),):
            raise UsageError(
                f"{len(self.candidates)} candidates need as many weights and shares, not "
                f"{len(weights)} and {tuple(shares.shape)}"
            )
        c_in = self.c_in // self.groups
        for (k, _), weight in zip(self.candidates, weights, strict=True):
            if weight.shape != (self.c_out, c_in, *[k] * self.dims) or weight.dtype != x.dtype:
                raise UsageError(
                    f"weights {tuple(weight.shape)} of {weight.dtype} for a kernel of {k} and an "
                    f"input of {x.dtype}: {(self.c_out, c_in, *[k] * self.dims)} are wanted"
                )
        return sizes


def kept_taps(k: int, d: int, n: int) -> slice:
    """The taps of a kernel that read anything of n places: those less than n from the centre."""
    most = min(k // 2, (n - 1) // d)
    return slice(k // 2 - most, k // 2 + most + 1)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the taps of all candidates lie in one kernel that holds them all.

    That kernel is ``2 halves + 1`` long. Candidate i gives ``parts[i]`` of its weights; ``index``
    (t,) are the flat places of all these taps, ``owner`` (t,) the candidates that they are of.
    """

    halves: tuple[int, ...]
    parts: tuple[tuple[slice, ...], ...]
    index: Tensor
    owner: Tensor

    @property
    def lengths(self) -> tuple[int, ...]:
        """Of the kernel, in each dimension."""
        return tuple(2 * half + 1 for half in self.halves)


@lru_cache(maxsize=256)
def placement(
    mixture: Mixture, sizes: tuple[int, ...], crop: bool, device: torch.device
) -> Placement:
    """For inputs of these sizes; with ``crop``, of the taps that read anything of them."""
    parts, offsets = [], []
    for k, d in mixture.candidates:
        part = tuple(kept_taps(k, d, n) if crop else slice(0, k) for n in sizes)
        parts.append(part)
        offsets.append([d * (torch.arange(s.start, s.stop) - k // 2) for s in part])
    halves = tuple(max(int(o[i].max()) for o in offsets) for i in range(mixture.dims))
    index = []
    for own in offsets:
        flat = torch.zeros(1, dtype=torch.long)
        for offset, half in zip(own, halves, strict=True):
            flat = (flat[:, None] * (2 * half + 1) + offset + half).flatten()
        index.append(flat)
    owner = [torch.full_like(flat, i) for i, flat in enumerate(index)]
    return Placement(halves, tuple(parts), torch.cat(index).to(device), torch.cat(owner).to(device))


def last(slices: Iterable[slice]) -> Any:
    """The index that applies these slices to the last dimensions."""
    return (..., *slices)


def aggregated(weights: Sequence[Tensor], shares: Tensor, places: Placement) -> Tensor:
    """One kernel (c_out, c_in / groups, length, …): the candidates', dilated, by their shares."""
    some = [w[last(part)].flatten(2) for w, part in zip(weights, places.parts, strict=True)]
    taps = torch.cat(some, -1) * shares.index_select(0, places.owner)
    empty = taps.new_zeros(*taps.shape[:2], math.prod(places.lengths))
    filled = empty.scatter_add(-1, places.index.expand_as(taps), taps)
    return filled.view(*taps.shape[:2], *places.lengths)
