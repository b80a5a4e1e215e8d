"""False alarms and regressions found by whole comparisons, each run as ``hwbench gate`` runs it.

``python -m results.gate measure FOLDER --seconds 600`` adds trials to FOLDER, until the time is up;
``python -m results.gate table FOLDER`` prints the figures. A trial holds a net of 100 equal units
against itself (one session), or against one of 102 or 103 (sessions until the verdict is clear,
three at most), in fresh processes that load only the two. Half of the trials have the machine to
themselves, a quarter each runs beside a neighbour that computes or streams.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from hwbench.devices import get_device
from hwbench.devices.models import GraphModel
from hwbench.errors import InconclusiveError
from hwbench.records import Measurement
from hwbench.store import Store
from hwbench.verify.repeatability import neighbour
from hwbench.watch.calibration import redrawn, smallest_seen
from hwbench.watch.comparison import Comparison
from hwbench.watch.gate import CONFIDENCE, ruled_by_pair
from hwbench.watch.pairs import pairs_of
from hwbench.watch.trial import Effort, Outcome, Side, compare_live
from results.watch import CONDITIONS, LEVELS, NETS, UNITS, say

#: Units more than the baseline has; a round has each once, A/A twice.
ADDED = (0, 2, 0, 3)
#: As ``hwbench gate`` has it.
EFFORT = Effort(confidence=CONFIDENCE)
#: A trial's second look at an alarm comes on top.
_LONGEST_S = 40.0


def trials(folder: Path, kinds: Sequence[str], seconds: float) -> None:
    """Trials where an earlier run ended, one after the other: a row each in ``trials.jsonl``."""
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    with Store.open(folder / "gate.db") as store, (folder / "trials.jsonl").open("a+") as file:
        file.seek(0)
        number = len(file.readlines())
        while time.monotonic() - began + _LONGEST_S < seconds:
            turn, place = divmod(number, len(ADDED))
            kind = kinds[turn % len(kinds)]
            condition = CONDITIONS[turn // len(kinds) % len(CONDITIONS)]
            with neighbour(condition):
                row = trial(store, kind, ADDED[place], condition)
            file.write(json.dumps(row) + "\n")
            file.flush()
            number += 1


def trial(store: Store, kind: str, added: int, condition: str) -> dict[str, Any]:
    """One ruling of the gate, and all comparisons that it took; A/A ones are stored."""
    device, start = get_device("cpu"), time.monotonic()
    before, after = (
        device.job(GraphModel(NETS[kind](UNITS + more), f"{kind} {name}"), 1)
        for more, name in ((0, "A"), (added, f"B{added}"))
    )
    about = {"kind": kind, "condition": condition, "added": str(added)}
    effort, keep = (EFFORT, None) if added else (replace(EFFORT, sessions=1), store.add)
    looks: list[Comparison] = []

    def compared(side: Side) -> list[Outcome]:
        found = compare_live(device, [side], effort, None, keep=keep, tags=about)
        looks.extend(each for each in found if isinstance(each, Comparison))
        return found

    row: dict[str, Any] = {**about, "began": datetime.now(UTC).isoformat()[:16]}
    try:
        row["ruling"] = ruled_by_pair(before, after, compared, effort.tolerance).word
    except InconclusiveError as error:
        row |= {"ruling": "inconclusive", "error": str(error)}
    return {**row, "looks": [asdict(each) for each in looks], "wall_s": time.monotonic() - start}


def table(folder: Path, draws: int) -> None:
    """Print all figures."""
    lines = (folder / "trials.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for added in sorted({row["added"] for row in rows}):
        for condition in ("idle", "compute", "stream", "all"):
            own = [
                row
                for row in rows
                if row["added"] == added and condition in (row["condition"], "all")
            ]
            if own:
                say(f"+{added} units, {condition}: {_words(own)}")
    first = [Comparison(**row["looks"][0]) for row in rows if row["added"] == "0" and row["looks"]]
    say(f"A/A, a session: {_bare(first)}")
    drawn = list(_drawn(folder, draws))
    say(f"A/A drawn anew: {_bare(drawn)}")
    for tolerance in (0.0, 0.01):
        say(f"smallest seen, tolerance {tolerance:.0%}: {smallest_seen(drawn, tolerance)}")


def _words(rows: Sequence[dict[str, Any]]) -> str:
    """How many, what the first comparison and the ruling say, how far off, and how long."""
    looks = [Comparison(**row["looks"][0]) for row in rows if row["looks"]]
    tolerance = EFFORT.tolerance
    first = [look.word(tolerance) for look in looks]
    said = [f"n {len(rows)}", *(f"{word} {first.count(word)}" for word in sorted(set(first)))]
    rulings = [row["ruling"] for row in rows]
    said.append("ruled " + ", ".join(f"{w} {rulings.count(w)}" for w in sorted(set(rulings))))
    percent = np.array([100 * (look.ratio - 1) for look in looks])
    half = np.median([50 * (look.interval[1] - look.interval[0]) for look in looks])
    said.append(f"median {np.median(percent):+.2f} %, half-width {half:.2f}")
    seconds = [look.seconds for look in looks]
    said.append(f"{np.mean(seconds):.1f} s a comparison, {max(seconds):.1f} at most")
    return ", ".join(said)


def _bare(comparisons: Sequence[Comparison]) -> str:
    """How often the bare interval leaves out no change, and how often that is called one."""
    said = [f"n {len(comparisons)}"]
    for level in LEVELS:
        told = [replace(c, confidence=level, share=1.0) for c in comparisons]
        alarms = sum(c.word(0.0) != "inconclusive" for c in told)
        p = stats.binomtest(alarms, len(told), 1 - level, alternative="greater").pvalue
        beyond = sum(c.word(EFFORT.tolerance) in ("slower", "faster") for c in told)
        said.append(f"at {level:.0%} {alarms} beyond 0 (p {p:.2g}), {beyond} alarms")
    return "; ".join(said)


def _drawn(folder: Path, draws: int) -> Iterator[Comparison]:
    """Comparisons drawn anew from the processes of the live A/A ones, of one kind each."""
    kinds = [canary.kind for canary in get_device("cpu").canaries(1)]
    sessions: dict[str, list[Measurement]] = defaultdict(list)
    with Store.open(folder / "gate.db", create=False) as store:
        for m in store.measurements():
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
    rng, effort = np.random.default_rng(0), replace(EFFORT, sessions=1)
    for own in taken.values():
        yield from redrawn(own, draws // len(taken), effort, rng)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("measure", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nets", nargs="+", choices=[*NETS], default=[*NETS][:3])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--draws", type=int, default=2000)
    told = parser.parse_args()
    if told.verb == "measure":
        trials(told.folder, told.nets, told.seconds)
    else:
        table(told.folder, told.draws)


if __name__ == "__main__":
    main()
