"""What the search is held against: choices drawn at random, and evolved, for as much CPU time.

Each candidate is the network with plain convolutions, trained for a short while, and judged on
validation samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import nn

from hwbench.search.dash.swap import Candidates, Choice, decoded
from hwbench.search.dash.tasks import Task
from hwbench.search.dash.training import FitPlan
from hwbench.search.dash.tuning import tried

Rival = Literal["random", "evolution"]
RIVALS: tuple[Rival, ...] = ("random", "evolution")

#: The oldest beyond these die; the best of so many become parents (Real et al., AAAI 2019).
_POPULATION, _TOURNAMENT = 6, 3


@dataclass(frozen=True, slots=True)
class Found:
    """The best choice, its error after the short training, how many were judged, CPU seconds."""

    choice: Choice
    error: float
    judged: int
    seconds: float


def search_by(
    rival: Rival,
    net: nn.Module,
    task: Task,
    candidates: Candidates,
    plan: FitPlan,
    seconds: float,
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
) -> Found:
    """Judge choices by trainings of ``plan`` until CPU ``seconds`` are used up: one at least."""
    rng = np.random.default_rng([seed, RIVALS.index(rival)])
    judged: list[tuple[float, dict[str, int]]] = []
    spent = 0.0
    while not judged or spent < seconds:
        places = _next(rival, candidates, judged, rng)
        choice = {name: candidates[name][place] for name, place in places.items()}
        error, took = tried(decoded(net, choice), task, plan)
        judged.append((error, places))
        spent += max(took, 1e-3)
        progress(min(1.0, spent / seconds))
    error, best = min(judged, key=lambda each: each[0])
    choice = {name: candidates[name][place] for name, place in best.items()}
    return Found(choice, error, len(judged), spent)


def _next(
    rival: Rival,
    candidates: Candidates,
    judged: list[tuple[float, dict[str, int]]],
    rng: np.random.Generator,
) -> dict[str, int]:
    """Places in the candidates: any, or those of a good one with one of them changed."""
    if rival == "random" or len(judged) < _POPULATION:
        return {name: int(rng.integers(len(pairs))) for name, pairs in candidates.items()}
    living = judged[-_POPULATION:]
    drawn = rng.choice(len(living), _TOURNAMENT, replace=False)
    _, parent = min((living[i] for i in drawn), key=lambda each: each[0])
    name = list(candidates)[int(rng.integers(len(candidates)))]
    others = [i for i in range(len(candidates[name])) if i != parent[name]]
    return {**parent, name: int(rng.choice(others))}
