"""``hwbench verify``: run claims as experiments on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from hwbench.cli.options import Debug, DeviceName, Json, Seed, StoreUrl
from hwbench.errors import HwbenchError


def verify(
    names: Annotated[
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
    """Test claims on this machine; exits with 1 if one is refuted, 3 if one stays undecided.

    Example:

    hwbench verify repeatability --json
    """
    raise HwbenchError("verify is not built yet")
