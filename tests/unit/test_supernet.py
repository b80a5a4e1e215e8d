"""A supernet's paths are what their codes say, and its training survives anything."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from hwbench.errors import ModelError, UsageError
from hwbench.lower import to_torch
from hwbench.search.accuracy.base import checked_accuracy
from hwbench.search.accuracy.supernet import SupernetAccuracy
from hwbench.search.data import Dataset
from hwbench.search.supernet import (
    Progress,
    Supernet,
    TrainingPlan,
    extract,
    largest,
    load_supernet,
    recalibrated,
    smallest,
    to_inputs,
    train,
)
from hwbench.search.supernet.depthwise import depthwise
from hwbench.search.supernet.elastic import ElasticKernel, Norms
from hwbench.spaces import get_space
from hwbench.spaces.mbv3 import MobileNetV3Space
from tests.graphs import relative_error
from tests.supernets import TINY, bars, tiny_space

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SPACE = tiny_space()
PLAN = TrainingPlan(steps=40, batch=32, learning_rate=0.3)
SHORT = replace(PLAN, steps=16)


@pytest.fixture(scope="module")
def trained(one_torch_thread) -> Supernet:
    """After some steps, so that nothing is the identity, one or zero any more."""
    net = Supernet(SPACE)
    train(net, bars(), PLAN)
    return net


def some_codes(n: int, seed: int = 0, **fixed: int) -> np.ndarray:
    return SPACE.sample(n, np.random.default_rng(seed), fixed=fixed)


codes = st.builds(lambda seed: some_codes(1, seed)[0], st.integers(0, 2**32))


# --- layers ----------------------------------------------------------------------------------


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([3, 5, 7]),
    st.integers(1, 2),
    st.integers(0, 99),
)
def test_depthwise_filters_have_torchs_gradient(height, width, kernel, stride, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 4, height, width, generator=generator, requires_grad=True)
    filters = torch.randn(4, 1, kernel, kernel, generator=generator, requires_grad=True)
    ours = depthwise(x, filters, stride)
    torchs = functional.conv2d(x, filters, None, stride, kernel // 2, groups=4)
    assert torch.equal(ours, torchs)
    grad = torch.randn(ours.shape, generator=generator)
    for got, wanted in zip(
        torch.autograd.grad(ours, (x, filters), grad),
        torch.autograd.grad(torchs, (x, filters), grad),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_a_smaller_kernel_is_the_centre_through_a_learned_matrix() -> None:
    kernels = ElasticKernel((3, 5, 7))
    weight = torch.arange(98.0).view(2, 1, 7, 7)
    assert torch.equal(kernels(weight, 7), weight)
    assert torch.equal(kernels(weight, 5), weight[:, :, 1:6, 1:6])
    assert torch.equal(kernels(weight, 3), weight[:, :, 2:5, 2:5])
    with torch.no_grad():
        kernels.matrices[0].mul_(2)
        kernels.matrices[1].copy_(kernels.matrices[1].flip(0))
    assert torch.equal(kernels(weight, 5), 2 * weight[:, :, 1:6, 1:6])
    assert torch.equal(kernels(weight, 3), 2 * weight[:, :, 2:5, 2:5].flip((2, 3)))


# --- paths -----------------------------------------------------------------------------------


@given(code=codes, seed=st.integers(0, 99))
@settings(max_examples=25)
def test_an_extracted_net_gives_what_its_path_gives(trained: Supernet, code, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = SPACE.choice(code)["r"]
    images = torch.rand(5, 1, size, size, generator=generator)
    statistics = recalibrated(trained, code, torch.rand(32, 1, size, size, generator=generator))
    with torch.no_grad():
        wanted = trained(images, code, Norms(fixed=statistics))
        alone = extract(trained, code, statistics)
        got = torch.cat([to_torch(alone.graph, alone.weights)(image[None]) for image in images])
    assert alone.graph == SPACE.graph(code)
    assert relative_error(got.numpy(), wanted.numpy()) <= 1e-4


def test_what_is_extracted_is_a_copy(trained: Supernet) -> None:
    code = smallest(SPACE)
    alone = extract(trained, code, recalibrated(trained, code, torch.rand(9, 1, 12, 12)))
    before = trained.classifier.weight.clone()
    alone.weights["linear1.weight"][:] = 0
    assert torch.equal(trained.classifier.weight, before)


def test_a_task_keeps_its_rows_of_the_classifier(trained: Supernet) -> None:
    code = largest(SPACE)
    images = torch.rand(6, 1, 14, 14)
    statistics = recalibrated(trained, code, images)
    alone = extract(trained, code, statistics, classes=[3, 1])
    with torch.no_grad():
        wanted = trained(images[:1], code, Norms(fixed=statistics))[:, [3, 1]]
        got = to_torch(alone.graph, alone.weights)(images[:1])
    assert relative_error(got.numpy(), wanted.numpy()) <= 1e-4


def one_hot(code: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gates that choose what a code chooses."""
    s, layers = SPACE.skeleton, len(SPACE.layers)
    column = torch.tensor(code.astype(np.int64))
    depth = functional.one_hot(column[1 : 1 + len(s.units)], len(s.depths)).float()
    kernel = functional.one_hot(column[-2 * layers : -layers], len(s.kernels)).float()
    return kernel, functional.one_hot(column[-layers:], len(s.expansions)).float(), depth


@given(code=codes)
@settings(max_examples=15)
def test_one_hot_gates_are_a_path(trained: Supernet, code) -> None:
    images = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = trained(images, code, Norms())
        got = trained.relaxed(images, *one_hot(code))
    assert relative_error(got.numpy(), wanted.numpy()) <= 1e-4


def test_a_gradient_reaches_every_gate_while_the_weights_stand_still(trained: Supernet) -> None:
    code = largest(SPACE)
    gates = [(0.7 * g + 0.1).requires_grad_() for g in one_hot(code)]
    part = bars().train.some(32, seed=0)
    logits = trained.relaxed(to_inputs(part.images, 12), *gates)
    loss = functional.cross_entropy(logits, torch.from_numpy(part.labels))
    gradients = torch.autograd.grad(loss, gates)
    for gate, gradient in zip(gates, gradients, strict=True):
        assert gradient.shape == gate.shape
        assert (gradient.abs().sum(1) > 0).all()


def test_extreme_codes_are_the_extremes() -> None:
    every = SPACE.macs(some_codes(300))
    assert SPACE.macs(smallest(SPACE)[None])[0] <= every.min()
    assert SPACE.macs(largest(SPACE)[None])[0] >= every.max()
    assert SPACE.choice(largest(SPACE, {"r": 12, "k0": 3}))["k0"] == 3
    assert SPACE.choice(smallest(SPACE, {"r": 14}))["r"] == 14


def test_images_are_framed_or_scaled_to_the_resolution() -> None:
    images = np.full((2, 1, 28, 28), 255, np.uint8)
    assert torch.equal(to_inputs(images, 28), torch.ones(2, 1, 28, 28))
    framed = to_inputs(images, 32)
    assert framed.shape == (2, 1, 32, 32)
    assert torch.equal(framed[:, :, 2:30, 2:30], torch.ones(2, 1, 28, 28))
    assert framed.sum() == 2 * 28 * 28
    assert torch.allclose(to_inputs(images, 224), torch.ones(2, 1, 224, 224))
    assert torch.allclose(to_inputs(images, 14), torch.ones(2, 1, 14, 14))
    odd = np.random.default_rng(0).random((1, 3, 11, 12), dtype=np.float32)
    assert torch.equal(to_inputs(odd, 12)[:, :, :11], torch.from_numpy(odd))


def test_a_space_of_another_kind_has_no_supernet() -> None:
    with pytest.raises(UsageError, match="no supernet for the space nasbench201: take one of"):
        Supernet(get_space("nasbench201"))


def test_the_spaces_at_hand_have_supernets() -> None:
    for name in ("mbv3_small", "ofa_mbv3"):
        space = get_space(name)
        with torch.device("meta"):
            net = Supernet(space)
        code = space.sample(1, np.random.default_rng(0))[0]
        size, channels = space.choice(code)["r"], space.skeleton.in_channels
        logits = net(torch.empty(2, channels, size, size, device="meta"), code, Norms())
        assert logits.shape == (2, space.skeleton.classes)


# --- training --------------------------------------------------------------------------------


def test_all_paths_learn_and_the_progress_tells(trained: Supernet) -> None:
    net = Supernet(SPACE)
    seen: list[Progress] = []
    cost = train(net, bars(), PLAN, progress=seen.append, report_every=10)
    assert [p.step for p in seen] == [1, 10, 20, 30, 40]
    assert cost.steps == seen[-1].steps == 40
    assert seen[-1].loss < 0.5 < seen[0].loss
    assert seen[-1].accuracy > 0.9
    assert seen[-1].seconds_left == 0 < seen[0].seconds_left
    assert 0 < seen[0].seconds < seen[-1].seconds <= cost.seconds
    accuracy = SupernetAccuracy(net, bars()).accuracy(
        np.stack([smallest(SPACE), largest(SPACE), *some_codes(4)])
    )
    assert (accuracy > 0.8).all()  # of four classes
    assert weights_equal(net, trained)  # which was trained alike


def weights_equal(one: Supernet, other: Supernet) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_one_architecture_may_learn_by_itself() -> None:
    code = some_codes(1, seed=3)[0]
    net, start = Supernet(SPACE), Supernet(SPACE)
    plan = replace(PLAN, steps=30, fixed=SPACE.choice(code))
    train(net, bars(), plan)
    assert SupernetAccuracy(net, bars()).accuracy(code[None])[0] > 0.9
    used = {layer for layer, _, _ in net.path(code)}
    assert 0 < len(used) < len(net.layers)
    for old, new in zip(start.layers, net.layers, strict=True):
        assert torch.equal(old.project.weight, new.project.weight) == (new not in used)


def test_what_is_fixed_is_all_that_is_trained() -> None:
    fixed = {"k0": 7, "d0": 1, "r": 12}
    plan = replace(PLAN, steps=6, weight_decay=0.0, fixed=fixed)
    net = Supernet(SPACE)
    train(net, bars(), plan)
    assert all(torch.equal(m, torch.eye(len(m))) for m in net.layers[0].kernel.matrices)
    assert not all(torch.equal(m, torch.eye(len(m))) for m in net.layers[2].kernel.matrices)
    assert torch.equal(net.layers[1].depthwise.weight, Supernet(SPACE).layers[1].depthwise.weight)


def test_a_task_leaves_the_other_classes_alone() -> None:
    net, drawn = Supernet(SPACE), []

    def tasks(rng: np.random.Generator) -> list[int]:
        drawn.append(rng.random())
        return [2, 0]

    train(net, bars(), replace(PLAN, steps=30, weight_decay=0.0), tasks=tasks)
    moved = (net.classifier.weight != Supernet(SPACE).classifier.weight).any(1)
    assert moved.tolist() == [True, False, True, False]
    assert len(set(drawn)) == 30
    task = SupernetAccuracy(net, bars(), classes=[2, 0])
    assert task.stand_alone(largest(SPACE)).graph.tensors["linear1"].shape == (1, 2)
    assert task.accuracy(largest(SPACE)[None])[0] > 0.9


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from hwbench.search.supernet import Supernet, TrainingPlan, train
    from tests.supernets import bars, tiny_space

    def die(progress):
        if progress.step == 7:
            os.kill(os.getpid(), signal.SIGKILL)

    plan = TrainingPlan(steps=16, batch=32, learning_rate=0.3)
    train(Supernet(tiny_space()), bars(), plan, checkpoint=Path(sys.argv[1]),
          save_every_seconds=0, progress=die, report_every=1)
"""


def test_a_training_that_is_killed_ends_as_if_it_had_not_been(root: Path, tmp_path: Path) -> None:
    whole = Supernet(SPACE)
    train(whole, bars(), SHORT)
    path = tmp_path / "supernet.pt"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(path)]
    assert subprocess.run(command, cwd=root, check=False).returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == ["supernet.pt"]
    net, seen = Supernet(SPACE, seed=7), []
    train(net, bars(), SHORT, checkpoint=path, progress=seen.append, report_every=1)
    assert [p.step for p in seen] == list(range(7, 17))
    assert weights_equal(net, whole)
    assert weights_equal(load_supernet(path, SPACE), whole)
    again = Supernet(SPACE)
    cost = train(again, bars(), SHORT, checkpoint=path)  # nothing is left to do
    assert weights_equal(again, whole)
    assert cost.seconds >= seen[-1].seconds


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "supernet.pt"
    train(Supernet(SPACE), bars(), replace(PLAN, steps=1), checkpoint=path)
    return path


def test_a_checkpoint_of_another_training_is_not_gone_on_with(checkpoint: Path) -> None:
    before = checkpoint.read_bytes()
    with pytest.raises(UsageError, match=r"of another training \(plan differ\): give another"):
        train(Supernet(SPACE), bars(), replace(PLAN, steps=2), checkpoint=checkpoint)
    other = replace(bars(), train=bars().train.take(np.arange(100)))
    with pytest.raises(UsageError, match=r"data differ"):
        train(Supernet(SPACE), other, replace(PLAN, steps=1), checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before


def test_a_supernet_of_another_space_is_refused(checkpoint: Path) -> None:
    renamed = MobileNetV3Space(replace(TINY, name="other"))
    with pytest.raises(ModelError, match=r"a supernet of 'tiny', not of 'other'"):
        load_supernet(checkpoint, renamed)
    changed = MobileNetV3Space(replace(TINY, head=40))
    with pytest.raises(ModelError, match=r"of 'tiny', not of 'tiny' as it is now"):
        load_supernet(checkpoint, changed)


def test_a_damaged_file_is_no_supernet(checkpoint: Path, tmp_path: Path) -> None:
    content = checkpoint.read_bytes()
    for damaged in (b"", content[:1000], content[:-100], b"plain text"):
        checkpoint.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"supernet\.pt is not a supernet") as raised:
            load_supernet(checkpoint, SPACE)
        assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(ModelError, match="cannot read"):
        load_supernet(tmp_path / "absent.pt", SPACE)
    torch.save({"format": "hwbench-supernet", "version": 99}, checkpoint)
    with pytest.raises(ModelError, match="has version 99"):
        load_supernet(checkpoint, SPACE)
    torch.save([1, 2], checkpoint)
    with pytest.raises(ModelError, match="is not a supernet"):
        load_supernet(checkpoint, SPACE)


@pytest.mark.parametrize(
    "content", [b"\x80\x02U", b"\x80\x02(d0.", b"\x80\x02X\x01", b"\x80\x02K\x01R.", b"\x80\x02."]
)
def test_whatever_torch_makes_of_a_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "supernet.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"supernet\.pt is not a supernet, or damaged: ") as raised:
        load_supernet(path, SPACE)
    assert len(str(raised.value).splitlines()) == 1


def test_a_file_whose_parts_are_of_other_kinds_is_refused(checkpoint: Path) -> None:
    whole = torch.load(checkpoint, weights_only=True)
    name, weight = next(iter(whole["weights"].items()))
    run, words = whole["run"], "lacks a part of a supernet|has version"
    for change in (
        {"step": float("nan")},
        {"step": torch.ones(2)},
        {"step": True},
        {"step": -1},
        {"seconds": "long"},
        {"seconds": float("inf")},
        {"optimizer": None},
        {"version": torch.ones(2, 2)},
        {"version": 1.0},
        {"run": {**run, "plan": {**run["plan"], "steps": torch.ones(1)}}},
        {"run": {**run, "plan": {**run["plan"], "batch": torch.ones(2)}}},
        {"run": {**run, "data": 3}},
        {"run": [1]},
        {"weights": [weight]},
        {"weights": {**whole["weights"], name: weight.double()}},
        {"weights": {**whole["weights"], name: torch.full_like(weight, torch.nan)}},
        {"weights": {**whole["weights"], name: "heavy"}},
    ):
        torch.save({**whole, **change}, checkpoint)
        with pytest.raises(ModelError, match=words) as raised:
            load_supernet(checkpoint, SPACE)
        assert len(str(raised.value).splitlines()) == 1
    torch.save(whole, checkpoint)
    assert load_supernet(checkpoint, SPACE).learned is not None


def test_a_pipe_is_no_supernet(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(ModelError, match=r"cannot read .*pipe\.pt: a pipe or a device"):
        load_supernet(tmp_path / "pipe.pt", SPACE)


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_file_runs_no_code(tmp_path: Path) -> None:
    path, target = tmp_path / "bomb.pt", tmp_path / "was-here"
    torch.save({"format": "hwbench-supernet", "weights": Bomb(target)}, path)
    with pytest.raises(ModelError, match="is not a supernet") as caught:
        load_supernet(path, SPACE)
    # torch would tell how to run it.
    assert "than tensors, numbers and text, which is never run; give" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    path.write_bytes(pickle.dumps(Bomb(target)))
    with pytest.raises(ModelError, match="is not a supernet"):
        load_supernet(path, SPACE)
    assert not target.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "a training needs 1 step"),
        ({"batch": 1}, "2 images in it"),
        ({"learning_rate": float("nan")}, "have to be positive"),
        ({"batch": 1000}, "bars has 168 images to train on: take less a step"),
        ({"fixed": {"k0": 4}}, "k0"),
    ],
)
def test_senseless_plans_are_refused(change, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train(Supernet(SPACE), bars(), replace(PLAN, **change))


def test_a_training_that_diverges_says_so(tmp_path: Path) -> None:
    path = tmp_path / "supernet.pt"
    plan = replace(PLAN, learning_rate=1e30)
    with pytest.raises(UsageError, match=r"diverged at step \d+ of 40: take a learning rate below"):
        train(Supernet(SPACE), bars(), plan, checkpoint=path)
    with pytest.raises(UsageError, match="there is no folder"):
        train(Supernet(SPACE), bars(), PLAN, checkpoint=tmp_path / "absent" / "supernet.pt")


# --- accuracy --------------------------------------------------------------------------------


class Sealed(Dataset):
    """Its test part is not to be read."""

    def test_for_the_final_report(self):
        raise AssertionError("a search read the test part")


def test_accuracy_is_the_extracted_nets_and_asked_once(trained: Supernet) -> None:
    data = Sealed("sealed", bars().classes, bars().train, bars().validation, None)
    train(Supernet(SPACE), data, replace(PLAN, steps=2))
    source = SupernetAccuracy(trained, data, images=30, calibration=64)
    rows = some_codes(3)
    accuracy = checked_accuracy(source, rows)
    assert source.validations == 3
    redundant = np.where(SPACE.active(rows), rows, 1).astype(np.int16)
    assert np.array_equal(source.accuracy(redundant[::-1]), accuracy[::-1])
    assert source.validations == 3
    for row, got in zip(rows, accuracy, strict=True):
        alone = source.stand_alone(row)
        module = to_torch(alone.graph, alone.weights)
        part = data.validation.some(30, seed=0)
        images = to_inputs(part.images, SPACE.choice(row)["r"])
        with torch.no_grad():
            answers = module(images).argmax(1).numpy()
        assert got == (answers == part.labels).mean()


def test_recalibration_takes_each_paths_own_statistics(trained: Supernet) -> None:
    code = smallest(SPACE)
    images = to_inputs(bars().train.images, 12)
    statistics = recalibrated(trained, code, images)
    with torch.no_grad():
        first = functional.conv2d(images, trained.stem.weight, None, 1, 1)
        by_batch = trained(images, code, Norms())
        by_statistics = trained(images, code, Norms(fixed=statistics))
    torch.testing.assert_close(statistics[0][0], first.mean((0, 2, 3)))
    torch.testing.assert_close(statistics[0][1], first.var((0, 2, 3)))
    assert relative_error(by_statistics.numpy(), by_batch.numpy()) < 1e-2
    assert len(statistics) == len(recalibrated(trained, largest(SPACE), images)) - 3 * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": [0, 9]}, "bars has no class 9: they are 0..3"),
        ({"classes": [1, 1]}, "at least 2, each once"),
        ({"images": 0}, "1 image to judge by"),
        ({"calibration": 1}, "2 to calibrate on"),
    ],
)
def test_senseless_questions_are_refused(trained: Supernet, change, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SupernetAccuracy(trained, bars(), **change)
