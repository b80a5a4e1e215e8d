"""``hwbench export``: stored measurements as a file for other tools."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from hwbench import console
from hwbench.cli.options import (
    AnyDevice,
    AnySpace,
    Debug,
    Json,
    Session,
    Since,
    StoreUrl,
    opened,
    require_folder,
)


def export(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="archive, csv, parquet or pyperf (default: by the file's ending).",
        ),
    ] = None,
    samples: Annotated[
        bool, typer.Option("--samples", metavar="", help="csv, parquet: one row a sample.")
    ] = False,
    device: AnyDevice = None,
    space: AnySpace = None,
    session: Session = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this model.")] = None,
    since: Since = None,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write measurements to a file: pyperf (.json), .csv, .parquet, or an archive (.jsonl).

    The archive keeps every sample and imports back.

    Example:

    hwbench export results.parquet -d cpu -s ofa_mbv3
    """
    from hwbench import interchange

    kind = interchange.format_of(out, format_)
    require_folder(out)
    with opened(store, create=False) as results:
        chosen = results.measurements(
            device=device, space=space, session=session, name=name, since=since
        )
        used = {m.epoch for m in chosen}
        epochs = [e for e in results.epochs() if e.id in used] if kind == "archive" else []
        report = interchange.export(chosen, out, kind, samples=samples, epochs=epochs)
    if as_json:
        console.write_json(report)
        return
    written = console.counted(report.measurements, "measurement")
    console.write_text(f"{written} written to {report.path}\n")
    for left, count in Counter(report.left_out).items():
        what = console.counted(count, "measurement")
        console.note(f"{left}: {what} left out, without a sample that {report.format} could hold")
