"""``hwbench verify``: run claims as experiments on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli.options import Debug, DeviceName, Json, Seed, StoreUrl, opened
from hwbench.errors import EXIT_INCONCLUSIVE, EXIT_OK, EXIT_REGRESSION, HwbenchError

if TYPE_CHECKING:
    from hwbench.records import Verdict
    from hwbench.store import Store


def verify(
    claims: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CLAIM]...", help="Claims to test (default: all)."),
    ] = None,
    device: DeviceName = "cpu",
    quick: Annotated[
        bool, typer.Option("--quick", metavar="", help="A shorter run with less proof.")
    ] = False,
    seed: Seed = 0,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Test claims on this machine, and enter the verdicts in the store's ledger.

    Exits with 1 if a claim is refuted, with 3 if one stays undecided.

    Example:

    hwbench verify repeatability --json
    """
    with opened(store) as results:
        verdicts = _test(claims or (), device, quick=quick, seed=seed, store=results)
    if as_json:
        console.write_json({"claims": [entry(verdict) for verdict in verdicts]})
    else:
        rows = [(v.claim, v.outcome, v.protocol) for v in verdicts]
        console.show(console.table(("claim", "<verdict", "<protocol"), rows))
    raise typer.Exit(exit_code(verdicts))


def _test(
    claims: Sequence[str], device: str, *, quick: bool, seed: int, store: Store
) -> list[Verdict]:
    raise HwbenchError("verify is not built yet")


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
