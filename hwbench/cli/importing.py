"""``hwbench import``: what another store exported, and what other tools measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwbench import console
from hwbench.cli.options import Debug, Json, StoreUrl, opened


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="Archives (.jsonl), files of pytest-benchmark or pyperf (.json), or folders of "
            "such files.",
        ),
    ],
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Add files to the store, each as a whole; what it holds already is not doubled.

    What other tools measured keeps their names, times and commits, as series of its own.

    Example:

    hwbench import results.jsonl.gz

    hwbench import .benchmarks
    """
    from hwbench.interchange import import_results

    imported, lost = [], []
    with opened(store) as results:
        for file in files:
            report, left_out = import_results(file, results)
            imported.append({"file": file, "added": report.added, "known": report.known})
            lost += [{"file": file, "name": name} for name in left_out]
    if as_json:
        console.write_json({"files": imported, "left_out": lost})
        return
    for entry in lost:
        console.note(f"{entry['file']}: {entry['name']}: left out, it holds no times")
    rows = [(str(entry["file"]), entry["added"], entry["known"]) for entry in imported]
    console.show(console.table(("file", "added", "already known"), rows))
