"""Networks that answer in turns: what is timed, where images leave, and the command for it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.cli import main
from hwbench.errors import UsageError
from hwbench.search.s2dnas import DynamicModel, MultiStageNet, SplitSpace, deploy, trace
from hwbench.search.s2dnas.streaming import _latencies, quality, stream
from tests.s2dnas_nets import CLASSES, IMAGE, NETS, settled


class Sleeper:
    """Answers after a while; remembers what it was asked. Every tenth image leaves later."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.asked = seconds, []

    def predict(self, images: np.ndarray) -> SimpleNamespace:
        self.asked.append(images[:, 0].tolist())
        time.sleep(self.seconds)
        return SimpleNamespace(stages=1 + (images[:, 0] % 10 == 0))


def numbered(n: int) -> np.ndarray:
    return np.arange(n)[:, None]


def test_all_answer_the_same_images_and_each_before_any_again() -> None:
    models = [Sleeper(0), Sleeper(0)]
    stream(models, numbered(70), seconds=1e-6)
    first, second = ([row for call in m.asked for row in call] for m in models)
    assert first == second
    for start in range(0, len(first) - 69, 70):
        assert sorted(first[start : start + 70]) == list(range(70))


def test_what_is_told_is_what_it_took() -> None:
    quick, slow = Sleeper(0.0005), Sleeper(0.002)
    told = stream([slow, quick], numbered(64), seconds=1e-6, batch=2)
    assert all(len(images) == 2 for images in quick.asked)
    for model, each in zip((slow, quick), told, strict=True):
        assert each.low <= each.mean <= each.high
        assert 1e3 * model.seconds <= each.undisturbed
        assert 1e3 * model.seconds <= each.p50 <= each.p90 <= each.p99
        assert each.calls == 10 * len(model.asked) // 11
    assert told[0].faster == told[0].faster_low == told[0].faster_high == 1
    assert told[1].faster == pytest.approx(told[0].mean / told[1].mean)
    assert told[1].faster_low <= told[1].faster <= told[1].faster_high


def test_what_disturbs_a_few_calls_counts_in_the_mean_alone() -> None:
    last = np.tile([1, 1, 1, 1, 2], 40).reshape(10, 20)
    ms = np.where(last == 1, 1.0, 5.0)
    (told,) = _latencies(ms[None], last[None], 1, np.random.default_rng(0))
    assert told.undisturbed == pytest.approx(1.8)
    assert told.mean == pytest.approx(1.8)
    stalled = ms.copy()
    stalled[:, :2] += 100.0
    (told,) = _latencies(stalled[None], last[None], 1, np.random.default_rng(0))
    assert told.undisturbed == pytest.approx(1.8)
    assert told.mean == pytest.approx(11.8)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"seconds": 0}, {"batch": 9}])
def test_nothing_is_timed_on_too_little(wrong) -> None:
    with pytest.raises(UsageError):
        stream([Sleeper(0)], numbered(8), **wrong)


@given(st.integers(1, 3), st.integers(1, 1200), st.integers(0, 10))
@settings(max_examples=20)
def test_quality_counts_every_image_once(stages, n, seed) -> None:
    rng = np.random.default_rng(seed)
    left, answers, labels = (
        rng.integers(1, stages + 1, n),
        rng.integers(3, size=n),
        rng.integers(3, size=n),
    )

    def predict(images):
        rows = images[:, 0]
        return SimpleNamespace(stages=left[rows], labels=answers[rows])

    manifest = SimpleNamespace(stages=[None] * stages)
    found = quality(SimpleNamespace(predict=predict, manifest=manifest), numbered(n), labels)
    assert found.images == n
    assert found.accuracy == (answers == labels).mean()
    low, high = found.accuracy_low, found.accuracy_high
    assert -1e-12 <= low <= found.accuracy + 1e-12 <= high + 2e-12 <= 1 + 3e-12
    # By its definition: shares at which the hits are just 1.96 standard deviations away.
    for end in (low, high):
        assert abs(found.accuracy - end) == pytest.approx(
            1.959964 * np.sqrt(max(end * (1 - end), 0) / n), abs=1e-6
        )
    assert found.exits == pytest.approx([(left == j + 1).mean() for j in range(stages)])


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Networks of one stage and of two, another that reads images otherwise; and images."""
    folder = tmp_path_factory.mktemp("bench")
    net = trace(settled(NETS["vgg"]()), IMAGE)
    for name, stages, mean in (("one", 1, 0.0), ("two", 2, 0.0), ("odd", 1, 0.5)):
        space = SplitSpace(net, stages=stages, groups=4)
        made = MultiStageNet(space, space.sample(1, np.random.default_rng(0))[0]).stages()
        deploy(made, [0.3] * (stages - 1), folder / name, mean=[mean] * 3)
    rng = np.random.default_rng(0)
    x = rng.integers(256, size=(90, *IMAGE), dtype=np.uint8)
    np.savez(folder / "images.npz", x=x, y=np.arange(90) % CLASSES)
    return folder


def test_manifests_are_timed_in_turns_over_the_test_images(folder, capsys) -> None:
    paths = [str(folder / name / "manifest.json") for name in ("one", "two")]
    data = str(folder / "images.npz")
    assert main(["bench", *paths, "--data", data, "--seconds", "0.01", "--json"]) == 0
    one, two = json.loads(capsys.readouterr().out)["results"]
    assert one["stages"] == 1
    assert one["exits"] == [1.0]
    assert sum(two["exits"]) == pytest.approx(1)
    assert len(two["exits"]) == 2
    assert [each["batch"] for each in two["latency"]] == [1, 8]
    assert two["images"] == one["images"] == 15  # a sixth, which is for the test
    model = DynamicModel(paths[1])
    assert 0 <= two["accuracy_low"] <= two["accuracy"] <= two["accuracy_high"] <= 1
    assert model.thresholds == (0.3,)
    assert main(["bench", *paths, "--data", data, "--seconds", "0.01"]) == 0
    shown = capsys.readouterr().out
    assert {"times", "faster"} <= set(shown.split())  # the heading may be on two lines
    assert "leave at each stage" in shown


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["one/manifest.json"], "give --data"),
        (["one/manifest.json", "x.onnx", "--data", "images.npz"], "bench them apart"),
        (["one/manifest.json", "odd/manifest.json", "--data", "images.npz"], "in different ways"),
        (["one/manifest.json", "--data", "digits"], "images of"),
        (["x.onnx", "--data", "images.npz"], "--data goes with a manifest"),
        (["one/manifest.json", "--data", "digits", "--tag", "a=b"], "--tag is for models of one"),
        (["one/manifest.json", "--data", "digits", "--profile-ops"], "--profile-ops is for"),
        (["one/manifest.json", "--data", "digits", "-d", "cuda"], "-d cuda: a network in stages"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments, why, folder, capsys) -> None:
    shown = [str(folder / a) if "." in a else a for a in arguments]
    assert main(["bench", *shown]) == 2
    assert why in capsys.readouterr().err
