"""NSGA-II (Deb et al., 2002) on score and latency bound: one run for all budgets. Needs pymoo."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.search.moves import mutated
from hwbench.search.scoring import Scored, Scores

_POPULATION = 100
_MUTATED = 0.5


def nsga2(
    scorer: Scores, calls: int, rng: np.random.Generator, *, population: int = _POPULATION
) -> Scored:
    """``calls`` evaluator calls with pymoo's NSGA-II, uniform crossover and one-decision mutation.

    Children that are no network are not scored, and cost no call. Returns all that was scored.
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.mutation import Mutation
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.ux import UX

    space = scorer.space
    parts: list[Scored] = []

    class Step(Mutation):  # type: ignore[misc]
        def _do(self, problem: Any, x: NDArray[np.generic], **_: Any) -> NDArray[np.generic]:
            rows = space.canonical(np.asarray(x).astype(np.int16))
            chosen = rng.random(len(rows)) < _MUTATED
            rows[chosen] = mutated(space, rows[chosen], rng)
            return rows

    class Front(Problem):  # type: ignore[misc]
        def _evaluate(self, x: NDArray[np.generic], out: dict[str, Any], **_: Any) -> None:
            rows = space.canonical(np.asarray(x).astype(np.int16))
            good = space.valid(rows)
            found = scorer(rows[good])
            parts.append(found)
            values = np.full((len(rows), 2), 1e6)
            values[good] = np.stack([-found.score, found.upper_ms], axis=1)
            out["F"] = values

    problem = Front(
        n_var=len(space.decisions), n_obj=2, xl=0, xu=np.asarray(space.cardinalities) - 1, vtype=int
    )
    algorithm = NSGA2(
        pop_size=population,
        sampling=space.sample(min(population, calls), rng),
        crossover=UX(),
        mutation=Step(),
        eliminate_duplicates=True,
    )
    algorithm.setup(problem, termination=("n_eval", calls), seed=int(rng.integers(1 << 31)))
    while algorithm.has_next() and sum(map(len, parts)) + population <= calls:
        algorithm.next()
    return parts[0].joined(*parts[1:])
