"""What holds of every page: on a phone, on paper, in either theme."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.chromium import Browser
from tests.browser.pages import CHARTS, draw_all

LIGHT, DARK = "rgb(27, 31, 36)", "rgb(232, 234, 237)"


@pytest.fixture(params=["demo", "report"])
def page(request: pytest.FixtureRequest) -> Path:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Path)
    return found


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_needs_no_scrolling_sideways(browser: Browser, page: Path, width: int) -> None:
    browser.screen(width, 800, "dark")
    browser.open(page)
    count = draw_all(browser)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    right_ends = browser.evaluate(
        "[...document.querySelectorAll('.main-svg')].map(s => s.getBoundingClientRect().right)"
    )
    assert len(right_ends) >= count >= 3
    assert max(right_ends) <= width
    labels = "[...document.querySelectorAll('.xtick text')].map(t => t.getAttribute('transform'))"
    assert not [turned for turned in browser.evaluate(labels) if "rotate" in turned]
    assert browser.complaints() == []


def test_what_is_printed_at_once_has_tables_in_place_of_charts(
    browser: Browser, page: Path
) -> None:
    """Nothing was scrolled to, so that there is nothing to draw with yet."""
    browser.screen(1280, 300, "light")
    browser.open(page)
    tables = "[...document.querySelectorAll('figure details')].map(d => d.open)"
    before = browser.evaluate(tables)
    assert True not in before
    assert browser.evaluate("document.querySelectorAll('[data-state=drawn]').length") == 0
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert False not in browser.evaluate(tables)
    browser.evaluate("dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate(tables) == before


def test_what_is_printed_later_has_all_charts_on_white(browser: Browser, page: Path) -> None:
    browser.screen(1280, 900, "dark")
    browser.open(page)
    first = f"{CHARTS}[0]"
    browser.evaluate(f"{first}.scrollIntoView({{behavior: 'instant'}})")
    browser.wait_for(f"{first}.dataset.state")
    ink = "getComputedStyle(document.body).color"
    assert browser.evaluate(ink) == DARK
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    undrawn = f"{CHARTS}.filter(c => !c.querySelector('.main-svg')).length"
    assert browser.evaluate(undrawn) == 0
    assert browser.evaluate(ink) == LIGHT
    tick = "getComputedStyle(c.querySelector('.xtick text')).fill"
    ticks = f"[...new Set({CHARTS}.map(c => {tick}))]"
    assert browser.evaluate(ticks) == ["rgb(91, 99, 109)"]  # --muted of the light theme
    scaled = "document.querySelectorAll('.main-svg[viewBox]').length"
    assert browser.evaluate(scaled) >= browser.evaluate(f"{CHARTS}.length")
    browser.evaluate("dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate(scaled) == 0
    browser.wait_for(f"{ticks}[0] === 'rgb(160, 168, 177)'")
    assert browser.complaints() == []


def test_the_keyboard_reaches_all_that_acts(browser: Browser, page: Path) -> None:
    browser.screen(390, 800, "light")
    browser.open(page)
    links = browser.evaluate("document.querySelectorAll('nav a').length")
    reached = []
    for _ in range(links + 20):
        for kind in ("rawKeyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", windowsVirtualKeyCode=9)
        what = "document.activeElement.classList[0] || document.activeElement.tagName"
        reached.append(browser.evaluate(what))
    assert reached[0] == "skip"
    assert reached[1 : 1 + links] == ["A"] * links
    after = set(reached[1 + links :])
    fields = {"INPUT", "SELECT", "points", "BUTTON"} if links > 4 else {"scroll"}
    assert {"SUMMARY", *fields} <= after
