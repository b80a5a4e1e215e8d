"""Speed of predictors. Bars, on one core: 100,000 predictions with sd from integer codes in 0.3 s,
the later bar 60 ms; a fit on 300 architectures in seconds.
Run: ``pytest tests/benchmarks --benchmark-enable``.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from hwbench.predictors import BudgetOracle, Provenance, fit_predictor
from hwbench.predictors.costs import cost_tables
from hwbench.spaces import get_space
from hwbench.testing.predictors import made_up_training

HERE = Provenance("cpu", "f" * 32, "onnxruntime", 1)

each_space = pytest.mark.parametrize("name", ["ofa_mbv3", "mbv3_small", "nasbench201"])


def hundred_thousand(space):
    rng = np.random.default_rng(1)
    return rng.integers(0, space.cardinalities, (100_000, len(space.cardinalities)), np.int16)


@cache
def fitted(name):
    space = get_space(name)
    return fit_predictor(space, made_up_training(space, 300), HERE)


@each_space
def test_100_000_predictions_with_sd(benchmark, name) -> None:
    space, predictor = get_space(name), fitted(name)
    codes = hundred_thousand(space)
    with threadpool_limits(1):
        assert len(benchmark(predictor.predict, codes)) == 100_000


def test_100_000_times_feasible(benchmark) -> None:
    space = get_space("ofa_mbv3")
    oracle = BudgetOracle(fitted("ofa_mbv3"))
    codes = hundred_thousand(space)
    with threadpool_limits(1):
        assert len(benchmark(oracle.feasible, codes, 1.0)) == 100_000


@each_space
def test_fit_on_300(benchmark, name) -> None:
    space = get_space(name)
    training = made_up_training(space, 300)
    assert benchmark(fit_predictor, space, training, HERE).meta.n_train == 300


def test_cost_tables(benchmark) -> None:
    space = get_space("ofa_mbv3")

    assert benchmark(cost_tables.__wrapped__, space) is not None
