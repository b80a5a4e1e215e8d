"""The demo's page in a real browser: it draws, keeps quiet, and survives what it is given."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hwbench.watch.page import write_page
from tests.browser.chromium import Browser
from tests.browser.pages import HOSTILE, draw_all
from tests.reports import demo_report

CHARTS = 3


def test_text_stands_first_and_charts_are_drawn_when_scrolled_to(
    browser: Browser, demo: Path
) -> None:
    browser.screen(1280, 400, "light")
    browser.open(demo)
    assert "2 of 3 budgets kept." in browser.evaluate("document.body.innerText")
    assert browser.evaluate("document.querySelectorAll('.chart[data-state]').length") == 0
    assert {Path(url).name for url in browser.requests()} == {
        "index.html",
        "page.js",
        "style.css",
    }

    assert draw_all(browser) == CHARTS
    points = (
        "[...document.querySelectorAll('.chart')].map(c => c.querySelectorAll('.point').length)"
    )
    assert browser.evaluate(points) == [303, 100, 100]
    assert {Path(url).parent for url in browser.requests()} == {Path(demo.parent.as_uri())}
    assert [Path(url).name for url in browser.requests()].count("plotly.min.js") == 1
    assert browser.complaints() == []


def test_charts_follow_the_theme_while_the_page_is_open(browser: Browser, demo: Path) -> None:
    browser.screen(1280, 900, "light")
    browser.open(demo)
    draw_all(browser)
    fill = "getComputedStyle(document.querySelector('#latency-over-macs .legendpoints path')).fill"
    assert browser.evaluate(fill) == "rgb(73, 172, 149)"  # --seq-0
    browser.screen(1280, 900, "dark")
    browser.wait_for(f"{fill} === 'rgb(125, 86, 184)'")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 20, 23)"
    assert browser.complaints() == []


def test_hostile_names_are_shown_and_nothing_else(browser: Browser, tmp_path: Path) -> None:
    report = demo_report(title=HOSTILE)
    budgets = [dataclasses.replace(b, architecture=HOSTILE) for b in report.budgets]
    profile = dataclasses.replace(
        report.profile, architectures=[HOSTILE] * len(report.profile.architectures)
    )
    page = write_page(dataclasses.replace(report, budgets=budgets, profile=profile), tmp_path)
    browser.screen(1280, 900, "light")
    browser.open(page)
    draw_all(browser)
    assert browser.evaluate("document.querySelector('h1').textContent") == HOSTILE
    assert browser.evaluate("document.querySelector('.architecture').textContent") == HOSTILE

    chart = "document.querySelector('#latency-over-macs .chart')"
    browser.evaluate(f"{chart}.scrollIntoView({{behavior: 'instant', block: 'center'}})")
    browser.evaluate(f"Plotly.Fx.hover({chart}, [{{curveNumber: 0, pointNumber: 0}}])")
    browser.wait_for(f"{chart}.querySelector('.hovertext')")
    shown = browser.evaluate(f"{chart}.querySelector('.hovertext').textContent")
    assert "".join(HOSTILE.split()) in "".join(shown.split())
    assert browser.evaluate("document.querySelectorAll('svg a').length") == 0
    assert browser.complaints() == []


def test_without_plotly_the_page_says_so_and_the_rest_stands(
    browser: Browser, tmp_path: Path
) -> None:
    page = write_page(demo_report(), tmp_path)
    (tmp_path / "plotly.min.js").unlink()
    browser.screen(1280, 900, "light")
    browser.open(page)
    browser.evaluate("document.querySelector('.chart').scrollIntoView({behavior: 'instant'})")
    browser.wait_for("document.querySelector('.chart').dataset.state === 'failed'")
    text = browser.evaluate("document.body.innerText")
    assert "could not be drawn: plotly.min.js is missing beside this page." in text
    assert "2 of 3 budgets kept." in text
