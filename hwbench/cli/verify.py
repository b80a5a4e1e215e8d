"""``hwbench verify``: run claims as experiments on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwbench import console
from hwbench.cli.options import (
    Debug,
    DeviceName,
    DeviceOptions,
    Json,
    Seed,
    StoreUrl,
    device_of,
    opened,
)
from hwbench.errors import EXIT_INCONCLUSIVE, EXIT_OK, EXIT_REGRESSION, UsageError
from hwbench.verify import claim_names, claim_times

if TYPE_CHECKING:
    from rich.table import Table

    from hwbench.records import Verdict


_TIMES = ", ".join(f"{name} {full} (--quick: {q})" for name, (full, q) in claim_times().items())


def verify(
    claims: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CLAIM",
            help=f"Claims to test (default: all), and how long each takes: {_TIMES}.",
            autocompletion=claim_names,
        ),
    ] = None,
    device: DeviceName = "cpu",
    option: DeviceOptions = None,
    quick: Annotated[
        bool, typer.Option("--quick", metavar="", help="A shorter run with less proof.")
    ] = False,
    tables: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Published tables, for claims that rest on some."),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="Where the figures go.")
    ] = Path("results/verify"),
    part: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this part of a claim; s2dnas: FAMILY-SEED."),
    ] = None,
    prepare: Annotated[
        bool,
        typer.Option("--prepare", metavar="", help="Train and search now, time in another run."),
    ] = False,
    seed: Seed = 0,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Test claims on this machine, and enter the verdicts in the store's ledger.

    Run again after an interrupt, all but repeatability and lowering go on where they were.

    Exits with 1 if a claim is refuted or holds only partly, with 3 if one stays undecided.

    Example:

    hwbench verify repeatability --json
    """
    from hwbench.verify import get_claim
    from hwbench.verify.frame import Setting

    chosen = [get_claim(name) for name in claims or claim_names()]
    if part or prepare:
        for claim in chosen:
            if not claim.in_parts:
                raise UsageError(f"{claim.name} is run as a whole: no --part, no --prepare")
    target = device_of(device, option)
    out.mkdir(parents=True, exist_ok=True)
    verdicts: list[Verdict] = []
    with opened(store) as results, console.stages() as report:
        parts = tuple(part or ())
        setting = Setting(target, results, out, quick, seed, report, tables, parts, prepare)
        for claim in chosen:
            for verdict in claim.run(setting):
                results.add_verdict(verdict)
                verdicts.append(verdict)
    if as_json:
        console.write_json({"claims": [entry(verdict) for verdict in verdicts]})
    else:
        for verdict in verdicts:
            console.show(f"{verdict.outcome}: {verdict.claim}", figures(verdict.evidence))
    raise typer.Exit(exit_code(verdicts))


def figures(evidence: Mapping[str, Any]) -> Table:
    """The numbers of a verdict: what is one value as it is, a table of them as pairs."""
    rows = []
    for name, value in evidence.items():
        if name == "bars":
            rows += [(bar, "met" if met else "NOT MET") for bar, met in value.items()]
        elif isinstance(value, Mapping) and {"idle", "loaded"} <= value.keys():
            rows += [
                (f"{name}, {when}: median / p90 %", f"{part['median_pct']} / {part['p90_pct']}")
                for when, part in value.items()
                if isinstance(part, Mapping)
            ]
        elif not isinstance(value, (Mapping, list)):
            rows.append((name.replace("_", " "), value))
    return console.table(("evidence", "<value"), rows)


def entry(verdict: Verdict) -> dict[str, object]:
    """One entry of ``claims``."""
    return {
        "claim": verdict.claim,
        "verdict": verdict.outcome,
        "evidence": verdict.evidence,
        "protocol": verdict.protocol,
        "figure": verdict.figure,
        "created": verdict.created,
    }


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """The worst outcome's: a refuted claim stands above an undecided one."""
    outcomes = {verdict.outcome for verdict in verdicts}
    if outcomes & {"refuted", "partly"}:
        return EXIT_REGRESSION
    return EXIT_INCONCLUSIVE if "inconclusive" in outcomes else EXIT_OK
