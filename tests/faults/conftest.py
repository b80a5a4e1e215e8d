"""Targets, phones on loopback and small disks, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwbench.measure.jobs import Job
from tests.disks import small_disk
from tests.phones import impatient, lent, one, pool
from tests.targets import LocalTarget, job, runner

__all__ = ["impatient", "lent", "one", "pool", "small_disk"]


@pytest.fixture
def target(tmp_path: Path) -> LocalTarget:
    return LocalTarget(tmp_path)


@pytest.fixture
def good(tmp_path: Path) -> list[Job]:
    return [job(f"good{i}", runner(tmp_path, us=20 + i)) for i in range(2)]
