"""A deployed net answers as torch does, leaves early, and believes no file that was touched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.errors import ModelError, UsageError
from hwbench.records import digest
from hwbench.search.s2dnas import (
    DynamicModel,
    MultiStageNet,
    SplitSpace,
    deploy,
    read_manifest,
    trace,
)
from hwbench.search.s2dnas import deployment as deployment_module
from tests.graphs import relative_error
from tests.s2dnas_nets import CLASSES, IMAGE, NETS, settled

RUNTIMES = ("onnxruntime", "litert")


@cache
def net_of(name: str, stages: int = 3) -> MultiStageNet:
    space = SplitSpace(trace(settled(NETS[name]()), IMAGE), stages=stages, groups=8)
    code = space.sample(1, np.random.default_rng(len(name)))[0]
    return MultiStageNet(space, code).eval()


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, *IMAGE)).astype(np.float32)


@dataclass
class Wanted:
    """Torch's logits (s, n, k) and confidences (s, n), and where each image leaves (n,) from 1."""

    logits: np.ndarray
    confidences: np.ndarray
    stages: np.ndarray


@torch.no_grad()
def in_torch(net: MultiStageNet, x: np.ndarray, thresholds: tuple[float, ...]) -> Wanted:
    logits = net(torch.from_numpy(x))
    confidences = logits.softmax(2).amax(2).numpy()
    sure = np.concatenate([confidences[:-1] >= np.array(thresholds)[:, None], confidences[-1:] > 0])
    return Wanted(logits.numpy(), confidences, sure.argmax(axis=0) + 1)


@cache
def thresholds_of(name: str) -> tuple[float, float]:
    """At which about half of the images that reach a stage leave it: in a wide gap between
    confidences, so that no rounding decides."""
    first, second, _ = in_torch(net_of(name), images(40), (2.0, 2.0)).confidences
    threshold = _gap(first)
    return threshold, _gap(second[first < threshold])


def _gap(confidences: np.ndarray) -> float:
    middle = np.sort(confidences)[len(confidences) // 3 : -(len(confidences) // 3)]
    return float(middle[np.diff(middle).argmax() :][:2].mean())


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[tuple[str, str], Path]:
    """Manifests by net and runtime."""
    root = tmp_path_factory.mktemp("deployed")
    return {
        (name, runtime): deploy(
            net_of(name).stages(), thresholds_of(name), root / f"{name}-{runtime}", runtime=runtime
        )
        for name in NETS
        for runtime in RUNTIMES
    }


@pytest.fixture
def manifest(folders, tmp_path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(folders["vgg", "onnxruntime"].parent, tmp_path / "net")
    return tmp_path / "net" / "manifest.json"


# --- answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", NETS)
def test_a_batch_gets_torchs_answers_from_the_same_stages(name, runtime, folders) -> None:
    x = images(40)
    wanted = in_torch(net_of(name), x, thresholds_of(name))
    got = DynamicModel(folders[name, runtime]).predict(x)
    assert set(wanted.stages) == {1, 2, 3}  # all ways out are tried
    assert np.array_equal(got.stages, wanted.stages)
    at = got.stages - 1, np.arange(len(x))
    assert relative_error(got.logits, wanted.logits[at]) <= 1e-4
    assert relative_error(got.confidences, wanted.confidences[at]) <= 1e-4
    assert np.array_equal(got.labels, got.logits.argmax(axis=1))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_one_by_one_is_what_a_batch_is(runtime, folders) -> None:
    model, x = DynamicModel(folders["resnet-a", runtime]), images(40)
    batch = model.predict(x)
    single = [model.predict(image[None]) for image in x]
    assert np.array_equal(batch.stages, [answer.stages[0] for answer in single])
    assert np.array_equal(batch.labels, [answer.labels[0] for answer in single])
    assert relative_error(np.concatenate([a.logits for a in single]), batch.logits) <= 1e-5


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 12))
@settings(max_examples=25)
def test_any_thresholds_leave_where_they_say(folders, first, second, n) -> None:
    model = DynamicModel(folders["vgg", "onnxruntime"], thresholds=(first, second))
    x = images(n, seed=n)
    never = DynamicModel(folders["vgg", "onnxruntime"], thresholds=(1, 1)).predict(x)
    got = model.predict(x)
    assert (got.stages[got.confidences < min(first, second)] == 3).all()
    assert (got.confidences[got.stages == 1] >= first).all()
    assert (got.confidences[got.stages == 2] >= second).all()
    last = got.stages == 3
    assert relative_error(got.logits[last], never.logits[last]) <= 1e-5 if last.any() else True


class Counted:
    """A stage's runner that notes how many images it runs on."""

    def __init__(self, runner, seen: list[int]) -> None:
        self.runner, self.seen = runner, seen

    def once(self) -> None:
        self.seen.append(1)
        self.runner.once()

    def batch(self, tensors):
        (n,) = {len(x) for x in tensors.values()}
        self.seen.append(n)
        return self.runner.batch(tensors)


def test_only_the_undecided_go_on(folders, monkeypatch) -> None:
    model, seen = DynamicModel(folders["vgg", "onnxruntime"]), []
    monkeypatch.setattr(model, "_runners", [Counted(run, seen) for run in model._runners])
    stages = model.predict(images(40)).stages
    assert seen == [40, (stages > 1).sum(), (stages > 2).sum()]
    for wanted in (1, 2, 3):
        seen.clear()
        row = int(np.flatnonzero(stages == wanted)[0])
        model.predict(images(40)[row : row + 1])
        assert seen == [1] * wanted


def test_an_answer_stays_when_the_next_is_given(folders) -> None:
    for runtime in RUNTIMES:
        model, x = DynamicModel(folders["resnet-b", runtime]), images(2)
        first = model.predict(x[:1])
        kept = first.logits.copy(), first.confidences.copy()
        model.predict(x[1:])
        assert np.array_equal(first.logits, kept[0])
        assert np.array_equal(first.confidences, kept[1])


def test_a_net_of_one_stage_needs_no_threshold(tmp_path) -> None:
    path = deploy(net_of("plain", 1).stages(), [], tmp_path / "net")
    got = DynamicModel(path).predict(images(5))
    with torch.no_grad():
        wanted = settled(NETS["plain"]())(torch.from_numpy(images(5))).numpy()
    assert relative_error(got.logits, wanted) <= 1e-5
    assert (got.stages == 1).all()


def test_pixels_are_normalised_as_the_manifest_says(tmp_path) -> None:
    names, mean, std = list("abcde"), np.array([0.5, 0.4, 0.3]), (0.2, 0.25, 0.3)
    stages, thresholds = net_of("vgg").stages(), np.float32([0.5, 0.5])
    path = deploy(
        stages, thresholds, tmp_path / "net", name="mine", class_names=names, mean=mean, std=std
    )
    model = DynamicModel(path)
    assert (model.manifest.name, model.manifest.class_names) == ("mine", tuple(names))
    pixels = np.random.default_rng(0).integers(0, 256, (4, *IMAGE), dtype=np.uint8)
    wanted = (pixels / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert np.allclose(model.inputs(pixels), wanted, atol=1e-6)
    assert np.allclose(model.inputs((pixels / 255).astype(np.float32)), wanted, atol=1e-6)


def test_it_runs_where_there_is_no_torch(folders) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from hwbench.search.s2dnas import DynamicModel\n"
        "for path in sys.argv[1:]:\n"
        f"    print(*DynamicModel(path).predict(np.zeros((2, *{IMAGE}), np.float32)).stages)\n"
    )
    paths = [str(folders["mobilenet", runtime]) for runtime in RUNTIMES]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True, timeout=99
    )
    assert len(done.stdout.split()) == 4
    assert not done.stderr  # LiteRT would tell of its delegate


# --- refusals --------------------------------------------------------------------------------


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """A manifest that somebody changed with care: its checksum is right."""
    body = json.loads(path.read_text())
    del body["checksum"]
    change(body)
    path.write_text(json.dumps({**body, "checksum": digest(body)}))


HOSTILE = {
    "parent": lambda b: b["stages"][0].update(file="../stage1.onnx"),
    "absolute": lambda b: b["stages"][0].update(file="/etc/passwd.onnx"),
    "nested": lambda b: b["stages"][0].update(file="sub/stage1.onnx"),
    "backslash": lambda b: b["stages"][0].update(file="..\\stage1.onnx"),
    "drive": lambda b: b["stages"][0].update(file="C:stage1.onnx"),
    "hidden": lambda b: b["stages"][0].update(file=".onnx"),
    "nul": lambda b: b["stages"][0].update(file="stage1\0.onnx"),
    "suffix": lambda b: b["stages"][0].update(file="stage1.so"),
    "same file": lambda b: b["stages"][1].update(file="stage1.onnx"),
    "no stages": lambda b: b.update(stages=[]),
    "many stages": lambda b: b.update(stages=b["stages"] * 30),
    "runtime": lambda b: b.update(runtime="python"),
    "no name": lambda b: b.pop("name"),
    "control": lambda b: b.update(name="a\x1b[2Jb"),
    "classes": lambda b: b.update(classes=CLASSES + 1),
    "class count": lambda b: b.update(classes=True),
    "names": lambda b: b.update(class_names=["one"]),
    "threshold": lambda b: b["stages"][0].update(threshold=1.5),
    "nan": lambda b: b["stages"][0].update(threshold=float("nan")),
    "text threshold": lambda b: b["stages"][0].update(threshold="0.5"),
    "no threshold": lambda b: b["stages"][1].update(threshold=None),
    "last threshold": lambda b: b["stages"][2].update(threshold=0.5),
    "reads later": lambda b: b["stages"][0]["inputs"].extend(b["stages"][1]["outputs"]),
    "shape": lambda b: b["stages"][0]["inputs"][0].update(shape=[1, 3, 12, 13]),
    "huge": lambda b: b["image"].update(shape=[3, 12, 1 << 40]),
    "order": lambda b: b["stages"][0]["inputs"][0].update(order=[0, 1, 1, 3]),
    "std": lambda b: b["image"].update(std=[1, 0, 1]),
    "mean": lambda b: b["image"].update(mean=[0, 0]),
    "logits": lambda b: b["stages"][0].update(logits="nothing"),
    "confidence": lambda b: b["stages"][0].update(confidence=b["stages"][0]["logits"]),
    "a list": lambda b: b.update(stages="stages"),
    "a number": lambda b: b.update(stages=[1, 2]),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_manifest_that_makes_no_sense_is_refused(what: str, manifest: Path) -> None:
    rewritten(manifest, HOSTILE[what])
    with pytest.raises(ModelError, match="deploy again") as refusal:
        DynamicModel(manifest)
    assert str(refusal.value).isprintable()


def test_a_manifest_changed_by_hand_is_refused(manifest: Path) -> None:
    content = manifest.read_text()
    assert '"threshold": null' in content
    manifest.write_text(content.replace('"threshold": 0.', '"threshold": 0.0', 1))
    with pytest.raises(ModelError, match="changed after it was written"):
        read_manifest(manifest)


def test_other_formats_and_versions_are_refused(manifest: Path) -> None:
    rewritten(manifest, lambda body: body.update(version=2))
    with pytest.raises(ModelError, match="version 2, this hwbench reads 1"):
        read_manifest(manifest)
    rewritten(manifest, lambda body: body.update(format="other"))
    with pytest.raises(ModelError, match="another format"):
        read_manifest(manifest)


@given(st.integers(0, 3000))
@settings(max_examples=25)
def test_a_manifest_cut_short_anywhere_is_refused(folders, tmp_path_factory, end: int) -> None:
    whole = folders["vgg", "onnxruntime"].read_bytes()
    path = tmp_path_factory.mktemp("cut") / "manifest.json"
    path.write_bytes(whole[: min(end, len(whole) - 3)])
    with pytest.raises(ModelError):
        read_manifest(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"null", b"{}", b"1e999"])
def test_what_is_no_json_object_is_refused(content: bytes, tmp_path) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a manifest"):
        read_manifest(path)


def test_no_file_a_folder_and_a_huge_file_are_refused(tmp_path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(ModelError, match="no such file"):
            read_manifest(path)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 24)
    with pytest.raises(ModelError, match="larger than 1 MB"):
        read_manifest(tmp_path / "huge.json")
    with pytest.raises(ModelError):
        read_manifest("a\0b")


def test_a_stage_that_was_touched_is_refused(manifest: Path) -> None:
    stage = manifest.parent / "stage2.onnx"
    content = bytearray(stage.read_bytes())
    content[len(content) // 2] ^= 1
    stage.write_bytes(bytes(content))
    with pytest.raises(ModelError, match=r"stage2\.onnx was changed or cut short"):
        DynamicModel(manifest)
    stage.write_bytes(bytes(content[:100]))
    with pytest.raises(ModelError, match=r"stage2\.onnx was changed or cut short"):
        DynamicModel(manifest)
    stage.unlink()
    with pytest.raises(ModelError, match=r"stage2\.onnx: no such file"):
        DynamicModel(manifest)
    (manifest.parent / "elsewhere.onnx").write_bytes(b"")
    stage.symlink_to(manifest.parent / "elsewhere.onnx")
    with pytest.raises(ModelError, match=r"stage2\.onnx: no such file"):
        DynamicModel(manifest)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_stage_that_is_another_net_is_refused(runtime, folders, tmp_path) -> None:
    """Swapped with care: hashes and checksum are right."""
    shutil.copytree(folders["vgg", runtime].parent, tmp_path / "net")
    path = tmp_path / "net" / "manifest.json"

    def swap(body: dict[str, Any]) -> None:
        first, second = body["stages"][:2]
        for key in ("file", "sha256"):
            first[key], second[key] = second[key], first[key]

    rewritten(path, swap)
    with pytest.raises(ModelError, match="not those of the manifest"):
        DynamicModel(path)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_stage_that_is_no_model_is_refused(runtime, folders, tmp_path) -> None:
    shutil.copytree(folders["vgg", runtime].parent, tmp_path / "net")
    path = tmp_path / "net" / "manifest.json"
    content = b"not a model"
    (path.parent / read_manifest(path).stages[0].file).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    rewritten(path, lambda body: body["stages"][0].update(sha256=sha256))
    with pytest.raises(ModelError, match="stage1") as refusal:
        DynamicModel(path)
    assert "\n" not in str(refusal.value)


def test_images_and_thresholds_that_do_not_fit_are_refused(manifest: Path) -> None:
    model = DynamicModel(manifest)
    for wrong in (images(2)[0], images(0), images(2)[:, :2]):
        with pytest.raises(UsageError, match=r"give \(n, 3, 12, 12\)"):
            model.predict(wrong)
    with pytest.raises(UsageError, match="no numbers"):
        model.predict(np.full((2, *IMAGE), np.nan, np.float32))
    for thresholds in ((0.5,), (0.5, 0.5, 0.5)):
        with pytest.raises(UsageError, match="thresholds for 3 stages"):
            DynamicModel(manifest, thresholds=thresholds)
    for thresholds in ((0.5, 2), (float("nan"), 0.5)):
        with pytest.raises(UsageError, match="not all from 0 to 1"):
            DynamicModel(manifest, thresholds=thresholds)
    with pytest.raises(UsageError, match="0 threads"):
        DynamicModel(manifest, threads=0)


# --- writing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"thresholds": (0.5,)}, "1 thresholds for 3 stages"),
        ({"thresholds": (0.5, 1.1)}, "not all from 0 to 1"),
        ({"thresholds": (0.5, float("nan"))}, "not all from 0 to 1"),
        ({"class_names": ["a"]}, "1 class names for 5 classes"),
        ({"class_names": ["a", "b", "", "d", "e"]}, "'' is no name"),
        ({"name": "two\nlines"}, "is no name"),
        ({"std": (1, 1, 0)}, "positive std"),
        ({"mean": (1, 1)}, "for each of 3 channels"),
    ],
)
def test_what_does_not_fit_is_not_written(change, match, tmp_path) -> None:
    options = {"thresholds": (0.5, 0.5), **change}
    with pytest.raises(UsageError, match=match):
        deploy(net_of("vgg").stages(), options.pop("thresholds"), tmp_path / "net", **options)
    with pytest.raises(UsageError, match="all stages of a network"):
        deploy(net_of("vgg").stages()[1:], (0.5,), tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(manifest: Path) -> None:
    before = {p.name: p.read_bytes() for p in manifest.parent.iterdir()}
    with pytest.raises(UsageError, match="is there already"):
        deploy(net_of("vgg").stages(), (0.5, 0.5), manifest.parent)
    assert before == {p.name: p.read_bytes() for p in manifest.parent.iterdir()}


def test_a_failure_half_way_leaves_nothing(tmp_path, monkeypatch) -> None:
    lowered, calls = deployment_module._lowered, []

    def fails(stage, runtime):
        calls.append(stage)
        if len(calls) == 3:
            raise OSError(28, os.strerror(28))
        return lowered(stage, runtime)

    monkeypatch.setattr(deployment_module, "_lowered", fails)
    with pytest.raises(ModelError, match="No space left"):
        deploy(net_of("vgg").stages(), (0.5, 0.5), tmp_path / "net")
    assert len(calls) == 3
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_line(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot write") as refusal:
        deploy(net_of("vgg").stages(), (0.5, 0.5), tmp_path / "file" / "net")
    assert "\n" not in str(refusal.value)
