"""``hwbench import``: what another store exported, and what other tools measured."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from hwbench import console
from hwbench.cli.options import Debug, Json, StoreUrl, opened
from hwbench.errors import HwbenchError
from hwbench.places import store_location


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

    What other tools measured keeps their names, times and commits, as series of its own. A file
    that cannot be read keeps none of the others out.

    Example:

    hwbench import results.jsonl.gz

    hwbench import .benchmarks
    """
    from hwbench.interchange import import_results

    imported: list[dict[str, Any]] = []
    lost: list[dict[str, Any]] = []
    failed: list[tuple[Path, HwbenchError]] = []
    with ExitStack() as stack:
        results = stack.enter_context(opened(store)) if _is_there(store) else None
        for file in files:
            try:
                if results is None:
                    _try(file)
                    results = stack.enter_context(opened(store))
                report, left_out = import_results(file, results)
            except HwbenchError as error:
                failed.append((file, error))
                continue
            imported.append({"file": file, "added": report.added, "known": report.known})
            lost += [{"file": file, "name": name} for name in left_out]
    if imported and as_json:
        errors = [{"file": file, "error": str(error)} for file, error in failed]
        console.write_json({"files": imported, "left_out": lost, "errors": errors})
    elif imported:
        for entry in lost:
            console.note(f"{entry['file']}: {entry['name']}: left out, it holds no times")
        rows = [(str(entry["file"]), entry["added"], entry["known"]) for entry in imported]
        console.show(console.table(("file", "added", "already known"), rows))
    for _, failure in failed[:-1]:
        console.error(str(failure))
    if failed:
        raise failed[-1][1]


def _is_there(store: str | None) -> bool:
    where = store_location(store)
    return isinstance(where, str) or where.exists()


def _try(file: Path) -> None:
    """Import a file to nowhere, or raise: one that cannot be imported makes no store."""
    from hwbench.interchange import import_results
    from hwbench.store import Store

    with TemporaryDirectory() as folder, Store.open(Path(folder, "trial.db")) as trial:
        import_results(file, trial)
