"""Ways to search for a split, that all ask the same judge equally often."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import UnknownNameError, UsageError
from hwbench.search.baselines import evolve, nsga2, random_pool
from hwbench.search.pnag.controller import Controller, one_thread
from hwbench.search.pnag.policy import Walk
from hwbench.search.s2dnas.judging import SplitScores
from hwbench.search.scoring import Scored, best_each

Array = NDArray[np.float64]

Method = Literal["controller", "random", "evolution", "nsga2"]
METHODS: tuple[Method, ...] = get_args(Method)

#: Candidates of one step of the controller, whose mean reward moves the baseline by so much.
_SAMPLES, _BASELINE_SHARE = 5, 0.3
_RATE, _ENTROPY = 0.02, 0.01
#: A population is a quarter of the evaluations, within these.
_POPULATION = (5, 50)


def search_splits(
    scores: SplitScores, method: Method, evaluations: int, static_ms: float, seed: int
) -> Scored:
    """Judge at most ``evaluations`` candidates by one method; returns all that were judged.

    A candidate that a method asks for twice counts twice. ``static_ms`` is the static network's
    latency, for the controller's reward. A space that holds no more is judged whole.
    """
    check_search(method, evaluations)
    if scores.space.raw_size() <= evaluations:
        return scores(scores.space.all_codes())
    rng = np.random.default_rng(seed)
    population = int(np.clip(evaluations // 4, *_POPULATION))
    match method:
        case "random":
            return random_pool(scores, evaluations, rng)
        case "evolution":
            budget = np.array([scores.points])
            return evolve(scores, budget, evaluations, rng, population=population)
        case "nsga2":
            return nsga2(scores, evaluations, rng, population=population)
    return reinforce(scores, evaluations, static_ms, seed)


def check_search(method: str, evaluations: int) -> None:
    """UsageError where there is no such method, or too little for it to spend."""
    if method not in METHODS:
        raise UnknownNameError("search method", method, METHODS)
    if evaluations < _POPULATION[0]:
        raise UsageError(f"{evaluations} evaluations are no search: give at least {_POPULATION[0]}")


def reinforce(scores: SplitScores, evaluations: int, static_ms: float, seed: int) -> Scored:
    """Policy gradient (Williams, Machine Learning 8, 1992) on the controller that PNAG has.

    It has one budget, as there is one device and one accuracy wanted. The advantage of a sample
    is its reward above a moving mean of those before, in standard deviations of all so far.
    """
    rng = np.random.default_rng(seed)
    walk, steps = Walk(scores.space), math.ceil(evaluations / _SAMPLES)
    with one_thread(seed):
        controller = Controller(walk, np.ones(1), _RATE, steps)
    parts: list[Scored] = []
    rewards = np.zeros(0)
    baseline = math.nan
    for step in range(steps):
        asked = np.ones(min(_SAMPLES, evaluations - step * _SAMPLES))
        codes = controller.policy().draw(walk, asked, rng)
        parts.append(scores(codes))
        now = scores.rewards(parts[-1], static_ms)
        rewards = np.concatenate([rewards, now])
        baseline = float(now.mean()) if step == 0 else baseline
        advantage = (now - baseline) / max(float(rewards.std()), 1e-9)
        _ascend(controller, parts[-1], asked, advantage)
        baseline += _BASELINE_SHARE * (float(now.mean()) - baseline)
        scores.ledger.training_steps += 1
    return parts[0].joined(*parts[1:])


def _ascend(controller: Controller, drawn: Scored, asked: Array, advantage: Array) -> None:
    import torch

    with one_thread(0):
        likelihood, spread = controller.log_likelihood(drawn.codes, asked)
        weighted = torch.from_numpy(advantage.astype(np.float32)) * likelihood
        controller.ascend(weighted.mean() + _ENTROPY * spread.mean())


def best_split(found: Scored, points: float) -> int:
    """Row of the cheapest that loses at most so many points; of the most accurate where none is."""
    (best,) = best_each(found, np.array([points])).tolist()
    return int(best) if best >= 0 else int(found.upper_ms.argmin())
