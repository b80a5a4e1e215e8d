"""``hwbench generate``: architectures for latency budgets, from a trained generator."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwbench import console
from hwbench.cli.options import (
    Debug,
    DeviceName,
    DeviceOptions,
    Json,
    StoreUrl,
    device_of,
    opened,
)
from hwbench.cli.search_options import milliseconds, require_here
from hwbench.errors import EXIT_INCONCLUSIVE, EXIT_OK, EXIT_REGRESSION, UsageError

if TYPE_CHECKING:
    from hwbench.records import Measurement
    from hwbench.search.answering import Answering, Generated

_Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A .hwg file of hwbench search.")]
_Budgets = Annotated[
    list[str], typer.Option("--budget", metavar="MS", help="A budget, as 9.3ms; again for more.")
]
_Task = Annotated[
    str | None,
    typer.Option(
        metavar="DATA:CLASS,CLASS,…",
        help="The classes to tell apart, or their groups: for generators of eas.",
    ),
]
_Measure = Annotated[
    bool, typer.Option("--measure", metavar="", help="Measure the answers on the device.")
]


def generate(
    model: _Model,
    budget: _Budgets,
    task: _Task = None,
    measure: _Measure = False,
    device: DeviceName = "cpu",
    option: DeviceOptions = None,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Give the best architecture within each budget, and measure it on the device if asked to.

    A generator of pnag answers budgets, one of eas budgets for a task. Accuracies are predicted.

    A measured one keeps or breaks its budget by all of its 95 % interval; where the budget lies in
    it, that stays open.

    Exits with 1 if a measured one breaks its budget, with 3 if one stays open.

    Example:

    hwbench generate cpu.hwg --budget 0.2ms --budget 0.3ms --json

    hwbench generate tasks.hwg --task digits:0,1,7 --budget 0.2ms
    """
    from hwbench.search.generator_file import load_generator
    from hwbench.search.random_search import CAPACITY_PROXY

    if not measure and (option or store is not None or device != "cpu"):
        raise UsageError(
            "--device, --option and --store are for --measure, which was not given: leave them out"
        )
    budgets = [milliseconds(text) for text in budget]
    generator, header = load_generator(model)
    ask = _asker(model, generator, task)
    began = time.perf_counter()
    found = ask(budgets)
    seconds = time.perf_counter() - began
    measured: dict[str, Measurement] = {}
    if measure:
        require_here(model, generator.oracle.predictor, device, option)
        measured = _measured(generator, found, device, option, store)
    proxy = header.get("objective") == CAPACITY_PROXY
    rows = [_row(answer, measured.get(answer.text), proxy=proxy) for answer in found]
    if as_json:
        console.write_json({"results": rows, "seconds": seconds})
    else:
        score = "share of most MACs" if proxy else "accuracy"
        _show(rows, score, [answer.accuracy for answer in found], measure=measure)
    raise typer.Exit(_exit_code(rows, measure=measure))


def _show(
    rows: Sequence[dict[str, Any]], score: str, scores: Sequence[float | None], *, measure: bool
) -> None:
    """A table with what is known alone, the architectures below its rows."""
    names = ["budget_ms", "predicted_ms", "upper_ms"]
    if any(value is not None for value in scores):
        names.append(score)
    if measure:
        names += ["measured_ms", "kept"]
    told = [
        row | {"kept": _told(row), score: value} for row, value in zip(rows, scores, strict=True)
    ]
    console.show_above(
        [name.replace("_", " ") for name in names],
        [[row[name] for name in names] for row in told],
        [row["architecture"] for row in rows],
    )


def _asker(
    model: Path, generator: Answering, task: str | None
) -> Callable[[Sequence[float]], list[Generated]]:
    """What answers budgets; UsageError where a task is missing, unknown, or too many."""
    from hwbench.search.pnag import Generator

    if isinstance(generator, Generator):
        if task is not None:
            raise UsageError(f"{model} knows no tasks: leave --task out")
        return generator.generate
    from hwbench.search.eas import TaskGenerator

    assert isinstance(generator, TaskGenerator), "there are two kinds"
    groups = generator.groups
    if task is None:
        raise UsageError(
            f"{model} answers a budget for a task: give --task, as {groups.data}:"
            f"{groups.groups[0].name}, or the classes to tell apart"
        )
    wanted = groups.task(task)
    return lambda budgets: generator.generate([(wanted, budget) for budget in budgets])


def _row(answer: Generated, measured: Measurement | None, *, proxy: bool) -> dict[str, Any]:
    """One of ``results``; what was not measured, is inconclusive, or is no accuracy, is null."""
    from hwbench.records import keeps

    figures: tuple[float | None, ...] = (None, None, None)
    if measured is not None:
        figures = (measured.latency_ns, measured.low_ns, measured.high_ns)
    latency, low, high = (None if f is None else f / 1e6 for f in figures)
    status = None if measured is None else measured.status
    ends = [math.nan if end is None else end for end in (low, high)]
    return {
        "budget_ms": answer.budget_ms,
        "task": answer.task,
        "architecture": answer.text,
        "predicted_ms": answer.predicted_ms,
        "upper_ms": answer.upper_ms,
        "measured_ms": latency if status == "ok" else None,
        "measured_status": status,
        "low_ms": low,
        "high_ms": high,
        "kept": keeps(answer.budget_ms, *ends),
        "accuracy": None if proxy else answer.accuracy,
        "from": "generator" if answer.proposed else "candidates kept",
    }


def _measured(
    generator: Answering,
    found: Sequence[Generated],
    device: str,
    options: Sequence[str] | None,
    store: str | None,
) -> dict[str, Measurement]:
    """Each distinct answer on the device, by its text."""
    import numpy as np

    from hwbench.devices.profile import measure_architectures
    from hwbench.verify.budgets import WINNERS_PLAN

    codes = np.unique(np.array([answer.code for answer in found]), axis=0)
    with opened(store) as results, console.progress("measuring") as share:
        measurements = measure_architectures(
            device_of(device, options),
            generator.space,
            codes,
            results,
            threads=generator.oracle.predictor.meta.provenance.threads,
            plan=WINNERS_PLAN,
            progress=share,
        )
    return {str(m.workload.arch): m for m in measurements}


def _told(row: dict[str, Any]) -> str | bool | None:
    """Whether a budget was kept, as the table has it."""
    return "open" if row["kept"] is None and row["low_ms"] is not None else row["kept"]


def _exit_code(rows: Sequence[dict[str, Any]], *, measure: bool) -> int:
    kept = [row["kept"] for row in rows]
    if False in kept:
        return EXIT_REGRESSION
    return EXIT_INCONCLUSIVE if measure and None in kept else EXIT_OK
