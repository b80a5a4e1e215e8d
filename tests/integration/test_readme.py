"""The README is true: its commands run, its examples work as they stand."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hwbench.devices import get_device
from hwbench.devices.cuda.options import CudaOptions
from hwbench.devices.litert import LiteRtOptions
from hwbench.devices.phone.adb import Adb
from hwbench.devices.phone.device import PhoneOptions
from hwbench.graph import GraphBuilder
from hwbench.lower import random_weights, to_onnx, to_tflite
from hwbench.measure.campaign import anchor
from hwbench.spaces import get_space, space_filling
from hwbench.store import Store
from hwbench.testing.devices import check_device
from hwbench.testing.predictors import check_predictor
from hwbench.testing.spaces import check_space
from hwbench.watch import latencies, pytest_plugin, trial

pytest_plugins = ["pytester"]

_ROOT = Path(__file__).resolve().parents[2]
_README = (_ROOT / "README.md").read_text(encoding="utf-8")
_DEVICES = (_ROOT / "devices" / "README.md").read_text(encoding="utf-8")


def python_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", _README, re.MULTILINE | re.DOTALL)


def block(word: str) -> str:
    (found,) = [b for b in python_blocks() if word in b]
    return found


def commands(page: str) -> list[list[str]]:
    """Every ``hwbench`` command that a page shows, comments removed."""
    lines = re.findall(r"^\$ (?:\.venv/bin/)?hwbench (.*)$", page, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def module(folder: Path, name: str, source: str) -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def calibrate(store: Path, *names: str) -> None:
    """Give the store an epoch of these devices; nothing else is done here than on first use."""
    with Store.open(store) as opened:
        for name in names:
            anchor(get_device(name), 1, opened)


def run(argv: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )


@pytest.mark.usefixtures("short_calibration")
def test_the_commands_run_one_after_the_other(tmp_path: Path, own_store: Path) -> None:
    """As they stand, but with fewer samples; then the Python that uses what they made."""
    calibrate(own_store, "cpu", "litert")
    done = run([sys.executable, "-c", block("to_onnx(")], tmp_path)
    assert done.returncode == 0, done.stderr
    shown = commands(_README)
    verbs = "bench bench profile fit predict suggest profile fit kernels predict"
    assert [c[0] for c in shown] == verbs.split()
    few = {"300": "8", "10": "8", "240": "26"}
    for command in shown:
        fewer = [few.get(word, word) for word in command]
        for _ in range(3):
            done = run([sys.executable, "-m", "hwbench", *fewer], tmp_path)
            # A network that got no core to itself has no latency: the word is to run it again.
            if "run the same command again" not in done.stderr:
                break
        # 3: measured, but on a busy machine an interval may be too wide to be an answer.
        answered = {0, 3} if command[0] in ("bench", "profile", "kernels") else {0}
        assert done.returncode in answered, done.stderr
    code = block("random_search(").replace("budget_ms=5.0", "budget_ms=50.0")
    done = run([sys.executable, "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("r")
    for of_ones_own in (block("import optuna"), block("import mutated") + block("measurer=")):
        code = (block("quality = space.macs") + of_ones_own).replace("5.0", "50.0")
        done = run([sys.executable, "-c", code], tmp_path)
        assert done.returncode == 0, done.stderr


def test_the_tests_of_latency_pass(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = GraphBuilder("net")
    net = graph.build(graph.conv(graph.input("x", (1, 3, 16, 16)), 4))
    to_onnx(net, random_weights(net)).save(pytester.path / "model.onnx")
    code = block("# test_latency.py").replace("(MODEL)", "(MODEL, seconds=0.1)")
    code = code.replace("baseline=before)", "baseline=before, seconds=0.2)")
    pytester.makepyfile(test_latency=code)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for module, name in ((trial, "Effort"), (latencies, "Plan")):  # two processes in place of six
        monkeypatch.setattr(module, name, functools.partial(getattr(module, name), processes=2))
    found = pytester.runpytest_inprocess("-p", "no:cacheprovider", plugins=[pytest_plugin])
    found.assert_outcomes(passed=2)
    found.stdout.fnmatch_lines(
        ["model.onnx *", "test_latency.after * faster *", "Milliseconds are provisional:*"]
    )


@pytest.mark.usefixtures("short_calibration")
@pytest.mark.parametrize("command", commands(_DEVICES), ids=" ".join)
def test_the_commands_of_the_devices_page_parse(
    command: list[str], tmp_path: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No phone and no GPU stands here: what is missing is said in one line, with exit code 4."""
    graph = GraphBuilder("net")
    net = graph.build(graph.conv(graph.input("x", (1, 3, 16, 16)), 4))
    to_onnx(net, random_weights(net)).save(tmp_path / "model.onnx")
    to_tflite(net).save(tmp_path / "model.tflite")
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "nets.py").write_text("def small(): ...", encoding="utf-8")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))  # not the user's own server
    if "litert" in command:
        calibrate(own_store, "litert")
    done = run([sys.executable, "-m", "hwbench", *command], tmp_path)
    if any(word.startswith("adb:") for word in command):
        subprocess.run([Adb.find().path, "kill-server"], check=True)
    if "litert" in command:
        assert done.returncode in {0, 3}, done.stderr
    else:
        assert done.returncode == 4, done.stderr
        assert len([line for line in done.stderr.splitlines() if line.startswith("hwbench:")]) <= 1
        assert "Traceback" not in done.stderr


def test_the_options_of_the_devices_page_are_those_there_are() -> None:
    for kind, options in (
        ("litert", LiteRtOptions),
        ("adb", PhoneOptions),
        ("cuda", CudaOptions),
    ):
        names = {field.name for field in dataclasses.fields(options)}
        assert names <= set(re.findall(r"`(\w+)`", _DEVICES)), kind


def test_the_targets_it_names_exist() -> None:
    makefile = (_ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^\$ make (\w+)", _README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_device_keeps_the_contract(tmp_path: Path) -> None:
    (tmp_path / "toy_runner.py").write_text(block("# toy_runner.py"), encoding="utf-8")
    check_device(module(tmp_path, "toy", block("class Toy(Device)")).Toy())


def test_the_space_keeps_the_contract(tmp_path: Path) -> None:
    source = block("class PlainCnn(Space)").replace("register_space(PlainCnn())\n", "")
    check_space(module(tmp_path, "plain_cnn", source).PlainCnn(), n=12)


def test_the_predictor_keeps_the_contract(tmp_path: Path) -> None:
    import numpy as np

    from hwbench.predictors import training_set

    family = module(tmp_path, "nearest", block("class Nearest(LatencyModel)")).Nearest
    space = get_space("mbv3_small")
    codes = space_filling(space, 40, np.random.default_rng(0))
    latency = space.macs(codes) / 1e6
    check_predictor(family, space=space, training=training_set(space, codes, latency, 0.01))


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)h][^)]*)\)", _README))
def test_what_it_links_to_exists(link: str) -> None:
    assert (_ROOT / link).exists(), link
