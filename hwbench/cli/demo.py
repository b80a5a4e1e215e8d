"""``hwbench demo``: measure, predict, keep a budget, and report, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwbench.cli.options import Debug, Json, Seed, StoreUrl
from hwbench.errors import HwbenchError


def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="Where the report page goes.")
    ] = Path("results/demo"),
    samples: Annotated[
        int, typer.Option("-n", "--samples", min=20, metavar="N", help="Architectures to measure.")
    ] = 300,
    seed: Seed = 0,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Profile this CPU, fit a predictor, search under three budgets, and measure the winners.

    Example:

    hwbench demo
    """
    raise HwbenchError("demo is not built yet")
