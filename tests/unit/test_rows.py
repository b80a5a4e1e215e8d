"""What a measurement looks like at the border: a number stands for an answer alone."""

from __future__ import annotations

from typing import Any

import pytest

from hwbench import console
from hwbench.cli import rows
from tests.measurements import measurement

LATENCY = ("latency_ms_low", "latency_ms", "latency_ms_high")


@pytest.mark.parametrize(
    ("status", "there"),
    [
        ("ok", LATENCY),
        ("inconclusive", ("latency_ms_low", "latency_ms_high")),
        ("observed_only", ()),
    ],
)
def test_a_latency_that_is_no_answer_is_null(status: str, there: tuple[str, ...]) -> None:
    entry = rows.to_json(measurement(status=status))
    assert tuple(name for name in LATENCY if entry[name] is not None) == there
    assert entry["p50_ms"] is not None


@pytest.mark.parametrize("status", ["ok", "inconclusive", "observed_only"])
def test_the_table_tells_runs_by_their_heading_and_why_a_latency_is_missing(
    status: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    console.show(rows.to_table([measurement(status=status, work_name="shufflenet.onnx")]))
    out = capsys.readouterr().out
    heading, _, row, *caption = out.splitlines()
    assert heading.rstrip().endswith("runs kept")
    assert row.rstrip().endswith("20 of 30")  # of six bursts of five, two do not count
    assert max(map(len, out.splitlines())) <= 80
    assert ("No latency" in " ".join(caption)) == (row.split()[1] == "-") == (status != "ok")
