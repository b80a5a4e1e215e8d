"""What tests do with any page: make it of a store, and scroll through it until all is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hwbench.store import Store
from hwbench.watch import report_files
from hwbench.watch.report import gather
from hwbench.watch.report_page import write_report
from tests.browser.chromium import Browser

MADE = "2026-02-01T12:00:00+00:00"
HOSTILE = """</script><b>x</b><a href="javascript:alert(1)">%{x}'\"&amp;"""
#: The charts that are not in something closed.
CHARTS = "[...document.querySelectorAll('.chart')].filter(c => c.checkVisibility())"


def report_of(store: Path, folder: Path, files: Sequence[Path] = ()) -> Path:
    """The report's page of a store, and of files beside it."""
    with Store.open(store) as results:
        measurements = results.measurements(with_bursts=False)
        beside = report_files.read(files, measurements)
        found = gather(results, measurements, "Latency", MADE)
    return write_report(found, folder, beside)


def draw_all(browser: Browser) -> int:
    """Scroll to each chart in turn until it is drawn; how many there are."""
    count = int(browser.evaluate(f"{CHARTS}.length"))
    for i in range(count):
        chart = f"{CHARTS}[{i}]"
        browser.evaluate(f"{chart}.scrollIntoView({{behavior: 'instant', block: 'center'}})")
        browser.wait_for(f"{chart}.dataset.state")
        assert browser.evaluate(f"{chart}.dataset.state") == "drawn"
    return count
