"""A sweep that is ended at any time, and started again: each cell is measured, and stored once."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwbench.records import Measurement
from hwbench.store import Store
from tests.campaign import Campaigns
from tests.stores import integrity
from tests.targets import leaves_nothing

COUNT = 4
NAMES = [f"net{i}" for i in range(COUNT)]


@pytest.fixture
def campaigns(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Campaigns]:
    """What a killed one left among the temporary files went with the next."""
    with leaves_nothing(tmp_path, monkeypatch), Campaigns(root, COUNT) as started:
        yield started


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
