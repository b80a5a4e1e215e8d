"""The experiment on DASH: what is measured, what is left out, and what rows are made to say."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from hwbench.devices.cuda.device import Cuda
from hwbench.devices.cuda.options import CudaOptions
from hwbench.devices.cuda.twin import CpuStream
from hwbench.devices.litert import LiteRt
from hwbench.devices.onnx_cpu import OnnxCpu
from hwbench.errors import DeviceError, UsageError
from hwbench.search.dash import Case, Chooser, CostModel, MixedConv
from hwbench.search.dash.costs import counts
from hwbench.search.dash.operators import (
    CROPPED_RESULTS,
    CROPPED_WEIGHTS,
    FOURIER,
    PLAIN,
    RESULTS,
    WEIGHTS,
)
from hwbench.search.dash.timing import Race
from hwbench.store import Store
from hwbench.verify import dash, get_claim
from hwbench.verify import dash_findings as findings
from hwbench.verify.dash_map import Cell, Layer, Mapper, Row, cells, kept_rows, layers, tried
from hwbench.verify.dash_memory import peak_bytes
from hwbench.verify.dash_net import AUTO, NETS, RELEASED, NetPlan, NetTimer
from hwbench.verify.frame import Setting

pytestmark = pytest.mark.usefixtures("one_torch_thread")

BASE = Layer("", 1, 40, 4, 2)


class Always(Chooser):
    """Chooses one operator, and learns nothing."""

    def __init__(self, name: str = FOURIER) -> None:
        super().__init__(CpuStream(), CostModel([]))
        self.name = name

    def near(self, case: Case) -> list[str]:
        return [self.name]


def row(cell: Cell, **ns: float) -> Row:
    """A row of times in ms: ``fourier=…, mixed_results=…``."""
    times = {name.replace("_", " "): 1e6 * t for name, t in ns.items()}
    over = {n: [t / times[FOURIER], 0.9 * t / times[FOURIER], None] for n, t in times.items()}
    return {"key": cell.key, "ns": times, "over_fourier": over, "auto": FOURIER, "tried": False}


# --- cells and their rows -------------------------------------------------------------------------


def test_a_map_begins_with_its_base_and_its_bars() -> None:
    rows = layers(BASE, length=(20,), batch=(1, 8))
    assert [layer.axis for layer in rows] == ["", "length", "batch", "batch"]
    found = cells(rows, {1: (1, 3)})
    assert len(found) == len({cell.key for cell in found}) == 16
    assert [(c.layer.axis, c.i, c.training) for c in found[:4]] == [
        ("", 1, True),
        ("", 3, True),
        ("", 1, False),
        ("", 3, False),
    ]
    assert [cell.i for cell in found if cell.full] == [3]


def test_a_cell_is_measured_in_rounds_and_its_slow_forms_once() -> None:
    mapper = Mapper(CpuStream(), Always(), seconds=0.0, seed=0)
    found = mapper.measured(Cell(BASE, 2, training=True, full=True))
    assert set(found["ns"]) == {FOURIER, RESULTS, WEIGHTS, PLAIN}
    assert found["rounds"][FOURIER] == found["rounds"][RESULTS] == 6  # the rival of the bar
    assert found["rounds"][PLAIN] == 1
    assert found["over_fourier"][PLAIN][1:] == [None, None]
    value, low, high = found["over_fourier"][RESULTS]
    assert 0 < low <= value <= high
    assert (found["auto"], found["tried"], found["left_out"]) == (FOURIER, False, {})
    fastest = min(found["ns"][name] for name in (FOURIER, RESULTS, WEIGHTS))
    assert found["auto_over_fastest"][0] == pytest.approx(found["ns"][FOURIER] / fastest, rel=0.5)


def test_a_slow_choice_is_timed_in_every_round() -> None:
    mapper = Mapper(CpuStream(), Always(WEIGHTS), seconds=0.0, seed=0)
    found = mapper.measured(Cell(replace(BASE, length=400), 5, training=False))
    assert found["rounds"][WEIGHTS] == 6
    assert found["auto_over_fastest"][0] >= 1


def test_a_form_that_only_adds_taps_that_read_nothing_is_left_out() -> None:
    mapper = Mapper(CpuStream(), Always(), seconds=0.0, seed=0)
    found = mapper.measured(Cell(replace(BASE, length=16), 5, training=False))
    assert set(found["ns"]) == {FOURIER, CROPPED_RESULTS, CROPPED_WEIGHTS, RESULTS, PLAIN}


def test_what_would_take_seconds_for_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwbench.verify.dash_map.MOST_NS", {"cpu": 1.0})
    monkeypatch.setattr("hwbench.verify.dash_map._HOPELESS", 1e-9)
    mapper = Mapper(CpuStream(), Always(), seconds=0.0, seed=0)
    assert mapper.measured(Cell(BASE, 1, training=False))["left_out"] == {}
    found = mapper.measured(Cell(BASE, 2, training=False))
    assert set(found["left_out"]) == {RESULTS, WEIGHTS, PLAIN}
    assert list(found["ns"]) == [FOURIER]
    assert math.isnan(findings.speed_up(found).value)


def test_rows_are_kept_and_time_ends_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    asked: list[str] = []

    def measure(key: str) -> Row:
        asked.append(key)
        return {"key": key, "value": len(asked)}

    assert len(list(kept_rows(path, ["a", "b"], measure, lambda: True))) == 2
    path.write_text(path.read_text()[:-6])  # cut short: b again
    left = iter([True, False])
    rows = list(kept_rows(path, ["a", "b", "c"], measure, lambda: next(left)))
    assert asked == ["a", "b", "b"]
    assert [r["key"] for r in rows] == ["a", "b"]


def test_what_does_not_fit_a_device_is_told_and_fourier_has_to() -> None:
    def full() -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def refused() -> object:
        raise RuntimeError("no engine\nfor this")

    race = Race(CpuStream())
    assert tried(race, WEIGHTS, full) == "out of memory"
    assert tried(race, WEIGHTS, refused) == "torch refuses: no engine"
    with pytest.raises(DeviceError, match="out of GPU memory"):
        tried(race, FOURIER, full)
    with pytest.raises(RuntimeError, match="no engine"):
        tried(race, FOURIER, refused)


def test_memory_is_that_of_one_run() -> None:
    layer = Layer("", 1, 1000, 16, 8)
    peak = peak_bytes(CpuStream(), Cell(layer, 3, training=True), RESULTS)
    if peak is None:
        pytest.skip("this system does not let a process reset its peak memory")
    one = 8 * 16 * 1000 * 4  # each of nine results is kept for the gradient of its share
    assert 9 * one <= peak <= 60 * one


# --- findings -------------------------------------------------------------------------------------


def made_up(rows: Sequence[Layer], columns: tuple[int, ...] = (1, 2, 3, 4)) -> findings.Measured:
    """Times by the counts: dense forms at one rate, Fourier at a sixth of it."""
    measured = []
    for cell in cells(list(rows), {1: columns, 2: columns}):
        work = {n: counts(n, cell.case).operations for n in (FOURIER, RESULTS, WEIGHTS)}
        ns = {"fourier": 6 * work[FOURIER], "mixed_results": work[RESULTS]}
        measured.append((cell, row(cell, **ns, mixed_weights=work[WEIGHTS])))
    return measured


def test_the_headline_is_against_the_fastest_dense_form() -> None:
    cell = Cell(BASE, 1, True)
    ratio = findings.speed_up(row(cell, fourier=2, mixed_results=30, mixed_weights=8))
    assert (ratio.value, ratio.low) == (4, pytest.approx(3.6))
    assert findings.speed_up(row(cell, fourier=2, mixed_results=30), (RESULTS,)).value == 15


@pytest.mark.parametrize(
    ("speeds", "even"),
    [((0.5, 0.5), None), ((2.0, 3.0), 0.0), ((0.5, 2.0), 2.0), ((2.0, 0.5), None)],
)
def test_break_even_is_interpolated_in_candidates(
    speeds: tuple[float, float], even: float | None
) -> None:
    measured = [
        (cell := Cell(BASE, i, True), row(cell, fourier=1, mixed_results=speed))
        for i, speed in zip((1, 2), speeds, strict=True)
    ]
    assert findings.break_even(measured, BASE, True) == (
        even if even is None else pytest.approx(even)
    )


def test_exponents_of_times_by_the_counts_are_the_derived_ones() -> None:
    rows = layers(BASE, length=(20, 80, 160), channels=(2, 8), batch=(1, 8))
    lines = findings.lines(made_up(rows))
    assert {(line.axis, line.operator) for line in lines} == {
        (axis, name)
        for axis in ("taps", "length", "channels", "batch")
        for name in (RESULTS, WEIGHTS, FOURIER)
    }
    for line in lines:
        assert line.fitted == pytest.approx(line.derived, abs=1e-9)
    bars = findings.exponent_bars(lines)
    assert len(bars) == 14
    assert all(bars.values())
    worse = [replace(line, fitted=line.fitted + 0.31) for line in lines if line.operator == FOURIER]
    assert sum(findings.exponent_bars(worse).values()) == 0


def test_bars_can_be_met_and_missed() -> None:
    cell, flat = Cell(BASE, 2, True, full=True), Cell(Layer("", 2, 16, 4, 2), 2, True, full=True)
    fast = [
        (cell, row(cell, fourier=1, mixed_results=12)),
        (flat, row(flat, fourier=1, mixed_results=2, plain_fourier=4)),
    ]
    slow = [
        (cell, row(cell, fourier=1, mixed_results=8)),
        (flat, row(flat, fourier=1, mixed_results=2, plain_fourier=3)),
    ]
    assert list(findings.own_bars(fast).values()) == [True, True]
    assert list(findings.own_bars(slow).values()) == [False, False]  # the interval's low end
    assert list(findings.headline_bars(fast, [fast[0][1]]).values()) == [True, True]
    assert list(findings.headline_bars(fast, [slow[0][1]]).values()) == [True, False]
    assert list(findings.headline_bars(slow, []).values()) == [False, False]


def test_the_choice_may_lose_little_to_the_fastest() -> None:
    cell = Cell(BASE, 2, True)
    rows = [{**row(cell, fourier=1), "auto_over_fastest": [v, None, None]} for v in (1.0, 1.2)]
    losses = findings.auto_losses([(cell, r) for r in rows])
    assert losses.tolist() == [1.0, 1.2]
    assert list(findings.auto_bars(losses).values()) == [False, False]
    assert list(findings.auto_bars(losses[:1]).values()) == [True, True]


# --- the network, equality, the claim -------------------------------------------------------------


def test_the_network_is_timed_in_both_comparisons() -> None:
    plan = NetPlan(width=2, batch=2, columns=(1, 2), seconds=0.0)
    timer = NetTimer(CpuStream(), Always(RESULTS), plan, seed=0)
    found = timer.measured("2")
    assert set(found["ns"]) == set(NETS)
    (entry,) = findings.net_table([found])
    fastest = min(found["ns"][RESULTS], found["ns"][WEIGHTS])
    assert entry["equal_groups_over_fastest_dense"][0] == pytest.approx(
        fastest / found["ns"][FOURIER], rel=0.5
    )
    assert entry["step_ms"][AUTO] > 0
    groups = [
        {
            m.mixture.groups
            for m in plan.build(name, 2, RESULTS).modules()
            if isinstance(m, MixedConv)
        }
        for name in (RELEASED, FOURIER)
    ]
    assert groups == [{1, 2, 4}, {1}]


def test_operators_are_equal_and_a_wrong_one_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    worst = dash.equality(CpuStream(), cases=6)
    assert all(o <= dash.OUTPUT_BAR and g <= dash.GRADIENT_BAR for o, g in worst.values())
    from hwbench.search.dash import operators

    wrong = {**operators.OPERATORS, FOURIER: lambda *a: operators.fourier(*a) * (1 + 1e-10)}
    monkeypatch.setattr(operators, "OPERATORS", wrong)
    monkeypatch.setattr("hwbench.search.dash.cases.OPERATORS", wrong)
    output, gradient = dash.equality(CpuStream(), cases=2)[FOURIER]
    assert output > dash.OUTPUT_BAR
    assert gradient > dash.GRADIENT_BAR


def setting(tmp_path: Path, store: Store, device: Any = None) -> Setting:
    return Setting(device or OnnxCpu(), store, tmp_path, True, 0, lambda what, share: None)


def test_the_claim_ends_in_verdicts_and_goes_on_where_it_was(
    tmp_path: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = layers(BASE, length=(20,)) + layers(Layer("", 2, 12, 2, 1))
    net = NetPlan(2, 2, (1,), 0.0)
    extent = dash.Extent(rows, {1: (1, 2, 3), 2: (1, 2)}, {1: (2,), 2: (2,)}, net, 0.1, 60, 60, 0.0)
    monkeypatch.setattr(dash, "extent_of", lambda kind, quick: extent)
    monkeypatch.setattr("hwbench.verify.dash_memory.peak_bytes", lambda *a: 2**20)
    monkeypatch.setattr(dash, "equality", partial(dash.equality, cases=4))
    monkeypatch.setattr(dash.Trial, "_chooser", lambda self: Always())
    with Store.open(own_store) as store:
        verdicts = get_claim("dash").run(setting(tmp_path, store))
        for drawn in ("map_figure", "scaling_figure"):
            monkeypatch.setattr(f"hwbench.verify.dash_figure.{drawn}", lambda *a: None)
        monkeypatch.setattr(Mapper, "measured", lambda self, cell: pytest.fail("measured again"))
        again = get_claim("dash").run(setting(tmp_path, store))
    assert len({verdict.claim for verdict in verdicts}) == 5
    assert verdicts[0].outcome == "confirmed"
    evidence = verdicts[1].evidence
    assert evidence["cells"] == "16 of 16"
    assert len(evidence["map"]) == 6
    json.dumps([dict(verdict.evidence) for verdict in verdicts])
    assert len(verdicts[2].evidence["exponents"]) == 3
    for verdict in verdicts[1:]:
        assert verdict.figure is not None
        assert (tmp_path / verdict.figure).read_bytes()[:4] == b"\x89PNG"
    assert [a.outcome for a in again] == [v.outcome for v in verdicts]


def test_what_time_did_not_suffice_for_decides_nothing(tmp_path: Path, own_store: Path) -> None:
    net = NetPlan(2, 2, (1,), 0.0)
    extent = dash.Extent([BASE], {1: (1, 2)}, {1: ()}, net, 0.0, 0.0, 0.0, 0.0)
    with Store.open(own_store) as store:
        trial = dash.Trial(setting(tmp_path, store), extent, CpuStream(), tmp_path / "x")
    rows = [(cell, row(cell, fourier=1)) for cell in cells([BASE], {1: (1, 2)})]
    assert trial._is_complete(rows, [rows[0][1]])
    assert not trial._is_complete(rows[1:], [rows[0][1]])
    assert not trial._is_complete(rows, [])


def test_other_devices_are_not_testable(tmp_path: Path, own_store: Path) -> None:
    with Store.open(own_store) as store:
        (verdict,) = get_claim("dash").run(setting(tmp_path, store, LiteRt()))
    assert verdict.outcome == "not testable here"


def test_a_gpu_takes_few_options(tmp_path: Path, own_store: Path) -> None:
    backends: Any = torch.backends
    before = backends.cudnn.benchmark, backends.cudnn.benchmark_limit
    with Store.open(own_store) as store:
        half = setting(tmp_path, store, Cuda(0, CudaOptions(dtype="fp16")))
        with pytest.raises(UsageError, match="tf32 and autotune"), dash._gpu_as_asked(half):
            pass
        asked = setting(tmp_path, store, Cuda(0, CudaOptions(autotune=True)))
        with dash._gpu_as_asked(asked):
            assert backends.cudnn.benchmark
    assert (backends.cudnn.benchmark, backends.cudnn.benchmark_limit) == before
