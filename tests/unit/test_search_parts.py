"""What searches are made of: moves, scores, labels, measurements and baselines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.errors import UnknownNameError, UsageError
from hwbench.predictors import TrainingSet, training_set
from hwbench.search.accuracy import CallableAccuracy, checked_accuracy
from hwbench.search.accuracy.kept import KeptAccuracy
from hwbench.search.accuracy.model import AccuracyModel, Scales, fit_accuracy, restored, transformed
from hwbench.search.accuracy.proxy import CapacityProxy
from hwbench.search.accuracy.table import read_table
from hwbench.search.baselines import every_one, evolve, nsga2, random_pool
from hwbench.search.confirm import CHOSEN, calibrated, confirm
from hwbench.search.labels import spend_labels
from hwbench.search.ledger import SearchLedger
from hwbench.search.moves import mutated
from hwbench.search.scoring import Scored, Scorer, best_each
from hwbench.spaces import Space, get_space
from hwbench.spaces.design import extremes
from tests.searches import Exact, Toy, ToyOracle, toy_accuracy

TOY, NB201 = Toy(), get_space("nasbench201")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scorer(oracle: ToyOracle | None = None, confidence: float = 0.98) -> Scorer:
    return Scorer(TOY, Exact(), oracle or ToyOracle(TOY), confidence, SearchLedger())


# --- moves ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from(["toy", "nasbench201", "ofa_mbv3"]))
def test_a_mutation_is_a_neighbour(seed: int, name: str) -> None:
    space: Space = TOY if name == "toy" else get_space(name)
    codes = space.sample(20, rng(seed))
    moved = mutated(space, codes, rng(seed))
    assert space.valid(moved).all()
    assert np.array_equal(moved, space.canonical(moved))
    both = space.active(codes) & space.active(moved)
    assert (((codes != moved) & both).sum(axis=1) == 1).all()


def test_mutations_reach_every_neighbour() -> None:
    start = TOY.sample(1, rng(3))
    found = mutated(TOY, np.repeat(start, 2000, axis=0), rng())
    reached = {row.tobytes() for row in found}
    assert reached == {row.tobytes() for row in TOY.neighbours(start[0])}


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([{"w1": 8}, {"depth": 2, "mode": "b"}]))
def test_a_mutation_leaves_what_is_fixed(seed: int, fixed: dict) -> None:
    moved = TOY.sample(20, rng(seed), fixed=fixed)
    for _ in range(3):
        before, moved = moved, mutated(TOY, moved, rng(seed), fixed)
        assert (before != moved).any(axis=1).all()
    for column, code in TOY.pinned(fixed).items():
        assert ((moved[:, column] == code) | ~TOY.active(moved)[:, column]).all()


# --- scores -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_the_best_of_each_budget_is_the_best(seed: int) -> None:
    draw = rng(seed)
    n = int(draw.integers(1, 30))
    found = Scored(
        np.zeros((n, 6), np.int16), draw.integers(0, 5, n) / 4, draw.integers(1, 9, n) / 2
    )
    for budget, row in zip(budgets := np.arange(6.0), best_each(found, budgets), strict=True):
        within = found.upper_ms <= budget
        assert (row == -1) == (not within.any())
        if row >= 0:
            assert found.score[row] == found.score[within].max()
            equals = within & (found.score == found.score[row])
            assert found.upper_ms[row] == found.upper_ms[equals].min()


def test_the_order_is_feasible_first_then_accuracy_then_speed() -> None:
    found = Scored(
        np.zeros((5, 6), np.int16), np.array([3, 1, 9, 7, 1.0]), np.array([2, 1, 8, 5, 1])
    )
    order = found.order(np.array([3.0, 100.0]))
    assert np.argsort(-order[:, 0], kind="stable").tolist() == [0, 1, 4, 3, 2]
    assert np.argsort(-order[:, 1], kind="stable").tolist() == [2, 3, 0, 1, 4]
    assert order[1, 0] == order[4, 0]


def test_calls_are_counted_whether_they_are_looked_up_or_not() -> None:
    asked = scorer()
    other = SearchLedger()
    codes = TOY.sample(30, rng())
    found = asked(codes)
    again = asked.counted_in(other)(codes[:10])
    assert (asked.ledger.evaluator_calls, other.evaluator_calls) == (30, 10)
    assert np.array_equal(found.score, toy_accuracy(codes))
    assert np.array_equal(found.upper_ms, ToyOracle(TOY).upper(codes, 0.98))
    assert np.array_equal(again.codes, codes[:10])


def test_scores_that_are_no_numbers_are_refused() -> None:
    class Broken:
        def score(self, codes: np.ndarray) -> np.ndarray:
            return np.full(len(codes), np.nan)

    with pytest.raises(UsageError, match="train it anew"):
        Scorer(TOY, Broken(), ToyOracle(TOY), 0.98, SearchLedger())(TOY.sample(3, rng()))


# --- accuracy ---------------------------------------------------------------------------------


def test_a_model_of_accuracy_orders_what_it_has_not_seen() -> None:
    from scipy.stats import kendalltau

    codes = rng(1).permutation(NB201.all_codes())
    macs = NB201.macs(codes)
    truth = 0.5 + 0.4 * macs / macs.max() - 0.05 * (codes == 4).sum(axis=1) / 6
    model = fit_accuracy(NB201, codes[:150], truth[:150])
    tau = kendalltau(model.predict(codes[150:1500])[0], truth[150:1500]).statistic
    assert tau > 0.9
    assert np.array_equal(model.score(codes[:150]), transformed(truth[:150]))
    again = AccuracyModel(NB201, model.codes, model.accuracy, model.scales)
    assert np.array_equal(again.score(codes[:400]), model.score(codes[:400]))


def test_a_model_of_accuracy_orders_the_largest_by_size_where_that_is_all() -> None:
    """They are like no labelled one in their choices, and in line with all in size."""
    from scipy.stats import kendalltau

    ofa = get_space("ofa_mbv3")
    codes = ofa.sample(2000, rng(2))
    macs = ofa.macs(codes)
    labels = 0.3 + 0.5 * macs[:100] / macs.max()
    largest = 100 + np.argsort(macs[100:])[-50:]
    found = fit_accuracy(ofa, codes[:100], labels).predict(codes[largest])[0]
    assert kendalltau(found, macs[largest]).statistic > 0.9


@pytest.mark.parametrize("scales", [(0.0, 1.0, 0.1), (1.0, -1.0, 0.1), (1.0, 1.0, np.inf)])
def test_scales_that_cannot_be_are_refused(scales: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        Scales(*scales)


def test_the_models_error_bars_grow_away_from_its_labels() -> None:
    codes = TOY.sample(60, rng())
    model = fit_accuracy(TOY, codes[:20], toy_accuracy(codes[:20]))
    mean, sd = model.predict(codes)
    assert sd[:20].max() < np.median(sd[20:])
    assert np.abs(restored(mean[20:]) - toy_accuracy(codes[20:])).max() < 0.2


@given(st.floats(0, 1))
def test_the_target_is_turned_back(accuracy: float) -> None:
    assert restored(transformed(np.array([accuracy])))[0] == pytest.approx(accuracy, abs=1e-12)


def test_labels_that_teach_nothing_are_refused() -> None:
    codes = TOY.sample(10, rng())
    with pytest.raises(UsageError, match="teach nothing"):
        fit_accuracy(TOY, codes, np.full(10, 0.5))
    with pytest.raises(UsageError, match="teach nothing"):
        fit_accuracy(TOY, codes[:3], toy_accuracy(codes[:3]))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (lambda n: np.full(n, np.nan), "gave nan for 'depth="),
        (lambda n: np.full(n, 93.0), "from 0 to 1"),
        (lambda n: np.ones(n + 1), "one number each"),
        (lambda n: ["0.5"] * n, "a list of <U3: it has to give one number from 0 to 1 each"),
        (lambda n: [[0.5], *[0.5] * (n - 1)], "no array of numbers .*inhomogeneous"),
        (lambda n: dict.fromkeys(range(n), 0.5), "a dict of object"),
        (lambda n: np.full(n, 0.5 + 0j), "a ndarray of complex128"),
        (lambda n: np.full(n, True), "a ndarray of bool"),
        (lambda n: torch.full((n,), 0.5, requires_grad=True), "a Tensor that is no array"),
    ],
)
def test_a_source_that_gives_no_accuracies(values, words: str) -> None:
    source = CallableAccuracy(TOY, lambda codes: values(len(codes)))
    with pytest.raises(UsageError, match=words):
        spend_labels(source, ToyOracle(TOY), 40, rng(), SearchLedger())


def test_a_source_that_writes_into_its_codes_spoils_no_search() -> None:
    def spoiling(codes: np.ndarray) -> np.ndarray:
        accuracy = toy_accuracy(codes)
        codes[:] = 0
        return accuracy

    class Spoiling:
        space = TOY

        def accuracy(self, codes: np.ndarray) -> np.ndarray:
            return spoiling(codes)

    codes = TOY.sample(9, rng())
    before = codes.copy()
    for source in (CallableAccuracy(TOY, spoiling), Spoiling()):
        assert np.array_equal(checked_accuracy(source, codes), toy_accuracy(before))
        assert np.array_equal(source.accuracy(codes.copy()), toy_accuracy(before))
        assert np.array_equal(codes, before)
    CallableAccuracy(TOY, spoiling).accuracy(codes)
    assert np.array_equal(codes, before)


def test_labels_are_spent_where_the_front_is() -> None:
    source, ledger = CallableAccuracy(TOY, toy_accuracy), SearchLedger()
    labelled = spend_labels(source, ToyOracle(TOY), 60, rng(), ledger)
    assert (len(labelled), ledger.validations) == (60, 60)
    assert len({row.tobytes() for row in labelled.codes}) == 60
    assert ledger.evaluator_calls > 0
    everyone, oracle = TOY.all_codes(), ToyOracle(TOY)
    budgets = np.linspace(2, 9, 8)
    truth, latency = toy_accuracy(everyone), oracle.latency(everyone)
    best = np.array([truth[latency <= b].max() for b in budgets])

    def shortfall(codes: np.ndarray) -> float:
        accuracy, ms = toy_accuracy(codes), oracle.latency(codes)
        return float(
            np.mean([t - accuracy[ms <= b].max() for t, b in zip(best, budgets, strict=True)])
        )

    by_chance = np.mean([shortfall(TOY.sample(60, rng(seed))) for seed in range(10)])
    others = [spend_labels(source, oracle, 60, rng(seed), SearchLedger()) for seed in range(1, 5)]
    assert np.mean([shortfall(found.codes) for found in [labelled, *others]]) < 0.25 * by_chance
    with pytest.raises(UsageError, match="too few to search with"):
        spend_labels(source, oracle, 10, rng(), SearchLedger())


def test_a_space_of_few_architectures_is_used_up() -> None:
    """As one of a user's own, or the part that a supernet was trained in."""
    fixed = {"w2": 2, "branch": "none"}
    every = TOY.all_codes(fixed=fixed)
    assert 20 < len(every) < 200
    source, ledger = CallableAccuracy(TOY, toy_accuracy), SearchLedger()
    labelled = spend_labels(source, ToyOracle(TOY), 2 * len(every), rng(), ledger, fixed)
    assert len({row.tobytes() for row in labelled.codes}) == len(labelled) <= len(every)
    assert toy_accuracy(labelled.codes).max() == toy_accuracy(every).max()


def test_the_proxy_is_a_share_of_the_largest() -> None:
    proxy = CapacityProxy(TOY)
    values = proxy.accuracy(TOY.all_codes())
    assert values.max() == 1
    assert (values > 0).all()


def table_file(path: Path, **changes: object) -> Path:
    codes = NB201.all_codes()[:200]
    names = np.array(["nor_conv_3x3", "none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1"])
    ours = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
    to_file = np.array([names.tolist().index(name) for name in ours])
    content = {
        "ops": to_file[codes].astype(np.uint8),
        "op_names": names,
        "acc": np.stack([np.linspace(10, 94, 200), np.full(200, 50.0)], axis=1),
        "acc_names": np.array(["cifar10", "cifar100"]),
    }
    np.savez(path, **{**content, **changes})
    return path


def test_a_table_of_accuracies_is_read_by_its_own_names(tmp_path: Path) -> None:
    source = read_table(table_file(tmp_path / "a.npz"), NB201, "cifar10")
    codes = NB201.all_codes()
    assert source.accuracy(codes[:200]) == pytest.approx(np.linspace(0.10, 0.94, 200))
    with pytest.raises(UsageError, match=r"has no '\|avg_"):
        source.accuracy(codes[-1:])
    with pytest.raises(UnknownNameError, match="did you mean 'cifar10'"):
        read_table(tmp_path / "a.npz", NB201, "cifar1")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ops": np.zeros((200, 5), np.uint8)}, "of another space"),
        ({"ops": np.full((200, 6), 9, np.uint8)}, "does not index"),
        ({"op_names": np.array(["a", "b", "c", "d", "e"])}, "op_names: .* has no value 'a'"),
        ({"acc": np.full((200, 2), 101.0)}, "0 to 100 per cent"),
        ({"acc": np.full((200, 2), np.nan)}, "0 to 100 per cent"),
        ({"acc": np.full((200, 2), 50 + 9j)}, "acc are complex128: give numbers"),
        ({"acc": np.full((200, 2), "50")}, "acc are <U2: give numbers"),
        ({"acc_names": np.array("cifar10")}, r"acc_names are <U7 \(\): give a list of texts"),
        ({"op_names": np.arange(5)}, r"op_names are int64 \(5,\): give a list of texts"),
        ({"ops": np.zeros((0, 6), int), "acc": np.zeros((0, 2))}, "has no architectures"),
        ({"acc": np.array([{}] * 200, dtype=object)}, "cannot read .*objects are never read$"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, changes: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_table(table_file(tmp_path / "a.npz", **changes), NB201, "cifar10")


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no zip")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name, words in (
        ("text.npz", "of plain arrays; objects are never"),
        ("none.npz", "No such file"),
    ):
        with pytest.raises(UsageError, match=words):
            read_table(tmp_path / name, NB201, "cifar10")
    content = table_file(tmp_path / "flipped.npz").read_bytes()
    (tmp_path / "flipped.npz").write_bytes(content[:300] + b"\xff" * 99 + content[399:])
    with pytest.raises(UsageError, match="it is damaged, or no npz file of plain arrays"):
        read_table(tmp_path / "flipped.npz", NB201, "cifar10")
    with pytest.raises(UsageError, match="has no array 'ops'"):
        read_table(tmp_path / "other.npz", NB201, "cifar10")


# --- measurements -----------------------------------------------------------------------------


def kept_accuracy(oracle: ToyOracle, found: Scored, budgets: np.ndarray) -> float:
    """Mean true accuracy of the answers; all are required to keep their budget."""
    best = best_each(found, budgets)
    assert (best >= 0).all()
    assert (oracle.true_ms(found.codes[best]) <= budgets).all()
    return float(found.score[best].mean())


def test_measurements_recover_what_the_guard_costs() -> None:
    oracle, budgets, ledger = ToyOracle(TOY, error=0.03), np.linspace(2.5, 9, 8), SearchLedger()
    found = scorer(oracle, 0.9999)(TOY.all_codes())
    guarded = kept_accuracy(oracle, found, budgets)
    settled = confirm(found, oracle, budgets, 0.9999, 25, ledger)
    assert len(oracle.measured) == ledger.device_measurements == 25
    confirmed = kept_accuracy(oracle, settled, budgets)
    true_ms = oracle.true_ms(found.codes)
    possible = np.mean([found.score[true_ms <= b].max() for b in budgets])
    assert possible - confirmed < 0.5 * (possible - guarded)


class Learner(ToyOracle):
    """Knows what it measured, and keeps what it was calibrated on."""

    chosen: TrainingSet | None = None

    @property
    def known(self) -> TrainingSet:
        codes = np.array([np.frombuffer(row, np.int16) for row in self.measured]).reshape(-1, 6)
        return training_set(TOY, codes, self.true_ms(codes))

    def calibrate(self, chosen: TrainingSet) -> None:
        self.chosen = chosen

    def upper(self, codes: np.ndarray, confidence: float) -> np.ndarray:
        return super().upper(codes, confidence) * (1 if self.chosen is None else 2)


def test_bounds_are_calibrated_on_what_the_search_had_measured_if_it_is_enough() -> None:
    oracle, ledger = Learner(TOY), SearchLedger()
    every = TOY.all_codes()
    oracle.measure(every[:3])
    found = scorer(oracle)(every)
    broken = replace(found, upper_ms=np.where(np.arange(len(every)) == 9, np.inf, found.upper_ms))
    oracle.measure(every[3 : 2 + CHOSEN])
    assert calibrated(broken, oracle, 3, 0.98, ledger) is broken
    assert (oracle.chosen, ledger.oracle_queries) == (None, 0)
    oracle.measure(every[2 + CHOSEN : 3 + CHOSEN])
    wider = calibrated(broken, oracle, 3, 0.98, ledger)
    assert len(oracle.chosen) == CHOSEN
    assert ledger.oracle_queries == len(every)
    assert np.isinf(wider.upper_ms[9])  # another limit stays broken
    assert np.array_equal(np.delete(wider.upper_ms, 9), np.delete(oracle.upper(every, 0.98), 9))
    assert np.array_equal(wider.score, found.score)


def test_nothing_is_measured_where_nothing_is_to_be_gained() -> None:
    oracle, ledger = ToyOracle(TOY), SearchLedger()
    codes = TOY.all_codes()
    oracle.measure(codes)
    found = scorer(oracle)(codes)
    confirm(found, oracle, np.array([3.0, 6.0]), 0.98, 10, ledger)
    assert ledger.device_measurements == 0


# --- baselines --------------------------------------------------------------------------------


def test_baselines_spend_the_calls_that_they_are_given() -> None:
    budgets = np.array([3.0, 5.0, 7.0])
    for search, calls, exact in (
        (lambda ask: evolve(ask, budgets, 80, rng()), 240, True),
        (lambda ask: evolve(ask, budgets, 83, rng()), 249, True),
        (lambda ask: nsga2(ask, 300, rng()), 300, False),
        (lambda ask: random_pool(ask, 100, rng()), 100, True),
        (every_one, len(TOY.all_codes()), True),
    ):
        ask = scorer()
        found = search(ask)
        assert ask.ledger.evaluator_calls == calls if exact else ask.ledger.evaluator_calls <= calls
        assert TOY.valid(found.codes).all()
        assert len(np.unique(found.codes, axis=0)) == len(found)
        assert np.array_equal(found.score, toy_accuracy(found.codes))


def test_evolution_begins_with_what_it_is_given() -> None:
    ends = extremes(TOY, rng())
    found = evolve(scorer(), np.array([3.0, 5.0]), 8, rng(), first=ends)
    assert {row.tobytes() for row in ends} <= {row.tobytes() for row in found.codes}
    alone = evolve(scorer(), np.array([3.0, 5.0]), 1, rng(), first=ends)
    assert alone.codes.tolist() == ends[:1].tolist()


def test_evolution_and_nsga2_beat_chance() -> None:
    budgets = np.array([3.0, 5.0, 7.0])

    def worth(found: Scored) -> float:
        return float(found.score[best_each(found, budgets)].mean())

    by_chance = np.mean([worth(random_pool(scorer(), 40, rng(seed))) for seed in range(10)])
    assert worth(evolve(scorer(), budgets, 120, rng())) > by_chance
    assert worth(nsga2(scorer(), 300, rng())) > by_chance


def test_more_random_ones_than_there_are() -> None:
    assert len(random_pool(scorer(), 10**6, rng())) == len(TOY.all_codes())


# --- labels that are kept ---------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_search_that_was_killed_does_not_pay_twice(tmp_path: Path, at_once: int) -> None:
    path = tmp_path / "labels.jsonl"

    class KilledError(Exception):
        pass

    left = [25]

    def accuracy(codes: np.ndarray) -> np.ndarray:
        left[0] -= len(codes)
        if left[0] < 0:
            raise KilledError
        return toy_accuracy(codes)

    def search() -> tuple[np.ndarray, int]:
        source = KeptAccuracy(CallableAccuracy(TOY, accuracy), path, "made up", at_once=at_once)
        return spend_labels(source, ToyOracle(TOY), 40, rng(), SearchLedger()).codes, source.asked

    with pytest.raises(KilledError):
        search()
    path.write_text(path.read_text()[:-12])  # and the last line was cut short
    left[0] = 40
    codes, asked = search()
    assert 0 <= asked - (40 - 24) < at_once  # those that were being asked for are lost
    plain = spend_labels(
        CallableAccuracy(TOY, toy_accuracy), ToyOracle(TOY), 40, rng(), SearchLedger()
    )
    assert np.array_equal(codes, plain.codes)
    assert search()[1] == 0


def test_labels_of_another_source_are_refused(tmp_path: Path) -> None:
    source, path = CallableAccuracy(TOY, toy_accuracy), tmp_path / "labels.jsonl"
    KeptAccuracy(source, path, "one").accuracy(TOY.sample(3, rng()))
    with pytest.raises(UsageError, match="holds no labels of toy by other"):
        KeptAccuracy(source, path, "other")
    path.write_text(path.read_text() + '\n{"architecture": 3}\n')
    with pytest.raises(UsageError, match="a line that is no label"):
        KeptAccuracy(source, path, "one")


@pytest.mark.parametrize("left", [0, 1, 5, 20, -2])
def test_a_labels_file_that_was_hardly_begun_is_begun_anew(tmp_path: Path, left: int) -> None:
    """As a full disk or a kill leaves it while it is created."""
    source, path = CallableAccuracy(TOY, toy_accuracy), tmp_path / "labels.jsonl"
    KeptAccuracy(source, path, "before")
    path.write_bytes(path.read_bytes()[:left])
    KeptAccuracy(source, path, "one").accuracy(codes := TOY.sample(3, rng()))
    again = KeptAccuracy(source, path, "one")
    assert np.array_equal(again.accuracy(codes), toy_accuracy(codes))
    assert again.asked == 0


def test_a_file_of_something_else_gets_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    for content in ("my notes", '{"space": 1}', "\n\n\nmine\n"):
        path.write_text(content)
        with pytest.raises(UsageError, match="holds no labels of toy by one: remove it"):
            KeptAccuracy(CallableAccuracy(TOY, toy_accuracy), path, "one")
        assert path.read_text() == content


def test_searches_that_begin_a_labels_file_at_once_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, path = CallableAccuracy(TOY, toy_accuracy), tmp_path / "labels.jsonl"
    codes = TOY.sample(4, rng())
    first = KeptAccuracy(source, path, "one")
    with monkeypatch.context() as patched:  # neither sees the other's header in time
        patched.setattr("hwbench.search.accuracy.kept._is_unbegun", lambda path: True)
        second = KeptAccuracy(source, path, "one")
        with pytest.raises(UsageError, match="holds no labels of toy by other"):
            KeptAccuracy(source, tmp_path / "labels.jsonl", "other")
    first.accuracy(codes[:2])
    second.accuracy(codes[2:])
    path.write_text("".join(line for line in path.open() if "other" not in line))
    third = KeptAccuracy(source, path, "one")
    assert np.array_equal(third.accuracy(codes), toy_accuracy(codes))
    assert third.asked == 0


@pytest.mark.parametrize("line", [b'{"architecture": "\xff', b"[" * 10**5, b'{"accuracy": 0.'])
def test_a_label_that_is_no_longer_whole_is_asked_for_again(tmp_path: Path, line: bytes) -> None:
    source, path = CallableAccuracy(TOY, toy_accuracy), tmp_path / "labels.jsonl"
    KeptAccuracy(source, path, "one").accuracy(codes := TOY.sample(3, rng()))
    *before, last, end = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*before, line, end]))
    again = KeptAccuracy(source, path, "one")
    assert np.array_equal(again.accuracy(codes), toy_accuracy(codes))
    assert (again.asked, b"accuracy" in last) == (1, True)


@pytest.mark.parametrize("value", ["NaN", "2", "-1", "true", "1" + "0" * 400, '"0.5"', "null"])
def test_a_kept_label_that_is_no_accuracy_is_the_files_fault(tmp_path: Path, value: str) -> None:
    source, path = CallableAccuracy(TOY, toy_accuracy), tmp_path / "labels.jsonl"
    KeptAccuracy(source, path, "one")
    with path.open("a") as file:
        file.write(f'{{"architecture": "x", "accuracy": {value}}}\n')
    with pytest.raises(UsageError, match=r"labels\.jsonl has a line that is no label .*remove"):
        KeptAccuracy(source, path, "one")
