"""The demo for real, on a sample too small to be good: it runs, reports, and reuses."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench import cli, demo
from hwbench.cli.demo import _show as show
from hwbench.devices.base import Device
from hwbench.errors import DeviceError, InconclusiveError
from hwbench.measure.campaign import record
from hwbench.measure.jobs import Job, RunnerSpec
from hwbench.measure.plan import Failure
from hwbench.predictors import load_predictor
from hwbench.records import Measurement
from hwbench.search.pnag import Costs
from hwbench.search.pnag.training import Schedule
from hwbench.store import Store
from hwbench.watch.page import Tried
from tests.measurements import measurement
from tests.reports import demo_report

if TYPE_CHECKING:
    from hwbench.devices.profile import Profile
    from hwbench.predictors import LatencyPredictor


@pytest.mark.usefixtures("short_calibration")
def test_the_demo_measures_predicts_keeps_and_reports(
    tmp_path: Path,
    own_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "TEST_SAMPLES", 4)
    # Two processes, and less time, where no answer has to be sure.
    short = replace(demo.PROFILE_PLAN, processes=2, seconds=0.3)
    monkeypatch.setattr(demo, "PROFILE_PLAN", short)
    monkeypatch.setattr(demo, "Plan", partial(demo.Plan, processes=2))
    monkeypatch.setattr(demo, "Costs", partial(Costs, plan=Schedule(steps=10, last=15)))
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
    monkeypatch.setattr("hwbench.demo.record", _one_fails)
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    unmeasured = [b for b in json.loads(out)["budgets"] if b["measured_ms"] is None]
    assert unmeasured
    assert all(b["kept"] is None for b in unmeasured)
    assert f"hwbench generate {tmp_path / 'out' / 'cpu-ofa_mbv3.hwg'} --measure --budget" in err
    assert "Not measured" in Path(first["page"]).read_text(encoding="utf-8")
    with Store.open(own_store) as store:
        twice = store.measurements(with_bursts=False)
    # Profile and test set are there already, but for what too few bursts of a busy machine left
    # out: nothing but the three winners is measured again.
    known = {m.workload.key for m in once}
    assert sum(m.workload.key in known for m in twice) - len(once) <= 3
    assert len({m.workload.key for m in twice}) <= 20 + 4 + 2 * 3
    # The predictor is there, whatever comes after it.
    monkeypatch.setattr("hwbench.demo.train_generator", _fails)
    assert cli.main([*argv[:3], "-o", str(tmp_path / "broken")]) == 4
    load_predictor(tmp_path / "broken" / "cpu-ofa_mbv3.hwp")


def test_what_it_shows_fits_80_columns_and_says_what_is_open(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = demo_report()
    kept, broken, wide = report.budgets
    nothing = dict.fromkeys(("measured_ms", "low_ms", "high_ms"), math.nan)
    budgets = [
        kept,
        broken,
        replace(wide, high_ms=2 * wide.budget_ms, inconclusive=True),
        replace(wide, budget_ms=1234.5, upper_ms=1233.3, **nothing),
    ]
    shown = replace(report, budgets=budgets)
    show(demo.Demo(shown, cast("LatencyPredictor", None), Path("a.hwg"), Path("index.html")))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("To learn from: 300 of 302 architectures measured, 7 of them")
    first = next(i for i, line in enumerate(lines) if line.startswith("budget ms")) + 2
    words = [line.split() for line in lines[first : first + 4]]
    assert [row[3] for row in words[:2]] == ["yes", "no"]
    assert words[2][3:5] == ["open,", "inconclusive"]
    assert words[3][2:5] == ["not", "measured", "open"]


def _one_fails(
    device: Device, jobs: Sequence[Job], *args: Any, **options: Any
) -> Iterator[Measurement | Failure]:
    """As the engine, but the first workload is disturbed throughout."""
    yield Failure(jobs[0].workload, InconclusiveError("0 of 12 bursts count"))
    yield from record(device, jobs[1:], *args, **options)


def _fails(*args: Any, **options: Any) -> None:
    raise DeviceError("the device is gone")


class _Lost:
    """A profile of ``asked`` architectures, of which the machine let ``left`` be measured."""

    def __init__(self, asked: int, left: int) -> None:
        numbers = [measurement(i, status="inconclusive") for i in range(asked)]
        self.jobs = [Job(m.workload, lambda folder: RunnerSpec("", {})) for m in numbers]
        self._left = numbers[:left]

    def run(self, *args: object) -> Iterator[Failure]:
        lost = self.jobs[len(self._left) :]
        yield from (Failure(job.workload, InconclusiveError("0 of 12 bursts")) for job in lost)

    def stored(self, store: object) -> list[Measurement]:
        return self._left


@given(st.integers(2, 8), st.data())
def test_it_refuses_where_most_of_a_sample_was_lost(asked: int, data: st.DataObject) -> None:
    left = data.draw(st.integers(0, asked))
    run = partial(demo._measured, cast("Profile", _Lost(asked, left)), cast("Store", None), print)
    if 2 * left >= asked:
        assert run()[1] == Tried(asked, left, left)
        return
    with pytest.raises(InconclusiveError, match=f"{left} of {asked} .* it goes on from there"):
        run()
