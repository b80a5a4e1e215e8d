"""False alarms and regressions found by whole comparisons, each run as ``hwbench gate`` runs it.

``python -m results.gate measure FOLDER --seconds 600`` adds trials to FOLDER, until the time is up;
``python -m results.gate table FOLDER`` prints the figures. A trial holds a net of 100 equal units
against itself (one session), or against one of 102 or 103 (sessions until the verdict is clear,
three at most), in fresh processes that load only the two. Half of the trials have the machine to
themselves, a quarter each runs beside a neighbour that computes or streams.

``-d cuda:0 --option cuda_graph=on --added 0 3`` has them elsewhere, and only those: neighbours keep
a core of the host busy, or its memory.

``python -m results.gate sequential FOLDER --seconds 600`` adds what a benchmark in CI has of the
same nets under the same conditions: each after the other, a second in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from hwbench.devices import get_device
from hwbench.devices.base import Device
from hwbench.devices.models import GraphModel
from hwbench.errors import InconclusiveError
from hwbench.graph import Graph, GraphBuilder
from hwbench.measure.process import WorkerProcess
from hwbench.records import Measurement
from hwbench.store import Store
from hwbench.verify.repeatability import neighbour
from hwbench.verify.workloads import bottlenecks, dense, depthwise
from hwbench.watch.calibration import redrawn, smallest_seen
from hwbench.watch.comparison import Comparison, together
from hwbench.watch.gate import GATE, alarming, ruled, ruled_by_pair
from hwbench.watch.pairs import pairs_of
from hwbench.watch.sides import Side
from hwbench.watch.trial import Outcome, compare_live

UNITS = 100
CONDITIONS = ("idle", "compute", "idle", "stream")
LEVELS = (0.95, 0.98, 0.99)
#: Units more than the baseline has; a round has each once, A/A twice.
ADDED = (0, 2, 0, 3)
#: A trial's second look at an alarm comes on top.
_LONGEST_S = 40.0
#: A sequential benchmark's nets, by the units that they have more, and its time for each (s).
SEQUENCE, BENCHMARK_S = {"A": 0, "A again": 0, "+2": 2, "+3": 3}, 1.0
#: Statistics that such benchmarks compare, and from which change on they call it one.
THRESHOLDS = (("median", 0.1), ("median", 0.05), ("mean", 0.05), ("min", 0.05), ("min", 0.02))


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


def trials(
    device: Device, folder: Path, kinds: Sequence[str], sizes: Sequence[int], seconds: float
) -> None:
    """Trials where an earlier run ended, one after the other: a row each in ``trials.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    with Store.open(folder / "gate.db") as store:

        def row(number: int) -> dict[str, Any]:
            turn, place = divmod(number, len(sizes))
            kind, condition = _turn(turn, kinds)
            with neighbour(condition):
                return trial(device, store, kind, sizes[place], condition)

        _go_on(folder / "trials.jsonl", row, seconds - _LONGEST_S)


def benchmarks(folder: Path, kinds: Sequence[str], seconds: float) -> None:
    """Sequential benchmarks where an earlier run ended: a row each in ``sequential.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)

    def row(number: int) -> dict[str, Any]:
        kind, condition = _turn(number, kinds)
        with neighbour(condition):
            return {"kind": kind, "condition": condition, **sequential(kind)}

    _go_on(folder / "sequential.jsonl", row, seconds - _LONGEST_S / 4)


def _turn(number: int, kinds: Sequence[str]) -> tuple[str, str]:
    """The kind of net and the condition of a turn."""
    return kinds[number % len(kinds)], CONDITIONS[number // len(kinds) % len(CONDITIONS)]


def _go_on(path: Path, row: Callable[[int], dict[str, Any]], seconds: float) -> None:
    """Add a row after the other to a file, by their numbers, until the time is up."""
    end = time.monotonic() + seconds
    with path.open("a+", encoding="utf-8") as file:
        file.seek(0)
        number = len(file.readlines())
        while time.monotonic() < end:
            file.write(json.dumps(row(number)) + "\n")
            file.flush()
            number += 1


def sequential(kind: str) -> dict[str, dict[str, float]]:
    """Statistics of each net of the ``SEQUENCE`` (ns), measured one after the other."""
    device, found = get_device("cpu"), {}
    for name, more in SEQUENCE.items():
        job = device.job(GraphModel(NETS[kind](UNITS + more), name), 1)
        with tempfile.TemporaryDirectory() as folder, WorkerProcess(sys.executable) as worker:
            worker.load("m", job.build(Path(folder)))
            worker.ask("warm", "m", 0.05, 3, 60, expect_s=60)
            times = worker.ask("warm", "m", BENCHMARK_S, 5, 100_000, expect_s=60)["ns"]
        statistics = {"median": np.median, "mean": np.mean, "min": np.min}
        found[name] = {each: float(of(times)) for each, of in statistics.items()}
    return found


def trial(device: Device, store: Store, kind: str, added: int, condition: str) -> dict[str, Any]:
    """One ruling of the gate, and all comparisons that it took; what they rest on is stored."""
    start = time.monotonic()
    before, after = (
        device.job(GraphModel(NETS[kind](UNITS + more), f"{kind} {name}"), 1)
        for more, name in ((0, "A"), (added, f"B{added}"))
    )
    about = {"kind": kind, "condition": condition, "added": str(added)}
    effort = GATE if added else replace(GATE, sessions=1)
    looks: list[Comparison] = []

    def compared(side: Side) -> list[Outcome]:
        found = compare_live(device, [side], effort, None, keep=store.add, tags=about)
        looks.extend(each for each in found if isinstance(each, Comparison))
        return found

    row: dict[str, Any] = {**about, "began": datetime.now(UTC).isoformat()[:16]}
    try:
        ruled_by_pair(before, after, compared, effort.tolerance)
    except InconclusiveError as error:
        row["error"] = str(error)
    return {**row, "looks": [asdict(each) for each in looks], "wall_s": time.monotonic() - start}


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")


def table(device: Device, folder: Path, draws: int) -> None:
    """Print all figures."""
    rows = _rows(folder / "trials.jsonl")
    for added in sorted({row["added"] for row in rows}):
        for condition in ("idle", "compute", "stream", "all"):
            _tell(added, condition, rows)
        for kind in NETS:
            _tell(added, kind, rows)
    first = [Comparison(**row["looks"][0]) for row in rows if row["added"] == "0" and row["looks"]]
    say(f"A/A, a session: {_bare(first)}")
    if (folder / "gate.db").exists():
        drawn = list(_drawn(device, folder, draws))
        say(f"A/A drawn anew: {_bare(drawn)}")
        for tolerance in (0.0, 0.01):
            say(f"smallest seen, tolerance {tolerance:.0%}: {smallest_seen(drawn, tolerance)}")
    _rivals(_rows(folder / "sequential.jsonl"))


def _rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def _tell(added: str, of: str, rows: Sequence[dict[str, Any]]) -> None:
    """A line on the trials of a size under a condition, or of a kind of net."""
    chosen = [
        row
        for row in rows
        if row["added"] == added and of in (row["condition"], row["kind"], "all")
    ]
    if chosen:
        say(f"+{added} units, {of}: {_words(chosen)}")


def _rivals(rows: Sequence[dict[str, Any]]) -> None:
    """Sequential statistics with a threshold: false alarms, and regressions found."""
    for statistic, threshold in THRESHOLDS if rows else ():
        counts = []
        for name in list(SEQUENCE)[1:]:
            found = sum(r[name][statistic] / r["A"][statistic] > 1 + threshold for r in rows)
            counts.append(f"{name}: {found} of {len(rows)}")
        say(f"sequential {statistic}, alarm beyond {threshold:.0%}: {', '.join(counts)}")


def _words(rows: Sequence[dict[str, Any]]) -> str:
    """How many, how many alarms the first comparison raises, what it says and what the ruling, how
    far off it is, and how long it takes.
    """
    looks = [Comparison(**row["looks"][0]) for row in rows if row["looks"]]
    tolerance = GATE.tolerance
    first = [look.word(tolerance) for look in looks]
    alarms = sum(alarming(look, tolerance) for look in looks)
    said = [f"n {len(rows)}", f"alarms {alarms}"]
    said += [f"{word} {first.count(word)}" for word in sorted(set(first))]
    rulings = [_ruling(row) for row in rows]
    said.append("ruled " + ", ".join(f"{w} {rulings.count(w)}" for w in sorted(set(rulings))))
    percent = np.array([100 * (look.ratio - 1) for look in looks])
    half = np.median([50 * (look.interval[1] - look.interval[0]) for look in looks])
    said.append(f"median {np.median(percent):+.2f} %, half-width {half:.2f}")
    seconds = [look.seconds for look in looks]
    said.append(f"{np.mean(seconds):.1f} s a comparison, {max(seconds):.1f} at most")
    return ", ".join(said)


def _ruling(row: dict[str, Any]) -> str:
    """What the gate says by the comparisons of a row."""
    looks = iter([Comparison(**look) for look in row["looks"]])
    if "error" in row:
        return "inconclusive"
    try:
        return ruled(row["kind"], looks.__next__, GATE.tolerance, joined=together).word
    except StopIteration:  # of trials by a rule that took it for no alarm
        return "not measured again"


def _bare(comparisons: Sequence[Comparison]) -> str:
    """How often the bare interval leaves out no change, and how often that is called one."""
    said = [f"n {len(comparisons)}"]
    for level in LEVELS:
        told = [replace(c, confidence=level, share=1.0) for c in comparisons]
        alarms = sum(c.word(0.0) != "inconclusive" for c in told)
        p = stats.binomtest(alarms, len(told), 1 - level, alternative="greater").pvalue
        beyond = sum(c.word(GATE.tolerance) in ("slower", "faster") for c in told)
        said.append(f"at {level:.0%} {alarms} beyond 0 (p {p:.2g}), {beyond} alarms")
    return "; ".join(said)


def _drawn(device: Device, folder: Path, draws: int) -> Iterator[Comparison]:
    """Comparisons drawn anew from the processes of the live A/A ones, of one kind each."""
    kinds = [canary.kind for canary in device.canaries(1)]
    sessions: dict[str, list[Measurement]] = defaultdict(list)
    with Store.open(folder / "gate.db", create=False) as store:
        for m in store.measurements():
            if m.tags["added"] == "0":
                sessions[m.session].append(m)
    taken = defaultdict(list)
    for pair in sessions.values():
        if len(pair) == 2:
            try:
                pairs = {
                    (i, 1 - i): pairs_of(pair[i], pair[1 - i], kinds, anchors=True) for i in (0, 1)
                }
            except InconclusiveError:
                continue
            taken[pair[0].tags["kind"]].append(pairs)
    rng, effort = np.random.default_rng(0), replace(GATE, sessions=1)
    for own in taken.values():
        yield from redrawn(own, draws // len(taken), effort, rng)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("measure", "sequential", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nets", nargs="+", choices=[*NETS], default=[*NETS][:3])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("-d", "--device", default="cpu")
    parser.add_argument("--option", action="append", default=[])
    parser.add_argument("--added", nargs="+", type=int, default=[*ADDED])
    told = parser.parse_args()
    device = get_device(told.device, dict(each.split("=", 1) for each in told.option))
    if told.verb == "measure":
        trials(device, told.folder, told.nets, told.added, told.seconds)
    elif told.verb == "sequential":
        benchmarks(told.folder, told.nets, told.seconds)
    else:
        table(device, told.folder, told.draws)


if __name__ == "__main__":
    main()
