"""The CPU device: files that somebody else made, and what onnxruntime makes of them in a worker."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwbench.devices import device_names, get_device
from hwbench.devices.models import OnnxModelFile, TfliteModelFile, read_model_file, read_onnx_file
from hwbench.errors import HwbenchError, ModelError, UnknownNameError, UsageError
from hwbench.lower import random_weights, to_onnx
from hwbench.measure.ops import profile_ops
from hwbench.measure.process import WorkerProcess
from hwbench.measure.worker import runner_module
from hwbench.records import InputSpec
from hwbench.testing.devices import check_device
from tests.targets import tiny_net

CPU = get_device("cpu")
FLOAT = TensorProto.FLOAT
Value = tuple[str, int, list[Any] | None]


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[Value],
    outputs: list[Value],
    initializers: tuple[onnx.TensorProto, ...] = (),
) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        list(initializers),
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def relu(path: Path, shape: list[Any] | None, kind: int = FLOAT) -> Path:
    return save(path, [helper.make_node("Relu", ["x"], ["y"])], [("x", kind, shape)],
                [("y", kind, None)])  # fmt: skip


def weight_file(path: Path, content: bytes) -> Path:
    """``y = x + w``, whose ``w`` of 4 floats lies beside it in ``w.bin``."""
    (path.parent / "w.bin").write_bytes(content)
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    add = helper.make_node("Add", ["x", "w"], ["y"])
    return save(path, [add], [("x", FLOAT, [4])], [("y", FLOAT, [4])], (tensor,))


Run = Callable[[OnnxModelFile, Path], list[int]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Load, check and time a model in a worker; nothing is left out but the statistics.

    One worker for all: that one model's end is nobody else's is for the worker's own tests.
    """
    with WorkerProcess(sys.executable) as worker:

        def timed(model: OnnxModelFile, folder: Path) -> list[int]:
            worker.load("net", CPU.job(model, 1).build(folder))
            worker.ask("check", "net")
            times: list[int] = worker.ask("round", [["net", 2, 0]], [])["bursts"][0]["ns"]
            assert len(times) == 2
            return times

        yield timed


def one_line(caught: pytest.ExceptionInfo[HwbenchError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_it_keeps_the_contract_of_a_device() -> None:
    check_device(CPU)


def test_it_is_known_by_name() -> None:
    assert "cpu" in device_names()
    with pytest.raises(UnknownNameError, match=r"unknown device 'cpux': did you mean 'cpu'\?"):
        get_device("cpux")


class TestShapes:
    def test_a_fixed_one_is_read(self, tmp_path: Path, run: Run) -> None:
        model = read_onnx_file(relu(tmp_path / "net.onnx", [1, 3, 8]))
        assert (model.name, model.inputs) == ("net.onnx", (InputSpec("x", "float32", (1, 3, 8)),))
        run(model, tmp_path)

    @pytest.mark.parametrize("shape", [["batch", 3, 8], [None, 3, 8], [-1, 3, 8], None])
    def test_an_open_one_is_asked_for_and_can_be_given(
        self, tmp_path: Path, shape: list[Any] | None, run: Run
    ) -> None:
        path = relu(tmp_path / "net.onnx", shape)
        with pytest.raises(ModelError, match=r"net\.onnx: open dimensions in input x") as caught:
            read_onnx_file(path)
        assert "give its shape" in one_line(caught)
        model = read_onnx_file(path, {"x": (2, 3, 8)})
        assert model.inputs[0].shape == (2, 3, 8)
        run(model, tmp_path)

    @pytest.mark.parametrize("given", [(1, 4, 8), (1, 3), (1, 3, -1), (1, 3, 0), ()])
    def test_a_shape_that_does_not_fit_is_refused(
        self, tmp_path: Path, given: tuple[int, ...]
    ) -> None:
        path = relu(tmp_path / "net.onnx", ["batch", 3, 8])
        with pytest.raises(ModelError, match=r"net\.onnx: input.*x") as caught:
            read_onnx_file(path, {"x": given})
        one_line(caught)

    def test_a_shape_of_an_input_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        path = relu(tmp_path / "net.onnx", [1, 3, 8])
        with pytest.raises(UnknownNameError, match=r"unknown model input 'y': .*known: x"):
            read_onnx_file(path, {"y": (1,)})

    def test_another_shape_is_another_workload_of_the_same_model(self, tmp_path: Path) -> None:
        path = relu(tmp_path / "net.onnx", ["batch", 3, 8])
        one, two = (read_onnx_file(path, {"x": (batch, 3, 8)}) for batch in (1, 2))
        assert one.hash == two.hash
        assert CPU.job(one, 1).workload.key != CPU.job(two, 1).workload.key
        assert CPU.job(one, 1).workload.key != CPU.job(one, 2).workload.key


class TestInputs:
    @pytest.mark.parametrize(
        ("kind", "dtype"),
        [
            (TensorProto.FLOAT, "float32"),
            (TensorProto.FLOAT16, "float16"),
            (TensorProto.DOUBLE, "float64"),
            (TensorProto.INT64, "int64"),
            (TensorProto.INT32, "int32"),
            (TensorProto.INT8, "int8"),
            (TensorProto.UINT8, "uint8"),
            (TensorProto.BOOL, "bool"),
        ],
    )
    @pytest.mark.parametrize("shape", [[2, 3], []], ids=["tensor", "scalar"])
    def test_of_every_common_type_run(
        self, tmp_path: Path, kind: int, dtype: str, shape: list[int], run: Run
    ) -> None:
        cast = helper.make_node("Cast", ["x"], ["y"], to=FLOAT)
        path = save(tmp_path / "net.onnx", [cast], [("x", kind, shape)], [("y", FLOAT, shape)])
        model = read_onnx_file(path)
        assert model.inputs == (InputSpec("x", dtype, tuple(shape)),)
        run(model, tmp_path)

    def test_an_int8_model_with_its_scales_beside_each_op_runs(
        self, tmp_path: Path, run: Run
    ) -> None:
        """QDQ, as quantisers for onnxruntime write it."""
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

        class OneBatch(CalibrationDataReader):
            def __init__(self) -> None:
                rng = np.random.default_rng(0)
                self._left = [{"x": rng.standard_normal((1, 3, 16, 16), np.float32)}]

            def get_next(self) -> dict[str, np.ndarray] | None:
                return self._left.pop() if self._left else None

        graph = tiny_net().graph
        to_onnx(graph, random_weights(graph)).save(tmp_path / "float.onnx")
        path = tmp_path / "int8.onnx"
        quantize_static(tmp_path / "float.onnx", path, OneBatch(), quant_format=QuantFormat.QDQ)
        kinds = {node.op_type for node in onnx.load(path).graph.node}
        assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
        run(read_onnx_file(path), tmp_path)

    def test_several_run(self, tmp_path: Path, run: Run) -> None:
        nodes = [
            helper.make_node("Gather", ["table", "index"], ["rows"]),
            helper.make_node("Where", ["mask", "rows", "other"], ["y"]),
        ]
        inputs = [
            ("index", TensorProto.INT64, ["n"]),
            ("mask", TensorProto.BOOL, ["n", 1]),
            ("other", FLOAT, [4]),
            ("table", FLOAT, [5, 4]),  # has a value: not an input that a caller feeds
        ]
        table = numpy_helper.from_array(np.ones((5, 4), np.float32), "table")
        path = save(tmp_path / "net.onnx", nodes, inputs, [("y", FLOAT, ["n", 4])], (table,))
        model = read_onnx_file(path, {"index": (3,), "mask": (3, 1)})
        assert [(i.name, i.dtype, i.shape) for i in model.inputs] == [
            ("index", "int64", (3,)),
            ("mask", "bool", (3, 1)),
            ("other", "float32", (4,)),
        ]
        run(model, tmp_path)

    def test_none_at_all_run(self, tmp_path: Path, run: Run) -> None:
        node = helper.make_node("RandomNormal", [], ["y"], shape=[4])
        run(read_onnx_file(save(tmp_path / "n.onnx", [node], [], [("y", FLOAT, [4])])), tmp_path)

    def test_strings_are_refused(self, tmp_path: Path) -> None:
        path = relu(tmp_path / "net.onnx", [4], TensorProto.STRING)
        with pytest.raises(ModelError, match=r"net\.onnx: input 'x' holds strings") as caught:
            read_onnx_file(path)
        one_line(caught)

    def test_a_type_that_numpy_lacks_is_refused(self, tmp_path: Path, run: Run) -> None:
        model = read_onnx_file(relu(tmp_path / "net.onnx", [4], TensorProto.BFLOAT16))
        with pytest.raises(ModelError, match=r"bfloat16|onnxruntime cannot load it") as caught:
            run(model, tmp_path)
        one_line(caught)


class TestOutputs:
    def test_a_sequence_of_unequal_tensors_is_looked_into(self, tmp_path: Path, run: Run) -> None:
        nodes = [
            helper.make_node("Concat", ["x", "x"], ["twice"], axis=0),
            helper.make_node("SequenceConstruct", ["x", "twice"], ["y"]),
        ]
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("x", FLOAT, [3])],
            [helper.make_tensor_sequence_value_info("y", FLOAT, None)],
        )
        opset = [helper.make_opsetid("", 17)]
        path = tmp_path / "net.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
        run(read_onnx_file(path), tmp_path)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("kind", [FLOAT, TensorProto.FLOAT16])
    def test_one_that_is_no_number_is_refused(
        self, tmp_path: Path, value: float, kind: int, run: Run
    ) -> None:
        array = np.array([value], helper.tensor_dtype_to_np_dtype(kind))
        constant = numpy_helper.from_array(array, "c")
        add = helper.make_node("Add", ["x", "c"], ["y"])
        path = save(tmp_path / "n.onnx", [add], [("x", kind, [3])], [("y", kind, [3])], (constant,))
        with pytest.raises(ModelError, match="output 'y' holds NaN or infinity") as caught:
            run(read_onnx_file(path), tmp_path)
        one_line(caught)


class TestBadFiles:
    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no model", bytes(range(256)) * 8])
    def test_one_that_is_no_model_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "net.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"net\.onnx: ") as caught:
            read_onnx_file(path)
        one_line(caught)

    def test_one_cut_short_is_refused_or_does_not_run(self, tmp_path: Path) -> None:
        """Wherever the cut is; and whatever still parses is another model, by its hash."""
        whole = weight_file(tmp_path / "whole.onnx", np.ones(4, np.float32).tobytes())
        content, cut = whole.read_bytes(), tmp_path / "cut.onnx"
        answers = [str(read_onnx_file(whole).hash)]
        for length in range(0, len(content), 7):
            cut.write_bytes(content[:length])
            try:
                answers.append(read_onnx_file(cut).hash)
            except ModelError as error:
                answers.append(f"{length}: {error}")
        assert len(set(answers)) == len(answers)
        assert not [answer for answer in answers if "\n" in answer]
        assert sum(answer.startswith("onnx:") for answer in answers) < 5

    def test_a_name_that_is_no_text_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / os.fsdecode(b"\xff.onnx")
        path.write_bytes(b"")
        with pytest.raises(ModelError, match=r"udcff.onnx': .* readable text: rename it"):
            read_model_file(path)

    def test_an_absent_one_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"absent\.onnx: No such file"):
            read_onnx_file(tmp_path / "absent.onnx")
        with pytest.raises(ModelError, match="Is a directory"):
            read_onnx_file(tmp_path)

    def test_one_that_the_runtime_refuses_says_so_in_one_line(
        self, tmp_path: Path, run: Run
    ) -> None:
        node = helper.make_node("NoSuchOp", ["x"], ["y"])
        path = save(tmp_path / "net.onnx", [node], [("x", FLOAT, [4])], [("y", FLOAT, [4])])
        with pytest.raises(ModelError, match=r"net\.onnx: onnxruntime cannot load it") as caught:
            run(read_onnx_file(path), tmp_path)
        one_line(caught)


class TestExternalData:
    def test_beside_the_model_it_is_part_of_its_hash(self, tmp_path: Path, run: Run) -> None:
        ones = np.ones(4, np.float32)
        path = weight_file(tmp_path / "net.onnx", ones.tobytes())
        before = read_onnx_file(path)
        run(before, tmp_path)
        (tmp_path / "w.bin").write_bytes((2 * ones).tobytes())
        assert read_onnx_file(path).hash != before.hash
        (tmp_path / "w.bin").write_bytes(ones.tobytes())
        assert read_onnx_file(path).hash == before.hash

    def test_outside_its_folder_it_is_refused(self, tmp_path: Path) -> None:
        inside = tmp_path / "inside"
        inside.mkdir()
        path = weight_file(inside / "net.onnx", bytes(16))
        shutil.move(inside / "w.bin", tmp_path / "w.bin")
        with pytest.raises(ModelError, match=r"'w\.bin' .*is missing") as caught:
            read_onnx_file(path)
        one_line(caught)
        (inside / "w.bin").symlink_to(tmp_path / "w.bin")
        with pytest.raises(ModelError, match="is a link that leaves the model's folder"):
            read_onnx_file(path)
        for location in ("../w.bin", str(tmp_path / "w.bin")):
            model = onnx.load(path, load_external_data=False)
            model.graph.initializer[0].external_data[0].value = location
            path.write_bytes(model.SerializeToString())
            with pytest.raises(ModelError, match="is not a path inside the model's folder"):
                read_onnx_file(path)

    def test_random_weights_are_named_and_lie_nowhere(self, tmp_path: Path, run: Run) -> None:
        """A graph of ours, lowered without weights and saved, is a file like any other."""
        path = tmp_path / "ours.onnx"
        path.write_bytes(to_onnx(tiny_net().graph).bytes)
        run(read_onnx_file(path), tmp_path)


class TestGraphs:
    def test_equal_graphs_are_one_workload_whatever_their_names(self) -> None:
        one, same = (CPU.job(tiny_net(4, name), 1).workload for name in ("a", "b"))
        other = CPU.job(tiny_net(5), 1).workload
        assert one.key == same.key != other.key
        assert (one.name, same.name) == ("a", "b")

    def test_one_is_lowered_when_its_turn_comes(self, tmp_path: Path) -> None:
        job = CPU.job(tiny_net(), 1)
        assert list(tmp_path.iterdir()) == []
        spec = job.build(tmp_path)
        assert [str(p) for p in tmp_path.iterdir()] == [spec.args["model"]]

    @pytest.mark.parametrize("threads", [0, -1])
    def test_threads_are_positive(self, threads: int) -> None:
        with pytest.raises(UsageError, match="threads must be 1 to "):
            CPU.job(tiny_net(), threads)

    def test_other_things_are_refused(self) -> None:
        with pytest.raises(ModelError, match="runs ONNX files and graphs, not str"):
            CPU.job("net.onnx", 1)  # type: ignore[arg-type]
        file = TfliteModelFile(Path("net.tflite"), "net.tflite", "tflite:0", ())
        with pytest.raises(ModelError, match=r"runs ONNX files and graphs, not net\.tflite: "):
            CPU.job(file, 1)


class TestProfile:
    def test_a_body_is_counted_once_and_not_in_its_owner_too(self) -> None:
        """Two runs of a conv and of a loop that adds twice, after one slower run of warm-up."""
        ort = runner_module(str(Path(__file__).parents[2] / "devices" / "runners" / "ort.py"))

        def event(name: str, start: int, duration: int, kind: str = "") -> dict[str, Any]:
            return {
                "cat": "Node" if kind else "Session",
                "name": name,
                "ts": start,
                "dur": duration,
                "args": {"op_name": kind},
            }

        def run(start: int, slow: int) -> list[dict[str, Any]]:
            return [
                event("conv_kernel_time", start + 1, 30 * slow, "Conv"),
                event("add_kernel_time", start + 40, 10 * slow, "Add"),
                event("add_kernel_time", start + 60, 20 * slow, "Add"),
                event("loop_kernel_time", start + 38, 50 * slow, "Loop"),
                event("model_run", start, 100 * slow),
            ]

        found = ort.node_times([*run(0, 3), *run(1000, 1), *run(2000, 1)], skip=1)
        assert found["whole_ns"] == 100e3
        assert {n["name"]: (n["kind"], n["ns"]) for n in found["nodes"]} == {
            "conv": ("Conv", 30e3),
            "add": ("Add", 30e3),
            "loop": ("Loop", 20e3),
        }

    def test_operators_do_not_take_longer_than_the_whole(self, tmp_path: Path) -> None:
        """A loop of 20 products: nearly all the work is in its body."""
        body = helper.make_graph(
            [
                helper.make_node("MatMul", ["m", "w"], ["product"], name="product"),
                helper.make_node("Tanh", ["product"], ["m_out"], name="squash"),
                helper.make_node("Identity", ["go"], ["go_out"]),
            ],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("m", FLOAT, [192, 192]),
            ],
            [
                helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
                helper.make_tensor_value_info("m_out", FLOAT, [192, 192]),
            ],
        )
        rng = np.random.default_rng(0)
        weight = rng.standard_normal((192, 192)).astype(np.float32) / 14
        path = save(
            tmp_path / "loop.onnx",
            [helper.make_node("Loop", ["count", "", "x"], ["y"], name="loop", body=body)],
            [("x", FLOAT, [192, 192])],
            [("y", FLOAT, [192, 192])],
            (numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array(20), "count")),
        )
        profile = profile_ops(CPU, CPU.job(read_onnx_file(path), 1), runs=20)
        assert profile.ops[0].name == "product"
        assert 0.3 < profile.covered <= 1.05
        assert sum(op.share for op in profile.ops) == pytest.approx(1)


#: Shapes that their authors leave open. ``sr`` of silero is drawn from 0 and 1, which no model
#: takes for 16 kHz: its branch for 8 kHz wants half the samples.
SHAPES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "silero_vad.onnx": {"input": (1, 288), "state": (2, 1, 128)},
    "silero_vad_16k_op15.onnx": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_16k_sequence.onnx": {"input": (3, 576)},
    "silero_vad_half.onnx": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_op18_ifless.onnx": {"input": (1, 576), "state": (2, 1, 128)},
    "model.onnx": {"bytes": (1, 2048)},
    "ch_PP-OCRv4_det_infer.onnx": {"x": (1, 3, 32, 64)},
    "ch_PP-OCRv4_rec_infer.onnx": {"x": (1, 3, 48, 96)},
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": {"x": (1, 3, 48, 192)},
}


@pytest.mark.parametrize("package", ["rapidocr-onnxruntime", "magika", "silero-vad"])
def test_models_that_packages_carry_run(
    package: str, third_party_models: Callable[[str], list[Path]], tmp_path: Path, run: Run
) -> None:
    for path in third_party_models(package):
        run(read_onnx_file(path, SHAPES.get(path.name, {})), tmp_path)


#: Their weights take hundreds of megabytes.
HEAVY = ("light_bvlc_alexnet.onnx", "light_vgg19.onnx", "light_zfnet512.onnx")


@pytest.mark.parametrize("heavy", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_light_models_of_onnx_run(
    heavy: bool, third_party_models: Callable[[str], list[Path]], tmp_path: Path, run: Run
) -> None:
    """Their weights are made by nodes of the graph."""
    paths = [path for path in third_party_models("onnx") if path.name.startswith("light_")]
    assert len(paths) >= 9
    assert {path.name for path in paths} >= set(HEAVY)
    for path in [path for path in paths if (path.name in HEAVY) == heavy]:
        run(read_onnx_file(path), tmp_path)
