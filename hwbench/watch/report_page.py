"""The report of a store as a static folder: one page, its scripts, and the figures as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hwbench.measure.result import WIDEST
from hwbench.watch import report_charts, report_generators, report_predictors, report_searches
from hwbench.watch.report import StoreReport, evidence
from hwbench.watch.report_files import Beside
from hwbench.watch.report_runs import SHARES
from hwbench.watch.report_series import ALARM
from hwbench.watch.segments import LEAST_CHANGE, SIGNIFICANCE
from hwbench.watch.site import environment, write_site

_ASSETS: Final = ("style.css", "report.css", "page.js", "report.js")
#: Series that changed are shown open, as many as this.
OPEN: Final = 3


def write_report(report: StoreReport, folder: Path, beside: Beside | None = None) -> Path:
    """Write the page and the files beside it into ``folder``; see :func:`write_site`."""
    return write_site(lambda policy: render(report, policy, beside), _ASSETS, folder)


def render(report: StoreReport, policy: str, beside: Beside | None = None) -> str:
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
            beside=beside or Beside(),
            searches=report_searches.searches(report.claims),
            tested=report_predictors.tested(report.claims),
            opened=opened,
            shares=SHARES,
            alarm=ALARM,
            widest=WIDEST,
            least=LEAST_CHANGE,
            significance=SIGNIFICANCE,
            spec=report_charts.series_spec,
            charts={
                "budgets": report_searches.budgets_chart,
                "canaries": report_charts.canaries,
                "errors": report_predictors.error_chart,
                "front": report_searches.front_chart,
                "histogram": report_charts.histogram,
                "promised": report_generators.front_chart,
                "tested": report_predictors.tested_chart,
            },
            evidence=evidence,
        )
    )
