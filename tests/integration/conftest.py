"""Phones on loopback and calibrations of seconds, for tests of this folder."""

import pytest

from hwbench.measure import canary
from tests.adb_client import at_hand, big_file, client, whole_pool
from tests.fleets import fakes, start
from tests.phones import lent, one, pool

__all__ = ["at_hand", "big_file", "client", "fakes", "lent", "one", "pool", "start", "whole_pool"]


@pytest.fixture
def short_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two short runs in place of ten."""
    monkeypatch.setattr(canary, "RUNS", 2)
    monkeypatch.setattr(canary, "MOST_RUNS", 2)
    monkeypatch.setattr(canary, "RUN_SECONDS", 0.2)
    monkeypatch.setattr(canary, "PAUSE_SECONDS", 0.0)
