"""``hwbench demo``: measure, predict, keep a budget, and report, in one command."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli import accuracy
from hwbench.cli.options import Debug, Json, Seed, StoreUrl, opened
from hwbench.errors import TORCH_MISSING, UsageError

if TYPE_CHECKING:
    from hwbench.demo import Demo
    from hwbench.watch.page import Budget


def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="Where the report page goes.")
    ] = Path("results/demo"),
    samples: Annotated[
        int, typer.Option("-n", "--samples", min=20, metavar="N", help="Architectures to measure.")
    ] = 160,
    seed: Seed = 0,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Profile this CPU, fit a predictor, train a generator, and measure three of its answers.

    What the store holds already is not measured again; the answers always are. Needs torch, to
    train the generator.

    Example:

    hwbench demo
    """
    from hwbench.demo import run_demo

    if find_spec("torch") is None:
        raise UsageError(TORCH_MISSING)
    try:
        with opened(store) as results, console.stages() as report:
            done = run_demo(results, out, report, samples=samples, seed=seed)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "what was finished is stored, the same command goes on from there"
        ) from None
    scores, budgets = done.report.evaluation.scores, done.report.budgets
    if as_json:
        entries = [{**asdict(budget), "kept": budget.kept} for budget in budgets]
        tried = {"profile": done.report.profile.tried, "test": done.report.evaluation.tried}
        console.write_json(
            {"page": done.path, "accuracy": scores, "budgets": entries, "tried": tried}
        )
    else:
        _show(done)
    if undecided := [b for b in budgets if b.kept is None or b.inconclusive]:
        command = ["hwbench", "generate", str(done.generator), "--measure"]
        for budget in undecided:
            command += ["--budget", f"{budget.budget_ms:g}ms"]
        if store is not None:
            command += ["--store", store]
        console.note(
            f"not measured well enough: {len(undecided)} of {len(budgets)} answers; leave the "
            f"machine a free core, then {shlex.join(command)}"
        )


def _show(done: Demo) -> None:
    report = done.report
    headings = ("budget ms", "promised ms", "measured ms", "kept", "MMACs")
    console.show(
        f"To learn from: {report.profile.tried}",
        f"To be tested on: {report.evaluation.tried}",
        "Predicted latency on architectures that it never saw",
        accuracy.table(report.evaluation.scores),
        "What the generator gave under each budget by MACs (capacity proxy), measured",
        console.table(headings, map(_row, report.budgets)),
        f"Page: {done.path}",
    )


def _row(budget: Budget) -> tuple[object, ...]:
    """A budget as the table has it: kept is open where its interval holds the budget."""
    measured = budget.measured_ms if budget.measured else "not measured"
    kept = "open" if budget.kept is None else console.cell(budget.kept)
    wide = ", inconclusive" if budget.inconclusive else ""
    return budget.budget_ms, budget.upper_ms, measured, kept + wide, budget.macs / 1e6
