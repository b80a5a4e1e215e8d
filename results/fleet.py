"""What a fleet costs and gives: throughput, overhead, kills, and whether its worker disturbs.

    python -m results.fleet              # everything, about twelve minutes
    python -m results.fleet throughput   # one part: or overhead, quiet, killed, cpu, stopped, hosts

From the clone's root. Scheduler and workers are processes of their own on loopback. The phones are
the tests' (``tests/fleet_devices.py``): a launch sleeps for some time, and all else is real. The
parts ``cpu``, ``stopped`` and ``hosts`` measure this CPU; the last needs 16 cores, and is left out
where it is not named.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from scipy import stats

from hwbench.devices import get_device
from hwbench.devices.models import GraphModel
from hwbench.devices.profile import PROFILE_PLAN, architecture_jobs, sample_codes
from hwbench.fleet.link import connected
from hwbench.fleet.sweep import FleetSweep
from hwbench.measure.campaign import anchor
from hwbench.measure.copies import copy_slot
from hwbench.measure.process import WorkerProcess
from hwbench.measure.session import measure
from hwbench.records import CanaryEpoch, Measurement
from hwbench.spaces import get_space
from hwbench.spaces.base import Codes
from hwbench.store import Store
from results.gate import NETS, UNITS
from tests.fleet_devices import LAUNCH, FakePhone, install

SPACE = get_space("mbv3_small")
#: Architectures of a sweep whose time is taken.
N = 64


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A verb in a process of its own, and the line in which it names its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "hwbench", "fleet", *arguments], stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        try:
            lines = []
            while not lines or "tcp://" not in lines[-1]:
                lines.append(running.stderr.readline())
                if not lines[-1]:
                    raise RuntimeError(f"fleet {' '.join(arguments)}: {''.join(lines)}")
            yield running, lines[-1].strip()
        finally:
            running.kill()


def phones(n: int) -> str:
    """``--devices`` of so many."""
    return ",".join(f"phone=fake:{i}" for i in range(n))


def swept(address: str, store: Store, n: int, name: str, seed: int) -> float:
    """Seconds that a sweep of ``n`` architectures takes, calibrated and warm before."""
    with connected(address, None) as client:
        sweep = FleetSweep(client, "phone", SPACE, sample_codes(SPACE, n, seed=seed))
        sweep.calibrate(store)
        began = time.perf_counter()
        found = list(sweep.run(store, PROFILE_PLAN, sweep.keys, campaign=f"{name} {n} {seed}"))
        seconds = time.perf_counter() - began
    assert len(found) == n
    assert all(isinstance(m, Measurement) for m in found)
    return seconds


def alone(n: int, seed: int, store: Store) -> float:
    """Seconds that the same takes without a fleet: one session, stored here."""
    phone = FakePhone("alone")
    epoch = anchor(phone, 1, store)
    codes = sample_codes(SPACE, n, seed=seed)
    began = time.perf_counter()
    for half in (codes[::2], codes[1::2]):  # the fleet's blocks on one device
        jobs = architecture_jobs(phone, SPACE, half)
        for m in measure(phone, jobs, PROFILE_PLAN, epoch):
            assert isinstance(m, Measurement)
            store.add(m)
    return time.perf_counter() - began


def throughput(folder: Path) -> dict[str, float]:
    """The same sweep on one phone and on four, whose launches take a third of a real one's time."""
    os.environ[LAUNCH] = "0.1"
    took: dict[str, float] = {}
    with Store.open(folder / "speed.db") as store, process("scheduler", "tcp://127.0.0.1:0") as s:
        address = s[1].split()[-1]
        for name, n in (("one", 1), ("four", 4)):
            with process("worker", address, "--devices", phones(n), "--name", name):
                swept(address, store, 32, name, 99)  # imports, and the phones' epochs
                took[name] = swept(address, store, N, name, 0)
    return {
        **{f"{name}_phones_s": seconds for name, seconds in took.items()},
        "times_the_throughput": took["one"] / took["four"],
    }


def overhead(folder: Path) -> dict[str, float]:
    """A sweep on one phone of a fleet, and without a fleet: three times each, the median."""
    os.environ[LAUNCH] = "0.02"
    with Store.open(folder / "cost.db") as store, process("scheduler", "tcp://127.0.0.1:0") as s:
        address = s[1].split()[-1]
        with process("worker", address, "--devices", phones(1)):
            swept(address, store, 16, "one", 99)
            fleet = float(np.median([swept(address, store, N, "one", i) for i in range(3)]))
        alone(16, 99, store)
        without = float(np.median([alone(N, i, store) for i in range(3)]))
    return {
        "fleet_s": fleet,
        "without_s": without,
        "overhead_a_measurement_ms": (fleet - without) / N * 1e3,
    }


def quiet(seconds: float = 20.0) -> dict[str, float]:
    """Share of one core that an idle worker and the scheduler take."""
    with ExitStack() as stack:
        scheduler, told = stack.enter_context(process("scheduler", "tcp://127.0.0.1:0"))
        how = ("worker", told.split()[-1], "--devices", phones(1))
        worker, _ = stack.enter_context(process(*how))
        time.sleep(3)
        watched = {"worker": worker, "scheduler": scheduler}
        before = {n: sum(psutil.Process(p.pid).cpu_times()[:2]) for n, p in watched.items()}
        time.sleep(seconds)
        after = {n: sum(psutil.Process(p.pid).cpu_times()[:2]) for n, p in watched.items()}
    return {f"idle_{n}_share": (after[n] - before[n]) / seconds for n in watched}


def killed(folder: Path, kills: int = 10) -> dict[str, int]:
    """A sweep of 300 on three workers, one of which is killed every few seconds and comes back."""
    os.environ[LAUNCH] = "0.05"
    dice, struck = random.Random(0), 0
    ended = threading.Event()
    with (
        Store.open(folder / "kills.db") as store,
        process("scheduler", "tcp://127.0.0.1:0") as (_, told),
        ExitStack() as stack,
    ):
        address = told.split()[-1]

        def start(host: int) -> subprocess.Popen[str]:
            how = ("--devices", phones(2), "--name", f"host{host}")
            return stack.enter_context(process("worker", address, *how))[0]

        workers = [start(host) for host in range(3)]

        def strike() -> None:
            nonlocal struck
            for host in itertools.cycle(range(3)):
                if ended.wait(dice.uniform(1, 4)) or struck == kills:
                    return
                workers[host].kill()
                struck += 1
                workers[host] = start(host)

        with connected(address, None) as client:
            sweep = FleetSweep(client, "phone", SPACE, sample_codes(SPACE, 300))
            sweep.calibrate(store)
            killer = threading.Thread(target=strike)
            killer.start()
            answers = list(sweep.run(store, PROFILE_PLAN, sweep.keys, campaign="kills"))
            ended.set()
            killer.join()
        held = Counter(m.workload.arch for m in store.measurements(with_bursts=False))
    return {
        "kills": struck,
        "architectures": len(set(sweep.keys)),
        "failed": sum(not isinstance(a, Measurement) for a in answers),
        "lost": len(set(sweep.keys) - set(held)),
        "duplicated": sum(held.values()) - len(held),
    }


def beside(folder: Path, rounds: int = 6, n: int = 10) -> dict[str, object]:
    """This CPU's latencies with a fleet's worker and without, in turns, under one epoch.

    In the fleet the worker's process stands beside each session, and runs it. Which of the two
    goes first takes turns.
    """
    codes = sample_codes(SPACE, n)
    found: dict[str, list[dict[str, Measurement]]] = {"alone": [], "fleet": []}
    with Store.open(folder / "cpu.db") as store:
        epoch = anchor(get_device("cpu"), 1, store)
        for index in range(rounds):
            for how in ("alone", "fleet") if index % 2 == 0 else ("fleet", "alone"):
                if how == "alone":
                    jobs = architecture_jobs(get_device("cpu"), SPACE, codes)
                    session = measure(get_device("cpu"), jobs, PROFILE_PLAN, epoch)
                    found[how].append(_by_arch(session))
                else:
                    found[how].append(_of_the_fleet(store, epoch, codes, index))
    pairs = [
        (one[arch], other[arch])
        for one, other in zip(found["alone"], found["fleet"], strict=True)
        for arch in one.keys() & other.keys()
        if "inconclusive" not in (one[arch].status, other[arch].status)
    ]
    apart = [np.log(b.latency_ns / a.latency_ns) for a, b in pairs]
    met = [a.low_ns <= b.high_ns and b.low_ns <= a.high_ns for a, b in pairs]
    within = [a.low_ns <= b.latency_ns <= a.high_ns for a, b in pairs]
    return {
        "pairs": len(pairs),
        "of": rounds * n,
        "intervals_meet": float(np.mean(met)),
        "fleet_within_interval_of_alone": float(np.mean(within)),
        "median_difference": float(np.median(apart)),
        "median_difference_by_round": [
            float(
                np.median([np.log(y[k].latency_ns / x[k].latency_ns) for k in x.keys() & y.keys()])
            )
            for x, y in zip(found["alone"], found["fleet"], strict=True)
        ],
        "median_distance": float(np.median(np.abs(apart))),
        "median_half_width": float(
            np.median([np.log(m.high_ns / m.low_ns) / 2 for pair in pairs for m in pair])
        ),
    }


def _of_the_fleet(
    store: Store, epoch: CanaryEpoch, codes: Codes, index: int
) -> dict[str, Measurement]:
    """This CPU's answers through a scheduler and a worker, under the epoch that it has without."""
    with process("scheduler", "tcp://127.0.0.1:0") as (_, told), ExitStack() as stack:
        address = told.split()[-1]
        stack.enter_context(process("worker", address, "--devices", "cpu", "--name", "here"))
        sweep = FleetSweep(stack.enter_context(connected(address, None)), "cpu", SPACE, codes)
        if not sweep.epochs(store):
            ((_, here),) = sweep.devices.values()
            store.add_epoch(replace(epoch, id="here", fingerprint_key=here.fingerprint))
        return _by_arch(sweep.run(store, PROFILE_PLAN, sweep.keys, campaign=f"{index}"))


def stopped(folder: Path, turns: int = 2000, copies: int = 6) -> dict[str, dict[str, float]]:
    """Nets beside an idle worker and its scheduler, which are stopped in every other turn.

    A pair of turns is of the same copies in one process, within a tenth of a second, so that
    hardly anything but the two differs. Which of them is first is drawn, and in which order the
    nets have their turns.
    """
    dice, kinds = random.Random(0), [*NETS][:3]
    log_ratio: dict[str, list[float]] = {kind: [] for kind in kinds}
    with ExitStack() as stack:
        scheduler, told = stack.enter_context(process("scheduler", "tcp://127.0.0.1:0"))
        how = ("worker", told.split()[-1], "--devices", "cpu", "--name", "here")
        idle = scheduler, stack.enter_context(process(*how))[0]
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # none stays behind, stopped
        opened = stack.enter_context(WorkerProcess(sys.executable))
        for kind in kinds:
            (folder / kind).mkdir()
            job = get_device("cpu").job(GraphModel(NETS[kind](UNITS), kind), 1)
            spec = job.build(folder / kind)
            for copy in range(copies):
                opened.load(copy_slot(kind, copy), spec)

        def turn(sign: signal.Signals, copy: int) -> list[float]:
            """A burst of each kind in turn (log ns) while the two run, or are stopped."""
            for each in idle:
                each.send_signal(sign)
            steps = [[copy_slot(kind, copy), 5, 1] for kind in kinds]
            found = opened.ask("round", steps, [])["bursts"]
            return [float(np.log(np.quantile(burst["ns"], 0.25))) for burst in found]

        for number in range(turns):
            dice.shuffle(kinds)  # what has waited for the two to wake up meets the first
            order = dice.sample((signal.SIGCONT, signal.SIGSTOP), 2)
            by = {sign: turn(sign, number % copies) for sign in order}
            both = by[signal.SIGCONT], by[signal.SIGSTOP]
            for kind, run, rest in zip(kinds, *both, strict=True):
                log_ratio[kind].append(run - rest)
    return {kind: _mean_of(np.array(found)) for kind, found in log_ratio.items()}


def hosts(folder: Path, n: int = 48, cores: int = 4) -> dict[str, float]:
    """A sweep on the CPU of one host, and on those of four: so many cores of this machine each."""
    codes, found = sample_codes(SPACE, n), dict[int, dict[str, Measurement]]()
    took: dict[int, float] = {}
    for count in (1, 4):
        with (
            Store.open(folder / f"hosts{count}.db") as store,
            process("scheduler", "tcp://127.0.0.1:0") as (_, told),
            ExitStack() as stack,
        ):
            address = told.split()[-1]
            for host in range(count):
                os.environ["HWBENCH_MACHINE"] = f"host{host}"
                how = ("worker", address, "--devices", "cpu", "--name", f"host{host}")
                worker, _ = stack.enter_context(process(*how))
                own = range(host * cores, (host + 1) * cores)
                for thread in psutil.Process(worker.pid).threads():
                    os.sched_setaffinity(thread.id, own)
            sweep = FleetSweep(stack.enter_context(connected(address, None)), "cpu", SPACE, codes)
            sweep.calibrate(store)
            began = time.perf_counter()
            found[count] = _by_arch(sweep.run(store, PROFILE_PLAN, sweep.keys, campaign="hosts"))
            took[count] = time.perf_counter() - began
    pairs = [
        (one, found[4][arch])
        for arch, one in found[1].items()
        if "inconclusive" not in (one.status, found[4][arch].status)
    ]
    speed = {
        "one_host_s": took[1],
        "four_hosts_s": took[4],
        "times_the_throughput": took[1] / took[4],
        "answers": len(pairs),
        "of": n,
    }
    if not pairs:
        return speed
    apart = [np.log(b.latency_ns / a.latency_ns) for a, b in pairs]
    met = [a.low_ns <= b.high_ns and b.low_ns <= a.high_ns for a, b in pairs]
    return {
        **speed,
        "intervals_meet": float(np.mean(met)),
        "median_difference": float(np.median(apart)),
        "median_distance": float(np.median(np.abs(apart))),
    }


def _mean_of(pairs: np.ndarray) -> dict[str, float]:
    """The mean of pairs, the wildest tenth at either end aside, with its 95 % interval."""
    mean, se = stats.trim_mean(pairs, 0.1), stats.mstats.trimmed_stde(pairs, (0.1, 0.1))
    half = float(stats.t.ppf(0.975, 0.8 * pairs.size - 1) * se)
    return {"slower_by": float(mean), "low": float(mean) - half, "high": float(mean) + half}


def _by_arch(answers: Iterator[object]) -> dict[str, Measurement]:
    return {m.workload.arch or "": m for m in answers if isinstance(m, Measurement)}


def main() -> None:
    parser = argparse.ArgumentParser()
    names = ("throughput", "overhead", "quiet", "killed", "cpu", "stopped", "hosts")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(names))
    asked = parser.parse_args().parts or names[:-1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fakes = install(folder / "fakes")
        sys.path.insert(0, str(fakes))
        os.environ["PYTHONPATH"] = f"{Path.cwd()}{os.pathsep}{fakes}"
        parts = {
            "throughput": partial(throughput, folder),
            "overhead": partial(overhead, folder),
            "quiet": quiet,
            "killed": partial(killed, folder),
            "cpu": partial(beside, folder),
            "stopped": partial(stopped, folder),
            "hosts": partial(hosts, folder),
        }
        for part in asked:
            print(json.dumps({part: parts[part]()}, indent=2), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
