"""What the report of a store says: series, changes, devices, and what is missing."""

from __future__ import annotations

import dataclasses
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.records import InputSpec, Measurement
from hwbench.spaces import get_space
from hwbench.store import Store
from hwbench.watch import report_files, report_runs
from hwbench.watch.gate import stored_level
from hwbench.watch.levels import BESIDE, GATED
from hwbench.watch.report import StoreReport, gather
from hwbench.watch.report_charts import histogram, series_spec
from hwbench.watch.report_page import render
from hwbench.watch.report_runs import EACH, SHARES
from hwbench.watch.report_series import ALARM, TRIED
from tests.html import Page
from tests.lived_in import SPACE, lived_in, operators, predictor, profiled, with_runs
from tests.measurements import measurement
from tests.stores import BEGAN, calibration, device, filled, history, tagged

MADE = "2026-03-01T12:00:00+00:00"
STEADY = [2.0] * 12


def reported(measurements: Sequence[Measurement], folder: Path) -> StoreReport:
    """The report of measurements whose store has nothing else."""
    with Store.open(folder / "results.db") as store:
        return gather(store, measurements, "Latency", MADE)


def test_a_filled_store(tmp_path: Path) -> None:
    with Store.open(filled(tmp_path)) as store:
        report = gather(store, store.measurements(with_bursts=False), "Latency", MADE)
    assert (report.measurements, len(report.series), len(report.devices)) == (120, 4, 2)
    ((series, change),) = report.changed
    assert (series.name, series.device.label) == ("resnet18.onnx", "cpu, CPU model 0")
    assert abs(change.index - 18) <= 1
    assert change.ratio == pytest.approx(1.05, abs=0.01)
    assert report.tags == ["team=vision"]
    assert [name for name, _ in report.devices[0].drift] == ["conv", "memory"]
    assert [claim.outcome for claim in report.claims] == ["confirmed"]
    html = render(report, "policy")
    assert html.count('class="chart over-time"') == 4
    assert html.count('class="chart"') == 2  # the canaries of both devices
    assert "latencies agree with themselves" in html


def test_a_calibration_divides_a_series(tmp_path: Path) -> None:
    later = history("net", device(0), [3.0] * 4, began=BEGAN + timedelta(days=20))
    moved = [dataclasses.replace(m, epoch=calibration(device(0), 1).id) for m in later]
    report = reported([*history("net", device(0), STEADY), *moved], tmp_path)
    (series,) = report.series
    assert [p.anchored for p in series.points] == [False] * 12 + [True] * 4
    assert series.levels == []
    assert report.notes == [
        "12 latencies rest on an earlier calibration than the newest of their series: they are "
        "shown, and not compared."
    ]


def test_provisional_milliseconds_have_no_levels(tmp_path: Path) -> None:
    """Each session's are of its own quiet moments: as far apart as those are."""
    points = history("net", device(0), [2.0] * 8 + [2.4] * 8)
    loose = [dataclasses.replace(m, epoch=None) for m in points]
    report = reported(loose, tmp_path)
    (series,) = report.series
    assert (series.forming, series.levels, report.changed) == ([], [], [])
    assert report.notes == [
        "16 latencies are provisional, of a device that was not calibrated: they compare within "
        "their session only."
    ]
    rows = series_spec(series)["rows"]
    assert len({row[9] for row in rows}) == len({m.session for m in loose}) > 1


def test_two_earlier_calibrations_are_two(tmp_path: Path) -> None:
    """The page's script compares rows of one calibration, the last column."""
    points = history("net", device(0), [2.0] * 3)
    moved = [dataclasses.replace(m, epoch=f"e{n}") for n, m in enumerate(points)]
    (series,) = reported(moved, tmp_path).series
    assert [row[9] for row in series_spec(series)["rows"]] == ["e0", "e1", "e2"]


def test_other_inputs_are_a_series_of_their_own(tmp_path: Path) -> None:
    small = history("net", device(0), STEADY)
    big = (InputSpec("x", "float32", (8, 3, 224, 224)),)
    large = [
        dataclasses.replace(m, workload=dataclasses.replace(m.workload, inputs=big)) for m in small
    ]
    report = reported([*small, *large], tmp_path)
    assert [series.options for series in report.series][1] == "8x3x224x224 float32"
    assert len({series.options for series in report.series}) == 2
    assert [s.options for s in reported(small, tmp_path / "one").series] == [""]


def test_a_device_that_changed_is_told(tmp_path: Path) -> None:
    new = dataclasses.replace(
        device(0), facts={**device(0).facts, "kernel": "6.2", "onnxruntime": "1.32"}
    )
    both = [*history("net", device(0), STEADY), *history("net", new, STEADY)]
    report = reported(both, tmp_path)
    assert len(report.series) == len(report.devices) == 2
    assert report.devices[1].changed == "kernel 6.1 to 6.2, onnxruntime 1.31 to 1.32"
    assert "series of its own" in report.notes[0]


def test_what_gave_no_latency_is_counted_and_shown(tmp_path: Path) -> None:
    points = history("net", device(0), STEADY)
    points[3] = dataclasses.replace(points[3], status="inconclusive")
    points[5] = dataclasses.replace(
        points[5], status="observed_only", latency_ns=None, low_ns=None, high_ns=None
    )
    report = reported(points, tmp_path)
    (series,) = report.series
    assert [p.status for p in series.points if not p.anchored] == ["inconclusive", "observed_only"]
    assert "2 measurements gave no undisturbed latency" in report.notes[0]
    spec = series_spec(series)
    assert len(spec["rows"]) == 12
    shown = {t["name"]: t["y"] for t in spec["traces"] if t["mode"] == "markers"}
    assert {name: len(y) for name, y in shown.items()} == {
        "undisturbed": 10,
        "inconclusive": 1,
        "as observed": 1,
    }
    assert shown["as observed"] == pytest.approx([series.points[5].p50_ms], rel=1e-3)


def test_the_page_carries_its_data_as_json_that_nothing_breaks(tmp_path: Path) -> None:
    name = "</script><!--<script>alert(1)"
    html = render(reported(history(name, device(0), STEADY), tmp_path), "policy")
    (data,) = re.findall(r'<script type="application/json" id="s0-data">(.*?)</script>', html)
    assert len(json.loads(data)["rows"]) == 12
    assert "<script>alert" not in html


def test_an_empty_store_and_a_single_run(tmp_path: Path) -> None:
    empty = reported([], tmp_path)
    assert empty.notes == ["The store has no measurement yet: hwbench bench makes the first."]
    assert "None yet." in render(empty, "policy")
    single = reported(history("net", device(0), [2.0]), tmp_path)
    assert "no history yet" in single.notes[0]
    assert "1 measurement</strong> on 1 device: 1 series." in render(single, "policy")


def test_what_the_store_has_of_another_device_is_not_nothing(tmp_path: Path) -> None:
    with Store.open(tmp_path / "results.db") as store:
        store.merge(history("net", device(0), [2.0]))
        found = gather(store, store.measurements(device="none"), "A report", "2026-01-01T00:00:00Z")
    assert found.notes == ["Nothing that the store has is of the device and the time asked for."]


# --- what is no part of a level ---------------------------------------------------------------


def discarded(**tags: str) -> list[Measurement]:
    """Ten points of a level, two of a change that is 60 % slower with such tags, and the old level
    again.
    """
    points = history("tiny.onnx", device(0), [2.0] * 10 + [3.2] * 2 + [2.0] * 3)
    return [*points[:10], *tagged(points[10:12], dirty="yes", **tags), *points[12:]]


@pytest.mark.parametrize(("tags", "why"), [(GATED, ALARM), (BESIDE, TRIED)])
def test_a_change_that_was_gated_and_thrown_away_is_no_change_of_level(
    tmp_path: Path, tags: dict[str, str], why: str
) -> None:
    points = discarded(**tags)
    for upto in range(13, 16):
        report = reported(points[:upto], tmp_path / str(upto))
        (series,) = report.series
        assert (report.changed, len(series.forming)) == ([], upto - 2)
        of_gate = stored_level(points[: upto - 1], points[upto - 1], None)
        assert of_gate.points == upto - 3  # the newest is what is held against it
    assert [p.left_out for p in series.points] == [""] * 10 + [why] * 2 + [""] * 3
    spec = series_spec(series)
    drawn = {t["name"]: t["customdata"] for t in spec["traces"] if t["mode"] == "markers"}
    assert drawn == {"undisturbed": [*range(10), 12, 13, 14], why: [10, 11]}
    assert [row[10] for row in spec["rows"]] == [p.left_out for p in series.points]
    assert "slower" not in render(report, "policy")
    untold = reported(discarded()[:13], tmp_path / "untold")  # of bench alone it is a new level
    assert len(untold.series[0].levels) == 1


def test_an_alarm_that_is_the_newest_is_held_against_its_level(tmp_path: Path) -> None:
    page = Page(render(reported(discarded(**GATED)[:12], tmp_path), "policy"))
    assert re.search(
        r"an alarm of a gate, not part of the level : \+(59|60)\.\d % slower than it", page.text
    )


def test_the_sides_of_comparisons_are_no_series(tmp_path: Path) -> None:
    sides = [
        m
        for name in ("net (A)", "net (B)", "net (baseline)")
        for m in history(name, device(0), STEADY[:1])
    ]
    report = reported([*history("net", device(0), STEADY), *sides], tmp_path)
    assert [series.name for series in report.series] == ["net"]
    assert report.notes == [
        "3 measurements are sides of comparisons (hwbench compare, hwbench gate): they are in "
        "measurements.csv, and no series."
    ]
    alone = reported(sides[:1], tmp_path / "alone")
    assert "1 measurement is a side" in alone.notes[0]
    assert "None yet." in render(alone, "policy")


def test_a_star_stands_by_every_commit_with_changes(tmp_path: Path) -> None:
    clean = history("net", device(0), [2.0] * 8 + [2.4] * 8)
    starred = [*clean[:8], *tagged(clean[8:], dirty="yes")]
    page = Page(render(reported(starred, tmp_path), "policy"))
    codes = [text for tag, text in page.texts if tag == "code"]
    assert codes.count("0008000800*") == 1
    assert page.text.count("* measured with changes that were not committed") == 2
    assert "0008000800*" in str(page.data())
    plain = Page(render(reported(clean, tmp_path / "clean"), "policy"))
    assert "0008000800" in plain.text
    assert "*" not in plain.text


def test_a_series_without_an_answer_says_what_was_seen_and_what_to_do(tmp_path: Path) -> None:
    wide = [
        dataclasses.replace(with_runs(m, n), status="inconclusive")
        for n, m in enumerate(history("net", device(0), [2.0] * 2))
    ]
    report = reported(wide, tmp_path)
    p50 = report.series[0].newest.p50_ms
    text = Page(render(report, "policy")).text
    assert f"{p50:.3f} ms observed" in text
    assert "Inconclusive : the interval of its undisturbed latency is wider than ± 5 %" in text
    assert "give hwbench bench more --seconds" in text


# --- projects ---------------------------------------------------------------------------------


def test_a_name_in_two_projects_is_two_series(tmp_path: Path) -> None:
    net = history("net", device(0), STEADY)
    other = history("net", device(0), [5.0] * 12, seed=1)
    both = [*tagged(net, project="vision"), *tagged(other, project="speech")]
    report = reported(both, tmp_path)
    assert [(s.name, s.project, s.options) for s in report.series] == [
        ("net", "speech", ""),
        ("net", "vision", ""),
    ]
    assert report.changed == []
    assert report.tags == ["project=speech", "project=vision", "team=vision"]
    page = Page(render(report, "policy"))
    assert page.text.count("in speech; cpu") == page.text.count("in vision; cpu") == 1
    alone = reported(tagged(net, project="vision"), tmp_path / "one")
    assert (alone.series[0].project, alone.tags) == ("", ["team=vision"])
    before = reported([*net, *tagged(other, project="speech")], tmp_path / "before")
    assert [len(series.points) for series in before.series] == [24]  # of before projects were told
    doubtful = reported([*net, *both], tmp_path / "doubtful")
    assert [series.project for series in doubtful.series] == ["", "speech", "vision"]


# --- what lies behind a measurement, and how a device fared -----------------------------------


def test_the_newest_points_carry_quantiles_of_their_runs(tmp_path: Path) -> None:
    with Store.open(tmp_path / "results.db") as store:
        points = history("net", device(0), [2.0] * 20)
        store.merge(with_runs(m, day) for day, m in enumerate(points))
        report = gather(store, store.measurements(with_bursts=False), "Latency", MADE)
        (last,) = store.measurements(session=points[-1].session)
    (series,) = report.series
    assert [bool(p.runs_ms) for p in series.points] == [False] * (20 - EACH) + [True] * EACH
    ms = last.bursts.sample_ns / 1e6
    found = dict(zip(SHARES, series.newest.runs_ms, strict=True))
    assert found[0.0] == pytest.approx(ms.min(), rel=1e-4)
    assert found[0.5] == pytest.approx(np.median(ms), rel=1e-4)
    assert found[1.0] == pytest.approx(ms.max(), rel=1e-4)
    assert set(series_spec(series)["runs"]) == set(range(20 - EACH, 20))


def test_damaged_samples_cost_their_drawing_alone(tmp_path: Path) -> None:
    path = filled(tmp_path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE bursts SET checksum = 'x' WHERE measurement_id = 30")
    connection.commit()
    connection.close()
    with Store.open(path) as store:
        report = gather(store, store.measurements(with_bursts=False), "Latency", MADE)
    assert report.measurements == 120
    assert "The samples of 1 session are damaged: their runs are not drawn." in report.notes


@given(st.lists(st.integers(1, 40), max_size=60))
def test_of_many_series_fewer_points_each_are_drawn(sizes: list[int]) -> None:
    groups = [[measurement(n)] * size for n, size in enumerate(sizes)]
    chosen = Counter(m.workload.name for m in report_runs.newest(groups))
    assert sum(chosen.values()) <= report_runs.MOST
    for n, size in enumerate(sizes):
        assert chosen[f"net{n}"] == min(size, report_runs.EACH)


def test_a_device_has_a_history_and_its_newest_state(tmp_path: Path) -> None:
    points = history("net", device(0), STEADY)
    loads = ["0.5", "unknown", "2.25", *["1.0"] * 9]
    states = [
        dataclasses.replace(m, fingerprint=dataclasses.replace(device(0), state={"load": load}))
        for m, load in zip(points, loads, strict=True)
    ]
    with Store.open(tmp_path / "results.db") as store:
        store.add_epoch(calibration(device(0)))
        (found,) = gather(store, states, "Latency", MADE).devices
    assert found.state == [("load", "1.0", 0.5, 2.25)]
    assert [what for _, what in found.history] == [
        "first measured",
        "calibrated in 5 runs: conv 1 ms, memory 2 ms",
    ]


# --- spaces -----------------------------------------------------------------------------------


def test_architectures_that_were_hardly_measured_are_samples_of_their_space(
    tmp_path: Path,
) -> None:
    space = get_space(SPACE)
    rows = profiled(space, device(0), 2, 40, seed=1)
    often = [dataclasses.replace(rows[0], session=f"again-{n}") for n in range(2)]
    twice = dataclasses.replace(rows[1], session="again-0", latency_ns=9e6)
    report = reported([*rows, *often, twice, *history("net", device(0), STEADY)], tmp_path)
    assert {series.name for series in report.series} == {"net", rows[0].workload.name}
    (sample,) = report.samples
    assert (sample.space, sample.size) == (SPACE, 39)
    assert sample.points[str(rows[1].workload.arch)].ms == 9.0  # the newest one
    wide = sum(m.status != "ok" for m in rows)
    assert len(sample.answered_ms) == 39 - wide
    chart = histogram(sample)
    assert chart is not None
    assert sum(row[2] for row in chart.table.rows) == len(sample.answered_ms)  # type: ignore[misc]


def test_a_few_architectures_make_no_histogram(tmp_path: Path) -> None:
    report = reported(profiled(get_space(SPACE), device(0), 2, 5, seed=1), tmp_path)
    assert histogram(report.samples[0]) is None
    assert "5 architectures of search spaces" in render(report, "policy")


# --- the page ---------------------------------------------------------------------------------


def lived_in_page(folder: Path, names: Sequence[str]) -> Page:
    path = lived_in(folder, names)
    files = [predictor(path, folder / "cpu.hwp"), operators(folder / "net.json")]
    with Store.open(path) as store:
        measured = store.measurements(with_bursts=False)
        report = gather(store, measured, names[0], MADE)
        return Page(render(report, "default-src 'none'", report_files.read(files, measured)))


def test_the_page_is_well_formed_whatever_a_model_is_called(tmp_path: Path) -> None:
    hostile = """</script><script>alert(1)</script>'"><img src=x onerror=alert(2)>{{ 7*7 }}"""
    page = lived_in_page(tmp_path, (hostile, "=cmd()", "a\x00b\x1b[31m"))
    assert page.references() > 60
    assert page.files() == {
        "page.js", "style.css", "report.js", "report.css", "measurements.csv",
    }  # fmt: skip
    assert "img" not in [tag for tag, _ in page.elements]
    assert hostile in page.text
    assert "a\\x00b\\x1b[31m" in page.text
    assert len(page.of("table")) == len(page.of("caption"))
    drawn = [a for a in page.of("div") if "chart" in a.get("class", "").split()]
    assert all(a["role"] == "img" and (a.get("aria-label") or a["aria-labelledby"]) for a in drawn)
    for spec in page.data():
        texts = [
            str(text)
            for trace in spec["traces"]  # type: ignore[attr-defined]
            for text in (trace.get("name", ""), *trace.get("text", ()))
        ]
        assert not [text for text in texts if "<" in text.replace("<br>", "")]
