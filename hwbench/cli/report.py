"""``hwbench report``: a store as a page to look at."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwbench import console
from hwbench.cli.options import AnyDevice, Debug, Json, Since, StoreUrl, opened

if TYPE_CHECKING:
    from hwbench.watch.report import StoreReport
    from hwbench.watch.report_files import Beside

#: The figures, beside the page.
_TABLE = "measurements.csv"


def report(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="To show beside the store: predictors (.hwp), generators (.hwg), samples of "
            "hwbench kernels (.jsonl), operators of bench --profile-ops --json (.json).",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="Where the page goes.")
    ] = Path("results/report"),
    title: Annotated[
        str, typer.Option(metavar="TEXT", help="The page's heading.")
    ] = "Latency over time",
    device: AnyDevice = None,
    since: Since = None,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a page of all that a store holds: series with changes, devices, searches, claims.

    A folder that opens offline, from disk or from any web server; only what an earlier report wrote
    is replaced in it. A predictor named with it is held against all that was measured since it was
    fitted.

    Example:

    hwbench report -o report

    hwbench report cpu.hwp cpu.hwg cpu-kernels.jsonl
    """
    from hwbench import interchange
    from hwbench.watch import report_files
    from hwbench.watch.report import gather
    from hwbench.watch.report_page import write_report
    from hwbench.watch.site import require_own

    require_own(out, (_TABLE,))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with opened(store, create=False) as results:
        chosen = results.measurements(device=device, since=since, with_bursts=False)
        beside = report_files.read(files or (), chosen)
        found = gather(results, chosen, title, now)
    page = write_report(found, out, beside)
    if chosen:
        interchange.export(chosen, out / _TABLE, "csv")
    if as_json:
        console.write_json({"page": page, **_summary(found, beside)})
        return
    for note in found.notes:
        console.note(note)
    console.write_text(f"{console.counted(found.measurements, 'measurement')} shown in {page}\n")


def _summary(found: StoreReport, beside: Beside) -> dict[str, Any]:
    """What the page shows, in figures."""
    return {
        "measurements": found.measurements,
        "series": len(found.series),
        "architectures": sum(sample.size for sample in found.samples),
        "devices": len(found.devices),
        "changes": [
            {
                "name": series.name,
                "project": series.project or None,
                "device": series.device.label,
                "change_pct": 100 * (change.ratio - 1),
                "since": series.forming[change.index].created,
                "commit": series.forming[change.index].commit or None,
                "dirty": series.forming[change.index].dirty,
            }
            for series, change in found.changed
        ],
        "predictors": [
            {"file": file.name, "sessions": file.sessions} for file in beside.predictors
        ],
        "notes": list(found.notes),
    }
