"""A convolution that is a mixture, as a layer of a network."""

from __future__ import annotations

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
    With ``gumbel`` the shares of a training step are drawn, softly (Jang et al., ICLR 2017).
    """

    def __init__(
        self, mixture: Mixture, method: str | Chooser, *, bias: bool = True, gumbel: bool = False
    ) -> None:
        super().__init__()
        if isinstance(method, str) and method not in OPERATORS:
            raise UnknownNameError("operator", method, OPERATORS)
        self.mixture, self.method, self._gumbel = mixture, method, gumbel
        self.candidates = nn.ParameterList(mixture.initial())
        self.logits = nn.Parameter(torch.zeros(len(mixture.candidates)))
        self.bias = nn.Parameter(torch.zeros(mixture.c_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(b, c_in, n, …) -> (b, c_out, ceil(n / stride), …)."""
        weights = list(self.candidates)
        drawn = self._gumbel and self.training
        shares = functional.gumbel_softmax(self.logits) if drawn else self.logits.softmax(0)
        self.mixture.check(x, weights, shares)
        name = self.method
        if isinstance(name, Chooser):
            case = Case(self.mixture, x.shape[0], tuple(x.shape[2:]), torch.is_grad_enabled())
            name = name.choose(case)
        y = OPERATORS[name](self.mixture, x, weights, shares)
        return y if self.bias is None else y + self.bias.view(-1, *[1] * self.mixture.dims)

    def steer(self, scale: float, penalty: float) -> None:
        """Make the logits' gradient one of direction alone, and add what large fields cost.

        Its norm becomes 1 / ``scale``; each candidate's part grows by ``penalty`` a place of its
        receptive field, so that of equals the small one wins (as the released code has it).
        """
        if self.logits.grad is not None:
            fields = torch.tensor([d * (k - 1) + 1.0 for k, d in self.mixture.candidates])
            norm = self.logits.grad.norm() + 1e-8
            self.logits.grad = self.logits.grad / (scale * norm) + penalty * fields
