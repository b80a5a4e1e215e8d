"""A sweep that is ended at any time, and started again: each cell is measured, and stored once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from hwbench.records import Measurement
from hwbench.store import Store
from tests.stores import integrity
from tests.targets import leaves_nothing, workers

COUNT = 4
NAMES = [f"net{i}" for i in range(COUNT)]


class Campaigns:
    """tests/campaign.py: one process after another measures the same sweep."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign", str(COUNT)],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        """What is printed next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def begin(self, folder: Path) -> int:
        """Start a process that goes on with the sweep there; its number."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()
        return int(self.line())

    def rest(self) -> tuple[list[str], int]:
        """Wait for its end: what it told, and its exit code, or minus the signal."""
        told = list[str]()
        while not (line := self.line()).startswith("ended "):
            told.append(line)
        return told, int(line.split()[1])

    def end(self, process: int, number: int) -> tuple[list[str], int]:
        """Send it the signal; then as :meth:`rest`. Its workers end with it."""
        below = list[psutil.Process]()
        with suppress(psutil.NoSuchProcess, ProcessLookupError):  # where it came to its end
            os.kill(process, signal.SIGSTOP)  # here, however long we take to look
            below = workers(process)
            os.kill(process, number)
            os.kill(process, signal.SIGCONT)
        ended = self.rest()
        _, alive = psutil.wait_procs(below, timeout=10)
        assert not alive, "a worker outlived its session"
        return ended


@pytest.fixture
def campaigns(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Campaigns]:
    """What a killed one left among the temporary files went with the next."""
    with leaves_nothing(tmp_path, monkeypatch):
        started = Campaigns(root)
        try:
            yield started
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.process.pid, signal.SIGKILL)
            started.process.communicate()


def stored(folder: Path) -> list[str]:
    """The cells that the sweep holds, samples and checksums read; the file is sound."""
    path = folder / "store.db"
    if not path.exists():
        return []
    assert integrity(path) == "ok"
    with Store.open(path) as store:
        found: list[Measurement] = store.measurements(plan="sweep")
        assert len(found) == len(store.measurements())
    assert all((m.bursts.sample_ns > 0).all() and len(m.bursts) for m in found)
    return [m.workload.name for m in found]


def sweep(campaigns: Campaigns, folder: Path, dice: random.Random, most: int) -> int:
    """One sweep, killed at random points until it is whole, ``most`` times; how many it took."""
    folder.mkdir()
    told, kills, cells, longest_s, code = list[str](), 0, 0, 1.0, 1
    while code:
        process = campaigns.begin(folder)
        if kills < most:
            time.sleep(dice.uniform(0, longest_s))
            more, code = campaigns.end(process, signal.SIGKILL)
            kills += code == -signal.SIGKILL
        else:
            more, code = campaigns.rest()
        told += more
        held = stored(folder)
        assert set(told) <= set(held), "what was acknowledged is lost"
        assert len(set(held)) == len(held)
        # A busy machine is given longer: about a cell between two kills.
        longest_s *= 1.3 if len(held) == cells else 0.8
        cells = len(held)
    assert sorted(held) == NAMES
    # A kill between storing and telling loses the line, never the result.
    assert len(told) == len(set(told)) >= COUNT - kills
    return kills


@pytest.mark.parametrize(
    "kills", [2, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_killed_at_random_points_it_holds_each_cell_once(
    campaigns: Campaigns, tmp_path: Path, kills: int
) -> None:
    dice, struck, sweeps = random.Random(kills), 0, 0
    while struck < kills:
        struck += sweep(campaigns, tmp_path / f"sweep{sweeps}", dice, kills - struck)
        sweeps += 1
    assert struck == kills


def test_interrupted_in_the_middle_of_a_cell_it_keeps_all_before_and_goes_on(
    campaigns: Campaigns, tmp_path: Path
) -> None:
    process = campaigns.begin(tmp_path)
    told = [campaigns.line()]
    time.sleep(0.05)  # into the next one
    more, code = campaigns.end(process, signal.SIGINT)
    assert code
    assert set(told + more) <= set(stored(tmp_path))
    campaigns.begin(tmp_path)
    last, code = campaigns.rest()
    told += more + last
    assert code == 0
    assert sorted(stored(tmp_path)) == NAMES
    assert len(told) == len(set(told)) >= COUNT - 1
