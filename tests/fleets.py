"""Fleets for tests: schedulers and workers as processes of their own, and phones that sleep."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hwbench.fleet.seats import Seats, seats_of
from tests.fleet_devices import FAULTS, LAUNCH, install

ROOT = Path(__file__).resolve().parents[1]

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make ``fake`` a kind of device, here and in processes; the folder of their faults."""
    folder = install(tmp_path / "fakes")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{folder}")
    monkeypatch.setenv(LAUNCH, "0.004")
    monkeypatch.setenv(FAULTS, str(tmp_path))
    return tmp_path


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a verb in a process of its own, up to its first line on standard error."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "hwbench", *arguments], stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def told(process: subprocess.Popen[str]) -> str:
    """Its next line on standard error."""
    assert process.stderr is not None
    return process.stderr.readline().strip()


def local(*devices: str, failures: int = 3) -> Seats:
    """Fake phones of these names, for a cluster in this process."""
    return Seats(seats_of([f"phone=fake:{name}" for name in devices], {}, None), failures)
