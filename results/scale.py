"""A fleet of 10 to 1,000 devices on paper: the real scheduler, clients and queue, fake devices.

    python -m results.scale run            # 10, 30, 100, 300, 1,000 devices; about eight minutes
    python -m results.scale run 300        # one of them
    python -m results.scale figure         # docs/scale.png of results/reference/scale.json

From the clone's root. A host lends 20 devices, a job sends 20 blocks of 8 architectures, and there
is a job for each 10 devices; all jobs begin at once. The scheduler is ``hwbench fleet scheduler``,
the clients are ``FleetSweep`` with the store left out, the hosts Dask workers with hwbench's seats,
all in one process. Only what a host computes is made up: a block sleeps, and answers with as many
bytes as real measurements have. Runs are kept by ``--name``: two states of the code compare.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from hwbench.errors import InconclusiveError
from hwbench.fleet import tasks
from hwbench.fleet.anchors import anchor
from hwbench.fleet.block import Answer
from hwbench.fleet.link import connected, require_dask, worker_options
from hwbench.fleet.seats import Lent, Seat, Seats
from hwbench.fleet.sweep import FleetSweep
from hwbench.measure.plan import Failure, Plan
from hwbench.records import CanaryEpoch, digest
from hwbench.spaces import get_space
from tests.fleet_devices import FakePhone

DEVICES = (10, 30, 100, 300, 1000)
KIND, SPACE = "phone", get_space("mbv3_small")
SEATS, BLOCKS, ARCHS, DEVICES_A_JOB = 20, 20, 8, 10
#: A block of a real phone takes about so long: 2.4 s an architecture.
BLOCK_S = 20.0
#: Bytes of an architecture's measurement in an answer: 13 kB of eight.
ANSWER_BYTES = 1650
#: Of the canaries of all phones.
CANARIES = "c" * 32
HERE = Path(__file__).resolve().parents[1]
KEPT = HERE / "results" / "reference" / "scale.json"
FIGURE = HERE / "docs" / "scale.png"
MIB = 1 << 20
_spawn = multiprocessing.get_context("spawn")


# --- hosts --------------------------------------------------------------------------------


def _seats() -> Seats:
    from distributed import get_worker

    seats: Seats = get_worker().extensions["hwbench"]
    return seats


def describe(text: str) -> str:
    """Task: a host's devices, without any network built to tell their options."""
    named = [seat.name for seat in _seats().of(KIND)]
    return json.dumps([[name, digest([name]), CANARIES, [], "", False] for name in named])


def perform(text: str) -> str:
    """Task: ask for the anchor, and sleep as long as the plan says; answers say when this began."""
    order = json.loads(text)
    with _seats().taken(order["kind"]) as seat:
        assert anchor(order["anchors"], digest([seat.name]), CANARIES, order["threads"])
        word = f"{time.monotonic()}".ljust(ANSWER_BYTES)
        time.sleep(order["plan"]["seconds"])
        failed = [(arch, InconclusiveError(word)) for arch in order["archs"]]
        return Answer(device=seat.name, failed=failed).text()


def host(address: str, hosts: int, devices: int, pipe: Connection) -> None:
    """Process: so many hosts of so many devices in all."""
    require_dask()
    from distributed import Worker

    async def serve() -> None:
        workers = []
        for number in range(hosts):
            phones = [FakePhone(str(n)) for n in range(number, devices, hosts)]
            seats = Seats([Seat(KIND, p, Lent(p, f"host{number}")) for p in phones])
            how = {"name": f"host{number}", "nthreads": len(phones) + 1}
            workers.append(await Worker(address, **how, **worker_options(seats)))
        pipe.send("ready")
        await asyncio.gather(*(worker.finished() for worker in workers))

    asyncio.run(serve())


# --- jobs ---------------------------------------------------------------------------------


class Anchors:
    """What a store says of devices that are all calibrated."""

    def __init__(self) -> None:
        self._known: dict[str, CanaryEpoch] = {}

    def epoch(self, fingerprint: str, canaries: str, threads: int) -> CanaryEpoch:
        """Made up."""
        if fingerprint not in self._known:
            names, ns = ("fake_conv", "fake_memory"), (150_000.0, 150_000.0)
            day = "2026-11-27T00:00:00+00:00"
            self._known[fingerprint] = CanaryEpoch(
                fingerprint, fingerprint, threads, names, canaries, ns, ns, ns, 8, day
            )
        return self._known[fingerprint]

    def announce(self, sweep: object) -> str:
        """Nobody watches."""
        return ""

    def set_back(self, sweep: str, device: str, *, failures: int, cells: int) -> None:
        """Nobody watches."""


class Watched:
    """A process: CPU seconds so far, its memory at first, and the largest since."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.peak = self.first = self.mib()

    def watch(self) -> None:
        """Look at its memory now, and again as long as this process lives."""
        self.peak = self.first = self.mib()

        def look() -> None:
            while True:
                time.sleep(0.2)
                self.peak = max(self.peak, self.mib())

        threading.Thread(target=look, daemon=True).start()

    def mib(self) -> float:
        """Its memory now."""
        return float(self._process.memory_info().rss / MIB)

    def cpu_s(self) -> float:
        """Seconds of a core that it took so far."""
        return sum(self._process.cpu_times()[:2])


def jobs(address: str, number: int, block_s: float, pid: int, pipe: Connection) -> None:
    """Process: so many clients, each with a sweep; sends what was seen as a dict."""
    tasks.describe, tasks.perform = describe, perform
    codes = SPACE.sample(BLOCKS * ARCHS, np.random.default_rng(0))
    first = FleetSweep(None, KIND, SPACE, codes)  # its graphs are built once, not by each job
    first.keys = list(dict.fromkeys(first.keys))
    watched, own, plan = Watched(pid), Watched(os.getpid()), Plan(processes=2, seconds=block_s)
    marks: list[tuple[float, float]] = []
    step = threading.Barrier(number, lambda: marks.append((time.monotonic(), watched.cpu_s())))
    waits: list[float] = []
    doubled: list[int] = []

    def job() -> None:
        with connected(address, None) as client:
            sweep = copy(first)
            sweep.tasks = tasks.Tasks(client, KIND, 0)
            step.wait()
            assert sweep.devices
            step.wait()
            answers = list(sweep.run(Anchors(), plan, sweep.keys, campaign=None))
            assert all(isinstance(a, Failure) for a in answers)
            began = [float(str(a.error)) for a in answers]
            waits.extend(at - marks[1][0] for at in sorted(set(began)))
            doubled.append(len(answers) - len({a.workload.arch for a in answers}))
            assert {a.workload.arch for a in answers} == set(sweep.keys)
            step.wait()

    with connected(address, None) as client:  # what is loaded at first use is
        warm = copy(first)
        warm.tasks = tasks.Tasks(client, KIND, 0)
        assert warm.devices

    def guarded() -> None:
        try:
            job()
        except BaseException:
            step.abort()  # the others wait for this one
            raise

    threads = [threading.Thread(target=guarded) for _ in range(number)]
    watched.watch()
    own.watch()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (asked, asked_cpu), (sent, sent_cpu), (ended, ended_cpu) = marks
    pipe.send(
        {
            "blocks": len(waits),
            "twice": sum(doubled),
            "ask_s": sent - asked,
            "ask_cpu_s": sent_cpu - asked_cpu,
            "run_s": ended - sent,
            "run_cpu_s": ended_cpu - sent_cpu,
            "waits_s": sorted(waits),
            "memory_before_mib": watched.first,
            "memory_peak_mib": watched.peak,
            "clients_before_mib": own.first,
            "clients_peak_mib": own.peak,
        }
    )


# --- one size -----------------------------------------------------------------------------


@contextmanager
def scheduler() -> Iterator[tuple[int, str]]:
    """``hwbench fleet scheduler``: its process's number, and its address."""
    command = [sys.executable, "-m", "hwbench", "fleet", "scheduler", "tcp://127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        try:
            yield running.pid, running.stderr.readline().split()[-1]
        finally:
            running.kill()


@contextmanager
def process(target: Any, *arguments: object) -> Iterator[Connection]:
    """A function in a process of its own, and the pipe that it is given as its last argument."""
    ours, theirs = _spawn.Pipe()
    running = _spawn.Process(target=target, args=(*arguments, theirs), daemon=True)
    running.start()
    theirs.close()
    try:
        yield ours
    finally:
        running.kill()
        running.join()


def simulated(devices: int, block_s: float, seats: int) -> dict[str, Any]:
    """One size of fleet."""
    hosts, number = math.ceil(devices / seats), math.ceil(devices / DEVICES_A_JOB)
    with (
        scheduler() as (pid, address),
        process(host, address, hosts, devices) as started,
    ):
        started.recv()
        watched = Watched(pid)
        began, cpu = time.monotonic(), watched.cpu_s()
        time.sleep(10)
        idle = (watched.cpu_s() - cpu) / (time.monotonic() - began)
        with process(jobs, address, number, block_s, pid) as pipe:
            seen = pipe.recv()
    waits = np.array(seen.pop("waits_s")) / block_s
    blocks = seen["blocks"]
    free = np.arange(blocks) // devices  # of a queue that costs nothing
    return {
        "devices": devices,
        "hosts": hosts,
        "jobs": number,
        "block_s": block_s,
        **seen,
        "idle_share": idle,
        "busy": blocks * block_s / (devices * seen["run_s"]),
        "busy_at_best": blocks / (devices * (free.max() + 1)),
        "wait_blocks": {"p50": float(np.median(waits)), "p90": float(np.quantile(waits, 0.9))},
        "wait_at_best": {"p50": float(np.median(free)), "p90": float(np.quantile(free, 0.9))},
    }


def run(sizes: list[int], name: str, block_s: float, seats: int) -> None:
    """Simulate these sizes, and keep what was seen under a name."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for devices in sizes:
        found = simulated(devices, block_s, seats)
        others = [row for row in kept.get(name, []) if row["devices"] != devices]
        kept[name] = sorted([*others, found], key=lambda row: row["devices"])
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")
        print(json.dumps(found), flush=True)  # noqa: T201


def needed(row: dict[str, Any]) -> float:
    """Cores that the scheduler needs at most where all devices are at work.

    What it takes between two blocks is counted to them, of which a starved run has more.
    """
    return float(row["run_cpu_s"] / row["blocks"] * row["devices"] / BLOCK_S)


def figure() -> None:
    """What the scheduler needs, and what it and the clients hold, by the size of the fleet."""
    from matplotlib.figure import Figure

    kept = json.loads(KEPT.read_text())
    drawn = Figure(figsize=(9, 3.8), layout="constrained")
    core, memory = drawn.subplots(1, 2)
    for name, style in (("before", "o--"), ("now", "o-")):
        rows = kept[name]
        size = [row["devices"] for row in rows]
        core.plot(size, [100 * needed(row) for row in rows], style, color="C0", label=name)
        for who, key, colour in (
            ("scheduler", "memory", "C0"),
            ("all clients together", "clients", "C1"),
        ):
            grown = [row[f"{key}_peak_mib"] - row[f"{key}_before_mib"] for row in rows]
            memory.plot(size, grown, style, color=colour, label=f"{who}, {name}")
    core.axhline(100, color="C3", lw=1)
    core.text(10, 85, "all of one core", color="C3", va="top")
    core.set(ylabel=f"% of a core, at most (blocks of {BLOCK_S:.0f} s)", title="Scheduler's work")
    memory.set(ylabel="MiB more than before", title="Memory")
    for panel in (core, memory):
        panel.set(xlabel="devices")
        panel.set_xscale("log")
        panel.set_xticks(DEVICES, [f"{n:,}" for n in DEVICES])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, loc="lower right")
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_yscale("log")
    drawn.savefig(FIGURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    runs = verbs.add_parser("run")
    runs.add_argument("devices", nargs="*", type=int)
    runs.add_argument("--name", default="now")
    runs.add_argument("--block-s", type=float, default=BLOCK_S)
    runs.add_argument("--seats", type=int, default=SEATS)
    verbs.add_parser("figure")
    given = parser.parse_args()
    if given.verb == "run":
        run(given.devices or list(DEVICES), given.name, given.block_s, given.seats)
    else:
        figure()


if __name__ == "__main__":
    from results.scale import main as imported  # tasks are told by the module's name

    imported()
