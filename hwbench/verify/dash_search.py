"""Does DASH's search pay? Rows of trials, kept one by one, and what they say together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import hwbench
from hwbench.records import Verdict, digest
from hwbench.verify.frame import Claim, Setting, by_bars, over_seeds

if TYPE_CHECKING:
    from hwbench.verify.dash_trial import Extent

Row = Mapping[str, Any]

#: Tasks with less error than the fixed network's; a search's seconds; times the fixed training.
TASKS_BAR, SECONDS_BAR, TIMES_BAR = 2, 240.0, 2.0

STATEMENT = (
    "kernels and dilations that DASH finds make a network better than its fixed ones, tuned alike, "
    "on at least two of three tasks, after at most 4 minutes of search"
)
CHEAP = "DASH's search and retraining together take less than twice the backbone's training"
BEST = "DASH finds better kernels than random search and evolution do in the same time"
PROTOCOL = (
    "sEMG gestures and spoken digits (32 log bands) by a 1D ResNet of 16 channels, Darcy flow as a "
    "map by WRN-16 of half of WRN-16-1's width (without tables: made sequences and 8x8 digits); a "
    "mixture trained for 200 steps, decoded, six pairs of learning rate and decay tried for 40 "
    "steps on validation samples, the network trained for 1,000; the fixed network, random kernels "
    "and evolution tuned and trained alike, the two after as many CPU seconds of search; test "
    "samples read once; paired differences over seeds, 95 % intervals by Student's t; one thread"
)


def search_verdicts(claim: Claim, setting: Setting) -> list[Verdict]:
    """The statements on the search. 40 minutes of one core; goes on trial by trial."""
    from hwbench.verify.dash_trial import MADE, METHODS, TASKS, Extent

    extent = Extent()
    tables = setting.tables
    there = tables is not None and all((tables / file).exists() for file in TASKS.values())
    names = tuple(TASKS) if there else MADE
    places = [(n, s) for s in range(setting.seed, setting.seed + extent.seeds) for n in names]
    rows: list[dict[str, Any]] = []
    for some in (METHODS[:2], METHODS):  # the claim's own first, then the rivals
        rows = []
        for i, (name, seed) in enumerate(places):
            part = replace(setting, progress=_of(setting, i, len(places)))
            rows.append(kept_row(part, name, seed, extent, some))
    summary = summarise(rows)
    judged = ((STATEMENT, "search"), (CHEAP, "cost"), (BEST, "rivals"))
    bars, rest = summary["bars"], {k: v for k, v in summary.items() if k != "bars"}
    return [
        replace(
            claim.verdict(by_bars(bars[key]), {"bars": bars[key], **rest}),
            claim=text,
            protocol=PROTOCOL,
        )
        for text, key in judged
    ]


def _of(setting: Setting, i: int, n: int) -> Any:
    return lambda what, share: setting.progress(what, (i + share) / n)


def kept_row(
    setting: Setting, name: str, seed: int, extent: Extent, methods: Sequence[str]
) -> dict[str, Any]:
    """The row of a task and a seed: each method from the trial's folder, or run and kept there."""
    from hwbench.predictors.files import replace_file
    from hwbench.verify.dash_trial import Trial, task_of

    task = task_of(name, setting.tables, seed)
    # More seeds do not change the trials of those that there are.
    about = digest([asdict(replace(extent, seeds=1)), task.digest, hwbench.__version__])[:8]
    folder = Path(setting.folder) / f"dash-search-{name}-{seed}-{about}"
    folder.mkdir(parents=True, exist_ok=True)
    trial = Trial(task, seed, extent, folder, setting.progress)
    found: dict[str, dict[str, Any]] = {}
    for method in methods:
        path = folder / f"{method}.json"
        if not path.exists():
            row = trial.row(method, found["dash"]["search_seconds"] if found else 0.0)
            replace_file(path, json.dumps(row, indent=1).encode())
        found[method] = json.loads(path.read_text(encoding="utf-8"))
    return {**trial.about(), "methods": found}


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures by task, and the bars of each statement."""
    names = list(dict.fromkeys(row["task"] for row in rows))
    tasks = {name: _task([row for row in rows if row["task"] == name]) for name in names}
    better = sum(
        task["lower_than_fixed"][0] > task["lower_than_fixed"][1] for task in tasks.values()
    )
    needed = min(TASKS_BAR, len(tasks))
    seconds = [_seconds(row["methods"]["dash"], "search", "tuning") for row in rows]
    times = {name: task["times_backbone_training"] for name, task in tasks.items()}
    rivals = {
        rival: sum(
            t[f"lower_than_{rival}"][0] > t[f"lower_than_{rival}"][1] for t in tasks.values()
        )
        for rival in ("random", "evolution")
    }
    return {
        "bars": {
            "search": {
                f"lower error than the fixed network, interval above 0: {needed} tasks": (
                    better >= needed
                ),
                f"search and tuning take at most {SECONDS_BAR:.0f} CPU seconds": (
                    max(seconds) <= SECONDS_BAR
                ),
            },
            "cost": {
                f"{name}: less than {TIMES_BAR:g} times": t < TIMES_BAR for name, t in times.items()
            },
            "rivals": {
                f"lower error than {rival}, interval above 0: {needed} tasks": count >= needed
                for rival, count in rivals.items()
            },
        },
        "trials": len(rows),
        "tasks": tasks,
        "longest_search_seconds": round(max(seconds), 1),
    }


def _seconds(method: Mapping[str, Any], *parts: str) -> float:
    return float(sum(method[f"{part}_seconds"] for part in parts))


def _task(rows: Sequence[Row]) -> dict[str, Any]:
    """What the seeds of a task say: mean errors, and by how much DASH's is lower, half the 95 %
    interval beside it."""
    by_name = {
        name: np.array([row["methods"][name]["test_error"] for row in rows])
        for name in ("fixed", "dash", "random", "evolution")
    }
    differences = {}
    for name, errors in by_name.items():
        if name != "dash":
            mean, half = over_seeds(errors - by_name["dash"])
            finite = round(half, 5) if np.isfinite(half) else float("inf")
            differences[f"lower_than_{name}"] = (round(mean, 5), finite)
    methods = [row["methods"] for row in rows]
    whole = [_seconds(m["dash"], "search", "training") for m in methods]
    backbone = [_seconds(m["fixed"], "training") for m in methods]
    return {
        "metric": rows[0]["metric"],
        "seeds": len(rows),
        "error": {name: round(float(errors.mean()), 5) for name, errors in by_name.items()},
        **differences,
        "times_backbone_training": round(float(np.mean(np.divide(whole, backbone))), 2),
        "search_seconds": round(float(np.mean([m["dash"]["search_seconds"] for m in methods])), 1),
    }
