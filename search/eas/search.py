"""The whole search of EAS: a generator is trained on a supernet that is there, and validated.

>>> generator, ledger = train_task_generator(net, data, groups, oracle, [0.8, 1.2, 2.0])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import UsageError
from hwbench.predictors import BudgetOracle
from hwbench.predictors.oracle import CONFIDENCE
from hwbench.search.answering import rounded
from hwbench.search.eas.generator import Labels, TaskGenerator
from hwbench.search.eas.policy import Choices, TaskPolicy
from hwbench.search.eas.seeds import TaskCourse, TaskTrainer
from hwbench.search.eas.tasks import Task, TaskGroups
from hwbench.search.ledger import SearchLedger
from hwbench.search.pnag.search import checked_budgets
from hwbench.search.seeds import Progress, share_of, trained_here
from hwbench.spaces.base import Codes, Value, unique_in_order

if TYPE_CHECKING:
    from hwbench.search.accuracy import AccuracySource
    from hwbench.search.accuracy.supernet import Elsewhere
    from hwbench.search.data import Dataset
    from hwbench.search.supernet import Supernet

Array = NDArray[np.float64]
Tell = Callable[[str, float], None]

#: Budgets over the range for each task, of which the answers are kept as candidates.
_KEPT_BUDGETS = 24


@dataclass(frozen=True, slots=True)
class Lesson:
    """How long the generator is trained, and on what.

    ``first`` steps learn latency alone, on ``kept`` scenarios each; the ``steps`` after them also
    run the supernet on ``images`` images for each of ``scenarios``. ``temperatures`` are the first
    and the last, with a geometric course between them.
    """

    first: int = 200
    steps: int = 120
    scenarios: int = 4
    images: int = 32
    kept: int = 32
    over: float = 4.0
    under: float = 2.0
    entropy: float = 0.002
    temperatures: tuple[float, float] = (5.0, 0.5)
    rate: float = 1e-2


@dataclass(frozen=True, slots=True)
class EasCosts:
    """What a search may spend: ``labels`` validations of each seed, for each group and for all
    together.
    """

    labels: int = 8
    images: int = 2000
    plan: Lesson = field(default_factory=Lesson)


def train_task_generator(
    net: Supernet,
    data: Dataset,
    groups: TaskGroups,
    oracle: BudgetOracle,
    budgets_ms: Sequence[float],
    *,
    costs: EasCosts | None = None,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    seeds: int = 1,
    trainer: TaskTrainer = trained_here,
    elsewhere: Elsewhere | None = None,
    progress: Tell = lambda what, share: None,
) -> tuple[TaskGenerator, SearchLedger]:
    """Train a generator for unions of ``groups``, and budgets from the least to the largest.

    It learns on the validation images: the supernet knows the others. The resolution is that of
    the images where the space has it. Of ``seeds`` generators, of ``seed`` and those after it, the
    one with the best labels is kept, and the candidates and labels of all; ``trainer`` trains them.
    ``elsewhere`` gives what evaluates the labels in the place of this machine. UsageError where the
    parts do not fit together.
    """
    from hwbench.search.accuracy.supernet import SupernetAccuracy

    if seeds < 1:
        raise UsageError(f"{seeds} seeds train no generator: give at least 1")
    costs = costs or EasCosts()
    budgets = checked_budgets(budgets_ms)
    space = net.space
    if space.name != oracle.predictor.space.name:
        raise UsageError(
            f"the supernet is of {space.name}, the oracle of {oracle.predictor.space.name}: give "
            "two of one space"
        )
    choices = Choices(space, fixed_for(net, data))
    _require_between(oracle.upper(_ends(choices), confidence), budgets, choices, confidence)
    tasks = [*groups.groups, groups.every]
    source = partial(SupernetAccuracy, net, data, images=costs.images, elsewhere=elsewhere)
    sources = [source(classes=task.classes) for task in tasks]
    ledger, plan = SearchLedger(), costs.plan
    course = TaskCourse(net, data.validation, oracle, groups, choices, budgets, confidence, plan)

    def answering(policy: TaskPolicy, kept: Codes, labels: Labels) -> TaskGenerator:
        return TaskGenerator(policy, groups, choices.fixed, labels, oracle, kept, confidence)

    with ledger.timed():
        policies = trainer(
            course,
            range(seed, seed + seeds),
            lambda share: progress("training the generator", share),
        )
        ledger.training_steps = seeds * (plan.first + plan.steps)
        ledger.evaluator_calls = seeds * plan.steps * plan.scenarios
        ledger.oracle_queries = ledger.training_steps * plan.kept
        kept = [candidates_of(policy, groups, choices, tasks, budgets) for policy in policies]
        labels, worth = Labels([], kept[0][:0], np.zeros(0)), list[float]()
        tell = partial(progress, "validating")
        for i, (policy, own) in enumerate(zip(policies, kept, strict=True)):
            plain, part = answering(policy, own, labels), share_of(tell, i, seeds)
            found, accuracy = _validated(plain, tasks, sources, budgets, costs.labels, part)
            labels = labels.joined(found)
            worth.append(accuracy)
        ledger.validations = len(labels.tasks)
    if seeds > 1:
        ledger.by_seed = worth
    best = policies[int(np.argmax(worth))]
    return answering(best, unique_in_order(np.concatenate(kept)), labels), ledger


def fixed_for(net: Supernet, data: Dataset) -> Mapping[str, Value]:
    """What the supernet was trained with; if all resolutions, the one that suits the images.

    That is theirs, or the next larger one, or the largest.
    """
    learned = {} if net.learned is None else dict(net.learned.fixed)
    if "r" in learned:
        return learned
    (resolutions,) = (d.values for d in net.space.decisions if d.name == "r")
    size = data.train.images.shape[-1]
    enough = [r for r in resolutions if int(r) >= size]
    return {**learned, "r": min(enough) if enough else max(resolutions)}


def _ends(choices: Choices) -> Codes:
    """The smallest and the largest architecture (2, L)."""
    from hwbench.search.supernet import largest, smallest

    return np.stack([end(choices.space, choices.fixed) for end in (smallest, largest)])


def _require_between(ends_ms: Array, budgets: Array, choices: Choices, confidence: float) -> None:
    """UsageError where a budget is below the bound of the smallest architecture, or beyond all."""
    low, high = (float(ms) for ms in ends_ms)
    for budget in budgets:
        if not low <= budget <= high:
            pins = ", ".join(f"{name} {value}" for name, value in choices.fixed.items())
            raise UsageError(
                f"a budget of {budget:g} ms is outside what {choices.space.name} with {pins} can "
                f"reach: give {rounded(low, up=True)} to {rounded(high, up=False)} ms (bounds at "
                f"confidence {confidence:g})"
            )


def candidates_of(
    policy: TaskPolicy, groups: TaskGroups, choices: Choices, tasks: Sequence[Task], budgets: Array
) -> Codes:
    """What the policy proposes over the range, and the ends of the space: one is within each."""
    between = np.geomspace(budgets[0], budgets[-1], _KEPT_BUDGETS)
    asked, shares = np.tile(between, len(tasks)), groups.shares(tasks)
    logits = policy.logits(np.repeat(shares, len(between), axis=0), asked)
    found = choices.likeliest(choices.padded(logits))
    return unique_in_order(np.concatenate([found, _ends(choices)]))


def _validated(
    generator: TaskGenerator,
    tasks: Sequence[Task],
    sources: Sequence[AccuracySource],
    budgets: Array,
    count: int,
    progress: Progress,
) -> tuple[Labels, float]:
    """Accuracies of what the generator answers to ``count`` budgets for each task; and their mean
    over all of these, 0 where none are asked for.
    """
    low, high = generator.range_ms
    between = np.clip(np.geomspace(budgets[0], budgets[-1], max(count, 1)), low, high)[:count]
    labels, answered = Labels([], generator.kept[:0], np.zeros(0)), list[float]()
    for i, (task, source) in enumerate(zip(tasks, sources, strict=True)):
        progress(i / len(tasks))
        answers = generator.generate([(task, float(b)) for b in between])
        if not answers:
            continue
        codes = np.stack([answer.code for answer in answers])
        accuracy = source.accuracy(codes)
        answered += accuracy.tolist()
        _, at = np.unique(codes, axis=0, return_index=True)
        at.sort()
        labels = labels.joined(Labels([task.classes] * len(at), codes[at], accuracy[at]))
    return labels, float(np.mean(answered)) if answered else 0.0
