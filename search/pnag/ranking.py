"""The evaluator of the paper: a network that ranks architectures under a budget.

An MLP with two hidden layers of 512 sees the choices of an architecture and the budget, as weights
of the K training budgets (:func:`hwbench.search.pnag.policy.interpolation`). It learns from pairs:
both within the budget, the more accurate first; one within it before one that is not; of two beyond
it the faster first; ties are dropped (Guo et al., arXiv 2210.07634; the loss is a hinge).

:func:`train_policy` takes its ``score`` as a reward. The default there needs no such network: the
oracle knows what is within a budget, and a Gaussian process ranks by accuracy with fewer labels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hwbench.search.accuracy.features import indicators
from hwbench.search.adam import Adam
from hwbench.search.pnag.controller import one_thread
from hwbench.search.pnag.policy import interpolation
from hwbench.search.scoring import Scored
from hwbench.spaces.base import Codes, Space

Array = NDArray[np.float64]

_WIDTH, _MARGIN = 512, 0.1
_RATE, _DECAY, _STEPS, _PAIRS = 1e-3, 5e-4, 400, 512


class RankingEvaluator:
    """Scores under budgets: the higher the better an architecture is there."""

    def __init__(self, space: Space, budgets_ms: Array, seed: int = 0) -> None:
        self._space, self._seed = space, seed
        self._log_budgets = np.log(budgets_ms).astype(np.float32)
        inputs = sum(space.cardinalities) + len(budgets_ms)
        with one_thread(seed):
            self._net = nn.Sequential(
                nn.Linear(inputs, _WIDTH),
                nn.ReLU(),
                nn.Linear(_WIDTH, _WIDTH),
                nn.ReLU(),
                nn.Linear(_WIDTH, 1),
            )

    def fit(self, labelled: Scored, steps: int = _STEPS) -> None:
        """Learn the order of labelled architectures; their scores are their accuracies."""
        rng = np.random.default_rng(self._seed)
        low, high = self._log_budgets[0], self._log_budgets[-1]
        adam = Adam(self._net.parameters(), _DECAY)
        with one_thread(self._seed):
            for _ in range(steps):
                first, second = rng.integers(0, len(labelled), (2, _PAIRS))
                budgets = np.exp(rng.uniform(low, high, _PAIRS))
                sign = _signs(labelled, first, second, budgets)
                difference = self._forward(labelled.codes[first], budgets) - self._forward(
                    labelled.codes[second], budgets
                )
                ranked = torch.from_numpy(sign)
                loss = (torch.relu(_MARGIN - ranked * difference) * ranked.abs()).mean()
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step(_RATE)

    def score(self, found: Scored, budgets_ms: Array) -> Array:
        """(n, b) of architectures (n, L) under each budget (b,); a reward for the controller."""
        n, b = len(found), len(budgets_ms)
        with one_thread(self._seed), torch.no_grad():
            every = self._forward(np.repeat(found.codes, b, axis=0), np.tile(budgets_ms, n))
        return every.numpy().reshape(n, b).astype(np.float64)

    def _forward(self, codes: Codes, budgets_ms: Array) -> torch.Tensor:
        seen = indicators(self._space, self._space.canonical(codes)).astype(np.float32)
        budget = interpolation(self._log_budgets, budgets_ms)
        out: torch.Tensor = self._net(torch.from_numpy(np.concatenate([seen, budget], axis=1)))
        return out[:, 0]


def _signs(
    labelled: Scored, first: NDArray[np.intp], second: NDArray[np.intp], budgets_ms: Array
) -> NDArray[np.float32]:
    """1 where the first of a pair stands before the second under its budget, -1 behind, 0 ties."""
    ms, accuracy = labelled.upper_ms, labelled.score
    one, other = ms[first] <= budgets_ms, ms[second] <= budgets_ms
    by_accuracy, by_speed = (
        np.sign(accuracy[first] - accuracy[second]),
        np.sign(ms[second] - ms[first]),
    )
    within = np.sign(one.astype(int) - other.astype(int))
    return np.where(one & other, by_accuracy, np.where(one | other, within, by_speed)).astype(
        np.float32
    )


def kendall_tau(evaluator: RankingEvaluator, truth: Scored, budgets_ms: Array) -> float:
    """Mean over budgets of the rank correlation with the true order, as the paper checks it."""
    from scipy.stats import kendalltau

    guessed, order = evaluator.score(truth, budgets_ms), truth.order(budgets_ms)
    return float(
        np.mean([kendalltau(guessed[:, j], order[:, j]).statistic for j in range(len(budgets_ms))])
    )
