"""``hwbench top``: a sweep in progress, seen from another terminal."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwbench import console
from hwbench.cli.options import Debug, Json, StoreUrl, opened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType
    from rich.text import Text

    from hwbench.store import Standing, Store

_SWEEPS, _CELLS = 5, 8
#: Of a fleet's sweep: devices shown, and last answers beside them.
_DEVICES, _FEW = 5, 3
_BAR, _NAME, _WIDTH = 30, 42, 80
_NONE_YET = "  no answer yet: they come together"
_NS_PER_MS = 1e6


def top(
    once: Annotated[
        bool, typer.Option("--once", metavar="", help="Show it once, and end.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.2, metavar="S", help="Seconds until it is shown anew.")
    ] = 2.0,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Watch what is being measured into a store: how far it is, how fast, and what came of it.

    The newest run of profile, bench, verify or another verb that measures into the store, its last
    answers, and the device's state at the time; of a fleet's, what each device has done. Results
    come a block of models at a time. Ctrl-C ends it; --json shows it once.

    Example:

    hwbench top

    hwbench top --once --json
    """
    with opened(store, create=False) as results:
        if as_json:
            found = [_entry(standing) for standing in results.standings(most=_SWEEPS)]
            console.write_json({"store": results.location, "sweeps": found})
        elif once:
            console.show(_screen(results))
        else:
            try:
                console.show_anew(lambda: _screen(results), every)
            except KeyboardInterrupt:
                return


def _entry(standing: Standing) -> dict[str, Any]:
    """A sweep as JSON has it: seconds and shares, null where there is nothing to tell yet."""
    sweep, done = standing.sweep, standing.done
    seconds = (datetime.now(UTC) - datetime.fromisoformat(sweep.created)).total_seconds()
    running = _running(standing)
    rate = done / seconds if done and seconds > 0 and running is not False else None
    left = (sweep.cells - done - standing.failed) / rate if rate else None
    wide = standing.counts.get("inconclusive", 0)
    return {
        "what": sweep.what,
        "device": sweep.device,
        "created": sweep.created,
        "plan": sweep.plan,
        "host": sweep.host,
        "process": sweep.process,
        "running": running,
        "models": sweep.cells,
        "held_before": sweep.held,
        "done": done,
        "failed": standing.failed,
        "counts": dict(standing.counts),
        "inconclusive_share": wide / done if done else None,
        "seconds": seconds if running else None,
        "models_per_second": rate,
        "seconds_left": left,
        "last": [
            {
                "name": cell.name,
                "status": cell.status,
                "latency_ms": _ms(cell.latency_ns) if cell.status == "ok" else None,
                "low_ms": _ms(cell.low_ns),
                "high_ms": _ms(cell.high_ns),
            }
            for cell in standing.last
        ],
        "state": dict(standing.last[0].state) if standing.last and not standing.shares else {},
        "devices": [
            {
                "name": name,
                "done": sum(share.counts.values()),
                "counts": dict(share.counts),
                "failures": share.failures,
            }
            for name, share in sorted(standing.shares.items())
        ],
    }


def _running(standing: Standing) -> bool | None:
    """Whether its process is still at it; ``None`` where it runs on another host."""
    if standing.done + standing.failed >= standing.sweep.cells:
        return False
    if standing.sweep.host != platform.node():
        return None
    try:
        os.kill(standing.sweep.process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and somebody else's
        return True
    return True


def _screen(results: Store) -> RenderableType:
    """One screen: the newest sweep that goes on, else the newest, and what goes on beside it."""
    from rich.console import Group
    from rich.text import Text

    entries = [_entry(standing) for standing in results.standings(most=_SWEEPS, cells=_CELLS)]
    where = console.shortened(console.printable(results.location), _NAME)
    title = Text(f"hwbench top  {datetime.now().astimezone():%H:%M:%S}  {where}\n", style="dim")
    if not entries:
        told = (
            "Nothing was announced in this store yet: a verb does that once it begins to measure."
        )
        return Group(title, Text(told))
    first, *others = sorted(entries, key=lambda entry: entry["running"] is not True)
    parts: list[RenderableType] = [title, *_shown(first), *_fleet(first)]
    rows = [
        (
            console.shortened(console.printable(cell["name"]), _NAME),
            cell["latency_ms"],
            _half_width(cell),
            cell["status"].replace("_", " "),
        )
        for cell in first["last"][: _FEW if first["devices"] else _CELLS]
    ]
    if rows:
        headings = ("the last answers", "latency ms", "±", "<status")
        parts += [Text(), console.table(headings, rows)]
    going = [entry for entry in others if entry["running"] is not False]
    if going:
        parts += [Text("\nand beside it", style="dim"), *(_headline(entry) for entry in going)]
    return Group(*parts)


def _fleet(entry: Mapping[str, Any]) -> list[RenderableType]:
    """What each device of a fleet has done: those that failed most, then those that did most."""
    from rich.text import Text

    devices = sorted(entry["devices"], key=lambda d: (-d["failures"], -d["done"], d["name"]))
    if not devices:
        return []
    rows = [
        (
            console.shortened(console.printable(device["name"]), _NAME),
            device["done"],
            device["counts"].get("inconclusive", 0),
            device["failures"],
        )
        for device in devices[:_DEVICES]
    ]
    parts: list[RenderableType] = [
        Text(),
        console.table(("device", "done", "inconclusive", "failures"), rows),
    ]
    if rest := devices[_DEVICES:]:
        done = sum(device["done"] for device in rest)
        parts.append(
            Text(f"and {console.counted(len(rest), 'more device')}: {done:,} done", style="dim")
        )
    return parts


def _headline(entry: Mapping[str, Any]) -> Text:
    from rich.text import Text

    done, models = entry["done"], entry["models"]
    goes = {True: "running", None: f"on {entry['host']}", False: "ended"}[entry["running"]]
    if done + entry["failed"] >= models:
        goes = "done"
    said = f"{entry['what']} on {entry['device']}, {goes}: {done:,} of {models:,} models"
    return Text(console.shortened(console.printable(said), _WIDTH), style="bold")


def _shown(entry: Mapping[str, Any]) -> list[Text]:
    """A sweep in a few lines of at most 80 columns."""
    from rich.text import Text

    share = min(entry["done"] / entry["models"], 1.0)
    filled = round(_BAR * share)
    pace = Text.assemble(("█" * filled, "green"), ("░" * (_BAR - filled), "dim"), f" {share:.0%}")
    if entry["running"] is not False:
        rate, left = entry["models_per_second"], entry["seconds_left"]
        pace.append(
            f"  {60 * rate:.1f} a minute, {_clock(left)} left" if rate else "  no answer yet"
        )
    lines = [_headline(entry), pace]
    counts = entry["counts"]
    told = [f"{counts[name]:,} {name.replace('_', ' ')}" for name in sorted(counts)]
    if entry["inconclusive_share"]:
        told[0] += f" ({entry['inconclusive_share']:.0%})"  # by the alphabet it comes first
    if entry["failed"]:
        told.append(f"{entry['failed']:,} that no device could measure")
    if entry["held_before"]:
        told.append(f"{entry['held_before']:,} more were there before")
    state = [f"{n.replace('_', ' ')} {v}" for n, v in entry["state"].items() if v != "unknown"]
    for words in (told, state):
        if words:
            said = console.printable(", ".join(words))
            lines.append(Text(console.shortened(said, 2 * _WIDTH - 10)))  # two lines at most
    return lines


def _half_width(cell: Mapping[str, Any]) -> str | None:
    low, high, ms = cell["low_ms"], cell["high_ms"], cell["latency_ms"]
    return f"{50 * (high - low) / ms:.1f}%" if ms and None not in (low, high) else None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _ms(time_ns: float | None) -> float | None:
    return None if time_ns is None else time_ns / _NS_PER_MS
