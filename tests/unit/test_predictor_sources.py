"""A new device from a few measurements, by what other devices know; and which to measure."""

from __future__ import annotations

import numpy as np
import pytest

from hwbench.errors import PredictorError
from hwbench.predictors import (
    Provenance,
    Sources,
    TrainingSet,
    cost_regression,
    evaluate,
    fit_predictor,
    most_telling,
    predicted_sources,
    training_set,
)
from hwbench.predictors.cost_regression import prior_features
from hwbench.predictors.views import Views
from hwbench.spaces import Codes, get_space

NB201 = get_space("nasbench201")
FBNET = get_space("fbnet")
HERE = Provenance("phone", "0" * 32, "runtime", 1)
#: Cells for which a device that runs all edges and one that prunes take different times.
EVERY = NB201.all_codes()


def device(seed: int, codes: Codes) -> np.ndarray:
    """Latencies of a made-up device: what an operation takes is its own, and edges add up."""
    rng = np.random.default_rng(seed)
    each = np.array([0.05, 0.1, 1.0, 3.0, 0.6]) * rng.gamma(4, 0.25, 5)
    return 2 + each[codes].sum(axis=1) * rng.gamma(9, 1 / 9)


def known(seeds: range) -> Sources:
    codes = EVERY[np.random.default_rng(0).permutation(len(EVERY))[:2000]]
    names = tuple(f"device{seed}" for seed in seeds)
    return Sources(names, codes, np.stack([device(seed, codes) for seed in seeds], axis=1))


def few(seed: int, n: int, sources: Sources | None) -> tuple[TrainingSet, TrainingSet]:
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(EVERY))[: n + 1000]
    latency = device(99, EVERY[rows]) * np.exp(0.02 * rng.standard_normal(len(rows)))
    labels = training_set(NB201, EVERY[rows], latency, sources=sources)
    return labels[np.arange(n)], labels[np.arange(n, n + 1000)]


def test_other_devices_make_ten_measurements_worth_more() -> None:
    errors = {}
    for sources in (None, known(range(6))):
        found = []
        for seed in range(3):
            learned, fresh = few(seed, 10, sources)
            found.append(evaluate(fit_predictor(NB201, learned, HERE), fresh).rmspe)
        errors[sources is None] = np.mean(found)
    assert errors[False] < 0.9 * errors[True]
    assert errors[False] < 6


def test_a_source_that_knows_nothing_is_not_believed() -> None:
    """Its latencies are of other cells: what the device itself showed decides."""
    noise = known(range(3))
    shuffled = np.random.default_rng(1).permutation(noise.latency_ms)
    misled = Sources(noise.names, noise.codes, shuffled)
    learned, fresh = few(0, 60, misled)
    alone, _ = few(0, 60, None)
    with_noise = evaluate(fit_predictor(NB201, learned, HERE), fresh)
    without = evaluate(fit_predictor(NB201, alone, HERE), fresh)
    assert with_noise.rmspe < 1.3 * without.rmspe


def test_columns_that_leave_no_room_for_what_was_measured_are_given_up() -> None:
    """The first stay where others are as good, and go where these are decidedly better."""
    views, labels = Views(NB201), few(0, 30, None)[0]
    seen, target = views.symbols(labels.codes), cost_regression._Labels.of(labels)
    free = cost_regression._basis(views, views.symbols(EVERY[:500]))
    bound = free.shrunk(1e-4)
    for first, other, best in ((free, free.shrunk(0.9), free), (bound, free, free)):
        rng = np.random.default_rng(0)
        assert cost_regression._choose([first, other], seen, target, rng).basis is best


def test_a_device_and_another_of_twice_its_speed_are_one_source() -> None:
    one = known(range(1))
    twice = Sources(("a", "b"), one.codes, one.latency_ms * [1.0, 2.0])
    errors = []
    for sources in (one, twice):
        learned, fresh = few(0, 12, sources)
        errors.append(evaluate(fit_predictor(NB201, learned, HERE), fresh).rmspe)
    assert errors[1] == pytest.approx(errors[0], rel=0.05)


def test_the_file_names_them(tmp_path: object) -> None:
    learned, _ = few(0, 10, known(range(2)))
    predictor = fit_predictor(NB201, learned, HERE)
    assert predictor.meta.sources == ("device0", "device1")


def test_predictors_of_other_devices_are_sources() -> None:
    codes = FBNET.sample(60, np.random.default_rng(0))
    macs = FBNET.macs(codes).astype(float)
    predictor = fit_predictor(FBNET, training_set(FBNET, codes, 1 + macs / 1e8), HERE)
    found = predicted_sources(FBNET, {"a.hwp": predictor})
    assert found.names == ("a.hwp",)
    assert np.array_equal(found.latency_ms[:, 0], predictor.predict(found.codes).mean_ms)
    with pytest.raises(PredictorError, match=r"source a\.hwp is a predictor of fbnet"):
        predicted_sources(NB201, {"a.hwp": predictor})


@pytest.mark.parametrize(
    ("latency", "message"),
    [
        (np.ones((3, 1)), "give one column a source"),
        (np.array([[1.0, 0.0]] * 3), r"source b: latency of row 0 is 0: latencies are positive"),
        (np.array([[np.nan, 1.0]] * 3), r"source a: latency of row 0 is nan"),
    ],
)
def test_sources_that_are_none_are_refused(latency: np.ndarray, message: str) -> None:
    with pytest.raises(PredictorError, match=message):
        Sources(("a", "b"), EVERY[:3], latency)


class TestViews:
    def test_what_leads_nowhere_is_pruned_step_by_step(self) -> None:
        # 0>1 conv, 0>2 none, 1>2 none, 0>3 skip, 1>3 none, 2>3 pool: node 1 leads nowhere, and
        # node 2 has nothing that arrives.
        cell = np.array([[3, 0, 0, 1, 0, 4]])
        written, wanted, live = NB201.views(cell)
        assert written.tolist() == [[3, 0, 0, 1, 0, 4]]
        assert wanted.tolist() == [[0, 0, 0, 1, 0, 4]]
        assert live.tolist() == [[0, 0, 0, 1, 0, 0]]

    def test_a_space_without_such_has_one(self) -> None:
        codes = FBNET.sample(5, np.random.default_rng(0))
        assert Views(FBNET).number == 1
        (only,) = FBNET.views(codes)
        assert np.array_equal(only, codes)

    def test_a_table_has_every_architecture(self) -> None:
        views = Views(NB201)
        weights = np.random.default_rng(0).random((len(views.counts), 2))
        table = views.tabulated(lambda symbols: symbols @ weights)
        codes = NB201.sample(50, np.random.default_rng(1))
        found = table(codes.astype(np.float32))
        assert found == pytest.approx(views.symbols(codes) @ weights)


class TestSelection:
    def test_it_takes_what_tells_most_and_nothing_twice(self) -> None:
        codes = NB201.sample(400, np.random.default_rng(0))
        rows = most_telling(NB201, codes, 30, np.random.default_rng(1))
        assert len(set(rows.tolist())) == 30
        again = most_telling(NB201, codes, 30, np.random.default_rng(1))
        assert np.array_equal(rows, again)

    @pytest.mark.parametrize("sources", [None, known(range(4))])
    def test_its_choice_tells_more_than_chance(self, sources: Sources | None) -> None:
        """Of the variance that is left over a sample of the space, whichever labels come."""
        pool = NB201.sample(500, np.random.default_rng(0))
        features = prior_features(NB201, pool, np.random.default_rng(0), sources)

        def left(rows: np.ndarray) -> float:
            told = features[rows] @ features.T
            gram = features[rows] @ features[rows].T + 0.03**2 * np.eye(len(rows))
            return float((features**2).sum() - np.sum(told * np.linalg.solve(gram, told)))

        for seed in range(4):
            rng = np.random.default_rng(seed)
            chosen = most_telling(NB201, pool, 8, rng, sources=sources)
            assert left(chosen) < 0.8 * left(rng.permutation(len(pool))[:8])

    def test_what_is_known_needs_not_be_told_again(self) -> None:
        codes = NB201.sample(300, np.random.default_rng(0))
        first = most_telling(NB201, codes, 1, np.random.default_rng(1))
        known_codes = np.repeat(codes[first], 3, axis=0)
        next_ones = most_telling(NB201, codes, 5, np.random.default_rng(1), known=known_codes)
        assert first[0] not in next_ones


def test_it_says_where_it_is_out_of_its_depth() -> None:
    ofa = get_space("ofa_mbv3")
    rng = np.random.default_rng(0)
    codes = ofa.sample(60, rng, fixed={"r": 128})
    macs = ofa.macs(codes).astype(float)
    latency = (1 + macs / 1e8) * np.exp(0.01 * rng.standard_normal(60))
    predictor = fit_predictor(ofa, training_set(ofa, codes, latency), HERE)
    near = predictor.predict(ofa.sample(300, rng, fixed={"r": 128}))
    far = predictor.predict(ofa.sample(300, rng, fixed={"r": 224}))
    assert predictor.unfamiliar(near).mean() < 0.1
    assert predictor.unfamiliar(far).mean() > 0.9


def test_what_is_longer_than_all_it_was_held_to_is_beyond_it() -> None:
    """Of the cheap half alone nothing is known of what the dear half takes, however like it."""
    rng = np.random.default_rng(0)
    latency = device(99, EVERY) * np.exp(0.01 * rng.standard_normal(len(EVERY)))
    cheap, dear = EVERY[latency < np.median(latency)], EVERY[latency > np.quantile(latency, 0.7)]
    rows = rng.permutation(len(cheap))[:60]
    learned = training_set(NB201, cheap[rows], device(99, cheap[rows]))
    predictor = fit_predictor(NB201, learned, HERE)
    assert predictor.unfamiliar(predictor.predict(cheap)).mean() < 0.1
    assert predictor.unfamiliar(predictor.predict(dear)).mean() > 0.9
