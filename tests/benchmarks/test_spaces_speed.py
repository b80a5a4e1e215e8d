"""Speed of the spaces. Bars: 100,000 MACs well under 1 s, a design of 300 under 1 s, a graph
of MobileNetV3 size a few ms. Run: ``pytest tests/benchmarks --benchmark-enable``.
"""

from __future__ import annotations

import numpy as np
import pytest

from hwbench.spaces import get_space, space_filling, space_names, spread_sample

SPACES = [get_space(name) for name in space_names()]
each_space = pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@each_space
def test_macs_of_100_000_codes(benchmark, space) -> None:
    codes = rng().integers(0, space.cardinalities, (100_000, len(space.cardinalities)), np.int16)
    assert len(benchmark(space.macs, codes)) == 100_000


@each_space
def test_graph(benchmark, space) -> None:
    (code,) = space.sample(1, rng())
    assert benchmark(space.graph, code).macs > 0


@each_space
def test_space_filling_design_of_300(benchmark, space) -> None:
    assert len(benchmark(lambda: space_filling(space, 300, rng()))) == 300


def test_spread_sample_of_20_000(benchmark) -> None:
    space = get_space("ofa_mbv3")
    assert len(benchmark(lambda: spread_sample(space, 20_000, rng()))) == 20_000


@each_space
def test_texts_of_1000_there_and_back(benchmark, space) -> None:
    codes = space.sample(1000, rng())
    assert np.array_equal(benchmark(lambda: space.encode(space.decode(codes))), codes)


@each_space
def test_neighbours(benchmark, space) -> None:
    (code,) = space.sample(1, rng())
    assert len(benchmark(space.neighbours, code)) > 0
