"""A supernet on another device than the CPU: where it runs, what its file holds, what is refused.

There is no GPU here, but torch's ``meta`` device: nothing is computed on it, but it is not the CPU,
and that no operation mixes the two can be seen.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hwbench.errors import DeviceError, UsageError
from hwbench.search.accuracy.supernet import SupernetAccuracy
from hwbench.search.eas.training import relaxed
from hwbench.search.supernet import (
    Supernet,
    TrainingPlan,
    largest,
    load_supernet,
    recalibrated,
    smallest,
    train,
    training_device,
)
from hwbench.search.supernet.checkpoint import Checkpoint, write_checkpoint
from hwbench.search.supernet.elastic import Norms
from tests.supernets import bars, tiny_space

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SPACE = tiny_space()
PLAN = TrainingPlan(steps=6, batch=32)
ELSEWHERE = torch.device("meta")


class OneDevice(TorchDispatchMode):
    """No operation but a copy takes tensors of two devices; what is read back is one half."""

    copies = frozenset({torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default})

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0.5
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        devices = {x.device for x in tensors if x.dim()}
        assert func in self.copies or len(devices) <= 1, f"{func} of {devices}"
        return func(*args, **(kwargs or {}))


def test_what_mixes_devices_is_seen() -> None:
    net = Supernet(SPACE).to(ELSEWHERE)
    with OneDevice(), pytest.raises(AssertionError, match=r"of \{.*meta.*\}"):
        net(torch.rand(4, 1, 12, 12), largest(SPACE), Norms())


@pytest.mark.parametrize("tasks", [None, lambda rng: [2, 0]], ids=["all", "task"])
def test_a_training_runs_where_the_net_is(tasks) -> None:
    net = Supernet(SPACE).to(ELSEWHERE)
    with OneDevice():
        cost = train(net, bars(), PLAN, tasks=tasks)
    assert cost.steps == PLAN.steps
    assert {p.device for p in net.parameters()} == {ELSEWHERE}
    assert all(p.grad is None or p.grad.device == ELSEWHERE for p in net.parameters())


def test_a_path_is_calibrated_and_run_where_the_net_is() -> None:
    net = Supernet(SPACE).to(ELSEWHERE)
    for code in (smallest(SPACE), largest(SPACE)):
        with OneDevice():
            statistics = recalibrated(net, code, torch.rand(8, 1, 12, 12))
            logits = net(torch.rand(4, 1, 12, 12).to(net.device), code, Norms(fixed=statistics))
        assert (logits.device, logits.shape) == (ELSEWHERE, (4, 4))


def test_gates_come_to_the_supernet_and_their_logits_back() -> None:
    net = Supernet(SPACE).to(ELSEWHERE)
    gates = torch.rand(len(SPACE.decisions), max(SPACE.cardinalities)).to(ELSEWHERE)
    with OneDevice():
        assert relaxed(net, torch.rand(4, 1, 12, 12), gates).shape == (4, 4)


class Elsewhere(str):
    """The CPU to ``Tensor.to``, but not of the type of the CPU."""

    type = "elsewhere"


def test_the_supernets_own_answer_is_that_of_the_net_taken_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = Supernet(SPACE)
    train(net, bars(), replace(PLAN, steps=20))
    rows = SPACE.sample(4, np.random.default_rng(0))
    for classes in (None, [3, 1, 0]):
        taken_out = SupernetAccuracy(net, bars(), classes=classes).accuracy(rows)
        source = SupernetAccuracy(net, bars(), classes=classes)
        with monkeypatch.context() as patched:
            # As on a GPU: there no network is taken out.
            patched.setattr(source, "stand_alone", None)
            patched.setattr(Supernet, "device", Elsewhere("cpu"))
            assert source.accuracy(rows).tolist() == taken_out.tolist()
        assert len(set(taken_out)) > 1


def test_a_file_holds_tensors_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: seen.append(self) or self.detach())
    net, momentum = Supernet(SPACE), torch.ones(3)
    state = {"state": {0: {"momentum_buffer": momentum}}, "param_groups": [{"params": [0, 1]}]}
    write_checkpoint(tmp_path / "s.pt", net, Checkpoint(1, 2.0, state, {"plan": {}}))
    assert any(tensor is momentum for tensor in seen)
    assert len(seen) == len(net.state_dict()) + 1


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "meta", "CUDA", ""])
def test_an_unknown_place_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="give cpu, cuda, or one GPU as cuda:1"):
        training_device(name)


def test_a_gpu_that_is_not_there_is_refused_and_nothing_falls_back() -> None:
    assert training_device("cpu") == torch.device("cpu")
    missing = "cuda" if not torch.cuda.is_available() else f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(DeviceError, match=r"built without CUDA|no GPU is visible|there is no GPU"):
        training_device(missing)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_training_goes_on_between_a_gpu_and_the_cpu(tmp_path: Path) -> None:
    path, plan = tmp_path / "supernet.pt", replace(PLAN, steps=40, learning_rate=0.3)

    def stop(progress) -> None:
        if progress.step == 20:
            raise KeyboardInterrupt

    for name, progress in (("cuda", stop), ("cpu", lambda progress: None)):
        net = Supernet(SPACE).to(training_device(name))
        try:
            train(
                net,
                bars(),
                plan,
                checkpoint=path,
                save_every_seconds=0,
                progress=progress,
                report_every=1,
            )
        except KeyboardInterrupt:
            assert name == "cuda"
    on_cpu = load_supernet(path, SPACE)
    on_gpu = load_supernet(path, SPACE).to("cuda")
    rows = SPACE.sample(4, np.random.default_rng(0))
    accuracy = SupernetAccuracy(on_gpu, bars()).accuracy(rows)
    assert (accuracy > 0.8).all()
    assert np.abs(accuracy - SupernetAccuracy(on_cpu, bars()).accuracy(rows)).max() < 0.05
