"""EAS: the generator learns its tasks and budgets, its answers keep them, and so does its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.errors import PredictorError, UsageError
from hwbench.predictors import BudgetOracle, files
from hwbench.search.eas import (
    EasCosts,
    TaskGenerator,
    task_dropout,
    train_task_generator,
)
from hwbench.search.eas.policy import Choices
from hwbench.search.eas.training import train_policy
from hwbench.search.generator_file import load_generator, save_generator
from hwbench.search.supernet import Supernet, TrainingPlan, train
from hwbench.spaces import get_space
from tests.eas import FIXED, GROUPS, SHORT, SPACE, ends, oracle_of
from tests.supernets import bars

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    net = Supernet(SPACE)
    plan = TrainingPlan(steps=40, batch=32, fixed=FIXED, learning_rate=0.2)
    train(net, bars(), plan, tasks=task_dropout(GROUPS))
    return net


@pytest.fixture(scope="module")
def oracle() -> BudgetOracle:
    return oracle_of(SPACE)


@pytest.fixture(scope="module")
def generator(supernet: Supernet, oracle: BudgetOracle) -> TaskGenerator:
    low, high = ends(oracle)
    costs = EasCosts(labels=3, images=20, plan=SHORT)
    found, ledger = train_task_generator(
        supernet, bars(), GROUPS, oracle, [1.05 * low, (low + high) / 2, 0.95 * high], costs=costs
    )
    assert ledger.training_steps == 38
    assert 3 < ledger.validations <= 9
    return found


def test_the_same_seed_trains_the_same_policy_and_leaves_the_supernet(
    supernet: Supernet, oracle: BudgetOracle
) -> None:
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    choices, budgets = Choices(SPACE, FIXED), np.linspace(*ends(oracle), 3)
    plan = replace(SHORT, first=3, steps=3)

    def trained(seed: int) -> dict[str, np.ndarray]:
        part = bars().validation
        policy = train_policy(
            supernet, part, oracle, GROUPS, choices, budgets, confidence=0.98, seed=seed, plan=plan
        )
        return policy.state()

    one, again, other = trained(0), trained(0), trained(1)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["w3"], other["w3"])
    assert all(torch.equal(before[n], v) for n, v in supernet.state_dict().items())
    assert all(p.requires_grad for p in supernet.parameters())


def test_the_generator_learns_to_use_its_budgets(supernet: Supernet, oracle: BudgetOracle) -> None:
    """By latency alone; the likeliest architecture itself, without any check."""
    low, high = ends(oracle)
    choices, budgets = Choices(SPACE, FIXED), np.geomspace(1.1 * low, 0.9 * high, 5)
    plan = replace(SHORT, first=250, steps=0)
    policy = train_policy(
        supernet,
        bars().validation,
        oracle,
        GROUPS,
        choices,
        budgets,
        confidence=0.98,
        seed=0,
        plan=plan,
    )
    asked = np.geomspace(budgets[0], budgets[-1], 12)
    shares = np.repeat(GROUPS.shares([GROUPS.every]), 12, axis=0)
    codes = choices.likeliest(choices.padded(policy.logits(shares, asked)))
    used = oracle.upper(codes, 0.98) / asked
    assert len(np.unique(codes, axis=0)) >= 6
    assert 0.75 < used.mean() < 1.02
    assert used.max() < 1.15


def test_the_cross_entropy_of_the_task_reaches_its_choices() -> None:
    """A supernet whose second unit tells bars apart by nothing but a 3x3 kernel."""

    class Stub(Supernet):
        def relaxed(self, x, kernel, expansion, depth):
            truth = torch.nn.functional.one_hot(self.answers, 4).float()
            by_task = kernel[0] if self.answers.min() < 2 else kernel[1]
            return 4 * truth * by_task[0] + 4 * truth.roll(1, 1) * by_task[2]

    net, choices = Stub(SPACE), Choices(SPACE, FIXED)
    part = bars().validation
    plan = replace(SHORT, first=0, steps=120, scenarios=4, over=0.0, under=0.0, rate=0.01)
    policy = train_policy(
        spied(net),
        part,
        oracle_of(SPACE),
        GROUPS,
        choices,
        np.array([1.0, 2.0]),
        confidence=0.98,
        seed=0,
        plan=plan,
    )
    logits = choices.padded(policy.logits(GROUPS.shares(GROUPS.groups), np.array([1.5, 1.5])))
    kernels = choices.likeliest(logits)[:, 3:5]
    assert kernels[0, 0] == 0  # of the flat ones, which the first layer decides
    assert kernels[1, 1] == 0  # of the slanting ones


def spied(net: Supernet) -> Supernet:
    """The stub is told the true classes of what it is shown."""
    part = bars().validation
    known = {image.tobytes(): label for image, label in zip(part.images, part.labels, strict=True)}
    plain = net.relaxed

    def told(x, kernel, expansion, depth):
        images = (x.numpy() * 255).round().astype(np.uint8)
        net.answers = torch.tensor([known[image.tobytes()] for image in images])
        return plain(x, kernel, expansion, depth)

    net.relaxed = told
    return net


scenarios = st.lists(
    st.tuples(st.sampled_from(["flat", "slant", "flat,slant", "0,2", "1,2,3"]), st.floats(0, 1)),
    min_size=1,
    max_size=12,
)


@given(scenarios)
@settings(max_examples=25, deadline=None)
def test_every_answer_keeps_its_budget(generator: TaskGenerator, asked: list) -> None:
    low, high = generator.range_ms
    pairs = [(generator.groups.task(task), low + share * (high - low)) for task, share in asked]
    found = generator.generate(pairs)
    for (task, budget), answer in zip(pairs, found, strict=True):
        assert (answer.task, answer.budget_ms) == (task.name, budget)
        assert answer.upper_ms <= budget
        bound = generator.oracle.upper(answer.code[None], generator.confidence)[0]
        assert answer.upper_ms == pytest.approx(bound, rel=1e-5)
        assert SPACE.decode(answer.code[None]) == [answer.text]
        assert answer.code[0] == 0
    assert [a.text for a in generator.generate(pairs)] == [a.text for a in found]


def test_an_answer_is_the_likeliest_that_is_within(generator: TaskGenerator) -> None:
    (task,) = [generator.groups.task("flat")]
    low, high = generator.range_ms
    for budget in np.linspace(low, high, 15):
        (answer,) = generator.generate([(task, budget)])
        (likeliest,) = generator.proposals([task], np.array([budget]))
        if generator.oracle.upper(likeliest[None], 0.98)[0] <= budget:
            assert np.array_equal(answer.code, likeliest)
            assert answer.proposed
        else:
            assert answer.upper_ms <= budget


def test_accuracy_is_a_label_or_between_labels_or_unknown(generator: TaskGenerator) -> None:
    flat = generator.groups.task("flat")
    rows = generator.labels.rows(flat)
    least, most = generator.labels.accuracy[rows].min(), generator.labels.accuracy[rows].max()
    low, high = generator.range_ms
    found = generator.generate([(flat, b) for b in np.linspace(low, high, 9)])
    assert all(least <= answer.accuracy <= most for answer in found)
    i = rows[0]
    code, label = generator.labels.codes[i], generator.labels.accuracy[i]
    assert generator.labels.of(flat, code) == label
    (unknown,) = generator.generate([(generator.groups.task("0,2"), high)])
    assert unknown.accuracy is None


def test_budgets_out_of_range_are_refused(generator: TaskGenerator) -> None:
    low, high = generator.range_ms
    for budget in (0.9 * low, 1.1 * high, -1.0, float("nan")):
        with pytest.raises(UsageError, match="budget"):
            generator.generate([(GROUPS.every, budget)])
    assert generator.generate([]) == []


def test_parts_of_another_space_are_refused(supernet: Supernet) -> None:
    other = oracle_of(get_space("mbv3_small"))
    with pytest.raises(UsageError, match="supernet is of tiny, the oracle of mbv3_small"):
        train_task_generator(supernet, bars(), GROUPS, other, [1.0, 2.0])


# --- the file ---------------------------------------------------------------------------------


def test_a_file_answers_as_the_generator_did(generator: TaskGenerator, tmp_path: Path) -> None:
    path = tmp_path / "a.hwg"
    save_generator(generator, path, objective="made up", ledger={"validations": 3})
    loaded, header = load_generator(path, space=SPACE)
    assert (header["generator"], header["objective"]) == ("eas", "made up")
    assert loaded.groups == GROUPS
    low, high = generator.range_ms
    asked = [(t, b) for t in (*GROUPS.groups, GROUPS.every) for b in np.linspace(low, high, 7)]
    for one, other in zip(generator.generate(asked), loaded.generate(asked), strict=True):
        assert (one.text, one.accuracy, one.proposed) == (
            other.text,
            other.accuracy,
            other.proposed,
        )
        assert one.upper_ms == other.upper_ms


def test_a_file_with_parts_of_another_make_is_refused(
    generator: TaskGenerator, tmp_path: Path
) -> None:
    path = tmp_path / "a.hwg"
    save_generator(generator, path, objective="made up", ledger={})
    meta, arrays = files.read(path)
    for change in (
        {"kept": arrays["kept"][:0]},
        {"accuracy": arrays["accuracy"][1:]},
        {"policy.table": arrays["policy.table"][1:]},
        {"labelled": arrays["labelled"] + 9},
    ):
        files.write(path, meta, {**arrays, **change})
        with pytest.raises(PredictorError, match="do not fit together"):
            load_generator(path, space=SPACE)
    for header in (
        {"groups": {"flat": [0, 99]}},
        {"groups": {}},
        {"groups": [1]},
        {"class_names": None},
        {"fixed": {"r": 99}},
        {"fixed": 3},
        {"labelled_tasks": [[0, 1]]},
        {"generator": ["eas"]},
        {"generator_version": 2},
    ):
        files.write(path, {**meta, **header}, arrays)
        with pytest.raises(PredictorError):
            load_generator(path, space=SPACE)
