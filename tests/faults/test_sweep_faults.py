"""A sweep that is ended at any time, and started again: each cell is measured, and stored once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hwbench.records import Measurement
from hwbench.store import Store
from tests.stores import integrity
from tests.targets import leaves_nothing, workers

COUNT = 4
NAMES = [f"net{i}" for i in range(COUNT)]
Start = Callable[[Path], subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a killed one left among the temporary files went with the next."""
    with leaves_nothing(tmp_path, monkeypatch):
        yield


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    """Start tests/campaign.py, up to where it begins to measure."""
    started: list[subprocess.Popen[str]] = []

    def campaign(folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign", str(folder), str(COUNT)],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield campaign
    for process in started:
        process.kill()
        process.communicate()


def end(campaign: subprocess.Popen[str], number: int) -> list[str]:
    """Send the signal; what it told until then. Its workers end with it."""
    below = workers(campaign.pid) if campaign.poll() is None else []
    campaign.send_signal(number)
    told = campaign.communicate(timeout=60)[0].split()
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive, "a worker outlived its session"
    return told


def stored(folder: Path) -> list[Measurement]:
    """What the sweep holds, samples and their checksums read; the file is sound."""
    path = folder / "store.db"
    if not path.exists():
        return []
    assert integrity(path) == "ok"
    with Store.open(path) as store:
        found = store.measurements(plan="sweep")
        assert len(found) == len(store.measurements())
    assert all((m.bursts.sample_ns > 0).all() and len(m.bursts) for m in found)
    return found


def sweep(start: Start, folder: Path, dice: random.Random, most: int) -> int:
    """One sweep, killed at random points until it is whole, ``most`` times; how many it took."""
    folder.mkdir()
    told, kills, cells, longest_s = list[str](), 0, 0, 1.0
    while True:
        campaign = start(folder)
        if kills < most:
            time.sleep(dice.uniform(0, longest_s))
            told += end(campaign, signal.SIGKILL)
            kills += campaign.returncode == -signal.SIGKILL
        else:
            told += campaign.communicate(timeout=120)[0].split()
        held = [m.workload.name for m in stored(folder)]
        assert set(told) <= set(held), "what was acknowledged is lost"
        assert len(set(held)) == len(held)
        # A busy machine is given longer: about a cell between two kills.
        longest_s *= 1.3 if len(held) == cells else 0.8
        cells = len(held)
        if campaign.returncode == 0:
            assert sorted(held) == NAMES
            # A kill between storing and telling loses the line, never the result.
            assert len(told) == len(set(told)) >= COUNT - kills
            return kills


@pytest.mark.parametrize(
    "kills", [2, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_killed_at_random_points_it_holds_each_cell_once(
    start: Start, tmp_path: Path, kills: int
) -> None:
    dice, struck, sweeps = random.Random(kills), 0, 0
    while struck < kills:
        struck += sweep(start, tmp_path / f"sweep{sweeps}", dice, kills - struck)
        sweeps += 1
    assert struck == kills


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ended_in_the_middle_of_a_cell_it_keeps_all_before_and_goes_on(
    start: Start, tmp_path: Path, number: int
) -> None:
    campaign = start(tmp_path)
    assert campaign.stdout is not None
    told = [campaign.stdout.readline().strip() for _ in range(2)]
    time.sleep(0.05)  # into the next one
    told += end(campaign, number)
    assert campaign.returncode != 0
    assert len(stored(tmp_path)) >= 2
    campaign = start(tmp_path)
    told += campaign.communicate(timeout=60)[0].split()
    assert campaign.returncode == 0
    assert sorted(m.workload.name for m in stored(tmp_path)) == NAMES
    assert len(told) == len(set(told)) >= COUNT - 1
