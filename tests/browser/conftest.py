"""One browser for all pages, and the pages: the demo's, and the report of a store lived in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwbench.watch.page import write_page
from tests import lived_in
from tests.browser.chromium import Browser
from tests.browser.pages import report_of
from tests.reports import demo_report


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    binary = next(filter(None, map(shutil.which, names)), None)
    if binary is None:
        pytest.skip("NO BROWSER, so no page is tested in one: apt-get install chromium")
    with Browser(binary, tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(demo_report(), tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    store = lived_in.lived_in(folder)
    files = (
        lived_in.predictor(store, folder / "cpu.hwp"),
        lived_in.operators(folder / "resnet18.json"),
    )
    return report_of(store, folder / "site", files)
