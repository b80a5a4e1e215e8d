"""PNAG: the controller says what it samples, the generator keeps its budgets, the file its word."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.errors import PredictorError, UsageError
from hwbench.predictors import BudgetOracle, MacsLine, Provenance, fit_predictor
from hwbench.search.accuracy import CallableAccuracy
from hwbench.search.confirm import CHOSEN
from hwbench.search.ledger import SearchLedger
from hwbench.search.pnag import (
    Costs,
    Generator,
    Schedule,
    load_generator,
    require_reachable,
    save_generator,
    train_generator,
)
from hwbench.search.pnag.policy import Policy, Walk, interpolation
from hwbench.search.pnag.training import train_policy
from hwbench.search.scoring import Scorer, best_each
from hwbench.spaces import Space, get_space
from hwbench.testing.predictors import made_up_training
from tests.searches import Exact, SlowDevice, Toy, ToyOracle, toy_accuracy

TOY, SMALL = Toy(), get_space("mbv3_small")
BUDGETS = np.array([2.0, 4.0, 7.0])
SHORT = Schedule(steps=25, last=40, strata=6, samples=8)


#: Predictions of one architecture differ by so much between one batch and another.
ROUNDING = 1e-5


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Other tests run on the other cores."""
    from hwbench.search.pnag import controller

    with controller.one_thread(0):
        yield


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scorer() -> Scorer:
    return Scorer(TOY, Exact(), ToyOracle(TOY), 0.98, SearchLedger())


# --- the controller ---------------------------------------------------------------------------


def controller(space: Space, seed: int = 0):
    import torch

    from hwbench.search.pnag.controller import Controller

    torch.manual_seed(seed)
    return Controller(Walk(space), BUDGETS, 0.01, 10)


def test_the_probabilities_of_all_architectures_add_up_to_one() -> None:
    """Over canonical codes, so decisions that do not exist are neither counted nor sampled."""
    high = np.asarray(TOY.cardinalities)
    raw = np.stack(np.meshgrid(*map(np.arange, high), indexing="ij"), axis=-1).reshape(-1, 6)
    codes = np.unique(TOY.canonical(raw.astype(np.int16)), axis=0)
    likelihood, entropy = controller(TOY).log_likelihood(codes, np.full(len(codes), 3.0))
    probability = np.exp(likelihood.detach().numpy().astype(float))
    assert probability.sum() == pytest.approx(1, abs=1e-5)
    assert (entropy.detach().numpy() > 0).all()


def test_the_probabilities_of_what_is_left_free_add_up_to_one() -> None:
    import torch

    from hwbench.search.pnag.controller import Controller

    torch.manual_seed(0)
    fixed = {"w0": 8, "mode": "b"}
    high = np.asarray(TOY.cardinalities)
    raw = rng().integers(0, high, (20_000, 6)).astype(np.int16)
    for column, code in TOY.pinned(fixed).items():
        raw[:, column] = code
    codes = np.unique(TOY.canonical(raw), axis=0)
    trained = Controller(Walk(TOY, fixed), BUDGETS, 0.01, 10)
    likelihood, _ = trained.log_likelihood(codes, np.full(len(codes), 3.0))
    assert np.exp(likelihood.detach().numpy().astype(float)).sum() == pytest.approx(1, abs=1e-5)


def test_samples_come_as_often_as_the_controller_says() -> None:
    trained = controller(TOY)
    asked = np.full(20_000, 2.9)
    codes = trained.policy().draw(Walk(TOY), asked, rng())
    assert np.array_equal(codes, TOY.canonical(codes))
    distinct, count = np.unique(codes, axis=0, return_counts=True)
    often = count > 60
    likelihood, _ = trained.log_likelihood(distinct[often], asked[: often.sum()])
    expected = len(asked) * np.exp(likelihood.detach().numpy())
    assert often.sum() > 50
    assert (np.abs(count[often] - expected) < 5 * np.sqrt(expected)).all()


def test_the_greedy_walk_takes_the_likeliest_value_each_time() -> None:
    trained, walk = controller(TOY), Walk(TOY)
    (code,) = trained.policy().draw(walk, np.array([5.0]))
    for j in np.flatnonzero(TOY.active(code[None])[0]):
        others = np.repeat(code[None], TOY.cardinalities[j], axis=0)
        others[:, j] = np.arange(TOY.cardinalities[j])
        others[:, j + 1 :] = 0  # what follows is no part of this choice
        likelihood, _ = trained.log_likelihood(others, np.full(len(others), 5.0))
        prefix = likelihood.detach().numpy() - _rest(trained, others, j)
        assert prefix.argmax() == code[j]


def _rest(trained, codes: np.ndarray, j: int) -> np.ndarray:
    """Log-probability of the decisions after ``j``: the sum less that of all continuations."""
    tails = []
    for code in codes:
        high = np.asarray(TOY.cardinalities[j + 1 :])
        grid = np.stack(np.meshgrid(*map(np.arange, high), indexing="ij"), axis=-1)
        grid = grid.reshape(-1, len(high)) if len(high) else np.zeros((1, 0), int)
        full = np.concatenate([np.repeat(code[None, : j + 1], len(grid), axis=0), grid], axis=1)
        full = np.unique(TOY.canonical(full.astype(np.int16)), axis=0)
        every, _ = trained.log_likelihood(full, np.full(len(full), 5.0))
        own, _ = trained.log_likelihood(code[None], np.full(1, 5.0))
        tails.append(float(own.detach()) - np.logaddexp.reduce(every.detach().numpy()))
    return np.array(tails)


@given(st.floats(0.01, 100))
def test_a_budget_lies_between_its_two_neighbours(budget: float) -> None:
    log_budgets = np.log(BUDGETS).astype(np.float32)
    (weights,) = interpolation(log_budgets, np.array([budget]))
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    assert (weights > 0).sum() <= 2
    held = np.clip(np.log(budget), log_budgets[0], log_budgets[-1])
    assert weights @ log_budgets == pytest.approx(held, abs=1e-4)


def test_weights_that_do_not_fit_the_space_are_refused() -> None:
    state = controller(TOY).policy().state()
    assert Policy.restored(state, TOY).draw(Walk(TOY), BUDGETS).shape == (3, 6)
    with pytest.raises(ValueError, match="tokens has shape"):
        Policy.restored(state, get_space("nasbench201"))
    with pytest.raises(ValueError, match="do not ascend"):
        Policy.restored({**state, "log_budgets": state["log_budgets"][::-1]}, TOY)
    with pytest.raises(KeyError):
        Policy.restored({}, TOY)


# --- training ---------------------------------------------------------------------------------


def test_training_finds_the_front_and_the_controller_learns_it() -> None:
    ask = scorer()
    policy, archive = train_policy(ask, BUDGETS, TOY.sample(20, rng()), seed=0, plan=SHORT)
    everyone = Exact().score(codes := TOY.all_codes()), ToyOracle(TOY).upper(codes, 0.98)
    unseen = np.geomspace(2.2, 6.8, 9)
    possible = np.array([everyone[0][everyone[1] <= b].max() for b in unseen])
    found = archive.score[best_each(archive, unseen)]
    assert (possible - found).max() < 0.02
    drawn = ask(policy.draw(Walk(TOY), unseen))
    kept = drawn.upper_ms <= unseen
    assert kept.mean() >= 0.7
    assert np.abs(possible - drawn.score)[kept].max() < 0.06
    assert len(np.unique(drawn.codes, axis=0)) >= 4  # it has not collapsed
    assert ask.ledger.training_steps == 65


def test_the_same_seed_trains_the_same_policy() -> None:
    plan = Schedule(steps=3, last=2)
    runs = [
        train_policy(scorer(), BUDGETS, TOY.sample(9, rng()), seed=s, plan=plan) for s in (1, 1, 2)
    ]
    states = [policy.state() for policy, _ in runs]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    assert not np.array_equal(states[0]["heads"], states[2]["heads"])


# --- the generator ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def oracle() -> BudgetOracle:
    provenance = Provenance("cpu", "a" * 32, "made up", 1)
    training = made_up_training(SMALL, 40)
    return BudgetOracle(fit_predictor(SMALL, training, provenance, kind=MacsLine.kind))


def small_accuracy(codes: np.ndarray) -> np.ndarray:
    macs = SMALL.macs(codes) / 9e6
    return 0.7 + 0.2 * np.tanh(macs) + 0.002 * (codes[:, 6:26] == 1).sum(axis=1)


@pytest.fixture(scope="module")
def generator(oracle: BudgetOracle) -> Generator:
    source = CallableAccuracy(SMALL, small_accuracy)
    costs = Costs(40, plan=Schedule(steps=5, last=5))
    budgets = np.quantile(oracle.upper(SMALL.sample(200, rng())), [0.1, 0.5, 0.9])
    return train_generator(source, oracle, list(budgets), costs=costs)[0]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_every_answer_keeps_its_budget(generator: Generator, shares: list[float]) -> None:
    low, high = generator.range_ms
    budgets = [low + share * (high - low) for share in shares]
    answers = generator.generate(budgets)
    assert [a.budget_ms for a in answers] == budgets
    codes = np.array([a.code for a in answers])
    upper = generator.oracle.upper(codes, generator.confidence)
    assert (upper <= np.array(budgets) * (1 + ROUNDING)).all()
    assert np.allclose(upper, [a.upper_ms for a in answers], rtol=ROUNDING)
    assert all(a.upper_ms <= a.budget_ms for a in answers)
    assert SMALL.decode(codes) == [a.text for a in answers]
    assert all(a.predicted_ms < a.upper_ms for a in answers)
    assert [a.text for a in generator.generate(budgets)] == [a.text for a in answers]


def test_measurements_calibrate_the_bounds_of_what_was_not_measured(oracle: BudgetOracle) -> None:
    """On a device that takes 30 % longer than predicted, which no bound allowed for."""
    device = SlowDevice(oracle.predictor, 0.3)
    asked = BudgetOracle(oracle.predictor, measurer=device)
    source = CallableAccuracy(SMALL, small_accuracy)
    budgets = np.quantile(1.3 * oracle.upper(SMALL.sample(200, rng())), [0.1, 0.9])
    costs = Costs(40, measurements=40, plan=Schedule(steps=5, last=5))
    made, ledger = train_generator(source, asked, list(budgets), costs=costs)
    assert CHOSEN <= ledger.device_measurements == len(device.asked) <= 40
    low, high = made.range_ms
    answers = made.generate(list(np.geomspace(low, high, 40)))
    unmeasured = [a for a in answers if a.code.tobytes() not in device.asked]
    assert unmeasured
    for answer in answers:
        truth = oracle.predictor.predict(answer.code[None]).mean_ms[0] * 1.3
        assert truth <= 1.01 * answer.budget_ms


def test_unordered_and_repeated_budgets_are_answered_as_given(generator: Generator) -> None:
    low, high = generator.range_ms
    budgets = [high, low, (low + high) / 2, low, high]
    answers = generator.generate(budgets)
    assert [a.budget_ms for a in answers] == budgets
    assert answers[1].text == answers[3].text
    assert answers[0].text == answers[4].text
    assert answers[1].accuracy <= answers[2].accuracy <= answers[0].accuracy
    assert generator.generate([]) == []


def test_a_budget_out_of_range_says_the_range(generator: Generator) -> None:
    low, high = generator.range_ms
    for budget in (0.9 * low, 1.1 * high):
        with pytest.raises(UsageError, match=r"outside what can be reached here: give [\d.]+ to"):
            generator.generate([(low + high) / 2, budget])
    for budget in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="give a positive number"):
            generator.generate([budget])
    with pytest.raises(UsageError) as caught:
        generator.generate([0.5 * low])
    words = str(caught.value).split()
    said = [float(words[words.index("to") + step]) for step in (-1, 1)]
    assert len(generator.generate(said)) == 2  # what it says can be given back to it


def test_training_refuses_what_does_not_fit(oracle: BudgetOracle) -> None:
    source = CallableAccuracy(SMALL, small_accuracy)
    with pytest.raises(UsageError, match="at least two different budgets"):
        train_generator(source, oracle, [3.0, 3.0])
    with pytest.raises(UsageError, match="of 3 ms differ by less than 1e-6"):
        train_generator(source, oracle, [3.0, 3.0 * (1 + 1e-9), 4.0])
    with pytest.raises(UsageError, match="positive number"):
        train_generator(source, oracle, [3.0, float("nan")])
    with pytest.raises(UsageError, match="of toy, the oracle of mbv3_small"):
        train_generator(CallableAccuracy(TOY, toy_accuracy), oracle, [3.0, 4.0])
    with pytest.raises(UsageError, match="outside what mbv3_small can reach: give"):
        require_reachable(oracle, [1e-3, 1.0], 0.98)


def test_what_is_fixed_is_so_in_labels_candidates_and_answers(
    oracle: BudgetOracle, tmp_path: Path
) -> None:
    asked = []

    def accuracy(codes: np.ndarray) -> np.ndarray:
        asked.append(codes)
        return small_accuracy(codes)

    fixed, costs = {"r": 28, "d1": 3, "e0": 4}, Costs(30, plan=Schedule(steps=3, last=3))
    source = CallableAccuracy(SMALL, accuracy)
    made, _ = train_generator(source, oracle, [3.0, 5.0], costs=costs, fixed=fixed)
    save_generator(made, tmp_path / "a.hwg", objective="made up", ledger={})
    generator, header = load_generator(tmp_path / "a.hwg")
    assert header["fixed"] == fixed
    assert isinstance(generator, Generator)
    budgets = np.linspace(*generator.range_ms, 30)
    proposed = generator.policy.draw(Walk(SMALL, generator.fixed), budgets, rng())
    answers = np.stack([answer.code for answer in generator.generate(list(budgets))])
    for codes in (*asked, generator.kept, generator.proposals(budgets).codes, proposed, answers):
        for column, code in SMALL.pinned(fixed).items():
            assert (codes[:, column] == code).all()
    with pytest.raises(UsageError, match="outside what mbv3_small can reach"):
        require_reachable(oracle, [generator.range_ms[0], 1e3], 0.98, fixed=fixed)


# --- the file ---------------------------------------------------------------------------------


def test_limits_beside_the_budget_are_not_lost_in_a_file(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BudgetOracle, "limited", True)
    with pytest.raises(UsageError, match="no file keeps them"):
        save_generator(generator, tmp_path / "a.hwg", objective="made up", ledger={})
    assert not (tmp_path / "a.hwg").exists()


def test_a_file_answers_as_the_generator_did(generator: Generator, tmp_path: Path) -> None:
    codes = SMALL.sample(3, rng(5))
    generator.oracle.know(codes, [1.0, 2.0, 3.0], 0.01)
    path = tmp_path / "a.hwg"
    save_generator(generator, path, objective="made up", ledger={"validations": 60})
    loaded, header = load_generator(path, fingerprint_key="a" * 32)
    assert header["objective"] == "made up"
    budgets = list(np.linspace(*loaded.range_ms, 40))
    for one, other in zip(generator.generate(budgets), loaded.generate(budgets), strict=True):
        assert one.text == other.text
        assert one.upper_ms == other.upper_ms
        assert one.accuracy == pytest.approx(other.accuracy, abs=1e-9)
    assert loaded.oracle.latency(codes).tolist() == [1.0, 2.0, 3.0]


def test_a_file_of_another_device_or_kind_is_refused(generator: Generator, tmp_path: Path) -> None:
    path = tmp_path / "a.hwg"
    save_generator(generator, path, objective="made up", ledger={})
    with pytest.raises(PredictorError, match=r"a\.hwg was fitted on another device"):
        load_generator(path, fingerprint_key="b" * 32)
    with pytest.raises(PredictorError, match="not of toy"):
        load_generator(path, space=TOY)
    generator.oracle.predictor.save(tmp_path / "a.hwp")
    with pytest.raises(PredictorError, match="is no generator"):
        load_generator(tmp_path / "a.hwp")


def test_a_damaged_file_is_refused(generator: Generator, tmp_path: Path) -> None:
    path = tmp_path / "a.hwg"
    save_generator(generator, path, objective="made up", ledger={})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, content in members.items():
        broken = tmp_path / "b.hwg"
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        with zipfile.ZipFile(broken, "w") as archive:
            for other, data in {**members, name: flipped}.items():
                archive.writestr(other, data)
        with pytest.raises(PredictorError):
            load_generator(broken)


def _known(codes: np.ndarray, ms: float, sd_ms: float) -> dict[str, np.ndarray]:
    """Measurements of a generator's file, all the same."""
    return {
        "known": codes,
        "known_ms": np.full(len(codes), float(ms)),
        "known_sd_ms": np.full(len(codes), float(sd_ms)),
    }


def test_a_file_with_parts_of_another_make_is_refused(generator: Generator, tmp_path: Path) -> None:
    """Checksums hold, but what they cover does not fit together."""
    from hwbench.predictors import files

    path = tmp_path / "a.hwg"
    save_generator(generator, path, objective="made up", ledger={})
    meta, arrays = files.read(path)
    for change in (
        {"kept": arrays["kept"][:0]},
        {"kept": arrays["kept"] + 9},
        {"accuracy": arrays["accuracy"][1:]},
        {"accuracy": arrays["accuracy"][:0], "labelled": arrays["labelled"][:0]},
        {"policy.heads": arrays["policy.heads"][1:]},
        {"known": arrays["labelled"]},
        {"accuracy": np.full_like(arrays["accuracy"], 1e300)},
        {"accuracy": np.full_like(arrays["accuracy"], -3.0)},
        {"policy.heads": np.full_like(arrays["policy.heads"], 1e38)},
        {"extra": np.zeros(3)},
        *(_known(arrays["kept"][:3], *each) for each in ((-1, 0.1), (0, 0), (1, -5), (1e10, 0))),
        {**_known(arrays["kept"][:3], 1.0, 0.1), "known_ms": np.ones(1)},
    ):
        files.write(path, meta, {**arrays, **change})
        with pytest.raises(PredictorError, match=r"a\.hwg: its parts do not fit together"):
            load_generator(path)
    for header in (
        {"generator_version": 99},
        {"confidence": 2.0},
        {"scales": {**meta["scales"], "noise": "much"}},
        {"scales": {**meta["scales"], "noise": -1.0}},
        {"scales": {"length": 1.0}},
        {"fixed": {"r": 28}},
        {"fixed": [["r", 28]]},
        {"confidence": 10**400},
        {"confidence": "0.98"},
        {"space": "nasbench201"},
        {"fingerprint_key": "b" * 32},
    ):
        files.write(path, {**meta, **header}, arrays)
        with pytest.raises(PredictorError):
            load_generator(path)


# --- the paper's evaluator --------------------------------------------------------------------


def test_the_papers_evaluator_ranks_under_budgets() -> None:
    from hwbench.search.pnag.ranking import RankingEvaluator, kendall_tau

    codes = rng().permutation(TOY.all_codes())
    known, unknown = scorer()(codes[:80]), scorer()(codes[80:])
    evaluator = RankingEvaluator(TOY, BUDGETS)
    unseen = np.array([2.5, 3.3, 5.5])
    before = kendall_tau(evaluator, unknown, unseen)
    evaluator.fit(known, steps=60)
    assert kendall_tau(evaluator, unknown, unseen) > max(0.7, before + 0.3)
    one, other = RankingEvaluator(TOY, BUDGETS), RankingEvaluator(TOY, BUDGETS)
    one.fit(known, steps=2)
    other.fit(known, steps=2)
    assert np.array_equal(one.score(unknown, unseen), other.score(unknown, unseen))


def test_the_papers_reward_trains_the_controller_too() -> None:
    from hwbench.search.pnag.ranking import RankingEvaluator

    ask = scorer()
    evaluator = RankingEvaluator(TOY, BUDGETS)
    evaluator.fit(ask(TOY.all_codes()), steps=60)
    published = Schedule(
        steps=60, last=0, strata=6, samples=10, neighbours=0, first=10, imitation=0
    )
    policy, _ = train_policy(
        ask, BUDGETS, TOY.sample(5, rng()), seed=0, plan=published, reward=evaluator.score
    )
    asked = np.repeat(np.array([2.5, 6.5]), 200)
    drawn = ask(policy.draw(Walk(TOY), asked, rng()))
    chance = ask(TOY.all_codes())
    kept = drawn.upper_ms <= asked
    assert kept[:200].mean() > (chance.upper_ms <= 2.5).mean() + 0.2
    assert drawn.score[200:].mean() > chance.score.mean()
