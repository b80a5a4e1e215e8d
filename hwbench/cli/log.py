"""``hwbench log`` and ``hwbench store merge``: what was measured when, and stores joined."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwbench import console
from hwbench.cli.options import AnyDevice, Debug, Json, Since, StoreUrl, opened

_COMMIT_SHOWN = 10
_GIT = ("commit", "branch", "dirty", "project")


def log(
    number: Annotated[
        int, typer.Option("-n", "--number", min=1, metavar="N", help="So many, the newest.")
    ] = 20,
    device: AnyDevice = None,
    since: Since = None,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the sessions of a store, the newest first, with commit and tags.

    Example:

    hwbench log -n 5
    """
    sessions: dict[str, dict[str, Any]] = {}
    with opened(store, create=False) as results:
        for m in results.measurements(device=device, since=since, with_bursts=False):
            tags = {k: v for k, v in m.tags.items() if k not in _GIT}
            entry = {
                "session": m.session,
                "created": m.created,
                "device": m.fingerprint.device,
                "models": 0,
                "commit": m.tags.get("commit"),
                "branch": m.tags.get("branch"),
                "dirty": m.tags.get("dirty") == "yes",
                "project": m.tags.get("project"),
                "tags": tags,
            }
            sessions.setdefault(m.session, entry)["models"] += 1
    newest = list(sessions.values())[::-1][:number]
    if as_json:
        console.write_json({"sessions": newest})
        return
    rows = [
        (
            entry["session"],
            entry["created"][:16].replace("T", " "),
            entry["device"],
            entry["models"],
            (entry["commit"] or "-")[:_COMMIT_SHOWN] + ("*" if entry["dirty"] else ""),
            ", ".join(f"{k}={v}" for k, v in entry["tags"].items()) or None,
        )
        for entry in newest
    ]
    headings = ("session", "<time", "<device", "models", "<commit", "<tags")
    console.show(console.table(headings, rows))


def merge(
    other: Annotated[str, typer.Argument(metavar="PATH|URL", help="The store to take over.")],
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Add what another store has measured, without doubling what is known; all or nothing.

    The verdicts on claims stay there: they are of the machine that made them.

    Example:

    hwbench store merge laptop.db
    """
    from hwbench.store import Store

    with Store.open(other, create=False, foreign=True) as source, opened(store) as results:
        report = results.merge([*source.epochs(), *source.canary_runs(), *source.measurements()])
        verdicts = len(source.verdicts())
    if as_json:
        console.write_json(report)
        return
    added = console.counted(report.added, "measurement")
    console.write_text(f"{added} added, {report.known:,} known already\n")
    if verdicts:
        left = console.counted(verdicts, "verdict")
        console.note(f"{left} on claims left out, of that machine: hwbench verify makes this one's")
