"""``hwbench fit``: a predictor from stored measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli import accuracy
from hwbench.cli.options import (
    Debug,
    DeviceName,
    Json,
    Seed,
    Session,
    Since,
    SpaceName,
    StoreUrl,
    Threads,
    opened,
)
from hwbench.errors import UsageError

if TYPE_CHECKING:
    from hwbench.records import Measurement


def _kinds() -> list[str]:
    from hwbench.predictors import model_kinds

    return model_kinds()


def fit(
    space: SpaceName,
    device: DeviceName = "cpu",
    threads: Threads = 1,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Default: DEVICE-SPACE.hwp."),
    ] = None,
    kind: Annotated[
        str, typer.Option(metavar="NAME", help="Predictor family.", autocompletion=_kinds)
    ] = "cost-regression",
    session: Session = None,
    since: Since = None,
    fingerprint: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Only of this environment (default: the newest)."),
    ] = None,
    seed: Seed = 0,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fit a latency predictor on stored measurements, and cross-validate it.

    Example:

    hwbench fit -d cpu -s ofa_mbv3 -o cpu.hwp
    """
    from hwbench.predictors import fit_predictor
    from hwbench.predictors.measured import describe_device, training_from
    from hwbench.spaces import get_space

    fitted = get_space(space)
    with opened(store, create=False) as results:
        found = results.measurements(
            device=device,
            space=space,
            session=session,
            since=since,
            fingerprint=fingerprint,
            with_bursts=False,
        )
    measured = one_environment([m for m in found if m.workload.threads == threads])
    ...
