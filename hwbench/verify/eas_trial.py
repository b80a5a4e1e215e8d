"""One seed of the experiment on EAS: a generator, what it is held against, and all of it judged.

50 scenarios (tasks x budgets). Every method searches on the validation images with a supernet that
all share, and is judged on images that none has seen. Searches for one scenario after the other
get as many evaluations of an architecture as the generator's training: of 200 images each, forward
alone, which takes about as long as one forward and backward pass of the relaxed supernet on 32.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwbench.predictors import BudgetOracle
from hwbench.search.eas import (
    EasCosts,
    Lesson,
    Task,
    TaskGenerator,
    TaskGroups,
    train_task_generator,
)
from hwbench.search.eas.search import fixed_for
from hwbench.search.moves import mutated
from hwbench.search.scoring import Scored, best_each
from hwbench.spaces import Codes, Space
from hwbench.spaces.design import candidates
from hwbench.verify.frame import over_seeds

if TYPE_CHECKING:
    from hwbench.search.accuracy.supernet import SupernetAccuracy
    from hwbench.search.data import Dataset
    from hwbench.search.supernet import Supernet

Array = NDArray[np.float64]

CONFIDENCE = 0.98
#: Images by which a search for one scenario judges an architecture, and recalibrates it.
SEARCH_IMAGES, RECALIBRATED = 200, 100
#: A share of its budget that a candidate of such a search uses at least.
_USED = 0.9
_POOL, _CHILDREN = 4000, 64
#: Answers to all scenarios are timed so often; the median counts.
_TIMED = 21

OWN, SWAPPED, SAME, PLAIN = "eas", "task swapped", "same for all tasks", "no task dropout"
RANDOM, EVOLUTION = "random", "evolution"
METHODS = (OWN, SWAPPED, SAME, PLAIN, RANDOM, EVOLUTION)


@dataclass(frozen=True, eq=False)
class Arena:
    """What all methods of all seeds share.

    Generators learn on the validation part of ``data``; answers are judged on that of ``judged``,
    ``images`` of each task. ``net`` was trained with task dropout, ``plain`` without.
    """

    data: Dataset
    judged: Dataset
    images: int
    groups: TaskGroups
    tasks: tuple[Task, ...]
    budgets: Array
    oracle: BudgetOracle
    net: Supernet
    plain: Supernet
    plan: Lesson
    _sources: dict[tuple[int, tuple[int, ...]], SupernetAccuracy] = field(default_factory=dict)

    @property
    def space(self) -> Space:
        """That of the supernets."""
        return self.net.space

    @property
    def scenarios(self) -> list[tuple[Task, float]]:
        """Every task with every budget, task by task."""
        return [(task, float(budget)) for task in self.tasks for budget in self.budgets]

    @property
    def some(self) -> Array:
        """Every second budget: those under which accuracy is compared."""
        return self.budgets[1::2]

    @property
    def calls(self) -> int:
        """Evaluations of a task's search under those: as many as the generator's share of them."""
        whole = self.plan.steps * self.plan.scenarios / len(self.tasks)
        return round(whole * len(self.some) / len(self.budgets))

    def judge(self, net: Supernet, task: Task, codes: Codes) -> list[float]:
        """Accuracy of codes (n, L) on images that no search has seen."""
        from hwbench.search.accuracy.supernet import SupernetAccuracy

        key = (id(net), task.classes)
        if key not in self._sources:
            self._sources[key] = SupernetAccuracy(
                net,
                self.judged,
                images=self.images,
                calibration=2 * RECALIBRATED,
                classes=task.classes,
            )
        return [float(a) for a in self._sources[key].accuracy(codes)]


def run_trial(
    arena: Arena, seed: int, progress: Callable[[float], None] = lambda share: None
) -> tuple[dict[str, Any], TaskGenerator]:
    """Every method with one seed: accuracies [task][budget], what was answered, and by what."""
    generator, seconds = _trained(arena, arena.net, seed)
    progress(0.2)
    other, _ = _trained(arena, arena.plain, seed)
    progress(0.4)
    answers = generator.generate(arena.scenarios)
    every = _by_task(arena, [answer.code for answer in answers])
    own = [codes[1::2] for codes in every]
    without = _by_task(arena, [answer.code for answer in other.generate(arena.scenarios)])
    same = generator.generate([(arena.groups.every, float(b)) for b in arena.some])
    # Another task's architecture, by a shift that differs from seed to seed.
    shift = 1 + seed % (len(arena.tasks) - 1)
    found: dict[str, list[Codes]] = {
        OWN: own,
        SWAPPED: [own[(i + shift) % len(own)] for i in range(len(own))],
        SAME: [np.stack([answer.code for answer in same])] * len(own),
    }
    began = time.perf_counter()
    for method, search in ((RANDOM, random_codes), (EVOLUTION, evolved_codes)):
        rng = np.random.default_rng([seed, 7])
        found[method] = [search(arena, task, rng) for task in arena.tasks]
    searched = (time.perf_counter() - began) / 2
    progress(0.6)
    accuracy = {
        method: [arena.judge(arena.net, t, c) for t, c in zip(arena.tasks, codes, strict=True)]
        for method, codes in found.items()
    }
    accuracy[PLAIN] = [
        arena.judge(arena.plain, t, c[1::2]) for t, c in zip(arena.tasks, without, strict=True)
    ]
    row = {
        "seed": seed,
        "accuracy": accuracy,
        "answers": [answer.text for answer in answers],
        "proposed": float(np.mean([answer.proposed for answer in answers])),
        "upper_ms": [answer.upper_ms for answer in answers],
        "predicted_ms": [answer.predicted_ms for answer in answers],
        "distinct": [len(np.unique(codes, axis=0)) for codes in every],
        "distinct_of_tasks": distinct_of_tasks(every),
        "seconds_training": seconds,
        "seconds_one_search": searched,
    }
    return row, generator


def paired(rows: Sequence[Mapping[str, Any]], other: str) -> tuple[float, float]:
    """Points of accuracy that EAS is above another method, and the half of a 95 % interval.

    Over seeds, each the mean of its scenarios: Student's t.
    """
    by_seed = np.array(
        [100 * np.mean(np.subtract(r["accuracy"][OWN], r["accuracy"][other])) for r in rows]
    )
    return over_seeds(by_seed)


def distinct_of_tasks(answers: Sequence[Codes]) -> float:
    """Mean over budgets of how many different architectures the tasks got."""
    by_budget = np.stack(answers, axis=1)
    return float(np.mean([len(np.unique(codes, axis=0)) for codes in by_budget]))


def timings(arena: Arena, generator: TaskGenerator) -> dict[str, float]:
    """Seconds for all scenarios, oracle included, and for what deploying one answer takes more."""
    from hwbench.lower import to_onnx
    from hwbench.search.supernet import extract, recalibrated, resolution_of, to_inputs

    tasks = [task for task, _ in arena.scenarios]
    budgets = np.array([budget for _, budget in arena.scenarios])
    (answer, *_) = generator.generate(arena.scenarios[:1])
    part = arena.data.train.some(RECALIBRATED, 0)
    images = to_inputs(part.images, resolution_of(arena.space, answer.code))
    statistics = recalibrated(arena.net, answer.code, images)
    alone = extract(arena.net, answer.code, statistics, arena.tasks[0].classes)
    measured: Mapping[str, Callable[[], object]] = {
        "seconds_all": lambda: generator.generate(arena.scenarios),
        "seconds_forward": lambda: generator.proposals(tasks, budgets),
        "seconds_recalibrate": lambda: recalibrated(arena.net, answer.code, images),
        "seconds_extract": lambda: extract(arena.net, answer.code, statistics, tasks[0].classes),
        "seconds_export": lambda: to_onnx(alone.graph, alone.weights),
    }
    return {name: _median_seconds(run) for name, run in measured.items()}


def _median_seconds(run: Callable[[], object]) -> float:
    took = []
    for _ in range(_TIMED):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return float(np.median(took))


def _trained(arena: Arena, net: Supernet, seed: int) -> tuple[TaskGenerator, float]:
    generator, ledger = train_task_generator(
        net,
        arena.data,
        arena.groups,
        arena.oracle,
        list(arena.budgets),
        costs=EasCosts(labels=0, plan=arena.plan),
        confidence=CONFIDENCE,
        seed=seed,
    )
    return generator, ledger.seconds


def _by_task(arena: Arena, codes: Sequence[Codes]) -> list[Codes]:
    whole = np.stack(codes).reshape(len(arena.tasks), len(arena.budgets), -1)
    return list(whole.astype(np.int16))


# --- searches for one scenario after the other --------------------------------------------------


class _Tried:
    """What a search of one task has evaluated so far."""

    def __init__(self, arena: Arena, task: Task) -> None:
        from hwbench.search.accuracy.supernet import SupernetAccuracy

        self._source = SupernetAccuracy(
            arena.net,
            arena.data,
            images=SEARCH_IMAGES,
            calibration=RECALIBRATED,
            classes=task.classes,
        )
        self._arena = arena
        self.found = Scored(np.zeros((0, len(arena.space.decisions)), np.int16), *np.zeros((2, 0)))

    def evaluate(self, code: Codes) -> None:
        rows = code[None]
        upper = self._arena.oracle.upper(rows, CONFIDENCE)
        self.found = self.found.joined(Scored(rows, self._source.accuracy(rows), upper))

    def within(self, pool: Codes, upper: Array, budget: float) -> Codes:
        """Those of a pool that use the budget and were not evaluated; the next best without."""
        known = {code.tobytes() for code in self.found.codes}
        fresh = np.array([code.tobytes() not in known for code in pool], bool)
        good = fresh & (upper <= budget) & (upper >= _USED * budget)
        return pool[good] if good.any() else pool[fresh & (upper <= budget)]

    def winners(self) -> Codes:
        return self.found.codes[best_each(self.found, self._arena.some)]


def random_codes(arena: Arena, task: Task, rng: np.random.Generator) -> Codes:
    """The best of random architectures that use the budgets up, each budget in turn: (b, L)."""
    tried = _Tried(arena, task)
    _random_start(arena, tried, arena.calls, rng)
    return tried.winners()


def evolved_codes(arena: Arena, task: Task, rng: np.random.Generator) -> Codes:
    """Two random ones a budget, then children of the best known under each in turn: (b, L)."""
    tried = _Tried(arena, task)
    first = min(2 * len(arena.some), arena.calls)
    _random_start(arena, tried, first, rng)
    (pinned,) = arena.space.pinned(fixed_for(arena.net, arena.data)).items()
    for call in range(arena.calls - first):
        budget = arena.some[call % len(arena.some)]
        parent = tried.found.codes[best_each(tried.found, np.array([budget]))]
        children = mutated(arena.space, np.repeat(parent, _CHILDREN, axis=0), rng)
        children = children[children[:, pinned[0]] == pinned[1]]
        upper = arena.oracle.upper(children, CONFIDENCE)
        good = tried.within(children, upper, budget)
        if len(good):
            tried.evaluate(good[rng.integers(len(good))])
    return tried.winners()


def _random_start(arena: Arena, tried: _Tried, calls: int, rng: np.random.Generator) -> None:
    pool = candidates(arena.space, _POOL, rng, fixed=fixed_for(arena.net, arena.data))
    upper = arena.oracle.upper(pool, CONFIDENCE)
    for call in range(calls):
        good = tried.within(pool, upper, float(arena.some[call % len(arena.some)]))
        tried.evaluate(good[rng.integers(len(good))])
