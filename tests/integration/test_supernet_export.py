"""A path of a supernet, exported, gives the same answers in onnxruntime and LiteRT."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.lower import create_session, to_onnx, to_tflite
from hwbench.search.supernet import (
    Supernet,
    TrainingPlan,
    extract,
    largest,
    recalibrated,
    smallest,
    train,
)
from hwbench.search.supernet.elastic import Norms
from hwbench.spaces import get_space
from hwbench.verify.litert import run_tflite
from tests.graphs import relative_error
from tests.supernets import bars, tiny_space


def answers_differ(net: Supernet, code: np.ndarray, seed: int) -> tuple[float, float]:
    """Largest relative difference to the path's logits, of onnxruntime and of LiteRT."""
    generator = torch.Generator().manual_seed(seed)
    size, channels = net.space.choice(code)["r"], net.space.skeleton.in_channels
    images = torch.rand(33, channels, size, size, generator=generator)
    statistics = recalibrated(net, code, images[1:])
    with torch.no_grad():
        wanted = net(images[:1], code, Norms(fixed=statistics)).numpy()
    alone = extract(net, code, statistics)
    inputs = {"image": images[:1].numpy()}
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = create_session(to_onnx(alone.graph, alone.weights).bytes, options)
    (by_onnx,) = session.run(None, inputs)
    (by_tflite,) = run_tflite(to_tflite(alone.graph, alone.weights), inputs)
    return relative_error(by_onnx, wanted), relative_error(by_tflite, wanted)


@pytest.fixture(scope="module")
def trained() -> Supernet:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    net = Supernet(tiny_space())
    train(net, bars(), TrainingPlan(steps=20, batch=32))
    torch.set_num_threads(threads)
    return net


@given(st.integers(0, 2**32))
@settings(max_examples=10)
def test_any_path_of_a_trained_supernet(trained: Supernet, seed: int) -> None:
    code = tiny_space().sample(1, np.random.default_rng(seed))[0]
    assert max(answers_differ(trained, code, seed)) <= 1e-4


def test_the_space_made_for_supernets() -> None:
    space = get_space("mbv3_small")
    net = Supernet(space)
    for layer in net.layers:  # untrained, they are the identity
        torch.nn.init.uniform_(layer.project.scale, 0.5, 1.5)
    for code in (smallest(space), largest(space), *space.sample(1, np.random.default_rng(1))):
        assert max(answers_differ(net, code, 0)) <= 1e-4
