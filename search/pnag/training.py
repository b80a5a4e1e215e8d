"""Training of the controller: one for all budgets, so that any budget is answered by inference.

The published goal is the expected reward over budgets and samples, plus entropy. What is ours,
because the published setting (one budget and one sample a step, no baseline) collapses easily:

- a step takes several budgets, one from each stratum of the range (in log), with many samples each;
  the advantage of a sample is its rank within its budget, so that rewards need no common scale;
- everything scored is kept. The best known architecture of each budget is imitated, and neighbours
  of the best ones are scored beside the samples: a local search that all budgets share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwbench.search.moves import mutated
from hwbench.search.pnag.policy import Policy, Walk
from hwbench.search.scoring import Scored, Scorer, best_each
from hwbench.spaces.base import NOTHING_FIXED, Codes, Value, unique_in_order
from hwbench.spaces.design import candidates, extremes

if TYPE_CHECKING:
    import torch

    from hwbench.search.pnag.controller import Controller

Array = NDArray[np.float64]

#: Reward (n, b) of scored architectures under each of b budgets: only its order counts.
Reward = Callable[[Scored, Array], Array]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long the controller is trained, and on what.

    A step scores ``samples`` of the controller for each of ``strata`` budgets and ``neighbours`` of
    the best known, and imitates the best known under ``imitated`` budgets. ``first`` random
    architectures are scored before. ``last`` steps imitate alone: they score nothing.
    """

    steps: int = 40
    strata: int = 8
    samples: int = 5
    neighbours: int = 20
    imitated: int = 64
    first: int = 200
    last: int = 60
    rate: float = 0.01
    entropy: float = 0.02
    imitation: float = 0.5


def train_policy(
    scorer: Scorer,
    budgets_ms: Array,
    known: Codes,
    *,
    seed: int,
    fixed: Mapping[str, Value] = NOTHING_FIXED,
    plan: Schedule | None = None,
    reward: Reward = Scored.order,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Policy, Scored]:
    """Train on budgets (K,), ascending; returns the policy, and all that was scored.

    ``known`` codes (labelled ones, for example) are scored first. The same arguments give the same
    policy. One thread: the matrices are small.
    """
    from hwbench.search.pnag.controller import Controller, one_thread

    plan = plan or Schedule()
    rng = np.random.default_rng(seed)
    space, walk = scorer.space, Walk(scorer.space, fixed)
    first = candidates(space, plan.first, rng, fixed=fixed)[: plan.first]
    start = np.concatenate([known, first, extremes(space, rng, fixed=fixed)])
    archive = scorer(unique_in_order(space.canonical(start)))
    with one_thread(seed):
        controller = Controller(walk, budgets_ms, plan.rate, plan.steps + plan.last)
        for step in range(plan.steps):
            strata = stratified(budgets_ms, plan.strata, rng)
            asked = np.repeat(strata, plan.samples)
            codes = controller.policy().draw(walk, asked, rng)
            good = space.valid(codes)
            scored = scorer(codes[good])
            leading = _leading(archive, budgets_ms, plan.neighbours, rng)
            near = mutated(space, leading, rng, fixed)
            archive = archive.joined(scored, scorer(near))
            advantage = _advantages(reward(scored, strata), good, plan)
            goal = _policy_gradient(controller, codes, asked, advantage, plan.entropy)
            goal = goal + _imitation(controller, archive, budgets_ms, plan, rng)
            controller.ascend(goal)
            progress((step + 1) / (plan.steps + plan.last))
        for step in range(plan.last):
            controller.ascend(_imitation(controller, archive, budgets_ms, plan, rng))
            progress((plan.steps + step + 1) / (plan.steps + plan.last))
        scorer.ledger.training_steps += plan.steps + plan.last
        return controller.policy(), archive


def _policy_gradient(
    controller: Controller, codes: Codes, asked: Array, advantage: Array, entropy: float
) -> torch.Tensor:
    import torch

    likelihood, spread = controller.log_likelihood(codes, asked)
    weighted = torch.from_numpy(advantage.astype(np.float32)) * likelihood
    return weighted.mean() + entropy * spread.mean()


def _imitation(
    controller: Controller,
    archive: Scored,
    budgets_ms: Array,
    plan: Schedule,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Weighted log-likelihood of the best known under budgets of the range, by the mean."""
    wanted = stratified(budgets_ms, plan.imitated, rng)
    best = best_each(archive, wanted)
    # Where nothing keeps the budget the fastest known is the nearest to it.
    codes = archive.codes[np.where(best >= 0, best, archive.upper_ms.argmin())]
    likelihood, _ = controller.log_likelihood(codes, wanted)
    return plan.imitation * likelihood.mean()


def _advantages(rewards: Array, good: NDArray[np.bool_], plan: Schedule) -> Array:
    """Rank of each sample within its budget, -1 to 1, equals in the middle; (strata x samples,).

    ``rewards`` (valid samples, strata); samples that are no network rank below all others.
    """
    own = np.repeat(np.arange(plan.strata), plan.samples)
    value = np.full(len(own), -np.inf)
    value[good] = rewards[np.arange(len(rewards)), own[good]]
    table = value.reshape(plan.strata, plan.samples)
    worse = (table[:, :, None] > table[:, None, :]).sum(axis=2)
    better = (table[:, :, None] < table[:, None, :]).sum(axis=2)
    ranked: Array = (worse - better).reshape(-1) / max(plan.samples - 1, 1)
    return ranked


def _leading(archive: Scored, budgets_ms: Array, n: int, rng: np.random.Generator) -> Codes:
    """The best known under ``n`` budgets; the fastest known where nothing keeps one."""
    best = best_each(archive, stratified(budgets_ms, n, rng))
    return archive.codes[np.where(best >= 0, best, archive.upper_ms.argmin())]


def stratified(budgets_ms: Array, n: int, rng: np.random.Generator) -> Array:
    """``n`` budgets (n,) over the range of (K,), one from each of n equal parts in log."""
    low, high = np.log(budgets_ms[0]), np.log(budgets_ms[-1])
    spread: Array = np.exp(low + (high - low) * (np.arange(n) + rng.random(n)) / n)
    return spread
