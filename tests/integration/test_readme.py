"""The README is true: its commands run, its examples work as they stand."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hwbench.cli import bench, main
from hwbench.devices import get_device, profile
from hwbench.devices.base import Device
from hwbench.devices.cuda import device
from hwbench.devices.cuda.options import CudaOptions
from hwbench.devices.cuda.probe import GpuFacts
from hwbench.devices.litert import LiteRtOptions
from hwbench.devices.phone.adb import Adb
from hwbench.devices.phone.device import PhoneOptions
from hwbench.errors import DeviceError
from hwbench.graph import GraphBuilder
from hwbench.lower import random_weights, to_onnx, to_tflite
from hwbench.measure.campaign import anchor
from hwbench.measure.jobs import Job
from hwbench.measure.plan import Failure, Plan
from hwbench.predictors.kernels import samples
from hwbench.records import Measurement
from hwbench.spaces import get_space, space_filling
from hwbench.store import Store
from hwbench.testing.devices import check_device
from hwbench.testing.predictors import check_predictor
from hwbench.testing.spaces import check_space
from hwbench.watch import latencies, pytest_plugin
from hwbench.watch.gate import GATE
from tests.packages import install

pytest_plugins = ["pytester"]

_ROOT = Path(__file__).resolve().parents[2]
_README = (_ROOT / "README.md").read_text(encoding="utf-8")
_DEVICES = (_ROOT / "devices" / "README.md").read_text(encoding="utf-8")


def python_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", _README, re.MULTILINE | re.DOTALL)


def entry_points() -> str:
    (found,) = re.findall(r"^```toml\n(.*?)^```", _README, re.MULTILINE | re.DOTALL)
    return str(found)


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


def run(
    argv: list[str], folder: Path, path: Sequence[Path] = (_ROOT,)
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
    )


@pytest.fixture
def short_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less time, and two processes in place of six, where no test asks how sure an answer is."""
    measure = bench.measure

    def in_short(
        target: Device, jobs: Sequence[Job], plan: Plan, store: Store
    ) -> list[Measurement | Failure]:
        return measure(target, jobs, dataclasses.replace(plan, processes=2, seconds=0.4), store)

    monkeypatch.setattr(bench, "measure", in_short)
    for module, name in ((profile, "PROFILE_PLAN"), (samples, "NETWORK_PLAN")):
        plan = dataclasses.replace(getattr(module, name), processes=2, seconds=0.3)
        monkeypatch.setattr(module, name, plan)


@pytest.mark.usefixtures("short_calibration", "short_plans")
def test_the_commands_run_one_after_the_other(
    tmp_path: Path,
    own_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As they stand, but with fewer samples; then the Python that uses what they made."""
    monkeypatch.chdir(tmp_path)
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
            code = main(fewer)
            told = capsys.readouterr().err
            # A network that got no core to itself has no latency: the word is to run it again.
            if "run the same command again" not in told:
                break
        # 3: measured, but on a busy machine an interval may be too wide to be an answer.
        answered = {0, 3} if command[0] in ("bench", "profile", "kernels") else {0}
        assert code in answered, told
    source = block("random_search(").replace("budget_ms=5.0", "budget_ms=50.0")
    done = run([sys.executable, "-c", source], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("r")
    for of_ones_own in (block("import optuna"), block("import mutated") + block("measurer=")):
        source = (block("quality = space.macs") + of_ones_own).replace("5.0", "50.0")
        done = run([sys.executable, "-c", source], tmp_path)
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
    # Two processes in place of three and six.
    monkeypatch.setattr(latencies, "GATE", dataclasses.replace(GATE, processes=2))
    monkeypatch.setattr(latencies, "Plan", functools.partial(Plan, processes=2))
    found = pytester.runpytest_inprocess("-p", "no:cacheprovider", plugins=[pytest_plugin])
    found.assert_outcomes(passed=2)
    found.stdout.fnmatch_lines(
        ["model.onnx *", "test_latency.after * faster *", "Milliseconds are provisional:*"]
    )


@pytest.fixture(scope="module")
def looked() -> Callable[..., GpuFacts]:
    """What torch says of a GPU, once for all commands: each time it takes some seconds to load."""
    answer = functools.cache(lambda *which: _outcome(device.look, *which))

    def look(*which: Any) -> GpuFacts:
        found = answer(*which)
        if isinstance(found, DeviceError):
            raise found
        return found

    return look


def _outcome(look: Callable[..., GpuFacts], *which: Any) -> GpuFacts | DeviceError:
    try:
        return look(*which)
    except DeviceError as error:
        return error


@pytest.mark.usefixtures("short_calibration", "short_plans")
@pytest.mark.parametrize("command", commands(_DEVICES), ids=" ".join)
def test_the_commands_of_the_devices_page_parse(
    command: list[str],
    looked: Callable[..., GpuFacts],
    tmp_path: Path,
    own_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """No phone and no GPU stands here: what is missing is said in one line, with exit code 4."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(device, "look", looked)
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
    code, told = main(command), capfd.readouterr().err
    if any(word.startswith("adb:") for word in command):
        subprocess.run([Adb.find().path, "kill-server"], check=True)
    if "litert" in command:
        assert code in {0, 3}, told
    else:
        assert code == 4, told
        assert len([line for line in told.splitlines() if line.startswith("hwbench:")]) <= 1
        assert "Traceback" not in told


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


@pytest.mark.usefixtures("short_calibration")
def test_what_is_added_works_once_it_is_installed(tmp_path: Path, own_store: Path) -> None:
    """The package of all three examples, by the commands of somebody who has it."""
    modules = {
        "toy_runner": block("# toy_runner.py"),
        "toy": block("class Toy(Device)"),
        "plain_cnn": block("class PlainCnn(Space)").replace("register_space(PlainCnn())\n", ""),
        "nearest": block("class Nearest(LatencyModel)"),
    }
    site = install(tmp_path, "my-package", modules, entry_points())
    (tmp_path / "toy_runner.py").write_text(modules["toy_runner"], encoding="utf-8")
    with Store.open(own_store) as store:
        anchor(module(tmp_path, "toy", modules["toy"]).Toy(), 1, store)

    def hwbench(*arguments: str, exits: Container[int] = (0,)) -> str:
        argv = [sys.executable, "-m", "hwbench", *arguments]
        done = run(argv, tmp_path, path=[site, _ROOT])
        assert done.returncode in exits, done.stderr
        return done.stdout

    for verb, name in (("devices", "toy"), ("spaces", "plain_cnn")):
        listed = json.loads(hwbench(verb, "--json"))[verb]
        assert {each["name"]: each["package"] for each in listed}[name] == "my-package 1.2"
    of_both = ["-d", "toy", "-s", "plain_cnn"]
    profiled = [*of_both, "-n", "8", "--seconds", "0.3", "--json"]
    # 3: on a busy machine an interval may be too wide to be an answer, or one is not measured.
    assert json.loads(hwbench("profile", *profiled, exits=(0, 3)))["measured"] >= 5
    hwbench("fit", *of_both, "--kind", "nearest", "-o", "toy.hwp")
    assert json.loads(hwbench("profile", *profiled, "--seed", "1", exits=(0, 3)))["measured"] > 1
    hwbench("evaluate", "toy.hwp")
    texts = ["depth=1 width=16 kernel=3", "depth=3 width=64 kernel=5"]
    small, large = json.loads(hwbench("predict", "toy.hwp", *texts, "--json"))["results"]
    assert 0 < small["mean_ms"] < large["mean_ms"]


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
    if link.startswith("#"):
        headings = re.findall(r"^#+ (.*)", _README, re.MULTILINE)
        assert link[1:] in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
    else:
        assert (_ROOT / link).exists(), link
