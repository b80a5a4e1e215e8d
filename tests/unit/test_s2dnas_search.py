"""A whole search for a split on toy images: judged alike by all methods, resumed, deployed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from inspect import getsource
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from hwbench.cli import main
from hwbench.cli.search_s2dnas import remarks
from hwbench.errors import ModelError, UnknownNameError, UsageError
from hwbench.graph import Graph
from hwbench.records import Measurement
from hwbench.search import s2dnas
from hwbench.search.data import Dataset
from hwbench.search.ledger import SearchLedger
from hwbench.search.resuming import Keep
from hwbench.search.s2dnas import (
    METHODS,
    DynamicModel,
    MultiStageNet,
    Outcome,
    SplitPlan,
    SplitSpace,
    StagePlan,
    StaticNet,
    search_s2dnas,
    trace,
    train_stages,
)
from hwbench.search.s2dnas.costs import stage_features
from hwbench.search.s2dnas.judging import Candidate, SharedJudge, SplitScores
from hwbench.search.s2dnas.loading import load_module
from hwbench.search.s2dnas.methods import best_split, reinforce, search_splits
from hwbench.search.scoring import Scored
from hwbench.spaces.base import Codes
from tests.measurements import measurement
from tests.supernets import bars

pytestmark = pytest.mark.usefixtures("one_torch_thread")

PLAN = SplitPlan(
    stages=2,
    groups=4,
    reuse="tie",
    evaluations=10,
    points=5.0,
    costed=6,
    recalibrated_on=64,
    judged_on=40,
    shared=StagePlan(40, batch=32, learning_rate=0.05),
    tuned=StagePlan(30, batch=32, learning_rate=0.02),
)


def build() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


@cache
def trained() -> nn.Module:
    torch.manual_seed(0)
    module, (images, labels) = build(), train_part()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for step in range(80):
        rows = torch.from_numpy(np.random.default_rng(step).permutation(len(labels))[:32])
        optimizer.zero_grad()
        functional.cross_entropy(module(images[rows]), labels[rows]).backward()
        optimizer.step()
    return module.eval()


@cache
def static() -> StaticNet:
    return trace(trained(), (1, 12, 12))


@cache
def train_part() -> tuple[Tensor, Tensor]:
    part = bars().train
    return torch.from_numpy(part.images / np.float32(255)), torch.from_numpy(np.array(part.labels))


class Machine:
    """Takes its time for MACs and operations; counts what it measures."""

    def __init__(self) -> None:
        self.measured = 0

    def __call__(self, graphs: Sequence[Graph]) -> list[Measurement]:
        self.measured += len(graphs)
        return [measurement(i, latency_ns=1e6 * time_of(g)) for i, g in enumerate(graphs)]


def time_of(graph: Graph) -> float:
    return 0.001 * len(graph.ops) + 2 * stage_features(graph)["MACs in blocks of 8"]


def found_in(folder: Path, machine: Machine | None = None, **changed: object) -> Outcome:
    return search_s2dnas(
        static(), bars(), machine or Machine(), folder, replace(PLAN, **changed), device="toy"
    )


# --- the whole --------------------------------------------------------------------------------


@cache
def first(folder: Path) -> tuple[Outcome, Machine]:
    machine = Machine()
    return found_in(folder, machine), machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s2dnas") / "found"


def test_a_search_ends_in_a_network_that_runs_as_it_was_judged(folder: Path) -> None:
    outcome, machine = first(folder)
    part = bars().validation
    model = DynamicModel(outcome.manifest)
    answers = model.predict(model.inputs(part.images))
    assert (answers.labels == part.labels).mean() == pytest.approx(outcome.accuracy)
    shares = np.bincount(answers.stages, minlength=3)[1:] / len(part)
    assert shares == pytest.approx(outcome.left)
    reach = 1 - np.cumsum([0, *shares[:-1]])
    wanted = reach @ outcome.costs_ms + shares @ outcome.answering_ms
    assert outcome.latency_ms == pytest.approx(wanted)
    assert outcome.within
    assert outcome.accuracy >= outcome.static_accuracy - 0.05
    assert outcome.latency_ms < outcome.static_ms
    assert outcome.ledger["evaluator_calls"] == PLAN.evaluations
    assert outcome.ledger["device_measurements"] == machine.measured
    assert outcome.ledger["training_steps"] >= PLAN.shared.steps + PLAN.tuned.steps


def test_a_search_again_pays_for_nothing_twice(folder: Path, monkeypatch) -> None:
    outcome, _ = first(folder)
    outcome.manifest.parent.rename(folder.parent / "moved")
    monkeypatch.setattr(SharedJudge, "_judged", None)
    machine = Machine()
    again = found_in(folder, machine)
    assert machine.measured == 1 + PLAN.stages  # the network found, beside the static one
    assert np.array_equal(again.code, outcome.code)
    assert again.thresholds == outcome.thresholds
    assert again.accuracy == outcome.accuracy
    with pytest.raises(UsageError, match="is there already"):
        found_in(folder)


def test_a_folder_of_another_search_is_refused(folder: Path, tmp_path: Path) -> None:
    outcome, _ = first(folder)
    if outcome.manifest.parent.exists():
        outcome.manifest.parent.rename(folder.parent / "moved too")
    with pytest.raises(UsageError, match=r"another search \(seed differ\)"):
        found_in(folder, seed=1)
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(UsageError, match="holds something else"):
        found_in(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_untrained_network_is_refused_at_once(tmp_path: Path) -> None:
    machine = Machine()
    torch.manual_seed(3)
    net = trace(build().eval(), (1, 12, 12))
    with pytest.raises(UsageError, match="give the weights that were trained"):
        search_s2dnas(net, bars(), machine, tmp_path / "x", PLAN)
    assert machine.measured == 0
    assert not (tmp_path / "x").exists()


def test_a_network_with_few_splits_has_all_of_them_measured_and_judged(tmp_path: Path) -> None:
    net = static()
    assert SplitSpace(net, stages=2, groups=4, reuse="all").raw_size() == 9
    for method in METHODS:
        plan = replace(PLAN, reuse="all", costed=12, evaluations=20, method=method)
        assert search_s2dnas(net, bars(), Machine(), tmp_path / method, plan).candidates == 9


def test_a_network_with_too_few_splits_to_learn_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cut in 4 ways only"):
        found_in(tmp_path / "x", reuse="all", groups=3)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"points": -1.0}, "give 0 to 100"),
        ({"costed": 3}, "5 splits at least"),
        ({"stages": 5}, "fewer stages"),
        ({"std": (0.0,)}, "a positive std"),
        ({"mean": (0.1, 0.2)}, "each of 1 channels"),
    ],
)
def test_plans_that_cannot_be_are_refused(tmp_path: Path, changed: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        found_in(tmp_path / "x", **changed)


# --- the methods ------------------------------------------------------------------------------


class Known:
    """A judge that knows: the fewer channels the first stage has the faster, all as accurate."""

    def __init__(self) -> None:
        self.space = SplitSpace(static(), stages=2, groups=4, reuse="tie")
        self.stages = 2

    def __call__(self, code: Codes) -> Candidate:
        cost = 1.0 + float(code.sum())
        return Candidate(np.array([cost, 2 * cost]), np.array([0.8, 0.9]))


def scores(points: float = 0.5, reference: float = 0.9) -> SplitScores:
    return SplitScores(Known(), reference, points, SearchLedger())  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_ask_no_more_than_they_may(method: str) -> None:
    asked = scores()
    found = search_splits(asked, method, 40, 10.0, seed=0)  # type: ignore[arg-type]
    assert 35 <= asked.ledger.evaluator_calls <= 40
    assert asked.ledger.oracle_queries == 2 * asked.ledger.evaluator_calls
    assert 1 < len(found) <= 40
    again = search_splits(scores(), method, 40, 10.0, seed=0)  # type: ignore[arg-type]
    assert np.array_equal(found.codes, again.codes)


def test_a_method_that_is_none_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'evolution'"):
        search_splits(scores(), "evolutoin", 40, 10.0, seed=0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 5"):
        search_splits(scores(), "random", 4, 10.0, seed=0)


def test_the_controller_learns_what_is_rewarded() -> None:
    asked = scores()
    drawn: list[Codes] = []

    def counted(codes: Codes) -> Scored:
        drawn.append(codes)
        return asked(codes)

    counted.space, counted.ledger, counted.rewards = (  # type: ignore[attr-defined]
        asked.space,
        asked.ledger,
        asked.rewards,
    )
    reinforce(counted, 400, 10.0, seed=0)  # type: ignore[arg-type]
    sums = np.concatenate(drawn).sum(axis=1)
    assert sums[-100:].mean() < 0.6 * sums[:100].mean()


def test_what_was_lost_is_what_the_thresholds_chosen_lose() -> None:
    code = np.zeros((1, len(scores().space.decisions)), np.int16)
    strict, loose, hopeless = scores(0.5)(code), scores(10.0)(code), scores(0.5, 0.95)(code)
    assert (strict.score[0], loose.score[0], hopeless.score[0]) == (-2.0, -1.0, -2.0)
    assert strict.upper_ms[0] == pytest.approx(0)
    assert loose.upper_ms[0] <= 10.0
    assert hopeless.upper_ms[0] == pytest.approx(5)
    reward = scores(10.0).rewards(loose, 16.0)
    assert reward[0] == pytest.approx(0.8 * (1 / 16) ** -0.06)


def test_the_cheapest_within_is_best_and_else_the_most_accurate() -> None:
    codes = np.zeros((3, 2), np.int16)
    found = Scored(codes, np.array([-3.0, -2.0, -1.0]), np.array([0.1, 0.4, 0.9]))
    assert best_split(found, 0.5) == 1
    assert best_split(found, 1.0) == 2
    assert best_split(found, 0.05) == 0


# --- what is kept -----------------------------------------------------------------------------


def test_candidates_are_kept_and_a_torn_line_is_judged_again(folder: Path, tmp_path: Path) -> None:
    first(folder)
    lines = (folder / "candidates.jsonl").read_text().split("\n")
    entries = [json.loads(line) for line in lines if line]
    path = tmp_path / "candidates.jsonl"
    path.write_text(f"{json.dumps(entries[0])}\n{json.dumps(entries[1])[:20]}")
    space = SplitSpace(static(), stages=2, groups=4, reuse="tie")
    net = MultiStageNet(space, space.sample(1, np.random.default_rng(0))[0])
    judge = SharedJudge(net, *[None] * 3, path)  # type: ignore[arg-type]
    judge._judged = lambda code: Candidate(np.array([1.0]), np.array([0.5]))  # type: ignore[method-assign]
    known, torn = (space.encode([entry["split"]])[0] for entry in entries[:2])
    assert judge(known).latency_ms.tolist() == entries[0]["latency_ms"]
    assert judge.validations == 0
    judge(torn)
    assert judge.validations == 1
    assert json.loads(path.read_text().split("\n")[-2])["split"] == entries[1]["split"]
    path.write_text('{"split": 1}\n')
    with pytest.raises(UsageError, match="no candidate"):
        SharedJudge(net, *[None] * 3, path)  # type: ignore[arg-type]


def test_a_training_that_was_killed_ends_with_the_same_weights(tmp_path: Path) -> None:
    space = SplitSpace(static(), stages=2, groups=4)
    plan = StagePlan(8, batch=16)

    def net() -> MultiStageNet:
        return MultiStageNet(space, space.sample(1, np.random.default_rng(0))[0])

    whole = net()
    train_stages(whole, *train_part(), plan)

    class KilledError(Exception):
        pass

    def kill(now: object) -> None:
        raise KilledError

    keep = Keep(tmp_path / "x.pt", "toy", every_seconds=0)
    with pytest.raises(KilledError):
        train_stages(net(), *train_part(), plan, keep=keep, progress=kill, report_every=5)
    resumed, steps = net(), []
    train_stages(resumed, *train_part(), plan, keep=keep, progress=steps.append, report_every=1)
    assert [now.step for now in steps] == [5, 6, 7, 8]
    assert all(np.array_equal(w, resumed.weights()[k]) for k, w in whole.weights().items())
    with pytest.raises(UsageError, match="of another training"):
        train_stages(net(), *train_part(), plan, keep=replace(keep, about="other"))
    keep.path.write_bytes(b"no file of torch's")
    with pytest.raises(ModelError, match="damaged"):
        train_stages(net(), *train_part(), plan, keep=keep)


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command on a network and images in files, where measuring takes no time."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(f"import torch\nfrom torch import nn\n\n{getsource(build)}")
    torch.save(trained().state_dict(), "w.pt")
    parts = bars().train, bars().validation
    images = np.concatenate([part.images for part in parts])
    np.savez("bars.npz", x=images, y=np.concatenate([part.labels for part in parts]))
    monkeypatch.setattr(s2dnas, "SplitPlan", partial(replace, PLAN))
    monkeypatch.setattr(s2dnas, "on_device", lambda device, store, progress: Machine())
    command = "search s2dnas --model net.py:build --weights w.pt --data bars.npz"
    return command.split()


def test_the_command_writes_a_network_and_says_what_it_is(files: list[str], capsys) -> None:
    more = "--stages 2 --evaluations 6 --method random --points 8 -o found --json --store x.db"
    assert main([*files, *more.split()]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["manifest"] == "found/net/manifest.json"
    assert said["ledger"]["evaluator_calls"] == 6
    assert len(said["costs_ms"]) == 2
    assert DynamicModel("found/net/manifest.json").manifest.image.shape == (1, 12, 12)
    assert main([*files, *more.split()]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("search s2dnas --data digits", "Missing option '--model'"),
        ("FILES --space mbv3_small", "No such option: --space"),
        ("FILES --method rl", "unknown search method 'rl'"),
        ("FILES --mean x", "--mean 'x': give a number"),
        ("search pnag -s mbv3_small --budgets 1ms,2ms --stages 2", "No such option: --stages"),
        ("search pnag --budgets 1ms,2ms", "Missing option '-s' / '--space'"),
    ],
)
def test_a_command_that_cannot_be_is_refused_in_one_line(
    files: list[str], capsys, arguments: str, said: str
) -> None:
    before = sorted(Path().iterdir())
    words = " ".join(files) if arguments.startswith("FILES") else ""
    assert main(f"{words} {arguments.removeprefix('FILES')}".split()) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err
    assert sorted(Path().iterdir()) == before


def test_a_folders_images_are_read_as_the_network_takes_them(files, capsys, monkeypatch) -> None:
    Path("colour.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    layers = nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)\n"
        "    return nn.Sequential(*layers)\n"
    )
    colour = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Identity(), nn.Identity(), nn.Linear(8, 2))
    torch.save(colour.state_dict(), "colour.pt")
    for name in ("cat", "dog"):
        Path("pets", name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (20, 20), (40 * i, 9, 90)).save(Path("pets", name, f"{i}.png"))
    seen = []

    def search(net: StaticNet, data: Dataset, *_: object, **__: object) -> None:
        seen.append((net.image_shape, data.train.images.shape[1:]))
        raise UsageError("enough")

    monkeypatch.setattr(s2dnas, "search_s2dnas", search)
    command = "search s2dnas --model colour.py:build --weights colour.pt --data pets --size 12"
    assert main([*command.split(), "--store", "x.db"]) == 2
    assert "enough" in capsys.readouterr().err
    assert seen == [((3, 12, 12), (3, 12, 12))]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"within": False}, ["no thresholds keep within 0.5 points: 1.00 are lost"]),
        ({"left": (0.6, 0.4, 0.0)}, ["no validation image goes on after stage 2"]),
        ({"latency_ms": 2.0}, ["is no faster than the one given"]),
        (
            {"left": (1.0, 0.0, 0.0), "latency_ms": 3.0},
            ["goes on after stage 1", "is no faster than the one given"],
        ),
    ],
)
def test_what_a_user_should_know_of_what_was_found(changed: dict, said: list[str]) -> None:
    costs = (0.5, 0.5, 0.5)
    found = Outcome(
        Path("m"), np.zeros(1), "a", 2.0, 0.9, 0.8, 0.89, costs, costs, (0.6, 0.3, 0.1), (0.5, 0.5),
        True, 5, {},
    )  # fmt: skip
    lines = remarks(replace(found, **changed), 0.5)
    assert len(lines) == len(said)
    assert all(part in line for part, line in zip(said, lines, strict=True))


# --- the user's files -------------------------------------------------------------------------

CODE = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))

def broken():
    return 1 / 0

def number():
    return 7
"""


def test_a_module_is_built_and_given_its_weights(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(CODE)
    where = f"{tmp_path}/net.py:build"
    torch.manual_seed(5)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    state = module.state_dict()
    torch.save(state, tmp_path / "w.pt")
    arrays = {k: v.numpy() for k, v in state.items() if not k.endswith("tracked")}
    np.savez(tmp_path / "w.npz", **arrays)
    for name in ("w.pt", "w.npz"):
        loaded = load_module(where, tmp_path / name)
        assert not loaded.training
        assert torch.equal(loaded[0].weight, module[0].weight)  # type: ignore[index]


@pytest.mark.parametrize(
    ("function", "weights", "said"),
    [
        ("broken", {}, "failed with ZeroDivisionError: division by zero"),
        ("number", {}, "gives int"),
        ("nothing", {}, "has no function 'nothing'"),
        ("build", {}, "lacks '0.weight'"),
        ("build", {"0.weight": np.zeros((4, 1, 5, 5), np.float32)}, "size mismatch"),
        ("build", {"x": np.array([object()])}, "cannot read"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(
    tmp_path: Path, function: str, weights: dict[str, np.ndarray], said: str
) -> None:
    (tmp_path / "net.py").write_text(CODE)
    np.savez(tmp_path / "w.npz", **weights)
    with pytest.raises(UsageError, match=said) as caught:
        load_module(f"{tmp_path}/net.py:{function}", tmp_path / "w.npz")
    assert "\n" not in str(caught.value)


def test_weights_that_would_run_code_do_not(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(CODE)
    torch.save(build(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="which is never run; save the state dict") as caught:
        load_module(f"{tmp_path}/net.py:build", tmp_path / "w.pt")
    assert "weights_only" not in str(caught.value)  # torch would tell how to run it


def test_torch_says_nothing_beside_a_refusal_of_weights(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "net.py").write_text(CODE)
    (tmp_path / "w.pt").write_bytes(pickle.dumps(build, protocol=4))  # of which torch would warn
    with pytest.raises(ModelError, match="never run"):
        load_module(f"{tmp_path}/net.py:build", tmp_path / "w.pt")
    assert not recwarn.list
