"""The demo's page: what it says, that names stay text, and that it is whole on disk."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.errors import UsageError
from hwbench.records import Fingerprint
from hwbench.watch import charts, figures, page_charts
from hwbench.watch.page import Budget, DemoReport, Stage, render, write_page
from hwbench.watch.policy import content_policy
from tests.html import Page
from tests.reports import demo_report

HOSTILE = """</script><script>alert(1)</script>'"><img src=x onerror=alert(2)>{{ 7*7 }}"""


@pytest.fixture(scope="module")
def report() -> DemoReport:
    return demo_report()


def read(report: DemoReport) -> Page:
    return Page(render(report, "default-src 'none'"))


def hostile_report(name: str) -> DemoReport:
    report = demo_report()
    profile, evaluation = report.profile, report.evaluation
    return dataclasses.replace(
        report,
        title=name,
        command=name,
        space=name,
        fingerprint=Fingerprint(name, {name: name, "cpu_model": name}, {name: name}),
        epoch=report.epoch and dataclasses.replace(report.epoch, id=name, names=(name, name)),
        profile=dataclasses.replace(profile, architectures=[name] * len(profile.macs)),
        evaluation=dataclasses.replace(
            evaluation,
            architectures=[name] * len(evaluation.measured_ms),
            scores=dict.fromkeys([name, f"{name}2"], evaluation.scores["hwbench"]),
        ),
        budgets=[dataclasses.replace(budget, architecture=name) for budget in report.budgets],
        stages=(Stage(name, 1.0),),
    )


# --- what it says -----------------------------------------------------------------------------


def test_each_budget_is_kept_or_broken_in_words(report: DemoReport) -> None:
    text = read(report).text
    assert "2 of 3 budgets kept." in text
    assert re.search(r"Under 8 ms Kept 7\.880 ms", text)
    assert re.search(r"Under 13\.5 ms Broken 13\.61 ms", text)
    assert "MACs (capacity proxy)" in text


def test_budget_that_could_not_be_measured_is_neither_kept_nor_broken(report: DemoReport) -> None:
    unmeasured = dict.fromkeys(("measured_ms", "low_ms", "high_ms"), math.nan)
    budget = dataclasses.replace(report.budgets[0], **unmeasured)
    page = read(dataclasses.replace(report, budgets=[budget]))
    assert "0 of 1 budgets kept." in page.text
    assert "Under 8 ms Not measured of the budget used – " in page.text
    winners = page.data()[0]["traces"][-1]  # type: ignore[index]
    assert winners["x"] == []


def test_an_interval_that_ends_at_the_budget_keeps_it(report: DemoReport) -> None:
    budget = report.budgets[1]
    assert budget.kept is False
    ends_there = dataclasses.replace(budget, low_ms=0.99 * budget.budget_ms, high_ms=13.5)
    assert ends_there.budget_ms == 13.5
    assert ends_there.kept is True


@given(st.floats(0.1, 100), st.floats(0.1, 100), st.floats(0, 0.5))
def test_a_budget_within_the_interval_is_open(budget: float, measured: float, wide: float) -> None:
    low, high = measured * (1 - wide), measured * (1 + wide)
    one = Budget(budget, "r224", 10**8, measured, measured, 0.98, measured, low, high)
    assert one.kept is (True if high <= budget else False if budget < low else None)


def test_an_open_budget_and_an_inconclusive_one_are_called_so(report: DemoReport) -> None:
    one = dataclasses.replace(report.budgets[0], high_ms=8.8, inconclusive=True)
    text = read(dataclasses.replace(report, budgets=[one])).text
    assert "0 of 1 budgets kept. 1 open." in text
    assert "Under 8 ms Open: the budget lies in the interval 7.880 ms" in text
    assert "to 8.800 ms (inconclusive: too wide to be an answer)" in text


def test_what_was_lost_is_told(report: DemoReport) -> None:
    text = read(report).text
    profile = "300 of 302 architectures measured, 7 of them inconclusive; 2 could not be"
    assert text.count(profile) == 2
    assert "100 of 100 architectures measured. One" in text


def test_all_predictors_stand_in_one_table_and_undefined_figures_are_dashes(
    report: DemoReport,
) -> None:
    text = read(report).text
    for name, score in report.evaluation.scores.items():
        shares = (score.within_5, score.within_10)
        assert f"{name} " + " ".join(f"{100 * s:.1f} %" for s in shares) in text
    assert report.evaluation.scores["constant"].spearman is None
    assert re.search(r"constant \S+ % \S+ % – ", text)


def test_epoch_fingerprint_and_cost_are_told(report: DemoReport) -> None:
    text = read(report).text
    assert report.epoch
    assert report.epoch.id in text
    for name in report.epoch.names:
        assert name in text
    for value in (*report.fingerprint.facts.values(), *report.fingerprint.state.values()):
        assert value in text
    for stage in report.stages:
        assert stage.name in text
    assert "5 min 1 s in all" in text


def test_without_an_epoch_the_milliseconds_are_called_provisional(report: DemoReport) -> None:
    text = read(dataclasses.replace(report, epoch=None)).text
    assert "provisional" in text
    assert "Canonical times" not in text


def test_every_number_of_the_charts_is_in_a_table(report: DemoReport) -> None:
    text = read(report).text
    for row in (*report.profile.architectures, *report.evaluation.architectures):
        assert row in text


# --- structure --------------------------------------------------------------------------------


def test_the_page_is_well_formed(report: DemoReport) -> None:
    assert read(report).references() > 10


def test_tables_have_captions_and_charts_have_names(report: DemoReport) -> None:
    page = read(report)
    assert len(page.of("caption")) == len(page.of("table")) == 6
    charts_drawn = [a for a in page.of("div") if a.get("class") == "chart"]
    assert len(charts_drawn) == len(page.of("figure")) == 3
    assert all(a["role"] == "img" and a["aria-labelledby"] for a in charts_drawn)


def test_nothing_is_inline_and_nothing_is_fetched_from_elsewhere(report: DemoReport) -> None:
    assert read(report).files() == {"page.js", "style.css"}


def test_style_sheet_and_script_ask_nothing_of_the_network() -> None:
    for name in ("style.css", "page.js"):
        assert not re.search(r"https?:|@import|url\(|\beval\b|innerHTML", _asset(name))


def test_colours_of_the_charts_exist_in_both_themes(report: DemoReport) -> None:
    style = _asset("style.css")
    light, dark = (dict(re.findall(r"(--[\w-]+): (#\w{6});", part)) for part in _themes(style))
    used = set(re.findall(r"var\((--[\w-]+)\)", json.dumps(read(report).data())))
    used |= set(re.findall(r"var\((--[\w-]+)\)", _asset("page.js")))
    assert {"--seq-0", "--seq-6", "--winner", "--ink"} <= used
    assert used <= light.keys()
    assert light.keys() == dark.keys()


def test_the_figure_in_a_file_has_the_colours_of_the_light_theme() -> None:
    style = _asset("style.css")
    light = dict(re.findall(r"--([\w-]+): (#\w{6});", _themes(style)[0]))
    sequence = tuple(light[f"seq-{i}"] for i in range(charts.SEQUENCE))
    assert sequence == figures.SEQUENCE
    assert {p: light[f"band-{p}"] for p in page_charts.BANDS_PERCENT} == figures.BANDS
    ours = (figures.ACCENT, figures.BAD, figures.WINNER, figures.MUTED)
    assert ours == tuple(light[name] for name in ("accent", "bad", "winner", "muted"))


def _themes(style: str) -> tuple[str, str]:
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    return light, dark


def _asset(name: str) -> str:
    return Path(figures.__file__).with_name("templates").joinpath(name).read_text("utf-8")


# --- hostile names ----------------------------------------------------------------------------


def test_hostile_names_stay_text_wherever_they_stand() -> None:
    page, clean = read(hostile_report(HOSTILE)), read(demo_report())
    tags = [tag for tag, _ in page.elements]
    assert "img" not in tags
    assert tags.count("script") == [tag for tag, _ in clean.elements].count("script")
    assert page.text.count("</script><script>alert(1)") > 400
    assert "{{ 7*7 }}" in page.text


def test_hostile_names_are_escaped_for_plotly_too() -> None:
    for spec in read(hostile_report(HOSTILE)).data():
        texts = [t for trace in spec["traces"] for t in trace.get("customdata", ())]  # type: ignore[attr-defined]
        assert texts
        for text in texts:
            assert "<" not in text.replace("<br>", "")


@given(st.text(max_size=60))
def test_any_text_becomes_lines_without_markup(text: str) -> None:
    lines = charts.plain(text).split("<br>")
    assert not set("<>") & set("".join(lines))
    shown = "".join(lines).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert "".join(shown.split()) == "".join(text.split())


def test_control_characters_and_stray_bytes_are_shown_as_escapes(tmp_path: Path) -> None:
    hostile = "a\x00b\x1b[31mc\udc80d\u202ee\u2066f\u200fg"
    page = write_page(hostile_report(hostile), tmp_path).read_text("utf-8")
    assert "a\\x00b\\x1b[31mc\\udc80d\\u202ee\\u2066f\\u200fg" in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u200e\u200f\u202a-\u202e\u2066-\u2069]", page)
    Page(page)


# --- the folder -------------------------------------------------------------------------------


def test_a_page_is_a_folder_that_needs_no_other(report: DemoReport, tmp_path: Path) -> None:
    page = write_page(report, tmp_path / "new" / "demo")
    assert page == tmp_path / "new" / "demo" / "index.html"
    names = {path.name for path in page.parent.iterdir()}
    assert names == {"index.html", "page.js", "plotly.min.js", "style.css"}
    Page(page.read_text("utf-8"))
    first = page.read_bytes()
    assert write_page(report, page.parent).read_bytes() == first


@pytest.mark.parametrize("name", ["index.html", "style.css", "plotly.min.js"])
def test_a_file_of_somebody_else_is_not_replaced(
    report: DemoReport, tmp_path: Path, name: str
) -> None:
    (tmp_path / "notes.txt").write_text("in nobody's way")
    (tmp_path / name).write_text("<title>mine</title>")
    with pytest.raises(UsageError, match=f"holds {name}, which no earlier report wrote"):
        write_page(report, tmp_path)
    assert (tmp_path / name).read_text() == "<title>mine</title>"
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / name).unlink()
    write_page(report, tmp_path)


def test_what_was_interrupted_is_written_anew(
    report: DemoReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfile", full)
        with pytest.raises(OSError, match="No space"):
            write_page(report, tmp_path)
    assert not (tmp_path / "index.html").exists()
    assert write_page(report, tmp_path).exists()


def test_policy_lets_in_no_inline_script_and_only_the_styles_of_plotly() -> None:
    policy = dict(
        directive.split(" ", 1)
        for directive in content_policy("e.textContent='.map{top:0}';x.textContent=t").split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self' file:"
    assert policy["style-src"].split()[:2] == ["'self'", "file:"]
    assert [s[:8] for s in policy["style-src"].split()[2:]] == ["'sha256-", "'sha256-"]


# --- charts -----------------------------------------------------------------------------------


def test_chart_data_is_what_was_measured(report: DemoReport) -> None:
    spec = page_charts.latency_over_macs(report.profile, report.budgets).spec
    *groups, winners = spec["traces"]
    assert sum(len(trace["x"]) for trace in groups) == 300
    latency = sorted(y for trace in groups for y in trace["y"])
    assert latency == pytest.approx(np.sort(report.profile.measured_ms), rel=1e-4)
    assert winners["y"] == pytest.approx([b.measured_ms for b in report.budgets], rel=1e-4)
    assert [line["y0"] for line in spec["layout"]["shapes"]] == [8.0, 13.5, 19.0]


def test_predictions_beyond_ten_percent_are_set_apart(report: DemoReport) -> None:
    for chart in (
        page_charts.predicted_against_measured(report.evaluation),
        page_charts.error_by_latency(report.evaluation),
    ):
        sizes = {t["name"]: len(t["x"]) for t in chart.traces if t["mode"] == "markers"}
        assert sizes == {"within ±10 %": 99, "beyond ±10 %": 1}


def test_summaries_say_what_the_charts_show(report: DemoReport) -> None:
    measured = report.evaluation.measured_ms
    summary = page_charts.predicted_against_measured(report.evaluation).summary
    within = int(np.sum(np.abs(report.evaluation.predicted_ms / measured - 1) < 0.05))
    assert "99 lie within 10 %" in summary
    assert f"{within} within 5 %" in summary
    assert f"13.0 % too high, at {measured[5]:.3g} ms" in summary


def test_intervals_that_reach_below_zero_are_drawn_all_the_same(report: DemoReport) -> None:
    wide = dataclasses.replace(report.evaluation, low_ms=-report.evaluation.predicted_ms)
    chart = page_charts.predicted_against_measured(wide)
    assert all(map(math.isfinite, chart.layout["yaxis"]["range"]))


@given(st.floats(1e-3, 1e4), st.floats(1.05, 1e4))
def test_log_ticks_are_few_ordered_and_inside(low: float, ratio: float) -> None:
    ticks = charts.log_ticks(low, low * ratio)
    assert len(ticks) <= 8
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= low * ratio for tick in ticks)
    assert len(ticks) >= 2 or ratio < 1.6


@pytest.mark.parametrize(
    ("value", "text"), [(8.0, "8"), (13.5, "13.5"), (11.43271, "11.43"), (12345.6, "12350")]
)
def test_budgets_are_named_briefly(value: float, text: str) -> None:
    assert charts.brief(value) == text


def test_figure_in_a_file(report: DemoReport, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "predictor.png"
    figures.predictor_figure(report.profile, report.evaluation, report.budgets, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 1200
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or ()}
    for drawn in (figures.WINNER, figures.BANDS[5]):
        assert tuple(bytes.fromhex(drawn[1:])) in colours
