"""What does not fit is named: nodes, files and the shapes of inputs."""

from __future__ import annotations

import contextlib
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from hwbench.errors import ModelError, UnknownNameError
from hwbench.lower import from_onnx, input_specs, open_onnx
from hwbench.records import InputSpec
from tests.onnx_models import light, node_model, refusal


def test_every_kind_without_equivalent_is_named_in_one_line() -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Det", ["b"], ["c"], name="second"),
        helper.make_node("LSTM", ["c"], ["d"], name="third"),
        helper.make_node("MaxPool", ["x"], ["e"], kernel_shape=[2], dilations=[2], name="fourth"),
        helper.make_node("Own", ["x"], ["f"], domain="com.example", name="fifth"),
        helper.make_node("Pow", ["x", "x"], ["y"], name="sixth"),
    ]
    assert refusal(node_model(nodes, (2, 3, 3)).SerializeToString()) == (
        "model: no equivalent for Det (node 'first' and 1 more), LSTM (node 'third'), "
        "MaxPool with dilations (node 'fourth'), com.example.Own (node 'fifth'), "
        "Pow with computed exponent (node 'sixth')"
    )


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    assert refusal(path) == f"{path}: No such file or directory"
    assert refusal(tmp_path) == f"{tmp_path}: Is a directory"
    path.write_bytes(b"")
    assert "empty or cut short" in refusal(path)
    path.write_text("a text of many words\n" * 50)
    assert "not an ONNX model" in refusal(path)
    whole = light("squeezenet").read_bytes()
    for size in (10, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert str(path) in refusal(path)


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_damaged_files_are_refused_or_read_never_anything_else(seed: int) -> None:
    rng = random.Random(seed)
    content = bytearray(DAMAGED)
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    with contextlib.suppress(ModelError):
        from_onnx(bytes(content))


DAMAGED = node_model(
    [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], group=1),
        helper.make_node("Clip", ["c", "low", "high"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], ceil_mode=1),
        helper.make_node("Reshape", ["p", "s"], ["y"]),
    ],
    (1, 2, 5, 5),
    {
        "w": np.ones((2, 2, 3, 3), np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
        "s": np.array([0, -1], np.int64),
    },
).SerializeToString()


def test_a_node_that_reads_what_nothing_makes_is_named() -> None:
    model = node_model([helper.make_node("Relu", ["z"], ["y"], name="lost")], (2, 3))
    message = refusal(model.SerializeToString())
    assert message == "model: node 'lost' (Relu): nothing makes the tensor 'z'"


def test_a_shape_misfit_inside_the_file_names_the_node() -> None:
    weights = {"w": np.ones((4, 5, 3, 3), np.float32)}
    model = node_model(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="c")], (1, 3, 8, 8), weights
    )
    message = refusal(model.SerializeToString())
    assert "y.weight" in message
    assert "(4, 5, 3, 3), not float32 (4, 3, 3, 3)" in message


def test_a_constant_that_explodes_is_refused() -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("Transpose", ["c"], ["t"]),
        helper.make_node("Add", ["c", "t"], ["sum"]),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    model = node_model(nodes, (1,), {"s": np.array([1, 10**6], np.int64)})
    assert "2**28" in refusal(model.SerializeToString())


def ranges(count: int, length: int, *, read: bool) -> bytes:
    """A model with so many folded constants of such a length; ``read`` ones are added to x."""
    names = [f"r{i}" for i in range(count)]
    nodes = [helper.make_node("Range", ["zero", "length", "one"], [name]) for name in names]
    if read:
        nodes += [helper.make_node("Add", ["x", name], [f"x{name}"]) for name in names]
    nodes.append(helper.make_node("Relu", ["x"], ["y"]))
    stored = {"zero": 0, "length": length, "one": 1}
    arrays = {name: np.array(value, np.float32) for name, value in stored.items()}
    return node_model(nodes, (1,), arrays).SerializeToString()


def test_constants_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwbench.lower.onnx_read.MOST_BYTES", 40_000)
    from_onnx(ranges(9, 1000, read=True))
    assert "node 'r9' (Range)" in refusal(ranges(16, 1000, read=True))


def test_a_constant_that_nobody_reads_is_not_made() -> None:
    content = ranges(16, 2**28 - 8, read=False)
    tracemalloc.start()
    try:
        from_onnx(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 24


@pytest.mark.parametrize(
    ("nodes", "stored"),
    [
        ([("Range", ["a", "n", "b"])], {"a": [0], "n": [2**40], "b": [1]}),
        ([("Range", ["a", "n", "b"])], {"a": [0], "n": [2**40], "b": [0]}),
        (
            [("ConstantOfShape", ["n"]), ("Gather", ["wide", "t0"])],
            {"n": [2**27], "wide": [[0] * 9]},
        ),
        ([("Range", ["a", "", "b"])], {"a": [0], "b": [1]}),
    ],
    ids=["range", "step 0", "gather", "no limit"],
)
def test_a_constant_of_no_end_is_refused_before_it_is_made(
    nodes: list[tuple[str, list[str]]], stored: dict[str, list[int]]
) -> None:
    made = [helper.make_node(kind, names, [f"t{i}"]) for i, (kind, names) in enumerate(nodes)]
    made.append(helper.make_node("Add", ["x", f"t{len(nodes) - 1}"], ["y"]))
    arrays = {name: np.array(value, np.int64) for name, value in stored.items()}
    message = refusal(node_model(made, (1,), arrays).SerializeToString())
    assert "malformed: " in message


def test_a_pipe_and_a_device_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "zeros.onnx").symlink_to("/dev/zero")
    for name in ("pipe.onnx", "zeros.onnx"):
        assert refusal(tmp_path / name).endswith(f"{name}: a pipe or a device, not a file")


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("told", [[5, 5], [3]])
def test_a_kernel_shape_that_its_weights_contradict_is_refused(kind: str, told: list[int]) -> None:
    node = helper.make_node(kind, ["x", "w"], ["y"], name="c", kernel_shape=told)
    model = node_model([node], (1, 3, 8, 8), {"w": np.ones((3, 3, 3, 3), np.float32)})
    message = refusal(model.SerializeToString())
    assert message == (
        f"model: node 'c' ({kind}): kernel_shape {tuple(told)} is not that of its weights "
        "(3, 3, 3, 3)"
    )


@pytest.mark.parametrize("opset", [-5, 0, 9999, 2**62])
def test_an_opset_that_there_is_not_is_refused(opset: int) -> None:
    model = node_model([helper.make_node("Relu", ["x"], ["y"])], (2, 3))
    model.opset_import[0].version = opset
    assert f"opset {opset} is none of 1.." in refusal(model.SerializeToString())


def two_inputs() -> onnx.ModelProto:
    a = helper.make_tensor_value_info("a", TensorProto.FLOAT, ["batch", 3, None])
    b = helper.make_tensor_value_info("b", TensorProto.INT64, ["batch"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [helper.make_node("Relu", ["a"], ["y"])]
    return helper.make_model(helper.make_graph(nodes, "g", [a, b], [y]))


def test_the_shape_of_images_is_asked_for_by_an_example() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3, None, 192])
    free = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Add", ["x", "z"], ["y"])], "g", [x, free], [y])
    with pytest.raises(ModelError, match=r"as --shape x=1,3,224,192 --shape z=1,3,224,224$"):
        input_specs(helper.make_model(graph))


def test_open_dimensions_are_filled_and_fixed_ones_kept() -> None:
    specs = input_specs(two_inputs(), {"a": (2, 3, 8), "b": (2,)})
    assert specs == (InputSpec("a", "float32", (2, 3, 8)), InputSpec("b", "int64", (2,)))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, r"a\[batch, 3, \?\], b\[batch\]: give its shape"),
        ({}, "give its shape, as --shape a=1,3,128 --shape b=1$"),
        ({"a": (2, 3, 8)}, r"input b\[batch\]: give its shape, as --shape b=1$"),
        ({"a": (2, 4, 8), "b": (2,)}, r"a\[batch, 3, \?\] cannot be given the shape \(2, 4, 8\)"),
        ({"a": (2, 3), "b": (2,)}, "cannot be given"),
        ({"a": (2, 3, 8), "b": (5,)}, r"b\[batch\] cannot be given the shape \(5,\)"),
        ({"a": (2, 3, 0), "b": (2,)}, "positive integers"),
    ],
)
def test_shapes_that_do_not_settle_the_inputs_are_refused(shapes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        input_specs(two_inputs(), shapes)


def test_a_shape_for_an_unknown_input_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="known: a, b"):
        input_specs(two_inputs(), {"c": (1,)})


@pytest.mark.parametrize("package", ["onnx", "magika", "rapidocr-onnxruntime", "silero-vad"])
def test_the_inputs_of_third_party_models_are_understood(
    third_party_models: Callable[[str], list[Path]], package: str
) -> None:
    for path in third_party_models(package):
        model = open_onnx(path)
        open_inputs = {
            value.name: tuple(d.dim_value if d.dim_value > 0 else 64 for d in dims)
            for value in model.graph.input
            if (dims := value.type.tensor_type.shape.dim)
        }
        stored = {t.name for t in model.graph.initializer}
        shapes = {name: shape for name, shape in open_inputs.items() if name not in stored}
        if "backend" in path.parts:
            continue  # onnx's own node tests: many feed what no deployed model does
        specs = input_specs(model, shapes)
        names = {value.name for value in model.graph.input} - stored
        assert {spec.name for spec in specs} == names
