"""EAS: tasks are what they say, latency has its gradient, answers keep their budgets, files too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.cli import main
from hwbench.errors import PredictorError, UsageError
from hwbench.predictors import BudgetOracle, MacsLine, Provenance, files, fit_predictor
from hwbench.search.data import digits
from hwbench.search.eas import (
    EasCosts,
    Lesson,
    Task,
    TaskDropout,
    TaskGenerator,
    TaskGroups,
    read_tasks,
    task_dropout,
    train_task_generator,
)
from hwbench.search.eas.conditional import ConditionalNet, sampled_gates, straight_through
from hwbench.search.eas.generator import Labels
from hwbench.search.eas.latency import ExpectedLatency
from hwbench.search.eas.policy import Choices, TaskPolicy
from hwbench.search.eas.training import Latency, relaxed, train_policy
from hwbench.search.generator_file import load_generator, save_generator
from hwbench.search.supernet import Supernet, TrainingPlan, largest, smallest, train
from hwbench.search.supernet.elastic import Norms
from hwbench.spaces import get_space
from hwbench.testing.predictors import made_up_training
from tests.searches import Toy
from tests.supernets import bars, tiny_space

SPACE, TOY = tiny_space(), Toy()
FIXED = {"r": 12}
GROUPS = TaskGroups("bars", bars().classes, (Task("flat", (0, 1)), Task("slant", (2, 3))))
SHORT = Lesson(first=30, steps=8, scenarios=2, images=16, kept=16)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Other tests run on the other cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- tasks ------------------------------------------------------------------------------------


def test_classes_are_named_numbered_or_grouped() -> None:
    assert GROUPS.task("bars:across,2") == Task("across,2", (0, 2))
    assert GROUPS.task("slant,0").classes == (0, 2, 3)
    assert GROUPS.task("3, down").classes == (1, 3)
    assert GROUPS.every == Task("flat+slant", (0, 1, 2, 3))
    assert GROUPS.union(["slant"]).classes == (2, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("digits:0,1", "is of digits, but this knows tasks of bars"),
        ("0,7", "unknown class of bars '7'"),
        ("bars:acros,1", "did you mean 'across'"),
        ("bars:1", "has 1 class: there is nothing to tell apart"),
        ("bars:", "has no classes"),
        ("", "has no classes"),
    ],
)
def test_what_is_no_task_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        GROUPS.task(text)


def test_a_class_of_no_group_is_not_known() -> None:
    few = replace(GROUPS, groups=GROUPS.groups[:1])
    with pytest.raises(UsageError, match="'falling' is in none of the groups that are known: flat"):
        few.task("0,falling")


def test_shares_are_the_mean_over_what_is_active() -> None:
    tasks = [*GROUPS.groups, GROUPS.every, Task("", (0, 2)), Task("", (0, 1, 2))]
    expected = [[1, 0], [0, 1], [0.5, 0.5], [0.5, 0.5], [2 / 3, 1 / 3]]
    assert GROUPS.shares(tasks) == pytest.approx(np.array(expected))
    shared = replace(GROUPS, groups=(Task("a", (0, 1, 2)), Task("b", (2, 3))))
    assert shared.shares([Task("", (1, 2))]) == pytest.approx(np.array([[0.75, 0.25]]))


def test_groups_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps({"flat": ["down", "0"], "slant": ["rising", 2]}))
    assert read_tasks(path, "bars", bars().classes) == GROUPS
    assert TaskGroups.restored(json.loads(json.dumps(GROUPS.plain()))) == GROUPS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": ["across", "sideways"]}', "unknown class of bars 'sideways'"),
        ('{"a": [0, 4]}', "unknown class of bars '4'"),
        ('{"a": [0, true]}', "unknown class of bars 'True'"),
        ('{"a": []}', "task 'a' has no classes"),
        ('{"a": ["down"]}', "task 'a' has 1 class:"),
        ('{"a": ["down", 1]}', "names a class twice"),
        ('{"a": "down"}', "is no list"),
        ('{"a,b": [0, 1]}', "a name is a word without"),
        ('["down"]', "is no object"),
        ("{}", "name at least one"),
        ("{", "is no JSON"),
    ],
)
def test_a_file_of_no_tasks_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=words):
        read_tasks(path, "bars", bars().classes)


def test_a_step_keeps_a_random_subset_of_the_groups() -> None:
    groups = ((0, 1), (2, 3), (3, 4))
    drawn = [TaskDropout(groups)(rng(i)) for i in range(3000)]
    whole = np.mean([classes is None for classes in drawn])
    assert 0.36 < whole < 0.44
    some = [classes for classes in drawn if classes is not None]
    subsets = {(0, 1), (2, 3), (3, 4), (0, 1, 2, 3), (0, 1, 3, 4), (2, 3, 4), (0, 1, 2, 3, 4)}
    assert set(some) == subsets  # the empty one never
    for subset in subsets:  # alike: p = .5 for each group, drawn again where none is kept
        assert 0.11 < np.mean([classes == subset for classes in some]) < 0.175
    assert [TaskDropout(groups)(rng(i)) for i in range(50)] == drawn[:50]


def test_a_checkpoint_knows_the_tasks_it_was_trained_on(tmp_path: Path) -> None:
    plan, path = TrainingPlan(steps=1, batch=4), tmp_path / "supernet.pt"
    train(Supernet(SPACE), bars(), plan, checkpoint=path, tasks=task_dropout(GROUPS))
    train(Supernet(SPACE), bars(), plan, checkpoint=path, tasks=task_dropout(GROUPS))
    for other in (None, task_dropout(replace(GROUPS, groups=GROUPS.groups[:1]))):
        with pytest.raises(UsageError, match=r"another training \(tasks differ"):
            train(Supernet(SPACE), bars(), plan, checkpoint=path, tasks=other)


# --- latency ----------------------------------------------------------------------------------


def oracle_of(space: object, kind: str | None = MacsLine.kind) -> BudgetOracle:
    place = Provenance("cpu", "a" * 32, "made up", 1)
    return BudgetOracle(fit_predictor(space, made_up_training(space, 40), place, kind=kind))


def one_hot(choices: Choices, codes: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(codes).long(), choices.shape[1]).float()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_expected_latency_is_the_tables_at_choices_and_the_mean_over_them(seed: int) -> None:
    """Of layers that may not be there too; against every architecture with its probability."""
    generator = rng(seed)
    choices, table = Choices(TOY, {}), toy_table(seed)
    expected = ExpectedLatency(table)
    codes = TOY.sample(20, generator)
    assert expected(one_hot(choices, codes)).numpy() == pytest.approx(table.latency(codes))
    gates = np.where(choices.there, generator.random(choices.shape), 0)
    gates /= gates.sum(axis=1, keepdims=True)
    raw = np.indices(TOY.cardinalities).reshape(len(TOY.cardinalities), -1).T.astype(np.int16)
    chance = np.prod(gates[np.arange(raw.shape[1]), raw], axis=1)
    mean = (chance * table.latency(TOY.canonical(raw))).sum()
    found = expected(torch.from_numpy(gates[None]).float())
    assert found.item() == pytest.approx(mean, rel=1e-5)


def toy_table(seed: int):
    """Entries over a pair whose second decision hangs on a third, over one, and over a chain."""
    from hwbench.predictors.table import LatencyTable

    parts = (("w0", "w2"), ("branch", "mode"), ("w1",), ("depth",))
    size = dict(zip([d.name for d in TOY.decisions], TOY.cardinalities, strict=True))
    entries = tuple(rng(seed).random([size[name] for name in part]) for part in parts)
    return LatencyTable(TOY, {}, 0.7, parts, entries, 0.0)


def test_latency_is_the_oracles_bound_and_its_gradient_the_tables() -> None:
    choices, oracle = Choices(SPACE, FIXED), oracle_of(SPACE)
    latency = Latency(oracle, choices, 0.98, 0)
    codes = SPACE.sample(10, rng(), fixed=FIXED)
    logits = torch.where(torch.from_numpy(choices.allowed), 3 * one_hot(choices, codes), -1e9)
    logits.requires_grad_()
    found = latency(logits)
    assert found.detach().numpy() == pytest.approx(oracle.upper(codes, 0.98), rel=1e-4)
    found.sum().backward()
    active = SPACE.active(codes)
    moved = (logits.grad.numpy() != 0).any(axis=2)
    assert moved[:, 1:3].all()  # depths
    assert not moved[:, 0].any()  # the resolution is fixed
    assert not moved[~active].any()
    assert moved[:, 3:][active[:, 3:]].mean() > 0.9


# --- gates ------------------------------------------------------------------------------------


def test_gates_are_choices_with_the_gradient_of_probabilities() -> None:
    logits = torch.tensor([[[0.0, 1.0, -1e9], [2.0, 0.0, 1.0]]], requires_grad=True)
    torch.manual_seed(0)
    many = torch.stack([sampled_gates(logits, 1.0) for _ in range(4000)])
    assert set(many.detach().unique().round(decimals=5).abs().tolist()) == {0.0, 1.0}
    often = many.mean(0).detach()
    assert torch.allclose(often, logits.softmax(-1), atol=0.03)
    (straight_through(logits.softmax(-1))[0, 1] * torch.tensor([1.0, 5.0, 0.0])).sum().backward()
    p = logits.detach()[0, 1].softmax(-1)
    value = torch.tensor([1.0, 5.0, 0.0])
    assert torch.allclose(logits.grad[0, 1], p * (value - p @ value), atol=1e-6)


def test_hard_gates_run_the_path_of_their_choices() -> None:
    net, choices = Supernet(SPACE), Choices(SPACE, FIXED)
    images = torch.rand(8, 1, 12, 12)
    for code in SPACE.sample(5, rng(), fixed=FIXED):
        (gates,) = one_hot(choices, code[None])
        expected = net(images, code, Norms())
        assert torch.allclose(relaxed(net, images, gates), expected, atol=1e-4)


# --- the policy -------------------------------------------------------------------------------


def untrained(choices: Choices, seed: int = 0) -> ConditionalNet:
    torch.manual_seed(seed)
    return ConditionalNet(choices, 2, np.array([1.0, 2.0, 4.0]), 1e-3)


def test_arrays_answer_as_the_net_that_they_are_of() -> None:
    choices = Choices(SPACE, FIXED)
    net = untrained(choices)
    shares, budgets = GROUPS.shares([*GROUPS.groups, GROUPS.every]), np.array([0.5, 1.3, 9.0])
    found = choices.padded(net.policy().logits(shares, budgets))
    assert found == pytest.approx(net.logits(shares, budgets).detach().numpy(), abs=1e-4)
    codes = choices.likeliest(found)
    assert (codes[:, 0] == 0).all()
    assert np.array_equal(codes, SPACE.canonical(codes))


def test_the_shortfall_is_what_likelier_choices_have_more() -> None:
    choices = Choices(TOY, {"depth": 2})
    logits = choices.padded(rng().standard_normal((3, choices.size)).astype(np.float32))
    codes = TOY.sample(50, rng(), fixed={"depth": 2})
    lost = choices.shortfall(logits, codes)
    for i in range(3):
        for j, code in enumerate(codes):
            on = np.flatnonzero(TOY.active(code[None])[0])
            below = [logits[i, k].max() - logits[i, k, code[k]] for k in on]
            assert lost[i, j] == pytest.approx(-sum(below), abs=1e-4)
    best = choices.likeliest(logits)
    assert np.diag(choices.shortfall(logits, best)) == pytest.approx(0)
    other = TOY.sample(1, rng(), fixed={"depth": 3})
    assert (choices.shortfall(logits, other) < -1e8).all()


def test_weights_that_do_not_fit_are_refused() -> None:
    choices = Choices(SPACE, FIXED)
    state = untrained(choices).policy().state()
    assert TaskPolicy.restored(state, 2, choices.size).table.shape == (2, 64)
    with pytest.raises(ValueError, match="table has shape"):
        TaskPolicy.restored(state, 3, choices.size)
    with pytest.raises(ValueError, match="w3 has shape"):
        TaskPolicy.restored(state, 2, choices.size + 1)
    with pytest.raises(ValueError, match="do not ascend"):
        TaskPolicy.restored({**state, "log_budgets": state["log_budgets"][::-1]}, 2, choices.size)
    with pytest.raises(KeyError):
        TaskPolicy.restored({name: a for name, a in state.items() if name != "b1"}, 2, choices.size)


# --- training and answers ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    net = Supernet(SPACE)
    plan = TrainingPlan(steps=40, batch=32, fixed=FIXED, learning_rate=0.2)
    train(net, bars(), plan, tasks=task_dropout(GROUPS))
    return net


@pytest.fixture(scope="module")
def oracle() -> BudgetOracle:
    return oracle_of(SPACE)


def ends(oracle: BudgetOracle) -> tuple[float, float]:
    low, high = oracle.upper(np.stack([smallest(SPACE, FIXED), largest(SPACE, FIXED)]), 0.98)
    return float(low), float(high)


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


# --- the verb ---------------------------------------------------------------------------------


@pytest.fixture
def ready(supernet: Supernet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A generator of a space that the verb knows by name."""
    monkeypatch.chdir(tmp_path)
    space = get_space("mbv3_small")
    choices, place = Choices(space, {"r": 28}), Provenance("cpu", "0" * 32, "made up", 1)
    training = made_up_training(space, 40)
    asked = BudgetOracle(fit_predictor(space, training, place, kind=MacsLine.kind))
    kept = np.stack([smallest(space, {"r": 28}), largest(space, {"r": 28})])
    labels = Labels([(0, 1)], kept[:1], np.array([0.75]))
    found = TaskGenerator(
        untrained(choices).policy(), GROUPS, choices.fixed, labels, asked, kept, 0.98
    )
    save_generator(found, tmp_path / "tasks.hwg", objective="made up", ledger={})
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main([*arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_verb_answers_tasks(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "generate",
        "tasks.hwg",
        "--task",
        "bars:across,1",
        "--budget",
        "1.9ms",
        "--budget",
        "1ms",
    ]
    code, out, err = run(capsys, *command, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert set(found) == {"results", "seconds"}
    assert [r["budget_ms"] for r in found["results"]] == [1.9, 1.0]
    for result in found["results"]:
        assert set(result) == {
            "budget_ms", "task", "architecture", "predicted_ms", "upper_ms", "measured_ms",
            "low_ms", "high_ms", "kept", "accuracy", "from",
        }  # fmt: skip
        assert result["task"] == "across,1"
        assert result["accuracy"] == 0.75
        assert result["upper_ms"] <= result["budget_ms"]
        assert result["architecture"].startswith("r28 ")
    code, out, _ = run(capsys, *command)
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--budget 1ms", "answers a budget for a task: give --task, as bars:flat,"),
        ("--budget 1ms --task 0,9", "unknown class of bars '9'"),
        ("--budget 1ms --task digits:0,1", "is of digits, but this knows tasks of bars"),
        ("--budget 1ms --task 3", "has 1 class"),
        ("--budget 99ms --task flat", "outside what can be reached here"),
        ("--budget 1ms --task flat --measure", "another device or runtime"),
    ],
)
def test_the_verb_refuses_in_one_line(
    ready: Path, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    code, out, err = run(capsys, "generate", "tasks.hwg", *arguments.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


@pytest.fixture
def searchable(ready: Path) -> Path:
    """A predictor, a supernet that has hardly begun, and groups of digits."""
    loaded, _ = load_generator(ready / "tasks.hwg")
    loaded.oracle.predictor.save(ready / "cpu-mbv3_small.hwp")
    space, plan = get_space("mbv3_small"), TrainingPlan(steps=1, batch=4, fixed={"r": 28})
    net = Supernet(space)
    train(net, digits(), plan, checkpoint=ready / "net.pt")
    groups = {"round": ["0", 6, 8, 9], "straight": [1, 4, 7]}
    (ready / "groups.json").write_text(json.dumps(groups))
    (ready / "odd.json").write_text(json.dumps({"odd": ["1", "eleven"]}))
    return ready


SEARCH = "search eas -s mbv3_small --budgets 0.9ms,1.9ms"


def test_the_verb_searches_for_tasks(
    searchable: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less of everything: what is tried is the way from the options to a file that answers."""
    short = EasCosts(labels=1, images=20, plan=replace(SHORT, first=5, steps=1, kept=4))

    def hasty(*arguments, costs: EasCosts, **others):
        assert costs.labels == 21 // 3
        return train_task_generator(*arguments, costs=short, **others)

    monkeypatch.setattr("hwbench.search.eas.train_task_generator", hasty)
    files = "--tasks groups.json --supernet net.pt --data digits --labels 21 --json"
    code, out, err = run(capsys, *SEARCH.split(), *files.split())
    assert code == 0, err
    found = json.loads(out)
    assert found["tasks"] == {"round": ["0", "6", "8", "9"], "straight": ["1", "4", "7"]}
    assert found["data"] == "digits"
    command = "generate cpu-mbv3_small.hwg --task digits:0,1,7 --budget 1.5ms --json"
    code, out, err = run(capsys, *command.split())
    assert code == 0, err
    (answer,) = json.loads(out)["results"]
    assert (answer["task"], answer["accuracy"]) == ("0,1,7", None)
    code, _, err = run(capsys, *command.replace("0,1,7", "0,3").split())
    assert (code, "'3' is in none of the groups" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (SEARCH, "Missing option '--tasks'"),
        (f"{SEARCH} --supernet net.pt --data digits", "Missing option '--tasks'"),
        (f"{SEARCH} --measurements 3", "No such option: --measurements"),
        (f"{SEARCH} --accuracy table.npz", "No such option: --accuracy"),
        (
            f"{SEARCH} --supernet net.pt --data digits --tasks odd.json",
            "unknown class of digits 'eleven'",
        ),
        (
            "search eas -s mbv3_small --budgets 0.1ms,1.9ms --supernet net.pt --data digits "
            "--tasks groups.json",
            "a budget of 0.1 ms is outside what mbv3_small with r 28 can reach",
        ),
        (
            "search pnag -s mbv3_small --budgets 0.9ms,1.9ms --tasks groups.json",
            "No such option: --tasks",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused_in_one_line(
    searchable: Path, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    code, out, err = run(capsys, *arguments.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
