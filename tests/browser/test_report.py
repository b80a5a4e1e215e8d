"""The report of a store in a real browser: it filters, compares, draws, and keeps quiet."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwbench.store import Store
from hwbench.watch.report import gather
from hwbench.watch.report_page import write_report
from tests.browser.chromium import Browser
from tests.stores import device, filled, history

MADE = "2026-02-01T12:00:00+00:00"
HOSTILE = """</script><b>x</b><a href="javascript:alert(1)">%{x}'\"&amp;"""
OPEN_CHART = "document.querySelector('.series[open] .chart')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    binary = next(filter(None, map(shutil.which, names)), None)
    if binary is None:
        pytest.skip("NO BROWSER, so the report is not tested in one: apt-get install chromium")
    with Browser(binary, tmp_path_factory.mktemp("profile")) as running:
        yield running


def written(path: Path, folder: Path) -> Path:
    with Store.open(path) as store:
        return write_report(
            gather(store, store.measurements(with_bursts=False), "Latency", MADE), folder
        )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return written(filled(folder), folder / "site")


def drawn(browser: Browser) -> None:
    browser.evaluate(f"{OPEN_CHART}.scrollIntoView({{behavior: 'instant', block: 'center'}})")
    browser.wait_for(f"{OPEN_CHART}.dataset.state")
    assert browser.evaluate(f"{OPEN_CHART}.dataset.state") == "drawn"


def test_a_change_is_told_and_drawn(browser: Browser, page: Path) -> None:
    browser.screen(1280, 900, "light")
    browser.open(page)
    text = browser.evaluate("document.body.innerText")
    assert "120 measurements of 4 series on 2 devices. 1 changed their level." in text
    assert "slower" in browser.evaluate("document.querySelector('#changes tbody').innerText")
    drawn(browser)
    assert browser.evaluate(f"{OPEN_CHART}.querySelectorAll('.point').length") == 30
    assert {Path(url).parent for url in browser.requests()} == {Path(page.parent.as_uri())}
    assert browser.complaints() == []


def test_filters_hide_and_show(browser: Browser, page: Path) -> None:
    browser.screen(1280, 900, "light")
    browser.open(page)
    visible = "[...document.querySelectorAll('.series')].filter(s => !s.hidden).length"

    def enter(field: str, value: str) -> int:
        browser.evaluate(
            f"{{ const f = document.getElementById('{field}'); f.value = '{value}';"
            "f.dispatchEvent(new Event('input', {bubbles: true})) }"
        )
        return int(browser.evaluate(visible))

    assert browser.evaluate(visible) == 4
    assert enter("filter-model", "RESNET") == 2
    assert browser.evaluate("document.getElementById('shown').textContent") == "2 of 4 series shown"
    assert enter("filter-device", "d1") == 1
    assert browser.evaluate("[...document.querySelectorAll('.device')].map(d => d.hidden)") == [
        True,
        False,
    ]
    assert enter("filter-tag", "team=vision") == 1
    assert enter("filter-model", "nothing") == 0
    assert browser.complaints() == []


def test_two_points_are_compared_by_chart_and_by_table(browser: Browser, page: Path) -> None:
    browser.screen(1280, 900, "light")
    browser.open(page)
    said = "document.querySelector('.series[open] .pick').textContent"
    buttons = "document.querySelectorAll('.series[open] button')"
    browser.evaluate(f"{buttons}[0].click()")
    assert "choose another" in browser.evaluate(said)
    browser.evaluate(f"{buttons}[29].click()")
    assert "slower" in browser.evaluate(said)
    assert "2026-01-01 06:00 (0000000000): +" in browser.evaluate(said)
    drawn(browser)
    browser.evaluate(f"{OPEN_CHART}.emit('plotly_click', {{points: [{{customdata: 1}}]}})")
    assert "2026-01-02" in browser.evaluate(said)
    assert browser.evaluate("document.querySelectorAll('.chosen').length") == 2
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_needs_no_scrolling_sideways(browser: Browser, page: Path, width: int) -> None:
    browser.screen(width, 800, "dark")
    browser.open(page)
    drawn(browser)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.complaints() == []


def test_hostile_names_are_shown_and_nothing_else(browser: Browser, tmp_path: Path) -> None:
    path = filled(tmp_path, (HOSTILE, "=cmd|' /C calc'!A0"))
    page = written(path, tmp_path / "site")
    browser.screen(1280, 900, "light")
    browser.open(page)
    names = browser.evaluate("[...document.querySelectorAll('.name')].map(n => n.textContent)")
    assert HOSTILE in names
    drawn(browser)
    assert browser.evaluate("document.querySelectorAll('main b, main a[href^=java]').length") == 0
    assert browser.complaints() == []


def test_ten_thousand_measurements_stand(browser: Browser, tmp_path: Path) -> None:
    nets = [m for net in range(10) for m in history(f"net{net}", device(0), [2.0 + net] * 50)]
    many = [dataclasses.replace(m, fingerprint=device(n)) for n in range(20) for m in nets]
    with Store.open(tmp_path / "results.db") as store:
        page = write_report(gather(store, many, "Latency", MADE), tmp_path / "site")
    browser.screen(1280, 900, "light")
    browser.open(page)
    text = browser.evaluate("document.body.innerText")
    assert "10,000 measurements of 200 series on 20 devices" in text
    assert browser.evaluate("document.querySelectorAll('.series').length") == 200
    assert browser.complaints() == []
