"""``hwbench import``: what another store exported, and what other tools measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwbench import console
from hwbench.cli.options import Debug, Json, StoreUrl, opened
from hwbench.errors import EXIT_OK, HwbenchError


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
    """Add files to the store, each as a whole or not at all; what it holds is not doubled.

    What other tools measured keeps their names, times and commits, as series of its own.

    Example:

    hwbench import results.jsonl.gz

    hwbench import .benchmarks
    """
    from hwbench.interchange import import_results

    imported, lost = [], []
    refused: list[HwbenchError] = []
    with opened(store) as results:
        for file in files:
            try:
                report, left_out = import_results(file, results)
            except HwbenchError as error:
                if len(files) == 1:
                    raise
                refused.append(error)  # the others still go in
                continue
            imported.append({"file": file, "added": report.added, "known": report.known})
            lost += [{"file": file, "name": name} for name in left_out]
    if as_json:
        errors = [str(error) for error in refused]
        console.write_json({"files": imported, "left_out": lost, "errors": errors})
    else:
        for entry in lost:
            console.note(f"{entry['file']}: {entry['name']}: left out, it holds no times")
        rows = [(str(entry["file"]), entry["added"], entry["known"]) for entry in imported]
        if rows:
            console.show(console.table(("file", "added", "already known"), rows))
    for why in refused:
        console.error(str(why))
    raise typer.Exit(max([EXIT_OK, *(why.exit_code for why in refused)]))
