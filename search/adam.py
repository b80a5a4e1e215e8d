"""Adam (Kingma and Ba, ICLR 2015) in a few lines.

In place of torch's: its first step imports the whole compiler (``torch._dynamo``), for seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Moves ``parameters`` against their gradients, to which ``decay`` times a weight is added."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], decay: float = 0.0) -> None:
        self.parameters = list(parameters)
        self._decay, self._steps = decay, 0
        self._means = [torch.zeros_like(p) for p in self.parameters]
        self._squares = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step at a learning rate; the gradients are used up."""
        self._steps += 1
        mean_share, square_share = 1 - _FIRST**self._steps, 1 - _SECOND**self._steps
        for p, mean, square in zip(self.parameters, self._means, self._squares, strict=True):
            if p.grad is None:
                continue
            grad = p.grad.add(p, alpha=self._decay)
            mean.lerp_(grad, 1 - _FIRST)
            square.mul_(_SECOND).addcmul_(grad, grad, value=1 - _SECOND)
            spread = (square / square_share).sqrt_().add_(_EPSILON)
            p.addcdiv_(mean, spread, value=-rate / mean_share)
            p.grad = None
