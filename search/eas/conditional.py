"""The generator of EAS while it is trained: the arrays of a policy as torch parameters.

Imports torch; what only answers (:mod:`hwbench.search.eas.policy`) does without.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hwbench.search.adam import Adam
from hwbench.search.eas.policy import Choices, Floats, TaskPolicy, weight_shapes
from hwbench.search.pnag.policy import interpolation

Array = NDArray[np.float64]

_NEVER = -1e9
_CLIP = 5.0


class ConditionalNet:
    """Trains a policy for so many groups of classes and budgets (K,), ascending."""

    def __init__(self, choices: Choices, groups: int, budgets_ms: Array, rate: float) -> None:
        self._choices = choices
        self._log_budgets = np.log(budgets_ms).astype(np.float32)
        shapes = weight_shapes(len(budgets_ms), groups, choices.size)
        self._weights = {name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}
        for name, weight in self._weights.items():
            if name in ("embeddings", "table"):
                nn.init.normal_(weight)
            elif weight.dim() > 1:
                nn.init.kaiming_uniform_(weight, nonlinearity="relu")
        # The first choices are all about as likely: what is learned later need not undo them.
        with torch.no_grad():
            self._weights["w3"].mul_(0.1)
        self._there = torch.from_numpy(choices.there)
        self._allowed = torch.from_numpy(choices.allowed)
        self._optimiser, self._rate = Adam(self._weights.values()), rate

    def policy(self) -> TaskPolicy:
        """The weights as they are now."""
        arrays = {name: w.detach().numpy().copy() for name, w in self._weights.items()}
        return TaskPolicy(log_budgets=self._log_budgets, **arrays)

    def logits(self, shares: Floats, budgets_ms: Array) -> Tensor:
        """Padded (n, L, C), very low where nothing is allowed."""
        w = self._weights
        between = torch.from_numpy(interpolation(self._log_budgets, budgets_ms))
        tasks = torch.from_numpy(shares) @ w["table"]
        x = torch.cat([tasks, between @ w["embeddings"]], dim=1)
        x = functional.relu(x @ w["w1"].T + w["b1"])
        x = functional.relu(x @ w["w2"].T + w["b2"])
        flat = x @ w["w3"].T + w["b3"]
        whole = torch.full((len(flat), *self._choices.shape), _NEVER)
        whole = whole.masked_scatter(self._there, flat)
        return whole.masked_fill(~self._allowed, _NEVER)

    def descend(self, loss: Tensor, rate_share: float) -> None:
        """One step of the optimiser towards less of ``loss``, at a share of the rate."""
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._weights.values(), _CLIP)
        self._optimiser.step(rate_share * self._rate)


def straight_through(soft: Tensor) -> Tensor:
    """One-hot at the largest of the last axis; the gradient is that of ``soft``."""
    hard = functional.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
    return hard - soft.detach() + soft


def sampled_gates(logits: Tensor, temperature: float) -> Tensor:
    """Straight-through Gumbel-softmax of padded logits (n, L, C) (Jang et al., ICLR 2017)."""
    noise = -torch.empty_like(logits).exponential_().log()
    return straight_through(((logits + noise) / temperature).softmax(-1))
