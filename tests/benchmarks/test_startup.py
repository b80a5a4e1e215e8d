"""How long the command line keeps a person waiting before it does anything."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pytest_benchmark.fixture import BenchmarkFixture


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["-c", "pass"], id="python alone"),
        pytest.param(["-c", "import hwbench"], id="import hwbench"),
        pytest.param(["-m", "hwbench", "--help"], id="hwbench --help"),
        pytest.param(["-m", "hwbench", "bench", "--help"], id="hwbench bench --help"),
    ],
)
def test_startup(benchmark: BenchmarkFixture, arguments: list[str]) -> None:
    def start() -> None:
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)

    benchmark.pedantic(start, rounds=5, warmup_rounds=1)
