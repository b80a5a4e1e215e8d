"""The CUDA device: networks, worker and sessions on its CPU twin; refusals; and a GPU, if any."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from hwbench.devices.cuda import probe
from hwbench.devices.cuda.device import Cuda
from hwbench.devices.cuda.models import TorchModule, read_torch_module
from hwbench.devices.cuda.network import build_network
from hwbench.devices.cuda.nvml import GpuState, Sensor, reasons_of
from hwbench.devices.cuda.options import CudaOptions
from hwbench.devices.cuda.probe import GpuFacts, read_answer
from hwbench.devices.cuda.runner import CudaRunner, build_runner
from hwbench.devices.cuda.stream import device_errors, open_stream
from hwbench.devices.cuda.twin import CpuStream, ScriptedSensor
from hwbench.devices.models import GraphModel, Model, OnnxModelFile, read_onnx_file
from hwbench.errors import DeviceError, GraphError, ModelError, UsageError, WorkerError
from hwbench.graph import Graph, GraphBuilder
from hwbench.lower import to_onnx, to_torch
from hwbench.measure.jobs import RunnerSpec
from hwbench.measure.process import WorkerProcess
from hwbench.testing.devices import check_device
from tests.graphs import nets, relative_error
from tests.targets import runner_file, tiny_net

CPU = torch.device("cpu")
H100 = GpuFacts("NVIDIA H100", "0-1-2", "9.0", 80 << 30, 50 << 20, "2.13.0", "13.0", "91002")
T4 = dataclasses.replace(H100, name="Tesla T4", capability="7.5")
COOL = GpuState(1980, 2619, 310.5, 61, ())
HOT = GpuState(1200, 2619, 700.0, 90, reasons_of(0x40))

#: The device's own runner on the twins of a stream and a sensor, with canaries that a CPU can do.
TWIN = """
from hwbench.devices.cuda.runner import build_runner
from hwbench.devices.cuda.twin import CpuStream

def load(args):
    smaller = {"matmul": 64, "copy": 1}
    args = {name: smaller.get(name, value) for name, value in args.items()}
    return build_runner(args, CpuStream(), None)
"""


class Twin(Cuda):
    """All of the CUDA device but the GPU, under a name of its own."""

    twin_runner: ClassVar[RunnerSpec]
    seen: GpuFacts = H100

    def __init__(self, options: CudaOptions | None = None) -> None:
        super().__init__(0, options)
        self.name = "cuda-twin"

    def look(self) -> GpuFacts:
        return self.seen

    def sensor(self, facts: GpuFacts) -> Sensor:
        return ScriptedSensor([COOL])

    def _spec(self, work: Mapping[str, Any]) -> RunnerSpec:
        return dataclasses.replace(self.twin_runner, args=super()._spec(work).args)


@pytest.fixture(autouse=True)
def twin_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Twin, "twin_runner", runner_file(tmp_path, TWIN), raising=False)


@pytest.fixture
def linear(tmp_path: Path) -> TorchModule:
    source = "import torch\n\ndef net():\n    return torch.nn.Linear(4, 2)\n"
    (tmp_path / "my_net.py").write_text(source)
    return read_torch_module("my_net:net", {"x": (3, 4)}, tmp_path)


def saved(graph: Graph, folder: Path) -> OnnxModelFile:
    path = folder / "net.onnx"
    path.write_bytes(to_onnx(graph).bytes)
    return read_onnx_file(path)


class TestNetworks:
    @settings(max_examples=25)
    @given(graph=nets())
    def test_a_graph_comes_through_its_file_to_the_bit(
        self, tmp_path_factory: pytest.TempPathFactory, graph: Graph
    ) -> None:
        path = tmp_path_factory.mktemp("net") / "net.onnx"
        path.write_bytes(to_onnx(graph).bytes)
        network = build_network({"onnx": str(path), "shapes": {}}, CudaOptions(), CPU)
        assert [x.shape for x in network.inputs] == [spec.shape for _, spec in graph.inputs]
        with torch.inference_mode():
            for got, wanted in zip(network(), to_torch(graph)(*network.inputs), strict=True):
                assert torch.equal(got, wanted)

    @pytest.mark.parametrize(
        ("options", "tolerance"),
        [
            (CudaOptions(dtype="fp16"), 1e-2),
            (CudaOptions(dtype="bf16"), 1e-1),
            (CudaOptions(channels_last=True), 1e-4),
            (CudaOptions(batch=1), 0.0),
        ],
    )
    def test_an_option_changes_how_and_not_what(
        self, tmp_path: Path, options: CudaOptions, tolerance: float
    ) -> None:
        args = {"onnx": str(saved(tiny_net().graph, tmp_path).path), "shapes": {}}
        with torch.inference_mode():
            network = build_network(args, CudaOptions(), CPU)
            wanted, (x,) = network(), network.inputs
            changed = build_network(args, options, CPU)
            got = changed.module(x.to(changed.inputs[0].dtype))
        assert got.dtype == {"fp16": torch.float16, "bf16": torch.bfloat16}.get(
            options.dtype, torch.float32
        )
        nhwc = changed.inputs[0].is_contiguous(memory_format=torch.channels_last)
        assert nhwc == options.channels_last
        assert relative_error(got.float().numpy(), wanted.numpy()) <= tolerance

    def test_a_batch_reaches_the_output(self, tmp_path: Path) -> None:
        args = {"onnx": str(saved(tiny_net().graph, tmp_path).path), "shapes": {}}
        with torch.inference_mode():
            assert build_network(args, CudaOptions(batch=5), CPU)().shape == (5, 4, 16, 16)

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("net = None", "has no function 'net'"),
            ("def net():\n    return 7", "my_net:net made a int, not a torch.nn.Module"),
        ],
    )
    def test_a_factory_that_makes_no_module_is_refused(
        self, tmp_path: Path, linear: TorchModule, source: str, message: str
    ) -> None:
        (tmp_path / "my_net.py").write_text(source)
        args = Twin().job(linear, 1).build(tmp_path).args
        with WorkerProcess(sys.executable) as worker, pytest.raises(ModelError, match=message):
            worker.load("net", dataclasses.replace(Twin.twin_runner, args=args))


class TestRunner:
    def test_a_run_while_the_gpu_was_held_back_says_so(self, tmp_path: Path) -> None:
        args = Twin().job(tiny_net(), 1).build(tmp_path).args
        # Read while the device works and after; the state in between is what counts.
        runner = build_runner(args, CpuStream(), ScriptedSensor([COOL, COOL, HOT, COOL, COOL]))
        runner.run(5)
        assert runner.cause() is None
        runner.run(5)
        assert runner.cause() == "throttled"
        assert runner.states == [HOT, COOL]
        runner.run(5)
        assert runner.cause() is None

    def test_without_a_sensor_there_is_no_cause(self, tmp_path: Path) -> None:
        args = Twin().job(tiny_net(), 1).build(tmp_path).args
        runner = build_runner(args, CpuStream(), None)
        assert len(runner.run(3)) == 3
        assert runner.cause() is None

    @pytest.mark.parametrize(("tf32", "autotune"), [(False, True), (True, False)])
    def test_backends_are_as_the_options_say_in_a_run_and_as_before_after_it(
        self, tf32: bool, autotune: bool
    ) -> None:
        backends: Any = torch.backends

        def told() -> list[Any]:
            kinds = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
            return [*(kind.fp32_precision for kind in kinds), backends.cudnn.benchmark]

        seen: list[list[Any]] = []
        options = CudaOptions(tf32=tf32, autotune=autotune)
        runner = CudaRunner(CpuStream(), lambda: seen.append(told()), options, None)
        before = told()
        runner.run(1)
        wanted = [*["tf32" if tf32 else "ieee"] * 3, autotune]
        assert seen == [wanted] * len(seen)
        assert told() == before

    def test_an_output_that_overflows_is_refused(self, tmp_path: Path) -> None:
        b = GraphBuilder("large")
        x = b.op("clip", [b.input("x", (1, 4))], {"min": 300.0, "max": 301.0})
        model = GraphModel(b.build(b.mul(x, x)), "large")
        for dtype, fits in (("fp32", True), ("fp16", False)):
            options = CudaOptions(dtype=dtype)  # type: ignore[arg-type]
            args = Twin(options).job(model, 1).build(tmp_path).args
            runner = build_runner(args, CpuStream(), None)
            if fits:
                runner.check()
            else:
                with pytest.raises(ValueError, match=r"in torch.float16 holds NaN or infinity"):
                    runner.check()

    def test_trouble_of_the_device_comes_with_its_cure(self) -> None:
        full, broken = r"memory \(no 3 GiB\): take a smaller", r"\(no kernel image\): is the driver"
        with pytest.raises(DeviceError, match=full), device_errors():
            raise torch.OutOfMemoryError("no 3 GiB.\nmore")
        with pytest.raises(DeviceError, match=broken), device_errors():
            raise torch.AcceleratorError("no kernel image")
        with pytest.raises(RuntimeError, match="mat1 and mat2"), device_errors():
            torch.ones(2, 3) @ torch.ones(2, 3)  # a model's fault stays the model's


class TestTwinInTheWorker:
    def test_the_device_keeps_the_contract(self) -> None:
        check_device(Twin())

    @pytest.mark.parametrize(
        "options",
        [
            CudaOptions(cuda_graph=True, channels_last=True),
            CudaOptions(cache="cold", dtype="bf16", batch=4),
        ],
    )
    def test_every_kind_of_model_is_timed(
        self, tmp_path: Path, linear: TorchModule, options: CudaOptions
    ) -> None:
        device = Twin(options)
        models: list[Model | TorchModule] = [
            tiny_net(),
            saved(tiny_net(8).graph, tmp_path),
            linear,
        ]
        with WorkerProcess(device.python) as worker:
            for index, model in enumerate(models):
                worker.load(f"w{index}", device.job(model, 1).build(tmp_path))
                worker.ask("check", f"w{index}")
            answer = worker.ask("round", [["w0", 5, 1], ["w1", 3, 0], ["w2", 4, 1]], [])
        assert [len(burst["ns"]) for burst in answer["bursts"]] == [5, 3, 4]
        assert all(type(t) is int and t > 0 for burst in answer["bursts"] for t in burst["ns"])


class TestWorkloads:
    def test_one_model_under_two_options_or_batches_is_two_workloads(
        self, tmp_path: Path, linear: TorchModule
    ) -> None:
        options = [CudaOptions(), CudaOptions(dtype="fp16"), CudaOptions(batch=7)]
        for model in (tiny_net(), saved(tiny_net().graph, tmp_path), linear):
            keys = {Twin(option).job(model, 1).workload.key for option in options}
            assert len(keys) == len(options)

    def test_the_batch_stands_in_the_inputs(self, tmp_path: Path, linear: TorchModule) -> None:
        for model in (tiny_net(), saved(tiny_net().graph, tmp_path), linear):
            inputs = Twin(CudaOptions(batch=7)).job(model, 1).workload.inputs
            assert [spec.shape[0] for spec in inputs] == [7]

    def test_a_graph_and_its_options_are_told(self) -> None:
        workload = Twin(CudaOptions(cache="cold")).job(tiny_net(), 1).workload
        assert workload.model_hash == "graph:" + tiny_net().graph.hash
        assert dict(workload.options)["cache"] == "cold"

    def test_what_is_no_model_is_refused(self) -> None:
        with pytest.raises(ModelError, match="cuda-twin runs graphs, ONNX files and torch modules"):
            Twin().job("net.onnx", 1)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="threads must be 1 or more"):
            Twin().job(tiny_net(), 0)

    def test_a_graph_that_fixes_its_batch_is_refused(self) -> None:
        b = GraphBuilder("mean")
        graph = b.build(b.mean(b.input("x", (1, 6)), [0], keepdims=True))
        with pytest.raises(GraphError, match="does not grow with the batch"):
            Twin(CudaOptions(batch=2)).job(GraphModel(graph, "mean"), 1)

    def test_the_environment_is_named(self) -> None:
        fingerprint = Twin().fingerprint(1)
        told = {"gpu_name": "NVIDIA H100", "gpu_uuid": "0-1-2", "gpu_capability": "9.0"}
        told |= {"gpu_torch": "2.13.0", "gpu_cuda": "13.0", "gpu_cudnn": "91002", "nvml": "yes"}
        assert told.items() <= fingerprint.facts.items()
        assert fingerprint.state["gpu_reasons"] == "none"
        assert fingerprint.state["gpu_temperature_c"] == "61"


class TestOpening:
    @pytest.mark.parametrize(
        ("address", "options", "wanted"),
        [
            (None, {}, ("cuda:0", CudaOptions())),
            ("3", {"cache": "cold", "batch": "8"}, ("cuda:3", CudaOptions(cache="cold", batch=8))),
            ("0", {"tf32": "on"}, ("cuda:0", CudaOptions(tf32=True))),
        ],
    )
    def test_address_and_options_make_a_device_without_touching_a_gpu(
        self, address: str | None, options: dict[str, str], wanted: tuple[str, CudaOptions]
    ) -> None:
        device = Cuda.open(address, options)
        assert (device.name, device.options) == wanted

    @pytest.mark.parametrize("address", ["", "-1", "all", "0;1", "GPU-5f2c", "1.0", " 1"])
    def test_what_is_no_number_of_a_gpu_is_refused(self, address: str) -> None:
        with pytest.raises(UsageError, match="a GPU is named by its number, as cuda:0"):
            Cuda.open(address, {})

    @pytest.mark.parametrize(
        "options", [{"dtype": "fp8"}, {"cache": "warm"}, {"tf32": "1"}, {"precision": "fp16"}]
    )
    def test_an_option_that_is_none_is_refused(self, options: dict[str, str]) -> None:
        with pytest.raises(UsageError, match="option"):
            Cuda.open("0", options)


class TestRefusals:
    """A CPU's number must never stand under a GPU's name."""

    @pytest.mark.skipif(torch.version.cuda is not None, reason="this torch was built with CUDA")
    def test_without_cuda_in_torch_nothing_that_could_end_in_a_number_works(self) -> None:
        device = Cuda(0)
        message = r"cuda:0: torch .* was built without CUDA: reinstall it with pip install"
        for ask in (
            lambda: device.canaries(1),
            lambda: device.fingerprint(1),
            lambda: device.job(tiny_net(), 1),
        ):
            with pytest.raises(DeviceError, match=message) as caught:
                ask()
            assert caught.value.exit_code == 4
        (check,) = device.health()
        assert (check.name, check.state) == ("gpu", "fail")
        assert check.cure.startswith("reinstall it with pip install")

    @pytest.mark.skipif(torch.version.cuda is not None, reason="this torch was built with CUDA")
    def test_a_worker_given_the_real_runner_refuses_too(self, tmp_path: Path) -> None:
        args = Twin().job(tiny_net(), 1).build(tmp_path).args
        spec = RunnerSpec(Cuda.runner_file, args)
        refused = pytest.raises(WorkerError, match="was built without CUDA")
        with WorkerProcess(sys.executable) as worker, refused:
            worker.load("net", spec)

    @pytest.mark.skipif(torch.version.cuda is not None, reason="this torch was built with CUDA")
    def test_the_command_line_prints_no_number_and_exits_with_4(self, tmp_path: Path) -> None:
        path = saved(tiny_net().graph, tmp_path).path
        command = [sys.executable, "-m", "hwbench", "bench", str(path), "-d", "cuda:0", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (4, "")
        assert "was built without CUDA" in done.stderr

    @pytest.mark.parametrize(
        ("count", "index", "message"),
        [
            (0, 0, "no GPU is visible to CUDA: does nvidia-smi list one"),
            (2, 2, "there is no GPU cuda:2: choose of cuda:0, cuda:1"),
        ],
    )
    def test_a_gpu_that_is_not_there_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, count: int, index: int, message: str
    ) -> None:
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        with pytest.raises(DeviceError, match=message):
            open_stream(index)

    def test_without_torch_there_is_a_cure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(DeviceError, match=r"torch is missing: pip install 'hwbench\[cuda\]'"):
            open_stream(0)

    @pytest.mark.parametrize(
        "options", [CudaOptions(dtype="bf16"), CudaOptions(tf32=True)], ids=["bf16", "tf32"]
    )
    def test_a_precision_that_the_gpu_lacks_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, options: CudaOptions
    ) -> None:
        monkeypatch.setattr(Twin, "seen", T4)
        with pytest.raises(DeviceError, match=r"Tesla T4 \(compute capability 7.5\) has no"):
            Twin(options).job(tiny_net(), 1)
        assert Twin(options).health()[0].state == "fail"
        Twin(CudaOptions(dtype="fp16")).job(tiny_net(), 1)

    def test_a_gpu_without_nvml_measures_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(self: Twin, facts: GpuFacts) -> Sensor:
            raise DeviceError("NVML is not at hand: pip install nvidia-ml-py")

        monkeypatch.setattr(Twin, "sensor", refuse)
        device = Twin()
        assert device.canaries(1)[0].runner.args["uuid"] is None
        assert device.fingerprint(1).facts["nvml"] == "no"
        assert [(c.name, c.state) for c in device.health()] == [("gpu", "ok"), ("nvml", "warn")]

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            ("import sys; sys.exit(3)", "asking cuda:0 ended with code 3"),
            ("pass", "asking cuda:0 ended with code 0"),
            ("import os; os.abort()", "asking cuda:0 ended with code -6"),
            ("print('{')", "asking for the GPU gave '{'"),
            ("print('7')", "asking for the GPU gave '7'"),
            ("print('{}')", "asking for the GPU gave '{}'"),
        ],
    )
    def test_a_probe_that_dies_or_babbles_is_an_error(
        self, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
    ) -> None:
        real = subprocess.run

        def other(command: list[str], **options: Any) -> Any:
            return real([command[0], "-c", fault], **options)

        monkeypatch.setattr(subprocess, "run", other)
        with pytest.raises(DeviceError, match=message):
            probe.look(sys.executable, 0)

    def test_a_probe_without_an_interpreter_is_an_error(self) -> None:
        with pytest.raises(DeviceError, match="cannot start '/nowhere/python'"):
            probe.look("/nowhere/python", 0)

    def test_a_probes_answer_becomes_facts(self) -> None:
        assert read_answer(json.dumps(dataclasses.asdict(H100))) == H100
        assert H100.version == (9, 0)


def test_a_kernel_with_a_right_result_is_what_the_probe_demands() -> None:
    probe.check_kernel(CpuStream())
    with pytest.raises(DeviceError, match="clock stands still"):
        probe.check_kernel(CpuStream(resolution_ns=10**18))


@pytest.mark.cuda
class TestOnAGpu:
    """Needs an NVIDIA GPU; the twins' tests hold for the rest."""

    @pytest.fixture(autouse=True)
    def gpu(self) -> None:
        if torch.version.cuda is None or torch.cuda.device_count() == 0:
            pytest.skip("NO NVIDIA GPU HERE: the CUDA device is untested on hardware")

    def test_the_device_keeps_the_contract(self) -> None:
        check_device(Cuda(0))

    @pytest.mark.parametrize("cache", ["hot", "cold"])
    @pytest.mark.parametrize("cuda_graph", [False, True])
    @pytest.mark.parametrize("dtype", ["fp32", "fp16"])
    def test_every_mode_runs_and_its_output_is_finite(
        self, tmp_path: Path, cache: Any, cuda_graph: bool, dtype: Any
    ) -> None:
        device = Cuda(0, CudaOptions(dtype=dtype, cuda_graph=cuda_graph, cache=cache, batch=2))
        with WorkerProcess(device.python) as worker:
            worker.load("net", device.job(tiny_net(), 1).build(tmp_path))
            worker.ask("check", "net")
            (burst,) = worker.ask("round", [["net", 20, 1]], [])["bursts"]
        assert min(burst["ns"]) > 0

    def test_a_small_network_waits_for_its_launches_unless_a_graph_holds_them(
        self, tmp_path: Path
    ) -> None:
        for graph in (False, True):
            device = Cuda(0, CudaOptions(cuda_graph=graph))
            with WorkerProcess(device.python) as worker:
                loaded = worker.load("net", device.job(tiny_net(), 1).build(tmp_path))
            assert loaded["launch_bound"] is not graph

    def test_the_gpu_computes_what_the_cpu_does(self, tmp_path: Path) -> None:
        args = {"onnx": str(saved(tiny_net().graph, tmp_path).path), "shapes": {}}
        stream = open_stream(0)
        with torch.inference_mode():
            network = build_network(args, CudaOptions(), stream.device)
            got = network()
            assert got.is_cuda
            wanted = network.module.cpu()(*(x.cpu() for x in network.inputs))
        assert relative_error(got.cpu().numpy(), wanted.numpy()) <= 1e-4

    def test_what_does_not_fit_is_refused_with_a_cure(self) -> None:
        spec = Cuda(0).canaries(1)[1].runner
        large = dataclasses.replace(spec, args={**spec.args, "copy": 1 << 22})  # 4 TiB
        refused = pytest.raises((DeviceError, ModelError), match="out of GPU memory")
        with WorkerProcess(sys.executable) as worker, refused:
            worker.load("copy", large)

    def test_nvml_answers_for_the_gpu_that_torch_uses(self) -> None:
        checks = {check.name: check for check in Cuda(0).health()}
        assert checks["gpu"].state == "ok"
        assert "nvml" in checks

    def test_a_matrix_product_takes_no_less_than_the_gpu_can(self) -> None:
        """4096^3 MACs at 200 TFLOP/s of fp32, which no GPU reaches, are 0.7 ms."""
        spec = Cuda(0).canaries(1)[0].runner
        with WorkerProcess(sys.executable) as worker:
            worker.load("mm", dataclasses.replace(spec, args={**spec.args, "matmul": 4096}))
            (burst,) = worker.ask("round", [["mm", 10, 3]], [])["bursts"]
        assert np.median(burst["ns"]) > 0.6e6
