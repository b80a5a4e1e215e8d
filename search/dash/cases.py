"""One mixture at work: an input of some size, random weights, forward or forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hwbench.search.dash.mixture import Mixture
from hwbench.search.dash.operators import (
    CROPPED_RESULTS,
    CROPPED_WEIGHTS,
    OPERATORS,
    RESULTS,
    WEIGHTS,
    is_cropped,
)


@dataclass(frozen=True, slots=True)
class Case:
    """A mixture with its batch and the sizes (n, …) of its input; ``training`` adds gradients."""

    mixture: Mixture
    batch: int
    sizes: tuple[int, ...]
    training: bool = True

    @property
    def dense(self) -> tuple[str, str]:
        """The two forms of dense convolution: cropped where that leaves anything out."""
        cropped = is_cropped(self.mixture, self.sizes)
        return (CROPPED_RESULTS, CROPPED_WEIGHTS) if cropped else (RESULTS, WEIGHTS)

    def works(
        self, device: torch.device, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> Callable[[str], Callable[[], object]]:
        """Gives one run of an operator on tensors that all of them share.

        A training run computes the output and, from one fixed gradient of it, those of the input,
        of all weights and of the shares.
        """
        mixture, random = self.mixture, torch.Generator(device).manual_seed(seed)
        sizes = (self.batch, mixture.c_in, *self.sizes)
        x = torch.randn(sizes, generator=random, dtype=dtype, device=device)
        weights = mixture.initial(dtype, random)
        shares = torch.full((len(weights),), 1 / len(weights), dtype=dtype, device=device)
        sources = [x, shares, *weights]
        for source in sources:
            source.requires_grad_(self.training)
        if self.training:
            out = [-(-n // mixture.stride) for n in self.sizes]
            upstream = torch.ones(self.batch, mixture.c_out, *out, dtype=dtype, device=device)

        def work(name: str) -> Callable[[], object]:
            operator = OPERATORS[name]

            def infer() -> object:
                with torch.no_grad():
                    return operator(mixture, x, weights, shares)

            def train() -> object:
                y = operator(mixture, x, weights, shares)
                return torch.autograd.grad(y, sources, upstream)

            return train if self.training else infer

        return work
