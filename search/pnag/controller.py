"""The controller while it is trained: the arrays of a policy as torch parameters.

Imports torch; what only answers (:mod:`hwbench.search.pnag.policy`) does without.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hwbench.predictors import threads
from hwbench.search.adam import Adam
from hwbench.search.pnag.policy import HIDDEN, Policy, Walk, interpolation
from hwbench.spaces.base import Codes

_CLIP = 5.0
_LAST_RATE = 0.1  # of the first, at the end of the cosine


class Controller:
    """Trains the policy of a space for budgets (K,), ascending.

    The learning rate falls from ``rate`` to a tenth of it by a cosine over ``steps``.
    """

    def __init__(self, walk: Walk, budgets_ms: NDArray[np.float64], rate: float, steps: int):
        self._walk = walk
        self._log_budgets = np.log(budgets_ms).astype(np.float32)
        decisions, most = len(walk.counts), max(walk.counts)
        bound = HIDDEN**-0.5
        shapes = {
            "tokens": (1 + sum(walk.counts), HIDDEN),
            "w_in": (4 * HIDDEN, HIDDEN),
            "w_back": (4 * HIDDEN, HIDDEN),
            "bias": (4 * HIDDEN,),
            "heads": (decisions, most, HIDDEN),
        }
        self._weights = {
            name: nn.Parameter((2 * torch.rand(shape) - 1) * bound)
            for name, shape in shapes.items()
        }
        self._weights["embeddings"] = nn.Parameter(torch.randn(len(budgets_ms), HIDDEN))
        self._weights["head_bias"] = nn.Parameter(torch.zeros(decisions, most))
        self._padding = torch.from_numpy(walk.padding)
        self._adam, self._rate = Adam(self._weights.values()), rate
        self._step, self._steps = 0, steps

    def policy(self) -> Policy:
        """The weights as they are now."""
        arrays = {name: w.detach().numpy().copy() for name, w in self._weights.items()}
        return Policy(log_budgets=self._log_budgets, **arrays)

    def log_likelihood(
        self, codes: Codes, budgets_ms: NDArray[np.float64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability (n,) of each code under its budget, and entropy (n,) along it.

        Of active decisions alone: what does not exist was not chosen.
        """
        w = self._weights
        tokens, active = self._walk.teacher(codes)
        between = torch.from_numpy(interpolation(self._log_budgets, budgets_ms))
        budget = between @ w["embeddings"] @ w["w_in"].T + w["bias"]
        before = w["tokens"] @ w["w_in"].T
        seen, on = torch.from_numpy(tokens), torch.from_numpy(active)
        chosen = torch.from_numpy(codes.astype(np.int64))
        h = c = torch.zeros(len(codes), HIDDEN)
        likelihood = entropy = torch.zeros(len(codes))
        for j in range(codes.shape[1]):
            gates = before[seen[:, j]] + budget + h @ w["w_back"].T
            i, f, g, o = gates.chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            logits = h @ w["heads"][j].T + w["head_bias"][j]
            logp = torch.log_softmax(logits.masked_fill(self._padding[j], -1e9), dim=1)
            taken = logp.gather(1, chosen[:, j : j + 1])[:, 0]
            likelihood = likelihood + torch.where(on[:, j], taken, 0.0)
            spread = -(logp.exp() * logp).sum(dim=1)
            entropy = entropy + torch.where(on[:, j], spread, 0.0)
        return likelihood, entropy

    def ascend(self, goal: torch.Tensor) -> None:
        """One step of the optimiser towards more of ``goal``."""
        (-goal).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._weights.values(), _CLIP)
        cosine = 0.5 * (1 + math.cos(math.pi * self._step / self._steps))
        self._adam.step(self._rate * (_LAST_RATE + (1 - _LAST_RATE) * cosine))
        self._step += 1


@contextmanager
def one_thread(seed: int) -> Iterator[None]:
    """Small matrices, the same result each time: one thread, and a seed of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), threads.one_thread():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
