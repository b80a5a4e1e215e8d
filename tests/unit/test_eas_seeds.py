"""Several seeds of EAS: the best by its labels answers, beside the candidates of all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwbench.errors import UsageError
from hwbench.predictors.oracle import BudgetOracle, Limit
from hwbench.search.eas import EasCosts, train_task_generator
from hwbench.search.eas.afar import packed
from hwbench.search.eas.generator import Labels
from hwbench.search.eas.policy import Choices
from hwbench.search.eas.seeds import TaskCourse
from hwbench.search.seeds import Progress, trained_here
from hwbench.search.supernet import Supernet
from tests.eas import FIXED, GROUPS, SHORT, SPACE, ends, oracle_of
from tests.supernets import bars

pytestmark = pytest.mark.usefixtures("one_torch_thread")
COSTS = EasCosts(labels=3, images=20, plan=replace(SHORT, first=6, steps=2))


@pytest.fixture(scope="module")
def oracle() -> BudgetOracle:
    return oracle_of(SPACE)


@pytest.fixture(scope="module")
def net(one_torch_thread) -> Supernet:
    return Supernet(SPACE).eval()


def budgets_of(oracle: BudgetOracle) -> list[float]:
    low, high = ends(oracle_of(SPACE))
    return [1.05 * low, 0.95 * high]


def test_the_best_answers_beside_what_all_have_found(net: Supernet, oracle: BudgetOracle) -> None:
    policies = []

    def trainer(course: TaskCourse, seeds: range, progress: Progress) -> list:
        policies.extend(trained_here(course, seeds, progress))
        return policies

    search = (net, bars(), GROUPS, oracle, budgets_of(oracle))
    alone = [train_task_generator(*search, costs=COSTS, seed=s)[0] for s in (4, 5, 6)]
    found, ledger = train_task_generator(*search, costs=COSTS, seed=4, seeds=3, trainer=trainer)
    assert len(ledger.by_seed) == 3
    best = int(np.argmax(ledger.by_seed))
    assert found.policy is policies[best]
    assert np.array_equal(found.policy.w3, alone[best].policy.w3)
    kept = {code.tobytes() for each in alone for code in each.kept}
    assert {code.tobytes() for code in found.kept} == kept
    assert len(found.kept) == len(kept)
    assert ledger.training_steps == 3 * 8
    assert ledger.validations == len(found.labels.tasks)
    for each in alone:
        for task, code, accuracy in zip(
            each.labels.tasks, each.labels.codes, each.labels.accuracy, strict=True
        ):
            (group,) = [g for g in (*GROUPS.groups, GROUPS.every) if g.classes == task]
            assert found.labels.of(group, code) == accuracy
    with pytest.raises(UsageError, match="give at least 1"):
        train_task_generator(*search, costs=COSTS, seeds=0)


def test_one_seed_is_asked_for_nothing_more(net: Supernet, oracle: BudgetOracle) -> None:
    search = (net, bars(), GROUPS, oracle, budgets_of(oracle))
    _, ledger = train_task_generator(*search, costs=replace(COSTS, labels=0))
    assert ledger.by_seed == []
    assert ledger.validations == 0


def test_labels_of_two_are_joined_once_each() -> None:
    codes = SPACE.sample(3, np.random.default_rng(0))
    one = Labels([(0, 1), (2, 3)], codes[:2], np.array([0.5, 0.6]))
    both = one.joined(Labels([(0, 1), (0, 1)], codes[1:], np.array([0.7, 0.8]))).joined(one)
    assert both.tasks == ((0, 1), (2, 3), (0, 1), (0, 1))
    assert both.accuracy.tolist() == [0.5, 0.6, 0.7, 0.8]


def test_what_a_host_would_not_know_does_not_travel(net: Supernet, oracle: BudgetOracle) -> None:
    limited = BudgetOracle(oracle.predictor, also=[Limit(oracle, 4.0)])
    course = TaskCourse(
        net,
        bars().validation,
        limited,
        GROUPS,
        Choices(SPACE, FIXED),
        np.array([1.0, 2.0]),
        0.98,
        SHORT,
    )
    with pytest.raises(UsageError, match="train the seeds here"):
        packed(course)
