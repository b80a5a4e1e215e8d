"""Speed of a generator. Bars: one budget in 5 ms once it is loaded, 10,000 budgets in 2 s.
Run: ``pytest tests/benchmarks --benchmark-enable``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwbench.predictors import BudgetOracle, Provenance, fit_predictor
from hwbench.search.accuracy.proxy import CapacityProxy
from hwbench.search.pnag import Costs, Schedule, load_generator, save_generator, train_generator
from hwbench.spaces import get_space
from hwbench.testing.predictors import made_up_training


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """Of the largest space; how well it was trained does not matter to how fast it answers."""
    space = get_space("ofa_mbv3")
    place = Provenance("cpu", "f" * 32, "onnxruntime", 1)
    oracle = BudgetOracle(fit_predictor(space, made_up_training(space, 60), place))
    upper = oracle.upper(space.sample(500, np.random.default_rng(0)))
    budgets = list(np.geomspace(upper.min(), upper.max(), 6))
    costs = Costs(200, plan=Schedule(steps=4, last=4))
    generator, ledger = train_generator(CapacityProxy(space), oracle, budgets, costs=costs)
    path = tmp_path_factory.mktemp("generator") / "a.hwg"
    save_generator(generator, path, objective="capacity", ledger=ledger.row())
    return path


@pytest.fixture(scope="module")
def generator(path):
    loaded, _ = load_generator(path)
    loaded.generate([loaded.range_ms[1]])
    return loaded


@pytest.mark.parametrize("count", [1, 60, 10_000])
def test_budgets_answered(benchmark, generator, count) -> None:
    budgets = np.random.default_rng(1).uniform(*generator.range_ms, count)
    assert len(benchmark(generator.generate, budgets)) == count


def test_load(benchmark, path) -> None:
    assert len(benchmark(load_generator, path)) == 2
