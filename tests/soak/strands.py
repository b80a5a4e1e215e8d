"""What a lab does all day, with faults at random: sweeps of a fleet, of this machine, of a phone.

Each returns the faults that struck. After each of them all is whole: every cell is held once.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Self

import numpy as np

from hwbench.errors import HwbenchError
from hwbench.fleet.link import connected
from hwbench.fleet.sweep import FleetSweep
from hwbench.measure.campaign import record
from hwbench.measure.plan import Plan
from hwbench.spaces import get_space
from hwbench.store import Store
from tests.campaign import Campaigns
from tests.loopback import CorruptPush, DieInShell, DropPush, Hang, NoSpace, TruncateShell
from tests.phones import Lent
from tests.stores import integrity
from tests.targets import LocalTarget, job, runner, tiny_net

SPACE = get_space("mbv3_small")
CAMPAIGN = "sweep"
Faults = Counter[str]


def held_once(path: Path, names: set[str], of: str) -> None:
    """Each of these cells (``arch`` or ``name`` of a workload) is in the store's sweep, once."""
    assert integrity(path) == "ok"
    with Store.open(path) as store:
        held = Counter(str(getattr(m.workload, of)) for m in store.measurements(plan=CAMPAIGN))
    assert set(held) >= names, "lost"
    assert max(held.values()) == 1, "measured twice"


# --- a fleet ------------------------------------------------------------------------------

NOTHING, BREAK, SET_ASIDE, KILL, LEAVE = (
    "nothing",
    "a phone off line",
    "two phones set aside",
    "a worker killed",
    "a client that leaves",
)
_STEADY, _MORTAL = "012", "34"
_FLEET_PLAN = Plan(processes=6, seconds=1.6, loaded=15)
#: Those after which a worker is started again, which takes seconds, are rarer.
_DRAWN = (BREAK, LEAVE, BREAK, LEAVE, SET_ASIDE, KILL)


class Lab:
    """A scheduler, a worker of three phones, and one of two that is killed now and then."""

    def __init__(self, faults: Path) -> None:
        self._faults, self._stack = faults, ExitStack()
        self.scheduler, told = self._begin("scheduler", "tcp://127.0.0.1:0")
        self.address = told.split()[-1]
        self.steady = self._worker("steady", _STEADY, "--failures", "1000000")
        self._mortal = self._worker("mortal", _MORTAL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *how: object) -> None:
        self._stack.close()

    def _begin(self, *words: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "hwbench", "fleet", *words]
        process = self._stack.enter_context(
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        )
        self._stack.callback(process.kill)
        assert process.stderr is not None
        return process, process.stderr.readline()

    def _worker(self, name: str, phones: str, *words: str) -> subprocess.Popen[str]:
        lent = ",".join(f"phone=fake:{phone}" for phone in phones)
        how = ("worker", self.address, "--devices", lent, "--name", name, *words)
        process, told = self._begin(*how)
        assert "lending" in told
        return process

    def strike(self, fault: str, dice: random.Random) -> None:
        """Let a fault happen."""
        if fault == KILL:
            self._mortal.kill()
        else:
            phones = {BREAK: dice.choice(_STEADY), SET_ASIDE: _MORTAL}.get(fault, "")
            for phone in phones:
                (self._faults / f"{phone}.broken").touch()

    def mend(self, fault: str) -> None:
        """Put right what it did."""
        for path in self._faults.glob("*.broken"):
            path.unlink()
        if fault in (KILL, SET_ASIDE):
            self._mortal.kill()
            self._mortal.communicate()
            self._mortal = self._worker("mortal", _MORTAL)


def fleet_sweep(lab: Lab, folder: Path, dice: random.Random, n: int) -> Faults:
    """A sweep of ``n`` architectures over the lab's phones; a client that left comes back."""
    struck = Faults()
    codes = SPACE.sample(n, np.random.default_rng(dice.randrange(1 << 32)))
    path = folder / "fleet.db"
    with Store.open(path) as store:
        for attempt in range(10):
            with connected(lab.address, None) as client:
                sweep = FleetSweep(client, "phone", SPACE, codes, priority=dice.randrange(3))
                assert sweep.calibrate(store) == []
                found = store.measurements(plan=CAMPAIGN, with_bursts=False)
                missing = sorted(set(sweep.keys) - {m.workload.arch for m in found})
                if not missing:
                    break
                fault = dice.choice(_DRAWN) if attempt < 2 else NOTHING
                at = dice.randrange(len(missing))
                with closing(sweep.run(store, _FLEET_PLAN, missing, campaign=CAMPAIGN)) as run:
                    for count, _ in enumerate(run):
                        if count == at:
                            struck[fault] += 1
                            lab.strike(fault, dice)
                            if fault == LEAVE:
                                break
            lab.mend(fault)
    held_once(path, set(sweep.keys), "arch")
    del struck[NOTHING]
    return struck


# --- this machine -------------------------------------------------------------------------

_PLAN = Plan(processes=2, seconds=1e-3)
#: What a model does, at its first run, while it warms up, or later.
_MODEL_FAULTS = {
    "a segmentation fault": "ctypes.string_at(0)",
    "a worker out of memory": "os.kill(os.getpid(), signal.SIGKILL)",
    "memory refused": "bytearray(1 << 60)",
    "a model that refuses": "raise ValueError('no such weights')",
}
_AT = (1, 20, 80)


def local_sweep(campaigns: Campaigns, folder: Path, dice: random.Random) -> Faults:
    """Models that fail in worker processes, a session interrupted, and one killed with -9."""
    fault = dice.choice(sorted(_MODEL_FAULTS))
    struck = Faults({fault: 1, "a session killed": 1})
    good = [job(f"good{i}", runner(folder, us=20 + i)) for i in range(2)]
    bad = job("bad", runner(folder, _MODEL_FAULTS[fault], at=dice.choice(_AT), us=10))

    def perhaps(share: float) -> None:
        if dice.random() < 0.2:
            struck["an interrupt"] += 1
            raise KeyboardInterrupt

    path = folder / "local.db"
    target = LocalTarget(folder)
    with Store.open(path) as store:
        jobs = [good[0], bad, good[1]]
        with suppress(KeyboardInterrupt):
            list(record(target, jobs, _PLAN, store, None, campaign=CAMPAIGN, progress=perhaps))
        list(record(target, good, _PLAN, store, None, campaign=CAMPAIGN))
    held_once(path, {"good0", "good1"}, "name")

    process = campaigns.begin(folder)
    time.sleep(dice.uniform(0, 2))
    campaigns.end(process, signal.SIGKILL)
    campaigns.begin(folder)
    _, code = campaigns.rest()
    assert code == 0
    held_once(folder / "store.db", {"net0", "net1"}, "name")
    return struck


# --- a phone ------------------------------------------------------------------------------

_LAUNCH, _PUSH = "--graph", ".part"
_PHONE_FAULTS = {
    "a push that breaks off": DropPush(_PUSH, after_bytes=100),
    "a push damaged": CorruptPush(_PUSH),
    "storage full": NoSpace(_PUSH),
    "a phone unplugged": DieInShell(_LAUNCH, after_bytes=6500, offline_s=0.5),
    "a tool that outlives its shell": DieInShell(_LAUNCH, after_bytes=3000, kill_child=False),
    "output cut off": TruncateShell(_LAUNCH, after_bytes=8000),
    "a phone that hangs": Hang(_LAUNCH, seconds=8),
}


def phone_sweep(lent: Lent, folder: Path, dice: random.Random) -> Faults:
    """Two nets on a phone that fails once, or until the session gives up; then without faults."""
    fault = dice.choice(sorted(_PHONE_FAULTS))
    plan = Plan(processes=2, seconds=0.02, loaded=1)
    device = lent.device()
    jobs = [device.job(tiny_net(4 + index), 1) for index in range(2)]
    path = folder / "phone.db"
    lent.phone.faults.order(_PHONE_FAULTS[fault], times=dice.choice((1, 1, 9)))
    with Store.open(path) as store:
        with suppress(HwbenchError):
            list(record(device, jobs, plan, store, None, campaign=CAMPAIGN))
        lent.phone.faults.clear()
        lent.phone.connect(lent.client)
        list(record(device, jobs, plan, store, None, campaign=CAMPAIGN))
    held_once(path, {"tiny4", "tiny5"}, "name")
    wait_until(lambda: not lent.running())
    return Faults({fault: 1})


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """What never comes fails."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def entries(folder: Path) -> int:
    """Files and folders below it."""
    return sum(len(folders) + len(files) for _, folders, files in os.walk(folder))
