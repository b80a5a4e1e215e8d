"""Phones on loopback, calibrations of seconds and a quiet torch, for tests of this folder."""

from collections.abc import Iterator

import pytest

from hwbench.measure import canary
from tests.adb_client import at_hand, big_file, client, whole_pool
from tests.phones import lent, one, pool

__all__ = ["at_hand", "big_file", "client", "lent", "one", "pool", "whole_pool"]


@pytest.fixture
def short_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs in place of ten."""
    monkeypatch.setattr(canary, "RUNS", 2)
    monkeypatch.setattr(canary, "PAUSE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """On a busy machine torch's threads wait for each other far longer than they work."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
