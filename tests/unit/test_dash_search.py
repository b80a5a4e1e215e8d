"""DASH's search on toy tasks: swapped nets, shares, budgets, resuming, files, refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hwbench.cli import main
from hwbench.errors import ImportFileError, ModelError, UsageError
from hwbench.graph import Graph
from hwbench.records import Measurement
from hwbench.search.dash import (
    Backbone,
    DashPlan,
    FitPlan,
    MixedConv,
    Mixture,
    Outcome,
    Task,
    Tuning,
    backbone_for,
    decoded,
    eligible,
    load_task,
    make_task,
    mixed,
    resnet1d,
    search_dash,
    wide_resnet,
)
from hwbench.search.dash import search as dash_search
from hwbench.search.dash.budget import best_within
from hwbench.search.dash.export import exported
from hwbench.search.dash.rivals import search_by
from hwbench.search.dash.swap import candidates_for, sizes_read
from hwbench.search.dash.training import DivergedError, fit, mean_error
from hwbench.search.dash.tuning import finish
from hwbench.search.resuming import Keep
from tests.measurements import measurement

pytestmark = pytest.mark.usefixtures("one_torch_thread")

PLAN = DashPlan(
    kernels=(3, 7),
    dilations=(1, 3),
    relaxed=FitPlan(6, batch=16),
    final=FitPlan(8, batch=16),
    tuning=Tuning((0.1,), (1e-4, 1e-3), steps=3),
)


@cache
def far_apart() -> Task:
    """Two spikes, 9 places apart or 3: what a kernel of 3 taps without dilation cannot see."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 2
    x = rng.normal(0, 0.1, (240, 1, 24)).astype(np.float32)
    first = rng.integers(0, 14, 240)
    x[np.arange(240), 0, first] += 3
    x[np.arange(240), 0, first + np.where(labels, 9, 3)] += 3
    return make_task("far apart", x, labels)


@cache
def blurred(dims: int) -> Task:
    """A map: the input, smoothed, in units of its own."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 1, *[12] * dims))
    y = 40 + 5 * (x + np.roll(x, 1, -1) + np.roll(x, -1, -1))
    return make_task("blurred", x, y)


class Machine:
    """Takes its time for operations and for taps, dilated ones twice; counts what it measures."""

    def __init__(self) -> None:
        self.measured = 0

    def __call__(self, graphs: Sequence[Graph]) -> list[Measurement]:
        self.measured += len(graphs)
        return [
            measurement(
                i, latency_ns=1e6 * (ms := time_of(g)), low_ns=0.99e6 * ms, high_ns=1.01e6 * ms
            )
            for i, g in enumerate(graphs)
        ]


def time_of(graph: Graph) -> float:
    convs = [op for op in graph.ops if op.kind == "conv"]
    taps = sum(op["kernel"][0] * (2 if op["dilation"][0] > 1 else 1) for op in convs)
    return 0.5 + 0.01 * len(graph.ops) + 0.02 * taps


def searched(folder: Path, machine: Machine | None = None, **changed: Any) -> Outcome:
    task = far_apart()
    net = backbone_for(task, width=4)
    return search_dash(net, task, folder, replace(PLAN, **changed), machine, device="toy")


# --- networks -------------------------------------------------------------------------------------


class Odd(nn.Module):
    """One convolution of each kind that cannot be searched, and two that can."""

    def __init__(self) -> None:
        super().__init__()
        self.even = nn.Conv2d(1, 4, 4, padding=2)
        self.point = nn.Conv2d(4, 4, 1)
        self.flat = nn.Conv2d(4, 4, (1, 3), padding=(0, 1))
        self.shrinks = nn.Conv2d(4, 4, 3)
        self.wraps = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
        self.good = nn.Conv2d(4, 4, 5, stride=2, padding=2, groups=2)
        self.same = nn.Sequential(nn.Conv2d(4, 4, 3, padding="same", dilation=2))


def test_what_can_be_searched_is_told_from_what_cannot() -> None:
    assert list(eligible(Odd())) == ["good", "same.0"]
    assert list(eligible(Odd(), pointwise=True)) == ["point", "good", "same.0"]
    with pytest.raises(UsageError, match="none of the 1 convolutions of Conv1d can be searched"):
        eligible(nn.Conv1d(1, 1, 4))


def test_a_convolution_is_in_one_place() -> None:
    conv = nn.Conv1d(2, 2, 3, padding=1)
    with pytest.raises(UsageError, match="0 is used twice: give each place"):
        sizes_read(nn.Sequential(conv, conv), ["0"], (2, 9))
    net = Odd()
    with pytest.raises(UsageError, match="Odd does not run on samples of shape"):
        sizes_read(net, ["good"], (1, 9, 9))
    net.forward = net.even.forward  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="good is never used: take it out"):
        sizes_read(net, ["good"], (1, 9, 9))


@pytest.mark.parametrize(
    ("net", "shape", "convs"),
    [
        (resnet1d(2, 3, 4), (2, 21), 9),
        (resnet1d(2, 3, 4, dense=True), (2, 21), 9),
        (wide_resnet(1, 3, 0.25), (1, 13, 13), 13),
        (wide_resnet(1, 3, 0.25, dense=True), (1, 13, 13), 13),
    ],
)
def test_swapped_networks_answer_in_the_same_shape(
    net: nn.Module, shape: tuple[int, ...], convs: int
) -> None:
    sizes = sizes_read(net, eligible(net), shape)
    assert len(sizes) == convs
    candidates = candidates_for(sizes, (3, 5), (1, 3))
    x = torch.randn(2, *shape)
    wanted = net(x).shape
    assert mixed(net, candidates, "fourier")(x).shape == wanted
    assert decoded(net, {name: pairs[-1] for name, pairs in candidates.items()})(x).shape == wanted


def test_a_mixture_that_has_decided_is_the_plain_convolution() -> None:
    net = nn.Sequential(nn.Conv1d(3, 6, 3, stride=2, padding=1, groups=3)).double()
    pairs = ((3, 1), (5, 2), (5, 3))
    own = mixed(net, {"0": pairs}, "fourier", gumbel=False).double().eval()
    plain = decoded(net, {"0": (5, 2)}).double()
    with torch.no_grad():
        own[0].logits[1] = 800.0  # type: ignore[index,operator]
        plain[0].weight.copy_(own[0].candidates[1])  # type: ignore[index,operator]
        plain[0].bias.copy_(own[0].bias)  # type: ignore[index,operator]
    x = torch.randn(2, 3, 17, dtype=torch.float64)
    torch.testing.assert_close(own(x), plain(x), rtol=1e-12, atol=1e-12)


@given(st.integers(3, 40), st.integers(3, 40))
def test_candidates_differ_in_what_they_read(n: int, m: int) -> None:
    try:
        (pairs,) = candidates_for({"conv": (n, m)}, (3, 5, 7, 9), (1, 3, 7, 15)).values()
    except UsageError:
        assert min(n, m) <= 4
        return
    read = [tuple(d * (i - k // 2) for i in range(k)) for k, d in pairs]
    assert len(set(read)) == len(pairs) >= 2
    assert all(max(taps) < min(n, m) for taps in read)


def test_shares_are_drawn_in_training_only_and_their_gradient_is_steered() -> None:
    conv = MixedConv(Mixture.grid((3, 5), (1, 4), 2, 2), "fourier", gumbel=True)
    x = torch.randn(2, 2, 20)
    assert not torch.equal(conv(x), conv(x))
    conv.eval()
    assert torch.equal(conv(x), conv(x))
    conv.logits.grad = torch.tensor([3.0, 0.0, 4.0, 0.0])
    conv.steer(10.0, 0.001)
    fields = torch.tensor([3.0, 9.0, 5.0, 17.0])
    assert torch.allclose(conv.logits.grad, torch.tensor([0.06, 0, 0.08, 0]) + 0.001 * fields)


# --- tasks ----------------------------------------------------------------------------------------


def test_tasks_are_split_and_normalised_by_training_samples() -> None:
    task = far_apart()
    parts = (task.train, task.validation, task.test_for_the_final_report())
    assert [len(part) for part in parts] == [166, 34, 40]
    assert all(int(part.y.sum()) * 2 == len(part) for part in parts)
    assert abs(float(task.train.x.mean())) < 1e-5
    assert float(task.train.x.std()) == pytest.approx(1, abs=1e-3)
    x = torch.cat([part.x for part in parts]).flatten(1)
    assert len(torch.unique(x, dim=0)) == 240


def test_a_map_is_judged_in_its_own_unit() -> None:
    task = blurred(1)
    _, y = task.train.at(slice(0, 5))
    mean, sd = task.targets
    assert torch.allclose(task.errors((y - mean) / sd, y), torch.zeros(5), atol=1e-6)
    far = task.errors((1.1 * y - mean) / sd, y)
    assert torch.allclose(far, torch.full((5,), 0.1), atol=1e-5)
    assert float(task.loss((1.1 * y - mean) / sd, y)) == pytest.approx(0.1, abs=1e-5)
    assert (task.dims, task.outputs, task.metric) == (1, 1, "relative L2 error")


def test_files_of_both_kinds_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.npz"
    y, is_test = np.arange(30) % 3, np.arange(30) >= 18
    np.savez(path, x=rng.integers(-9, 9, (30, 4, 20), np.int8), y=y, is_test=is_test)
    task = load_task(str(path))
    assert (task.shape, task.outputs, task.dims) == ((4, 20), 3, 1)
    assert len(task.test_for_the_final_report()) == 12
    assert load_task(str(path), dims=2).shape == (1, 4, 20)
    maps = {f"{n}_{p}": rng.normal(size=(9, 8, 8)) for n in "xy" for p in ("train", "test")}
    np.savez(path, **maps)
    task = load_task(str(path))
    assert (task.shape, task.dense, task.dims) == ((1, 8, 8), True, 2)
    assert len(task.test_for_the_final_report()) == 9
    for name, shape in (("mnist1d", (1, 40)), ("digits", (1, 8, 8))):
        assert load_task(name).shape == shape


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.full((9, 8), np.nan), np.arange(9) % 3, "x holds values that are no numbers"),
        (np.full((9, 8), 1e200), np.arange(9) % 3, "x holds values that are no numbers"),
        (np.ones((9, 8)) + 1j, np.arange(9) % 3, "x is complex128: give real numbers"),
        (np.array([["a"] * 8] * 9), np.arange(9) % 3, "x is <U1: give real numbers"),
        (np.ones((9, 8)), np.arange(9) % 3 - 1, "labels run from -1 to 1"),
        (np.ones((9, 8)), np.arange(9) % 3 * 2, "class 1 has 0 samples"),
        (np.ones((9, 8)), np.arange(9) / 2, "y is float64"),
        (np.ones((9, 8)), np.arange(8), "9 inputs and 8 targets"),
        (np.ones((9,)), np.arange(9) % 3, r"x has shape \(9,\)"),
        (np.ones((9, 8, 8)), np.full((9, 8, 8), np.inf), "y holds values that are no numbers"),
        (np.ones((9, 8, 8)), np.ones((9, 7, 8)), "or a map as large as the input"),
        (np.ones((2, 8, 8)), np.ones((2, 8, 8)), "too few samples"),
    ],
)
def test_data_that_is_no_task_is_refused(x: Any, y: Any, says: str) -> None:
    with pytest.raises(ImportFileError, match=says):
        make_task("t", x, y)


# --- training and search --------------------------------------------------------------------------


def test_a_longer_reach_is_found_where_the_task_needs_it(tmp_path: Path) -> None:
    """One convolution before a pool over all places: it has to see both spikes."""
    task = far_apart()
    net = nn.Sequential(
        nn.Conv1d(1, 16, 3, padding=1),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.AdaptiveMaxPool1d(1),
        nn.Flatten(),
        nn.Linear(16, 2),
    )
    pairs = {"0": ((3, 1), (3, 9))}
    found = mixed(net, pairs, "fourier")
    fit(found, task, FitPlan(150, batch=32))
    assert int(found[0].logits.argmax()) == 1  # type: ignore[index,operator]
    errors = [
        finish(decoded(net, {"0": pair}), task, FitPlan(100, 32), Tuning((0.1,), (0.0,), 2)).error
        for pair in pairs["0"]
    ]
    assert errors[1] < errors[0]


def test_a_training_that_was_killed_ends_with_the_same_weights(tmp_path: Path) -> None:
    task, plan = far_apart(), FitPlan(9, batch=16)
    pairs = dict.fromkeys(eligible(resnet1d(1, 2, 4)), ((3, 1), (3, 3)))
    torch.manual_seed(0)
    net = mixed(resnet1d(1, 2, 4), pairs, "fourier")
    first = {name: value.clone() for name, value in net.state_dict().items()}
    fit(net, task, plan)
    whole = {name: value.clone() for name, value in net.state_dict().items()}

    class KilledError(Exception):
        pass

    def kill(share: float) -> None:
        if share > 0.5:
            raise KilledError

    keep = Keep(tmp_path / "fit.pt", "one", every_seconds=0.0)
    net.load_state_dict(first)
    with pytest.raises(KilledError):
        fit(net, task, plan, keep, kill)
    net.load_state_dict(first)
    fit(net, task, plan, keep)
    assert all(torch.equal(value, whole[name]) for name, value in net.state_dict().items())
    fit(net, task, plan, keep, lambda share: pytest.fail("trained on"))


def test_a_search_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dash_search, "TryingChooser", lambda stream: "fourier")
    whole = searched(tmp_path / "whole")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dash_search, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path / "again")
    with monkeypatch.context() as patch:
        patch.setattr(FitPlan, "share", lambda *_: pytest.fail("searched again"))
        patch.setattr(dash_search, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path / "again")
    again = searched(tmp_path / "again")
    assert again.choice == whole.choice
    assert again.test_error == whole.test_error
    with pytest.raises(UsageError, match="is there already"):
        searched(tmp_path / "again")
    (tmp_path / "again" / "result.json").unlink()
    with pytest.raises(UsageError, match="another search \\(seed differ\\)"):
        searched(tmp_path / "again", seed=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(UsageError, match="holds something else"):
        searched(tmp_path / "other")


def test_a_damaged_checkpoint_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    keep = Keep(tmp_path / "fit.pt", "one")
    keep.path.write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(ModelError, match=r"damaged: it holds more than .*never run; remove it"):
        fit(resnet1d(1, 2, 4), far_apart(), FitPlan(1, batch=16), keep)


def test_decisions_never_see_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    told = Task.test_for_the_final_report

    def watched(task: Task) -> Any:
        read.append("test")
        return told(task)

    monkeypatch.setattr(Task, "test_for_the_final_report", watched)
    outcome = searched(tmp_path / "a")
    assert read == ["test"]
    assert json.loads((tmp_path / "a" / "result.json").read_text())["test_error"] == (
        outcome.test_error
    )


def test_a_learning_rate_that_diverges_is_told_and_another_taken() -> None:
    task, net = blurred(1), resnet1d(1, 1, 4, dense=True)
    plan = FitPlan(4, batch=16)
    found = finish(net, task, plan, Tuning((1e30, 0.05), (0.0,), 3))
    assert found.plan.learning_rate == 0.05
    with pytest.raises(DivergedError, match="give lower ones"):
        finish(net, task, plan, Tuning((1e30,), (0.0,), 3))


@pytest.mark.parametrize("rival", ["random", "evolution"])
def test_rivals_search_the_same_candidates(rival: Any) -> None:
    task, net = far_apart(), resnet1d(1, 2, 2)
    pairs = candidates_for(sizes_read(net, eligible(net), task.shape), (3, 7), (1, 3))
    found = search_by(rival, net, task, pairs, FitPlan(1, batch=16), seconds=0.15, seed=0)
    assert found.judged >= 1
    assert found.seconds >= 0.15
    assert all(pair in pairs[name] for name, pair in found.choice.items())


# --- budgets --------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 4), st.floats(0, 1))
def test_a_choice_within_a_budget_is_the_best_there_is(seed: int, n: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    shapes = {str(i): int(rng.integers(1, 5)) for i in range(n)}
    worth = {name: rng.normal(size=m) for name, m in shapes.items()}
    cost = {name: rng.uniform(0.1, 1, m) for name, m in shapes.items()}
    least, most = (sum(float(f(c)) for c in cost.values()) for f in (np.min, np.max))
    budget = least + share * (most - least) + 1e-9

    def total(table: dict[str, Any], places: Sequence[int]) -> float:
        return sum(float(table[name][place]) for name, place in zip(shapes, places, strict=True))

    every = product(*(range(m) for m in shapes.values()))
    best = max(total(worth, places) for places in every if total(cost, places) <= budget)
    found = list(best_within(worth, cost, budget).values())
    assert total(cost, found) <= budget + 1e-6
    assert total(worth, found) >= best - 1e-6
    with pytest.raises(UsageError, match="the cheapest choice costs"):
        best_within(worth, cost, least - 0.01)


def test_kernels_that_the_network_came_with_stay_where_they_do_better(tmp_path: Path) -> None:
    """Spikes 3 or 9 places apart: (3, 3) sees what tells them, and cannot be found without it."""
    task, plan = far_apart(), replace(PLAN, final=FitPlan(60, 32))

    def reaching(kernel: int, dilation: int) -> Backbone:
        conv = nn.Conv1d(1, 16, kernel, padding=dilation * (kernel // 2), dilation=dilation)
        head = [nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(16, 2)]
        net = nn.Sequential(conv, nn.BatchNorm1d(16), nn.ReLU(), *head)
        return Backbone("one", net, net)

    narrow = replace(plan, kernels=(1, 3), dilations=(1,), pointwise=True)
    kept = search_dash(reaching(3, 3), task, tmp_path / "kept", narrow)
    assert kept.is_own
    assert kept.choice == {"0": (3, 3)}
    assert kept.own_error == kept.validation_error < kept.found_error
    wide = replace(plan, kernels=(3, 7), dilations=(3,))
    left = search_dash(reaching(1, 1), task, tmp_path / "left", replace(wide, pointwise=True))
    assert not left.is_own
    assert left.choice["0"][1] == 3
    assert left.own_error is not None
    assert left.validation_error == left.found_error <= left.own_error
    machine = Machine()
    tight = searched(tmp_path / "tight", machine, budget_ms=1.5)  # its own take 2 ms
    assert tight.own_error is None
    assert not tight.is_own


def test_a_budget_decides_the_decode_and_is_judged(tmp_path: Path) -> None:
    machine = Machine()
    free = searched(tmp_path / "free", machine)
    assert free.latency_ms is not None
    assert free.kept is None
    tight = searched(tmp_path / "tight", machine, budget_ms=1.5)
    assert tight.latency_ms is not None
    assert tight.latency_ms <= 1.5 < 2
    assert tight.kept is True
    assert tight.ledger["device_measurements"] >= 4
    file = ort.InferenceSession(str(tmp_path / "tight" / "net.onnx"))
    assert file.run(None, {"x": np.zeros((3, 1, 24), np.float32)})[0].shape == (3, 2)
    with pytest.raises(UsageError, match=r"0\.7 ms cannot be kept: resnet1d takes"):
        searched(tmp_path / "none", machine, budget_ms=0.7)
    with pytest.raises(UsageError, match="one of a device"):
        searched(tmp_path / "no device", budget_ms=1.5)


@pytest.mark.parametrize("dims", [1, 2])
def test_the_file_answers_as_the_network_does_in_the_users_units(dims: int) -> None:
    task = blurred(dims)
    net = (
        resnet1d(1, 1, 4, dense=True) if dims == 1 else wide_resnet(1, 1, 0.25, dense=True)
    ).eval()
    mean, sd = task.inputs
    x, y = task.validation.at(slice(0, 4))
    raw = x * sd.view(-1, *[1] * dims) + mean.view(-1, *[1] * dims)
    session = ort.InferenceSession(exported(net, task))
    (answer,) = session.run(None, {"x": raw.numpy()})
    shift, scale = task.targets
    with torch.no_grad():
        wanted = net(x) * scale + shift
    np.testing.assert_allclose(answer, wanted.numpy(), rtol=1e-4, atol=1e-3)
    assert answer.shape == tuple(y.shape)
    assert mean_error(net, task, task.validation) > 0


# --- the command ----------------------------------------------------------------------------------

BUILDS = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(),
                         nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, {outputs}))
"""


def test_the_command_searches_a_network_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(BUILDS.format(outputs=10))
    run = ["search", "dash", "--task", "mnist1d", "--backbone", "mine.py:build", "--steps", "3"]
    run += ["--final-steps", "3", "--kernels", "3,7", "-o", "found"]
    assert main([*run, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["conv"] for row in shown["choice"]] == ["0"]
    assert shown["kept"] is None
    content = torch.load("found/net.pt", weights_only=True)
    assert set(content) == {"choice", "state_dict"}
    assert Path("found/net.onnx").stat().st_size > 100
    Path("mine.py").write_text(BUILDS.format(outputs=3))
    assert main([*run[:-1], "other"]) == 2
    assert "answers (2, 3) to two samples of mnist1d, not (2, 10)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--task", "nothing.npz"], "there is no nothing.npz"),
        (["--task", "digit"], "unknown task 'digit': did you mean 'digits'?"),
        (["--task", "digits", "--kernels", "3,9"], "a kernel of 9 taps does not fit into 8 places"),
        (["--task", "mnist1d", "--kernels", "3,4"], "kernel size 4: it has no centre"),
        (["--task", "mnist1d", "--kernels", "3,x"], "give whole numbers"),
        (["--task", "mnist1d", "--kernels", "3", "--dilations", "1"], "two candidates"),
        (["--task", "mnist1d", "--budget", "soon"], "write it as 9.3ms"),
        (["--task", "mnist1d", "--backbone", "mine.txt"], "write it as FILE.py:FUNCTION"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", "dash", *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
