"""From an architecture to a loaded session: a search or a sweep does it thousands of times.

The bar for a MobileNetV3-size net is 20 ms from graph to ONNX, its weights apart.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from hwbench.lower import create_session, from_onnx, random_weights, to_onnx, to_torch
from tests.graphs import mobile_net

NET = mobile_net()


def test_build_a_graph(benchmark: BenchmarkFixture) -> None:
    benchmark(mobile_net)


def test_graph_to_onnx_with_named_weights(benchmark: BenchmarkFixture) -> None:
    benchmark(lambda: to_onnx(mobile_net()))


def test_graph_to_onnx_with_stored_weights(benchmark: BenchmarkFixture) -> None:
    weights = random_weights(NET)
    benchmark(lambda: to_onnx(NET, weights))


def test_make_random_weights(benchmark: BenchmarkFixture) -> None:
    benchmark(lambda: random_weights(NET))


@pytest.mark.parametrize("weights", ["named", "stored"])
def test_graph_to_session(benchmark: BenchmarkFixture, weights: str) -> None:
    """The whole way, the making of the weights (named) or their storing included."""
    stored = random_weights(NET) if weights == "stored" else None
    benchmark(lambda: create_session(to_onnx(NET, stored).bytes))


def test_graph_to_torch(benchmark: BenchmarkFixture) -> None:
    weights = random_weights(NET)
    benchmark(lambda: to_torch(NET, weights))


@pytest.mark.parametrize("name", ["resnet50", "densenet121"])
def test_onnx_to_graph(benchmark: BenchmarkFixture, name: str) -> None:
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    benchmark(lambda: from_onnx(folder / f"light_{name}.onnx"))
