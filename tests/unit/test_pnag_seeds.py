"""Several seeds: what all have found, the best controller, and what each is worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwbench.errors import UsageError
from hwbench.predictors import BudgetOracle, MacsLine, Provenance, fit_predictor
from hwbench.predictors.oracle import Limit
from hwbench.search.accuracy import CallableAccuracy
from hwbench.search.accuracy.model import fit_accuracy
from hwbench.search.ledger import SearchLedger
from hwbench.search.pnag import Costs, Schedule, train_generator
from hwbench.search.pnag.afar import packed, trained_on_host, unpacked
from hwbench.search.pnag.seeds import Course, Trained, chosen
from hwbench.search.scoring import best_each
from hwbench.search.seeds import trained_here
from hwbench.spaces import get_space
from hwbench.testing.predictors import made_up_training

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SMALL = get_space("mbv3_small")
PLAN = Schedule(steps=4, last=3, first=30)
BUDGETS = [3.0, 4.0, 5.0]


def accuracy(codes: np.ndarray) -> np.ndarray:
    macs = SMALL.macs(codes) / 9e6
    return 0.7 + 0.2 * np.tanh(macs) + 0.002 * (codes[:, 6:26] == 1).sum(axis=1)


def an_oracle(**more: object) -> BudgetOracle:
    provenance = Provenance("cpu", "a" * 32, "made up", 1)
    training = made_up_training(SMALL, 40)
    predictor = fit_predictor(SMALL, training, provenance, kind=MacsLine.kind)
    return BudgetOracle(predictor, **more)


@pytest.fixture
def course() -> Course:
    codes = SMALL.sample(30, np.random.default_rng(0))
    evaluator = fit_accuracy(SMALL, codes, accuracy(codes))
    budgets = np.array(BUDGETS)
    return Course(evaluator, an_oracle(), 0.9, budgets, {"d1": 3}, PLAN, SearchLedger())


def test_what_all_have_found_is_kept_and_the_best_answers(course: Course) -> None:
    told: list[float] = []
    trained = trained_here(course, range(3), told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)
    best, worth = chosen(course, trained)
    assert best.policy is trained[int(np.argmax(worth))].policy
    assert len({each.policy.heads.tobytes() for each in trained}) == 3
    assert all(0 < each < 1 for each in worth)
    between = np.geomspace(3.0, 5.0, 40)
    together = best.archive.score[best_each(best.archive, between)]
    for each in trained:
        own = each.archive.score[best_each(each.archive, between)]
        assert (together >= own).all()
    everything = {code.tobytes() for each in trained for code in each.archive.codes}
    assert {code.tobytes() for code in best.archive.codes} == everything


def test_a_seed_that_reaches_no_budget_is_worth_nothing(course: Course) -> None:
    (sound,) = trained_here(course, [0], lambda share: None)
    slow = replace(sound.archive, upper_ms=sound.archive.upper_ms + 100)
    impossible = replace(course, budgets_ms=np.array([1e-3, 2e-3]))
    _, worth = chosen(impossible, [Trained(sound.policy, slow)])
    assert worth == [0.0]


def test_one_of_several_is_the_one_that_it_is_alone() -> None:
    source, costs = CallableAccuracy(SMALL, accuracy), Costs(30, plan=PLAN)
    alone, ledger = train_generator(source, an_oracle(), BUDGETS, costs=costs)
    assert ledger.by_seed == []
    several, shared = train_generator(source, an_oracle(), BUDGETS, costs=costs, seeds=2)
    assert len(shared.by_seed) == 2
    assert shared.validations == ledger.validations
    assert shared.training_steps == 2 * ledger.training_steps
    assert "by_seed" not in shared.row()
    # Its labels are the same, and so is the controller of each seed: the best of them is one.
    assert np.array_equal(several.evaluator.codes, alone.evaluator.codes)
    same = np.array_equal(several.policy.heads, alone.policy.heads)
    assert same == (int(np.argmax(shared.by_seed)) == 0)
    with pytest.raises(UsageError, match="give at least 1"):
        train_generator(source, an_oracle(), BUDGETS, costs=costs, seeds=0)


def test_a_course_travels_whole(course: Course) -> None:
    there = unpacked(packed(course))
    rows = SMALL.sample(20, np.random.default_rng(1))
    assert there.fixed == course.fixed
    assert there.plan == course.plan
    assert there.confidence == course.confidence
    assert np.array_equal(there.budgets_ms, course.budgets_ms)
    assert np.array_equal(there.scorer(rows).score, course.scorer(rows).score)
    assert np.array_equal(there.scorer(rows).upper_ms, course.scorer(rows).upper_ms)


def test_what_a_host_would_not_know_does_not_travel(course: Course) -> None:
    limit = Limit(course.oracle, 4.0)
    with pytest.raises(UsageError, match="train the seeds here"):
        packed(replace(course, oracle=an_oracle(also=[limit])))
    knowing = an_oracle()
    knowing.know(SMALL.sample(2, np.random.default_rng(0)), np.array([3.0, 4.0]), np.ones(2))
    with pytest.raises(UsageError, match="train the seeds here"):
        packed(replace(course, oracle=knowing))


@pytest.mark.parametrize("parcel", [b"", b"no file", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_course_is_refused_in_words(parcel: bytes) -> None:
    from hwbench.search.hosts import order

    assert "refused" in trained_on_host(parcel, order({"seed": 0}))
