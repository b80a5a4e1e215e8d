"""The demo for real, on a sample too small to be good: it runs, reports, and reuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwbench import cli
from hwbench.store import Store


@pytest.mark.usefixtures("short_calibration")
def test_the_demo_measures_predicts_keeps_and_reports(
    tmp_path: Path,
    own_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("hwbench.demo.TEST_SAMPLES", 4)
    argv = ["demo", "-n", "20", "-o", str(tmp_path / "out"), "--json"]
    assert cli.main(argv) == 0
    first = json.loads(capsys.readouterr().out)
    assert set(first["accuracy"]) == {"hwbench", "MACs line", "constant"}
    assert len(first["budgets"]) == 3
    assert all(b["measured_ms"] is None or b["measured_ms"] > 0 for b in first["budgets"])
    page = Path(first["page"]).read_text(encoding="utf-8")
    assert "capacity proxy" in page
    assert (tmp_path / "out" / "demo.png").stat().st_size > 10_000
    with Store.open(own_store) as store:
        once = store.measurements(with_bursts=False)
    assert cli.main(argv) == 0
    with Store.open(own_store) as store:
        twice = store.measurements(with_bursts=False)
    # Profile and test set are there already, but for what too few bursts of a busy machine left
    # out: nothing but the three winners is measured again.
    known = {m.workload.key for m in once}
    assert sum(m.workload.key in known for m in twice) - len(once) <= 3
    assert len({m.workload.key for m in twice}) <= 20 + 4 + 2 * 3
