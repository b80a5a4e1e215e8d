"""False alarms and regressions found: sessions of one net four times, and two slower ones.

``python results/watch.py measure FOLDER --seconds 285 --nets conv depthwise`` measures
into FOLDER (a store, and the times of a sequential benchmark); ``python results/watch.py table
FOLDER`` prints the figures. A net is a stem and 100 equal units; a regression is 2 or 3 units more.
Half of the sessions leave the machine alone, a quarter each runs beside a neighbour that computes
or streams.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
from scipy import stats

from hwbench.devices import get_device
from hwbench.devices.models import GraphModel
from hwbench.graph import Graph, GraphBuilder
from hwbench.measure.jobs import Job
from hwbench.measure.plan import Plan
from hwbench.measure.process import WorkerProcess
from hwbench.measure.session import measure
from hwbench.records import Measurement
from hwbench.store import Store
from hwbench.verify.repeatability import neighbour
from hwbench.verify.workloads import bottlenecks, dense, depthwise
from hwbench.watch.calibration import redrawn, smallest_seen
from hwbench.watch.comparison import Comparison, compare_pairs
from hwbench.watch.pairs import Pairs, pairs_of, pooled
from hwbench.watch.trial import Effort

UNITS = 100
VARIANTS = {"A0": 0, "A1": 0, "A2": 0, "A3": 0, "B2": 2, "B3": 3}
CONDITIONS = ("idle", "compute", "idle", "stream")
PROCESSES, SECONDS = 6, 2.5
LEVELS = (0.95, 0.98, 0.99)


def conv(units: int) -> Graph:
    """Plain 3x3 convolutions of 16 channels on 14 px."""
    b = GraphBuilder("conv")
    x = b.activation(b.conv(b.input("x", (1, 3, 28, 28)), 16, kernel=3, stride=2), "relu")
    for _ in range(units):
        x = b.activation(b.conv(x, 16, kernel=3), "relu")
    return b.build(x)


NETS: dict[str, Callable[[int], Graph]] = {
    "conv": conv,
    "bottleneck": lambda units: bottlenecks(units, 8, 3, 28),
    "depthwise": lambda units: depthwise(units, 48, 3, 32),
    "dense": lambda units: dense(units, 160),
}


def sessions(folder: Path, kinds: Sequence[str], seconds: float, seed: int) -> None:
    """Sessions of one kind after the other, until the time is up."""
    device, began, longest = get_device("cpu"), time.monotonic(), 20.0
    jobs = {
        kind: [
            device.job(GraphModel(NETS[kind](UNITS + more), f"{kind} {name}"), 1)
            for name, more in VARIANTS.items()
        ]
        for kind in kinds
    }
    folder.mkdir(parents=True, exist_ok=True)
    with Store.open(folder / "watch.db") as store:
        number = 0
        while time.monotonic() - began + longest < seconds:
            start, kind = time.monotonic(), kinds[number % len(kinds)]
            condition = CONDITIONS[number // len(kinds) % 4]
            tags = {"condition": condition, "kind": kind}
            plan = Plan(PROCESSES, SECONDS, seed=1000 * seed + number, tags=tags)
            with neighbour(condition):
                for answer in measure(device, jobs[kind], plan, None):
                    if isinstance(answer, Measurement):
                        store.add(answer)
                if number % 4 == 1:
                    row = {"kind": kind, "condition": condition, **sequential(jobs[kind])}
                    with (folder / "sequential.jsonl").open("a") as file:
                        file.write(json.dumps(row) + "\n")
            longest = max(longest, time.monotonic() - start)
            number += 1


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")


def sequential(jobs: Sequence[Job]) -> dict[str, dict[str, float]]:
    """Each model after the other in a process of its own, as a benchmark's runs in CI are."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for job in jobs:
            with WorkerProcess(sys.executable) as worker:
                worker.load("m", job.build(Path(folder)))
                worker.ask("warm", "m", 0.05, 3, 60, expect_s=60)
                times = worker.ask("warm", "m", SECONDS - 0.5, 3, 100_000, expect_s=60)["ns"]
            statistics = {"median": np.median, "mean": np.mean, "min": np.min}
            name = job.workload.name.split()[1]
            found[name] = {each: float(of(times)) for each, of in statistics.items()}
    return found


Taken = dict[tuple[str, str], Pairs]


def taken(folder: Path) -> Iterator[tuple[str, str, Taken, float]]:
    """(kind, condition, pairs by variants, seconds a model) of each session."""
    kinds = [canary.kind for canary in get_device("cpu").canaries(1)]
    groups: dict[str, list[Measurement]] = defaultdict(list)
    with Store.open(folder / "watch.db", create=False) as store:
        for m in store.measurements():
            groups[m.session].append(m)
    for group in groups.values():
        own = {m.workload.name.split()[1]: m for m in group}
        pairs = {}
        for a, b in permutations(own, 2):
            if a.startswith("A"):
                pairs[a, b] = pairs_of(own[a], own[b], kinds, anchors=True)
        tags = group[0].tags
        yield tags["kind"], tags["condition"], pairs, float(np.mean([m.seconds for m in group]))


def table(folder: Path, draws: int) -> None:
    """Print all figures."""
    found = list(taken(folder))
    say(f"{len(found)} sessions, {2 * np.mean([s for *_, s in found]):.1f} s a comparison")
    for name, chosen in (("A/A", [("A0", "A1"), ("A2", "A3")]), ("+2 %", [("A0", "B2")]),
                         ("+3 %", [("A2", "B3")])):  # fmt: skip
        for condition in ("idle", "compute", "stream", "all"):
            own = [
                (kind, pairs[side])
                for kind, where, pairs, _ in found
                for side in chosen
                if side in pairs and condition in (where, "all")
            ]
            if own:
                _tell(f"{name} {condition}", [compare_pairs(("A", "B"), p) for _, p in own])
        _tell(f"{name} three sessions pooled", _pooled(found, chosen))
    rng, effort = np.random.default_rng(0), Effort(PROCESSES, sessions=1)
    by_kind: dict[str, list[Taken]] = defaultdict(list)
    for kind, _, pairs, _ in found:
        by_kind[kind].append({k: p for k, p in pairs.items() if k[1].startswith("A")})
    drawn = [
        c for own in by_kind.values() for c in redrawn(own, draws // len(by_kind), effort, rng)
    ]
    _tell("A/A drawn anew", drawn)
    for tolerance in (0.0, 0.01):
        say(f"smallest seen, tolerance {tolerance:.0%}: {smallest_seen(drawn, tolerance)}")
    _rivals(folder)


def _pooled(found: Sequence[tuple[str, str, Taken, float]], chosen: object) -> list[Comparison]:
    """Three sessions of a kind at a time."""
    parts: dict[tuple[str, tuple[str, str]], list[Pairs]] = defaultdict(list)
    for kind, _, pairs, _ in found:
        for side in chosen:  # type: ignore[attr-defined]
            if side in pairs:
                parts[kind, side].append(pairs[side])
    return [
        compare_pairs(("A", "B"), pooled(own[first : first + 3]), share=0.5)
        for own in parts.values()
        for first in range(0, len(own) - 2, 3)
    ]


def _tell(name: str, comparisons: Sequence[Comparison]) -> None:
    """One line: spread, alarms by the bare interval, and words."""
    if not comparisons:
        return
    percent = np.array([100 * (c.ratio - 1) for c in comparisons])
    half = np.median([50 * (c.interval[1] - c.interval[0]) for c in comparisons])
    said = [f"{name}: n {len(percent)}, median {np.median(percent):+.2f} %"]
    said.append(f"90 % within {np.percentile(np.abs(percent - np.median(percent)), 90):.2f}")
    said.append(f"half-width {half:.2f}")
    for level in LEVELS:
        alarms = sum(
            replace(c, confidence=level, share=1.0).word(0.0) != "inconclusive" for c in comparisons
        )
        p = stats.binomtest(alarms, len(percent), 1 - level, alternative="greater").pvalue
        said.append(f"beyond 0 at {level:.0%}: {alarms} (p {p:.2g})")
    words = [c.word(0.01) for c in comparisons]
    counts = {word: words.count(word) for word in sorted(set(words))}
    say(f"{', '.join(said)} {counts}")


def _rivals(folder: Path) -> None:
    """Sequential statistics with a threshold: false alarms, and regressions found."""
    file = folder / "sequential.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for statistic, threshold in (("median", 0.10), ("mean", 0.05), ("min", 0.05), ("min", 0.02)):
        counts = []
        for a, b in (("A0", "A1"), ("A0", "B2"), ("A0", "B3")):
            ratios = [r[b][statistic] / r[a][statistic] for r in rows if a in r and b in r]
            counts.append(f"{b}: {sum(x > 1 + threshold for x in ratios)} of {len(ratios)}")
        say(f"sequential {statistic}, alarm beyond {threshold:.0%}: {', '.join(counts)}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("measure", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nets", nargs="+", choices=[*NETS], default=[*NETS])
    parser.add_argument("--seconds", type=float, default=285)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=2000)
    told = parser.parse_args()
    if told.verb == "measure":
        sessions(told.folder, told.nets, told.seconds, told.seed)
    else:
        table(told.folder, told.draws)


if __name__ == "__main__":
    main()
