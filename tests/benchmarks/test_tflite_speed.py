"""From an architecture to a .tflite model: a search or a sweep does it thousands of times.

The bar for a MobileNetV3-size net is 100 ms with its weights in the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from hwbench.lower import Int8, random_weights, tflite_inputs, to_tflite
from hwbench.spaces import get_space, space_names
from tests.graphs import mobile_net

NET = mobile_net()


def test_graph_to_tflite(benchmark: BenchmarkFixture) -> None:
    weights = random_weights(NET)
    benchmark(lambda: to_tflite(NET, weights))


def test_graph_to_tflite_with_random_weights(benchmark: BenchmarkFixture) -> None:
    """The whole way, the making of the graph and its weights included."""
    benchmark(lambda: to_tflite(mobile_net()))


@pytest.mark.parametrize("name", space_names())
def test_architecture_to_tflite(benchmark: BenchmarkFixture, name: str) -> None:
    space = get_space(name)
    (code,) = space.sample(1, np.random.default_rng(0))
    graph = space.graph(code)
    weights = random_weights(graph)
    benchmark(lambda: to_tflite(graph, weights))


def test_graph_to_int8_tflite(benchmark: BenchmarkFixture) -> None:
    """Calibration, four runs of the float net, is most of it."""
    weights = random_weights(NET)
    benchmark(lambda: to_tflite(NET, weights, int8=Int8()))


def test_read_a_files_inputs(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    to_tflite(NET).save(path)
    benchmark(lambda: tflite_inputs(path))
