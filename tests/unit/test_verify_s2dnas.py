"""The experiment on S2DNAS: all networks are judged alike, and each bar can be met and missed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hwbench.cli import main
from hwbench.devices import get_device
from hwbench.errors import UsageError
from hwbench.graph import Graph
from hwbench.records import Measurement
from hwbench.search.data import Dataset, make_dataset
from hwbench.search.s2dnas import METHODS, DynamicModel, SplitPlan, StagePlan, deploy, trace
from hwbench.verify import get_claim, s2dnas, s2dnas_trial
from hwbench.verify.s2dnas import BRANCHED, OWN, STATEMENTS, STATIC, rival_accuracy, summarise
from hwbench.verify.s2dnas_figure import s2dnas_figure
from hwbench.verify.s2dnas_nets import FAMILIES, Branched, network, whole
from hwbench.verify.s2dnas_trial import Extent, measured, run_trial
from tests.measurements import measurement

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SHAPE = (1, 28, 28)


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_exits_on_an_unsplit_network_are_deployed_as_they_are_in_torch(family, tmp_path) -> None:
    net = network(family, 0, 0.25)
    branched = Branched(family, net).eval()
    images = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = branched(images)
        assert torch.equal(wanted[-1], net.eval()(images))
    stages = branched.stages(SHAPE)
    for last in range(len(stages)):
        thresholds = [1.0] * last + [0.0] * (len(stages) - 1 - last)
        model = DynamicModel(deploy(stages, thresholds, tmp_path / str(last)))
        found = model.predict(images.numpy())
        assert (found.stages == last + 1).all()
        assert np.abs(found.logits - wanted[last].numpy()).max() < 1e-4
    macs = sum(stage.net.graph.macs for stage in stages)
    static = trace(net, SHAPE)
    assert 0 <= macs - static.graph.macs < 1e-2 * macs  # heads are small
    alone = DynamicModel(deploy([whole(static)], [], tmp_path / "whole")).predict(images.numpy())
    assert np.abs(alone.logits - wanted[-1].numpy()).max() < 1e-4


# --- a row ----------------------------------------------------------------------


def tiny_data() -> Dataset:
    """Ten classes of 28x28 images: where a bright square is."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 24)
    images = rng.integers(0, 60, (len(labels), *SHAPE), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = 5 * (label // 4), 7 * (label % 4)
        image[0, row : row + 9, column : column + 7] += 190
    return make_dataset("squares", [str(i) for i in range(10)], images, labels)


class Machine:
    """Takes its time for MACs; counts what it measures."""

    measured = 0

    def __call__(self, graphs: Sequence[Graph]) -> list[Measurement]:
        self.measured += len(graphs)
        return [measurement(i, latency_ns=2e4 + g.macs / 10) for i, g in enumerate(graphs)]


@pytest.fixture(scope="module")
def trial(tmp_path_factory) -> tuple[dict[str, Any], Dataset, Extent, Path]:
    steps = StagePlan(40, batch=32, learning_rate=0.1)
    plan = SplitPlan(
        evaluations=5, costed=5, judged_on=30, recalibrated_on=30, shared=steps, tuned=steps
    )
    extent = Extent("squares", 150, ("vgg",), 1, steps, plan, (0.5,), 0.01)
    folder, data = tmp_path_factory.mktemp("trial"), tiny_data()

    def narrow(family: str, seed: int, width: float = 1.0):
        return network(family, seed, 0.25 * width)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s2dnas_trial, "network", narrow)
        patch.setattr(s2dnas_trial, "METHODS", METHODS[:2])
        row = run_trial("vgg", 0, data, extent, Machine(), folder, lambda what, share: None)
        patch.setattr(s2dnas_trial, "learn", kept_only(s2dnas_trial.learn))
        assert run_trial("vgg", 0, data, extent, Machine(), folder, lambda *_: None) == {
            **row,
            "seconds": pytest.approx(0, abs=60),
            "latency_ms": pytest.approx(row["latency_ms"], rel=0.5),
            "static_ms": pytest.approx(row["static_ms"], rel=0.5),
            "answering_ms": pytest.approx(row["answering_ms"], abs=1),
        }
    return row, data, extent, folder


def kept_only(learn):
    """Learn, if it takes no step."""

    def wrapped(net, images, labels, plan, teacher, *, keep, progress):
        assert keep.path.exists()
        return learn(net, images, labels, plan, teacher, keep=keep, progress=pytest.fail)

    return wrapped


def test_a_row_has_all_networks_judged_as_they_are_deployed(trial) -> None:
    row, data, extent, folder = trial
    names = [each["name"] for each in row["networks"]]
    assert names[0] == STATIC
    assert {OWN, "width 0.5", BRANCHED} <= set(names)
    assert tuple(row["methods"]) == METHODS[:2]
    assert len(row["costs_ms"]) == 3
    test = data.test_for_the_final_report()
    for each in row["networks"]:
        model = DynamicModel(folder / each["manifest"], thresholds=each["thresholds"])
        answers = model.predict(model.inputs(test.images))
        assert each["accuracy"] == (answers.labels == test.labels).mean()
        assert each["exits"] == pytest.approx(
            np.bincount(answers.stages - 1, minlength=len(each["exits"])) / len(test)
        )
    latency = measured(row, data, extent, folder)
    assert len(latency) == len(names)
    assert latency[0]["one"]["faster"] == latency[0]["many"]["faster"] == 1
    assert {each["many"]["batch"] for each in latency} == {8}


def test_the_points_of_a_curve_rest_on_validation_images(trial) -> None:
    row, data, _, folder = trial
    own = [each for each in row["networks"] if each["name"] == OWN]
    images = data.validation
    for each in own:
        model = DynamicModel(folder / each["manifest"], thresholds=each["thresholds"])
        right = model.predict(model.inputs(images.images)).labels == images.labels
        assert right.mean() >= row["static_validation"] - each["points"] / 100 - 1e-9
    assert [each["macs"] for each in own] == sorted((each["macs"] for each in own), reverse=True)


# --- the bars ----------------------------------------------------------------------


def latency_of(ms: float, static_ms: float) -> dict[str, Any]:
    names = ("mean", "low", "high", "undisturbed", "p50", "p90", "p99")
    figures = dict.fromkeys(names, ms)
    faster = static_ms / ms
    return {"one": {**figures, "faster": faster}, "many": {"mean": ms, "faster": faster}}


def made_up(family: str, seed: int, own_ms: float, own_accuracy: float) -> dict[str, Any]:
    """A row: 1 ms at .9 as given; narrowed .25 ms at .86 and .5 ms at .88; exits .5 ms at .87."""
    networks = [
        (STATIC, None, 1.0, 0.9),
        (OWN, 0.25, own_ms, own_accuracy),
        ("width 0.25", None, 0.25, 0.86),
        ("width 0.5", None, 0.5, 0.88),
        (BRANCHED, 0.25, 0.5, 0.87),
    ]
    methods = {m: {"latency_ms": 0.5 + (m != "controller") / 10, "lost": 0.0} for m in METHODS}
    return {
        "family": family,
        "seed": seed,
        "given_validation": 0.89,
        "static_validation": 0.9,
        "split": "a=1+1",
        "static_ms": 1.0,
        "costs_ms": [0.1, 0.2],
        "left": [0.5, 0.5],
        "answering_ms": [0.05 * own_ms, 0.15 * own_ms],
        "seconds": 100.0,
        "methods": methods,
        "networks": [
            {
                "name": n,
                "points": p,
                "accuracy": a,
                "macs": 1e6 * ms,
                "exits": [1.0],
                "stages_ms": 0.95 * ms,
                "expected": [0.5, 0.5],
            }
            for n, p, ms, a in networks
        ],
        "latency": [latency_of(ms, 1.0) for _, _, ms, _ in networks],
    }


def rows_of(own_ms: float, own_accuracy: float) -> list[dict[str, Any]]:
    return [made_up(f, s, own_ms, own_accuracy) for s in range(2) for f in ("vgg", "resnet")]


def bars_of(rows: Sequence[dict[str, Any]]) -> list[bool]:
    return list(summarise(rows, 0.25)["bars"].values())


def test_all_bars_can_be_met() -> None:
    found = summarise(rows_of(0.5, 0.899), 0.25)
    assert all(found["bars"].values())
    vgg = found["families"]["vgg"]
    assert vgg["times_faster"] == pytest.approx(2)
    assert vgg["points_lost"] == pytest.approx(0.1)
    assert vgg["above_narrowed"] == pytest.approx(1.9)
    assert vgg["above_unsplit"] == pytest.approx(2.9)
    assert found["predicted_error_worst"] == pytest.approx(0.05)
    assert found["controller_faster_pct"]["random"] == pytest.approx(100 * math.log(1.2), abs=0.01)


@pytest.mark.parametrize(
    ("missed", "rows"),
    [
        (0, rows_of(0.6, 0.899)),  # 1.67 times faster
        (0, rows_of(0.5, 0.894)),  # .6 points lost
        (1, [{**row, "answering_ms": [0.01, 0.12]} for row in rows_of(0.5, 0.899)]),
        (2, [{**row, "seconds": 361.0} for row in rows_of(0.5, 0.899)]),
        (3, rows_of(0.5, 0.879)),
        (4, rows_of(0.5, 0.8815)),  # .15 above narrowed ones
        (5, [{**row, "methods": {**row["methods"], "random": row["methods"]["controller"]}}
             for row in rows_of(0.5, 0.899)]),
        (7, [{**row, "static_ms": 0.124} for row in rows_of(0.5, 0.899)]),
    ],
)  # fmt: skip
def test_each_bar_can_be_missed(missed: int, rows: list[dict[str, Any]]) -> None:
    assert not bars_of(rows)[missed]


def test_two_families_are_enough_for_the_first_bar() -> None:
    slow = [made_up("mobilenet", s, 0.9, 0.9) for s in range(2)]
    assert bars_of(rows_of(0.5, 0.899) + slow)[0]
    assert not bars_of(rows_of(0.5, 0.899)[::2] + slow)[0]


def test_a_rivals_accuracy_lies_between_its_neighbours() -> None:
    row = made_up("vgg", 0, 0.5, 0.9)
    assert rival_accuracy(row, 0.25, "narrowed") == pytest.approx(0.86)
    assert rival_accuracy(row, math.sqrt(0.25 * 0.5), "narrowed") == pytest.approx(0.87)
    assert rival_accuracy(row, 3.0, "narrowed") == pytest.approx(0.9)
    assert math.isnan(rival_accuracy(row, 0.2, "narrowed"))
    row["networks"][2]["accuracy"] = 0.89  # a fast one that is better stands in for a slower one
    assert rival_accuracy(row, 0.5, "narrowed") == pytest.approx(0.89)


def test_where_no_rival_is_as_fast_nothing_is_said_of_it() -> None:
    found = summarise(rows_of(0.2, 0.899), 0.25)
    assert found["families"]["vgg"]["above_narrowed"] is None
    assert found["families"]["vgg"]["above_unsplit"] is None
    assert not found["bars"][
        "no less accurate than narrowed networks at any latency that both have"
    ]


def test_each_verdict_has_its_own_bars_and_the_figure_is_drawn(tmp_path) -> None:
    rows = rows_of(0.5, 0.88)
    s2dnas_figure(rows, tmp_path / "s2dnas.png")
    assert (tmp_path / "s2dnas.png").stat().st_size > 10_000
    evidence = summarise(rows, 0.25)
    found = get_claim("s2dnas").verdicts(STATEMENTS, evidence, tmp_path / "s2dnas.png")
    assert [len(v.evidence["bars"]) for v in found] == [3, 2, 2, 1]
    assert [v.outcome for v in found] == ["partly", "partly", "confirmed", "confirmed"]
    assert len({v.claim for v in found}) == 4


def test_rows_and_latencies_are_kept(tmp_path, monkeypatch) -> None:
    from hwbench.verify.frame import Setting

    cpu = get_device("cpu")
    setting = Setting(cpu, None, tmp_path, True, 0, lambda what, share: None)  # type: ignore[arg-type]
    extent, data = s2dnas_trial.extent_of(quick=True), tiny_data()
    runs: list[str] = []

    def run(family, seed, *rest):
        *_, prepare = rest
        runs.append(f"{family} prepared" if prepare else family)
        return None if prepare else {"family": family, "seed": seed}

    monkeypatch.setattr(s2dnas_trial, "run_trial", run)
    monkeypatch.setattr(s2dnas_trial, "measured", lambda *rest: runs.append("measured") or [{}])
    monkeypatch.setattr("hwbench.search.s2dnas.on_device", lambda *rest: None)
    assert s2dnas.kept_row(replace(setting, prepare=True), data, extent, "vgg", 3) == {}
    for _ in range(2):
        row = s2dnas.kept_row(setting, data, extent, "vgg", 3)
        assert s2dnas.kept_latency(setting, data, extent, row) == [{}]
    assert runs == ["vgg prepared", "vgg", "measured"]
    s2dnas.kept_row(setting, data, replace(extent, seconds=9.0), "vgg", 3)
    assert runs == ["vgg prepared", "vgg", "measured", "vgg"]
    for elsewhere in (get_device("litert"), get_device("litert", {"xnnpack": "off"})):
        s2dnas.kept_row(replace(setting, device=elsewhere), data, extent, "vgg", 3)
    assert runs[4:] == ["vgg", "vgg"]


def test_parts_are_rows_by_family_and_seed(capsys) -> None:
    from hwbench.verify.frame import Setting

    whole = Setting(None, None, Path(), False, 1, lambda what, share: None)  # type: ignore[arg-type]
    extent = s2dnas_trial.extent_of(quick=False)
    places = s2dnas.chosen_places(whole, extent)
    assert places == [(family, seed) for seed in (1, 2, 3) for family in FAMILIES]
    some = replace(whole, parts=("resnet-2", "vgg-1"))
    assert s2dnas.chosen_places(some, extent) == [("vgg", 1), ("resnet", 2)]
    with pytest.raises(UsageError, match="vgg-0"):
        s2dnas.chosen_places(replace(whole, parts=("vgg-0",)), extent)
    assert main(["verify", "dash", "--prepare"]) == 2
    assert "dash is run as a whole" in capsys.readouterr().err
