"""Does PNAG find better architectures than what it replaces, when the true front is known?

NAS-Bench-201 on real devices: accuracy of every cell, and latencies of nearly all, were published.
So the best architecture under any budget is known, and regret is exact. All methods get the same
accuracy labels, latency labels and oracle; :mod:`hwbench.verify.pnag_trial` has one device and seed
of it. The methods were developed on two devices that are not judged, with other seeds; how accuracy
is modelled and labels are spent, on the accuracies of other datasets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hwbench
from hwbench.inputs import json_lines
from hwbench.records import Verdict, digest
from hwbench.search.pnag import Schedule
from hwbench.verify.cells import DeviceTable, find_tables, read_device
from hwbench.verify.frame import Claim, Setting, by_bars, over_seeds
from hwbench.verify.pnag_device import PnagOnDevice
from hwbench.verify.pnag_trial import BUDGETS, CALLS, FITTED, LATENCY_LABELS, Task, run_trial

Array = NDArray[np.float64]
Row = Mapping[str, Any]

#: Devices that the search was developed on: never judged.
DEVELOPMENT = ("silver_4114", "samsung_a50")
#: A server CPU, a GPU, two phones (one of whole milliseconds) and a Raspberry Pi.
JUDGED = ("gold_6240", "2080ti_32", "pixel3", "samsung_s7", "pi5_litert_cifar100")
SEEDS, QUICK_SEEDS, QUICK_DEVICES = 10, 2, 2
LABELS, QUICK_LABELS = (100, 200, 400), (400,)

PNAG = "pnag"
BASELINES = ("best of labelled", "rank all", "random", "evolution", "nsga2")
READINGS = ("raw", "guarded", "calibrated", "confirmed")
FIGURES = (
    "regret_points_mean", "regret_kept_points_mean", "satisfaction", "answered", "utilisation",
    "hypervolume",
)  # fmt: skip
REGRET_BAR, SATISFACTION_BAR = 0.3, 0.95


class Pnag(Claim):
    """A generator that is trained once, against searches under each budget."""

    name = "pnag"
    text = (
        "with 400 accuracy labels and 100 latency labels PNAG's architectures for 20 budgets are "
        "within .3 points of the true front of NAS-Bench-201 on real devices, nearer than those "
        "of any baseline, at no more evaluator calls than evolution, and keep the budgets"
    )
    protocol = (
        "published tables; every method has the same labels, oracle and ledger; half of the "
        "budgets were not trained on; regret against the best of all cells by true latency, an "
        "answer that breaks its budget counting as the best cell for the smallest budget"
    )

    def run(self, setting: Setting) -> list[Verdict]:
        """About 20 minutes on an idle machine; with ``quick`` 2. What is done is not done again.

        With tables, on those of the published devices; without, on this one.
        """
        if setting.tables is None:
            return PnagOnDevice().run(setting)
        rows = list(collect(setting, setting.tables))
        evidence = {"quick": setting.quick, **summarise(rows)}
        figure = setting.folder / "pnag.png"
        from hwbench.verify.pnag_figure import pnag_figure

        pnag_figure(rows, figure)
        return [self.verdict(by_bars(evidence["bars"]), evidence, figure)]


def collect(setting: Setting, tables: Path) -> Iterator[dict[str, Any]]:
    """Rows of every judged device, seed and number of labels; finished ones from their files."""
    columns = find_tables(tables)
    devices = judged_devices(columns)[: QUICK_DEVICES if setting.quick else None]
    seeds = range(setting.seed, setting.seed + (QUICK_SEEDS if setting.quick else SEEDS))
    labels = QUICK_LABELS if setting.quick else LABELS
    done, total = 0, len(devices) * len(seeds)
    for device in devices:
        table = read_device(tables, device, columns[device])
        path = setting.folder / f"pnag-{device}-{_key(table)}.jsonl"
        for seed in seeds:
            setting.progress(f"{device}, seed {seed}", done / total)
            yield from trial_rows(table, seed, labels, path)
            done += 1


def judged_devices(columns: Mapping[str, Any]) -> list[str]:
    """The usual ones as far as they are there, or the first few of other tables."""
    usual = [device for device in JUDGED if device in columns]
    others = [device for device in columns if device not in DEVELOPMENT]
    return usual or others[: len(JUDGED)]


def trial_rows(
    table: DeviceTable, seed: int, labels: Sequence[int], path: Path
) -> list[dict[str, Any]]:
    """Rows of one device and seed: from the file, or run and appended to it."""
    held = _read(path)
    task: Task | None = None
    rows: list[dict[str, Any]] = []
    for count in labels:
        found = [row for row in held if (row["seed"], row["labels"]) == (seed, count)]
        if not found:
            task = task or Task.of(table, seed)
            found = run_trial(task, count)
            with path.open("a", encoding="utf-8") as file:
                # A line of its own, whatever an interruption left at the end.
                file.write(f"\n{json.dumps(found)}\n")
        rows += found
    return rows


def _read(path: Path) -> list[dict[str, Any]]:
    """Rows of the whole lines of a file; what an interruption cut short or damaged is left out."""
    lines = json_lines(path) if path.exists() else []
    return [row for rows in lines if _are_rows(rows) for row in rows]


def _are_rows(line: Any) -> bool:
    return isinstance(line, list) and all(
        isinstance(row, dict) and {"seed", "labels"} <= row.keys() for row in line
    )


def _key(table: DeviceTable) -> str:
    """Changes with the data and with the protocol."""
    content = [
        table.latency_ms.tolist(),
        table.known_accuracy.tolist(),
        table.labels.codes.tolist(),
    ]
    protocol = [BUDGETS, CALLS, FITTED, LATENCY_LABELS, asdict(Schedule()), READINGS]
    protocol.append(hwbench.__version__)
    return digest([content, protocol])[:8]


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """What the bars say, and the figures of each device and method with the most labels."""
    most = max(row["labels"] for row in rows)
    last = [row for row in rows if row["labels"] == most]
    devices = list(dict.fromkeys(row["device"] for row in rows))
    mean = {method: _mean(last, method) for method in (PNAG, *BASELINES)}
    regret = {method: mean[method]["confirmed"]["regret_points_mean"] for method in mean}
    volume = {method: mean[method]["confirmed"]["hypervolume"] for method in mean}
    best = min(BASELINES, key=regret.__getitem__)
    difference, half_width = paired(last, PNAG, best)
    calls = {m: _most_calls(last, m) for m in (PNAG, "evolution")}
    kept = {reading: mean[PNAG][reading]["satisfaction"] for reading in READINGS}
    bars = {
        f"regret of at most {REGRET_BAR} points": regret[PNAG] <= REGRET_BAR,
        f"regret below that of the best baseline ({best}), by a paired 95 % interval": (
            difference + half_width < 0
        ),
        **{
            f"{SATISFACTION_BAR:.0%} of the budgets kept, {reading}": share >= SATISFACTION_BAR
            for reading, share in kept.items()
            if reading != "raw"
        },
        "hypervolume not below evolution's and NSGA-II's": (
            volume[PNAG] >= max(volume["evolution"], volume["nsga2"])
        ),
        "no more evaluator calls than evolution": calls[PNAG] <= calls["evolution"],
    }
    return {
        "bars": bars,
        "labels": most,
        "seeds": len({row["seed"] for row in rows}),
        "regret_points_mean": round(regret[PNAG], 3),
        "best_baseline": best,
        "best_baseline_regret_points_mean": round(regret[best], 3),
        "paired_difference_points": round(difference, 3),
        "paired_half_width_95": round(half_width, 3),
        "evaluator_calls": calls[PNAG],
        "evaluator_calls_of_evolution": calls["evolution"],
        **{f"satisfaction_{reading}": round(share, 3) for reading, share in kept.items()},
        "devices": {device: _by_method(last, device) for device in devices},
        "by_labels": {
            str(count): _by_method([r for r in rows if r["labels"] == count], None)
            for count in sorted({row["labels"] for row in rows})
        },
    }


def paired(rows: Sequence[Row], one: str, other: str) -> tuple[float, float]:
    """Mean difference of regret in points, confirmed, and the half-width of its 95 % interval.

    Over seeds, each the mean of its devices: Student's t.
    """
    regret: dict[str, dict[int, list[float]]] = {one: {}, other: {}}
    for row in rows:
        if row["method"] in regret:
            value = row["confirmed"]["regret_points_mean"]
            regret[row["method"]].setdefault(row["seed"], []).append(value)
    by_seed = np.array(
        [np.mean(regret[one][seed]) - np.mean(regret[other][seed]) for seed in regret[one]]
    )
    return over_seeds(by_seed)


def _mean(rows: Sequence[Row], method: str) -> dict[str, dict[str, Any]]:
    """Mean of each figure of each reading, over the rows of one method that have it, else None."""
    own = [row for row in rows if row["method"] == method]
    found: dict[str, dict[str, Any]] = {reading: {} for reading in READINGS}
    for reading, figures in found.items():
        for name in FIGURES:
            known = [row[reading][name] for row in own if row[reading][name] is not None]
            figures[name] = float(np.mean(known)) if known else None
    return found


def _by_method(rows: Sequence[Row], device: str | None) -> dict[str, dict[str, Any]]:
    """Figures by method: the confirmed ones, with the other readings and the ledger below."""
    own = [row for row in rows if device in (None, row["device"])]
    shown: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(row["method"] for row in own):
        rounded = {
            reading: {
                name: None if value is None else round(value, 4) for name, value in figures.items()
            }
            for reading, figures in _mean(own, method).items()
        }
        ledgers = [row["ledger"] for row in own if row["method"] == method]
        ledger = {name: round(float(np.mean([x[name] for x in ledgers])), 2) for name in ledgers[0]}
        shown[method] = {
            **rounded["confirmed"],
            "raw": rounded["raw"],
            "guarded": rounded["guarded"],
            "calibrated": rounded["calibrated"],
            "ledger": ledger,
        }
    return shown


def _most_calls(rows: Sequence[Row], method: str) -> int:
    return max(int(r["ledger"]["evaluator_calls"]) for r in rows if r["method"] == method)
