"""How often what is random is tried: a little in every run, far more by ``make statistics``."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def effort() -> int:
    """How many times as many draws as in every run."""
    return int(os.environ.get("HWBENCH_DRAWS", "1"))
