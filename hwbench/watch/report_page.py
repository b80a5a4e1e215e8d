"""The report of a store as a static folder: one page, its scripts, and the figures as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hwbench.watch import report_charts
from hwbench.watch.report import StoreReport, evidence
from hwbench.watch.site import environment, write_site

_ASSETS: Final = ("style.css", "report.css", "page.js", "report.js")
#: Series that changed are shown open, as many as this.
OPEN: Final = 3


def write_report(report: StoreReport, folder: Path) -> Path:
    """Write the page and the files beside it into ``folder``; see :func:`write_site`."""
    return write_site(lambda policy: render(report, policy), _ASSETS, folder)


def render(report: StoreReport, policy: str) -> str:
    """The page's HTML, under this content security policy."""
    opened = [series.id for series, _ in report.changed[:OPEN]]
    if not opened and report.series:
        opened = [report.series[0].id]
    return (
        environment()
        .get_template("report.html")
        .render(
            policy=policy,
            report=report,
            opened=opened,
            spec=report_charts.series_spec,
            canaries=report_charts.canaries,
            evidence=evidence,
        )
    )
