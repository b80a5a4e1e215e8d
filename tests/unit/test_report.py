"""What the report of a store says: series, changes, devices, and what is missing."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from hwbench.records import Measurement
from hwbench.store import Store
from hwbench.watch.report import StoreReport, gather
from hwbench.watch.report_charts import series_spec
from hwbench.watch.report_page import render
from tests.stores import BEGAN, calibration, device, filled, history

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
    assert html.count('class="chart"') == 6  # the series', and the canaries of both devices
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
    assert [len(t["x"]) for t in spec["traces"] if t["mode"] == "markers"] == [10, 1]


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
    assert "1 measurement</strong> of 1 series on 1 device." in render(single, "policy")
