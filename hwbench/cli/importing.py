"""``hwbench import``: what another store exported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwbench import console
from hwbench.cli.options import Debug, Json, StoreUrl, opened


def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Archives (.jsonl).")],
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Add archives to the store, each as a whole; what it holds already is not doubled.

    Example:

    hwbench import results.jsonl.gz
    """
    from hwbench.interchange import import_archive

    imported = []
    with opened(store) as results:
        for file in files:
            report = import_archive(file, results)
            imported.append({"file": file, "added": report.added, "known": report.known})
    if as_json:
        console.write_json({"files": imported})
        return
    rows = [(str(entry["file"]), entry["added"], entry["known"]) for entry in imported]
    console.show(console.table(("file", "added", "already known"), rows))
