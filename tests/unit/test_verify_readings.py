"""Four readings of a generator's answers: what is promised by which bound, and what comes of it."""

from __future__ import annotations

import numpy as np
import pytest

from hwbench.predictors import BudgetOracle, MacsLine, Provenance, fit_predictor
from hwbench.search.accuracy.proxy import CapacityProxy
from hwbench.search.pnag import Costs, Generator, Schedule, train_generator
from hwbench.spaces import get_space
from hwbench.testing.predictors import made_up_training
from hwbench.verify.pnag_readings import (
    READINGS,
    answers,
    figures_of,
    read_generator,
    trials_of,
)
from tests.searches import SlowDevice

SMALL = get_space("mbv3_small")
BUDGETS = np.geomspace(0.95, 1.9, 8)


@pytest.fixture(scope="module")
def generator() -> Generator:
    place = Provenance("cpu", "0" * 32, "made up", 1)
    predictor = fit_predictor(SMALL, made_up_training(SMALL, 40), place, kind=MacsLine.kind)
    costs = Costs(30, plan=Schedule(steps=2, last=2))
    oracle = BudgetOracle(predictor)
    return train_generator(CapacityProxy(SMALL), oracle, [0.9, 2.0], costs=costs)[0]


def test_bounds_by_what_searches_chose_hold_where_those_drawn_at_random_do_not(
    generator: Generator,
) -> None:
    predictor = generator.oracle.predictor
    plain = predictor.upper(generator.kept, 0.98) / predictor.predict(generator.kept).mean_ms
    device = SlowDevice(predictor, beyond=float(plain.max()) - 1 + 0.02)
    others = SMALL.sample(40, np.random.default_rng(3))
    found, measured = read_generator(generator, BUDGETS, others, device, at_most=10)
    assert set(found) == set(READINGS)
    assert measured["calibrated"] == 40
    assert measured["confirmed"] <= 10
    assert len(device.asked) == 40 + measured["confirmed"]
    later = SlowDevice(predictor, device.beyond)
    by_text = {
        m.workload.arch: m for m in later(np.concatenate([each.codes for each in found.values()]))
    }
    read = {
        name: figures_of(trials_of(SMALL, each, by_text), len(BUDGETS))
        for name, each in found.items()
    }
    assert read["raw"]["satisfaction"] < 0.5
    assert read["guarded"]["satisfaction"] < 0.5
    assert read["calibrated"]["satisfaction"] == 1
    assert read["confirmed"]["satisfaction"] == 1
    assert read["confirmed"]["utilisation_mean"] >= read["calibrated"]["utilisation_mean"]
    assert generator.oracle.predictor is predictor  # the guarded reading stays what it was
    assert not len(generator.oracle.known)


def test_too_few_choices_leave_the_bounds_as_they_are(generator: Generator) -> None:
    others = SMALL.sample(19, np.random.default_rng(3))
    found, measured = read_generator(
        generator, BUDGETS, others, SlowDevice(generator.oracle.predictor, 0.3), at_most=0
    )
    assert measured == {"calibrated": 19, "confirmed": 0}
    for name in ("calibrated", "confirmed"):
        assert np.array_equal(found[name].codes, found["guarded"].codes)
        assert np.array_equal(found[name].upper_ms, found["guarded"].upper_ms)


def test_a_budget_below_all_bounds_has_no_answer(generator: Generator) -> None:
    low, high = generator.range_ms
    found = answers(generator, np.array([0.5 * low, low, high, 3 * high]))
    assert found.budgets.tolist() == [low, high, 3 * high]
    assert np.array_equal(found.codes[1], found.codes[2])
    nothing = answers(generator, np.array([0.5 * low]))
    assert nothing.codes.shape == (0, generator.kept.shape[1])


def test_a_budget_binds_while_the_answer_to_the_largest_does_not_fit() -> None:
    def trial(budget: float, upper: float, measured: float) -> dict[str, object]:
        kept = measured <= budget
        return {
            "budget_ms": budget,
            "architecture": f"of {upper} ms",
            "upper_ms": upper,
            "measured_ms": measured,
            "kept": kept,
        }

    trials = [
        trial(1.0, 0.98, 0.95),
        trial(2.0, 1.9, 2.1),
        trial(4.0, 3.0, 2.9),
        trial(8.0, 3.0, 2),
    ]
    figures = figures_of(trials, 5)
    assert (figures["binding"], figures["networks"]) == (2, 3)
    assert figures["utilisation_where_binding"] == pytest.approx((0.95 + 1.05) / 2)
    assert figures["utilisation_mean"] == pytest.approx((0.95 + 1.05 + 0.725 + 0.25) / 4)
    assert (figures["answered"], figures["satisfaction"]) == (0.8, 0.75)
