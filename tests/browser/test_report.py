"""The report of a store in a real browser: it filters, compares, draws, and keeps quiet."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from pathlib import Path

import pytest

from hwbench.store import Store
from hwbench.watch.levels import GATED
from hwbench.watch.report import gather
from hwbench.watch.report_page import write_report
from hwbench.watch.report_series import ALARM
from tests.browser.chromium import Browser
from tests.browser.pages import HOSTILE, MADE, draw_all, report_of
from tests.lived_in import lived_in
from tests.stores import device, filled, history, tagged

OPEN_CHART = "document.querySelector('.series[open] .chart')"
OPEN_RUNS = "document.querySelector('.series[open] .runs')"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return report_of(filled(folder), folder / "site")


def drawn(browser: Browser) -> None:
    browser.evaluate(f"{OPEN_CHART}.scrollIntoView({{behavior: 'instant', block: 'center'}})")
    browser.wait_for(f"{OPEN_CHART}.dataset.state")
    assert browser.evaluate(f"{OPEN_CHART}.dataset.state") == "drawn"


def test_a_change_is_told_and_drawn(browser: Browser, page: Path) -> None:
    browser.screen(1280, 900, "light")
    browser.open(page)
    text = browser.evaluate("document.body.innerText")
    assert "120 measurements on 2 devices: 4 series. 1 changed their level." in text
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


def test_a_store_lived_in_is_drawn_from_end_to_end(browser: Browser, report: Path) -> None:
    browser.screen(1280, 900, "light")
    browser.open(report)
    titles = browser.evaluate("[...document.querySelectorAll('h2')].map(h => h.textContent)")
    assert titles == [
        "Changes", "Series", "Spaces", "Devices", "Predictors", "Searches", "Operators", "Claims",
    ]  # fmt: skip
    # Of two series that changed: over time, and runs; spaces of two devices, canaries of both;
    # a predictor's errors, claims over time; budgets and front of one search.
    assert draw_all(browser) == 2 * 2 + 2 + 2 + 2 + 2
    text = browser.evaluate("document.body.innerText")
    assert "356 measurements on 2 devices: 6 series and 175 architectures" in text
    assert browser.complaints() == []


def test_the_runs_of_the_points_chosen_are_held_against_each_other(
    browser: Browser, report: Path
) -> None:
    browser.screen(1280, 900, "light")
    browser.open(report)
    draw_all(browser)
    lines = f"{OPEN_RUNS}.data.map(trace => [trace.name, trace.x[0], trace.x.at(-1)])"
    (newest,) = browser.evaluate(lines)
    assert newest[0].startswith("2026-01-30 06:00")
    assert newest[1] < newest[2]
    buttons = "document.querySelectorAll('.series[open] button')"
    browser.evaluate(f"{buttons}[0].click()")
    browser.evaluate(f"{buttons}[3].click()")
    browser.wait_for(f"{OPEN_RUNS}.data.length === 2")
    assert [line[0][:10] for line in browser.evaluate(lines)] == ["2026-01-27", "2026-01-30"]
    browser.evaluate(f"{buttons}[29].click()")  # too old for its runs to be in the page
    browser.wait_for(f"{OPEN_RUNS}.data.length === 1")
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_table_that_is_cut_off_is_shaded_where_it_goes_on(
    browser: Browser, report: Path, scheme: str
) -> None:
    browser.screen(390, 900, scheme)
    browser.open(report)
    box = "document.querySelector('#changes .scroll')"
    assert browser.evaluate(f"[{box}.tabIndex, {box}.role]") == [0, "region"]
    name = f"document.getElementById({box}.getAttribute('aria-labelledby')).textContent"
    assert browser.evaluate(name) == "The greatest slowdown first"
    browser.evaluate(f"{box}.scrollIntoView({{behavior: 'instant', block: 'center'}})")

    def edges() -> list[int]:
        """How far the left and the right edge, beside no text, are from the middle."""
        where = browser.evaluate(f"{box}.getBoundingClientRect().toJSON()")
        y = where["top"] + 8
        middle = browser.pixel(where["left"] + where["width"] / 2, y)
        ends = [browser.pixel(x, y) for x in (where["left"] + 12, where["right"] - 12)]
        return [max(abs(a - b) for a, b in zip(end, middle, strict=True)) for end in ends]

    left, right = edges()
    assert (left, right > 15) == (0, True)
    browser.evaluate(f"{box}.scrollTo({{left: 9999, behavior: 'instant'}})")
    left, right = edges()
    assert (left > 15, right) == (True, 0)
    browser.screen(1400, 900, scheme)
    assert edges() == [0, 0]


def test_what_is_no_part_of_its_level_is_marked_in_chart_and_table(
    browser: Browser, tmp_path: Path
) -> None:
    points = history("net", device(0), [2.0] * 10 + [3.2] * 2)
    points[10:] = tagged(points[10:], dirty="yes", **GATED)
    with Store.open(tmp_path / "results.db") as store:
        page = write_report(gather(store, points, "Latency", MADE), tmp_path / "site")
    browser.screen(390, 900, "light")
    browser.open(page)
    drawn(browser)
    texts = "[...document.querySelectorAll('.series {}')].map(e => e.textContent)"
    assert browser.evaluate(texts.format(".legendtext")) == ["level", "undisturbed", ALARM]
    legends = "[...document.querySelectorAll('.legendtext')]"
    ends = browser.evaluate(f"{legends}.map(e => e.getBoundingClientRect().right)")
    assert max(ends) <= 390
    rows = browser.evaluate(texts.format("tbody tr"))
    assert [ALARM in row for row in rows] == [True] * 2 + [False] * 10
    assert ["*" in row for row in rows] == [True] * 2 + [False] * 10
    assert "* measured with changes" in browser.evaluate("document.body.innerText")
    assert browser.complaints() == []


def test_hostile_names_are_shown_and_nothing_else(browser: Browser, tmp_path: Path) -> None:
    names = (HOSTILE, "=cmd|' /C calc'!A0", "{{ 7*7 }}")
    store = lived_in(tmp_path, names)
    commit = ("UPDATE measurements SET tags = replace(tags, '001d001d', '<i>x</i>')",)
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        connection.execute(*commit)
    page = report_of(store, tmp_path / "site")
    browser.screen(1280, 900, "light")
    browser.open(page)
    shown = browser.evaluate("[...document.querySelectorAll('.name')].map(n => n.textContent)")
    assert set(names) <= set(shown)
    draw_all(browser)
    marked = "document.querySelectorAll('main b, main i, main a[href^=java]').length"
    assert browser.evaluate(marked) == 0
    legend = "document.querySelector('.series[open] .runs .legendtext').textContent"
    assert "(<i>x</i>" in browser.evaluate(legend)
    assert browser.complaints() == []


def test_ten_thousand_measurements_stand(browser: Browser, tmp_path: Path) -> None:
    nets = [m for net in range(10) for m in history(f"net{net}", device(0), [2.0 + net] * 50)]
    many = [dataclasses.replace(m, fingerprint=device(n)) for n in range(20) for m in nets]
    with Store.open(tmp_path / "results.db") as store:
        page = write_report(gather(store, many, "Latency", MADE), tmp_path / "site")
    browser.screen(1280, 900, "light")
    browser.open(page)
    text = browser.evaluate("document.body.innerText")
    assert "10,000 measurements on 20 devices: 200 series" in text
    assert browser.evaluate("document.querySelectorAll('.series').length") == 200
    assert browser.complaints() == []
