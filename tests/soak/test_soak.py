"""Two hours of a lab in minutes: what went on is whole, and nothing is held that was not before."""

from __future__ import annotations

import gc
import os
import random
import tempfile
import time
from pathlib import Path

import pytest

from tests.fleet_devices import FAULTS, LAUNCH, install
from tests.phones import Lent, one, pool, with_patience
from tests.soak.strands import (
    Campaigns,
    Faults,
    Lab,
    entries,
    fleet_sweep,
    local_sweep,
    phone_sweep,
)
from tests.soak.usage import MEMORY, growth, held, leaks

__all__ = ["one", "pool"]

#: What takes a phone two hours: 20 launches an architecture, canaries among them, of 0.3 s each.
MEASUREMENTS, ROUNDS = 1200, 12
#: ``make soak SEED=…`` repeats one.
SEED = "HWBENCH_SOAK_SEED"


@pytest.fixture
def temporary(one: Lent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, here and in processes; fake phones are known there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    # What hangs is given up after seconds, but not what waits for a core of a busy machine.
    with_patience(monkeypatch, launch_s=5.0, canary_s=5.0, back_within_s=20.0, patience_s=10.0)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    fakes = install(tmp_path / "fakes")
    monkeypatch.syspath_prepend(fakes)
    monkeypatch.setenv("PYTHONPATH", f"{Path.cwd()}{os.pathsep}{fakes}")
    monkeypatch.setenv(LAUNCH, "0.0005")
    monkeypatch.setenv(FAULTS, str(tmp_path))
    return folder


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_two_hours_of_faults_leave_nothing_behind(
    root: Path,
    tmp_path: Path,
    temporary: Path,
    one: Lent,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(10**6))
    dice, began = random.Random(seed), time.monotonic()
    faults, rounds = Faults(), []
    with Lab(tmp_path) as lab, Campaigns(root, 2) as campaigns:
        for index in range(ROUNDS):
            folder = tmp_path / f"round{index}"
            folder.mkdir()
            faults += fleet_sweep(lab, folder, dice, MEASUREMENTS // ROUNDS)
            if index % 3 == 1:
                faults += local_sweep(campaigns, folder, dice)
            elif index % 3 == 2:
                faults += phone_sweep(one, folder, dice)
            gc.collect()
            rounds.append(
                {
                    "the client": held(),
                    "the scheduler": held(lab.scheduler.pid),
                    "a worker": held(lab.steady.pid),
                    "a campaign": held(campaigns.process.pid),
                    "the phone": {"files": entries(one.folder), "processes": len(one.running())},
                    "this machine": {"temporary files": entries(temporary)},
                }
            )
            with capsys.disabled():
                told = f"{index + 1}/{ROUNDS} seed {seed}: {rounds[-1]}"
                print(told, flush=True)  # noqa: T201
    memory = {
        part: growth([r[part][MEMORY] for r in rounds], MEMORY)
        for part in rounds[0]
        if MEMORY in rounds[0][part]
    }
    grew = ", ".join(f"{part} {by:+.1f}" for part, by in memory.items())
    with capsys.disabled():
        print(  # noqa: T201
            f"soak, seed {seed}: {MEASUREMENTS} measurements of a fleet in {ROUNDS} rounds, "
            f"{faults.total()} faults of {len(faults)} kinds, 0 lost, 0 twice; memory in MiB: "
            f"{grew}; leaks: {leaks(rounds) or 'none'}; {time.monotonic() - began:.0f} s, "
            f"{sum(os.times()[:4]):.0f} s of a core"
        )
    assert leaks(rounds) == {}
