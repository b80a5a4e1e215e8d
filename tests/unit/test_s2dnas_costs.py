"""Stages cost what the device says, and what was not measured is told from what was."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.devices.models import GraphModel
from hwbench.errors import InconclusiveError, PredictorError, UsageError
from hwbench.graph import Graph, GraphBuilder
from hwbench.measure.jobs import Job
from hwbench.measure.plan import Plan
from hwbench.records import Measurement
from hwbench.search.s2dnas import (
    SplitSpace,
    StageOracle,
    costs,
    mean_latency,
    on_device,
    stage_graphs,
    trace,
)
from hwbench.search.s2dnas.costs import fit_stages, stage_features
from hwbench.search.s2dnas.split import widened
from hwbench.store import Store
from tests.measurements import measurement
from tests.s2dnas_nets import IMAGE, NETS, settled
from tests.targets import LocalTarget, job, runner


@cache
def splits(n: int = 14) -> tuple[tuple[Graph, ...], ...]:
    """The stages' graphs of some random splits."""
    space = SplitSpace(trace(settled(NETS["mobilenet"]()), IMAGE), stages=3, groups=8)
    wide = widened(space.net, space.ties, space.stages).weights
    codes = space.sample(n, np.random.default_rng(0))
    return tuple(tuple(s.net.graph for s in stage_graphs(space.split(c), wide)) for c in codes)


def true_ms(graph: Graph) -> float:
    """A machine that works on blocks of 16 channels, and takes its time for each operation."""
    features = stage_features(graph)
    return (
        0.01
        + 0.002 * len(graph.ops)
        + 0.8 * features["MACs in blocks of 16"]
        + 0.3 * features["bytes of tensors"]
    )


class Machine:
    """Measures what :func:`true_ms` says, within 1 %, and keeps what it was asked."""

    def __init__(self, noise: float = 0.01) -> None:
        self.asked: list[Graph] = []
        self._noise, self._rng = noise, np.random.default_rng(0)

    def __call__(self, graphs: Sequence[Graph]) -> list[Measurement]:
        self.asked += graphs
        off = np.exp(self._noise * self._rng.standard_normal(len(graphs)))
        return [
            measurement(i, latency_ns=true_ms(graph) * by * 1e6)
            for i, (graph, by) in enumerate(zip(graphs, off, strict=True))
        ]


def test_some_splits_teach_what_others_cost() -> None:
    machine = Machine()
    oracle = StageOracle(machine)
    oracle.calibrate(splits()[:10])
    assert len(machine.asked) == 30
    for split in splits()[10:]:
        wanted = np.array([true_ms(graph) for graph in split])
        assert np.abs(oracle.stage_costs(split) / wanted - 1).max() < 0.05
    assert oracle.model.error < 0.03
    assert oracle.model.error < oracle.model.largest < 0.15
    assert len(machine.asked) == 30
    ledger = oracle.ledger
    assert (ledger.measured, ledger.queries, ledger.candidates) == (30, 4, 12)
    assert ledger.predicting_seconds > 0


def test_macs_alone_would_err_more() -> None:
    graphs = [graph for split in splits() for graph in split]
    latency = np.array([true_ms(graph) for graph in graphs])
    macs = np.array([graph.macs for graph in graphs], float)
    line = np.polyval(np.polyfit(macs, latency, 1), macs)
    of_split = np.arange(len(graphs)) // 3
    assert fit_stages(graphs, latency, of_split).error < 0.2 * np.abs(line / latency - 1).mean()


def test_what_was_measured_is_answered_as_measured() -> None:
    oracle = StageOracle(Machine(noise=0.2))
    oracle.calibrate(splits()[:6])
    split = splits()[8]
    before = oracle.stage_costs(split)
    measured = oracle.measure(split[:2])
    after = oracle.stage_costs(split)
    assert np.array_equal(after[:2], measured)
    assert not np.array_equal(after[:2], before[:2])
    assert after[2] == before[2]
    same = GraphBuilder("called otherwise")  # a network is known by what it computes
    x = same.input("y", (1, 3, 8, 8))
    one = same.build(same.conv(x, 4))
    other = GraphBuilder("again")
    two = other.build(other.conv(other.input("x", (1, 3, 8, 8)), 4))
    assert np.array_equal(oracle.measure([one]), oracle.stage_costs([two]))


def test_measured_stages_need_no_model_and_others_do() -> None:
    oracle = StageOracle(Machine())
    oracle.measure(splits()[0])
    assert (oracle.stage_costs(splits()[0]) > 0).all()
    with pytest.raises(UsageError, match="calibrate it"):
        oracle.stage_costs(splits()[1])


def test_what_was_never_measured_is_refused() -> None:
    oracle = StageOracle(Machine())
    oracle.calibrate(splits()[:6])
    b = GraphBuilder("odd")
    odd = b.build(b.activation(b.input("x", (1, 3, 8, 8)), "tanh"))
    with pytest.raises(PredictorError, match="no stage with tanh was measured"):
        oracle.stage_costs([odd])
    with pytest.raises(PredictorError, match="4 splits teach too little"):
        StageOracle(Machine()).calibrate(splits()[:4])


def test_a_device_that_tells_nothing_is_no_free_stage() -> None:
    def silent(graphs: Sequence[Graph]) -> list[Measurement]:
        return [measurement(i, latency_ns=None) for i, _ in enumerate(graphs)]

    oracle = StageOracle(silent)
    with pytest.raises(InconclusiveError, match="no latency could be measured"):
        oracle.measure(splits()[0])
    with pytest.raises(UsageError, match="0 results for 3 networks"):
        StageOracle(lambda graphs: []).measure(splits()[0])


@given(st.lists(st.tuples(st.floats(0.1, 9), st.integers(0, 99)), min_size=1, max_size=5))
def test_the_mean_is_that_over_all_inputs(stages) -> None:
    prices, left = np.array(stages, float).T
    if not left.sum():
        with pytest.raises(UsageError, match="shares"):
            mean_latency(prices, left)
        return
    each = np.repeat(np.cumsum(prices), left.astype(int))  # what each input took
    assert mean_latency(prices, left) == pytest.approx(each.mean())
    assert mean_latency(prices, left / left.sum()) == pytest.approx(each.mean())


def test_shares_that_fit_no_stages_are_refused() -> None:
    for left in ([1.0], [0.5, 0.6, 0.1], [-0.5, 1.5]):
        with pytest.raises(UsageError, match="none of 2 stages"):
            mean_latency([1.0, 2.0], left)


class LocalDevice(LocalTarget):
    """Runs a graph for as many microseconds as it has operations."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def job(self, model: GraphModel, threads: int) -> Job:
        return job(model.graph.hash, runner(self._folder, us=10 * len(model.graph.ops)))


def test_a_device_measures_stages_and_the_store_keeps_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(costs, "anchor", lambda *_: None)  # half a minute of calibration
    split = splits()[0]
    with Store.open(tmp_path / "store.db") as store:
        measurer = on_device(LocalDevice(tmp_path), store, plan=Plan(processes=2, seconds=0.01))
        found = measurer([*split, split[0]])
        assert len(store.measurements()) == 3  # what comes twice is measured once
    assert found[3] is found[0]
    for graph, result in zip(split, found, strict=False):
        assert result.workload.name == graph.hash
        assert result.bursts.sample_ns.min() >= 10_000 * len(graph.ops)  # as long as it runs
        assert result.latency_ns > 0  # an estimate, which may lie below the shortest run
