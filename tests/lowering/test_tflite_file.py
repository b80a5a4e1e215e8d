"""What a .tflite file wants to be fed, and files that are none."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hwbench.errors import ModelError, UnknownNameError
from hwbench.graph import GraphBuilder
from hwbench.lower import Int8, tflite_inputs, to_tflite
from hwbench.records import InputSpec
from hwbench.verify.litert import interpreter_of


def two_inputs(int8: Int8 | None = None) -> bytes:
    """A model with an image and a vector to feed."""
    b = GraphBuilder("two")
    x = b.global_avg_pool(b.conv(b.input("image", (2, 3, 8, 6)), 4))
    x = b.add(b.flatten(x), b.input("vector", (4,)))
    return to_tflite(b.build(x), int8=int8).bytes


MODEL = two_inputs()


def opened(dims: list[int], signature: list[int] | None, kind: int = 0) -> bytes:
    """A model with one input "x" of these dimensions, written with the schema's own classes."""
    tensor = schema.TensorT()
    tensor.shape, tensor.type, tensor.name = np.array(dims, np.int32), kind, b"x"
    tensor.shapeSignature = None if signature is None else np.array(signature, np.int32)
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs = [tensor], np.array([0], np.int32)
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each test writes its model."""
    return tmp_path_factory.mktemp("models") / "model.tflite"


@pytest.mark.parametrize("int8", [None, Int8()])
def test_inputs_are_read_as_the_runtime_reads_them(path: Path, int8: Int8 | None) -> None:
    content = two_inputs(int8)
    path.write_bytes(content)
    specs = tflite_inputs(path)
    assert specs[0] == InputSpec("image", "float32" if int8 is None else "int8", (2, 8, 6, 3))
    details = interpreter_of(content, xnnpack=True).get_input_details()
    read = [(d["name"], np.dtype(d["dtype"]).name, tuple(d["shape"].tolist())) for d in details]
    assert read == [(spec.name, spec.dtype, spec.shape) for spec in specs]


def test_models_of_other_writers_are_read(root: Path) -> None:
    for file in sorted((root / "devices" / "canaries").glob("conv_*.tflite")):
        (spec,) = tflite_inputs(file)
        assert spec.shape[0] == 1
        assert spec.shape[3] == 3


def test_open_dimensions_are_settled_by_a_shape(path: Path) -> None:
    path.write_bytes(opened([1, 4, 4, 3], [-1, 4, -1, 3]))
    with pytest.raises(ModelError, match=r"open dimensions in input 'x' \[\?, 4, \?, 3\]"):
        tflite_inputs(path)
    assert tflite_inputs(path, {"x": (2, 4, 7, 3)}) == (InputSpec("x", "float32", (2, 4, 7, 3)),)
    for shape in ((2, 5, 7, 3), (2, 4, 7), (2, 4, 0, 3), (2, 4, -1, 3)):
        with pytest.raises(ModelError, match="'x'"):
            tflite_inputs(path, {"x": shape})
    with pytest.raises(UnknownNameError, match="'y'"):
        tflite_inputs(path, {"y": (1,)})


def test_inputs_that_are_no_numbers_are_refused(path: Path) -> None:
    path.write_bytes(opened([1], None, kind=schema.TensorType.STRING))
    with pytest.raises(ModelError, match="input 'x'"):
        tflite_inputs(path)


@pytest.mark.parametrize("dims", [[-2], [-(2**31)]])
def test_negative_dimensions_are_refused(path: Path, dims: list[int]) -> None:
    path.write_bytes(opened(dims, None))
    with pytest.raises(ModelError, match="negative"):
        tflite_inputs(path)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x08\x00\x00\x00ONNX", b"\x00" * 64])
def test_what_is_no_tflite_model_is_refused_by_name(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.tflite: not a TFLite model"):
        tflite_inputs(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.tflite", tmp_path, Path("a\0b")):
        with pytest.raises(ModelError) as caught:
            tflite_inputs(path)
        assert "\n" not in str(caught.value)


def assert_refused_or_valid(path: Path, content: bytes) -> None:
    """A damaged file is refused in one line, or read as something that could be fed."""
    path.write_bytes(content)
    message, specs = f"{path}: ", ()
    try:
        specs = tflite_inputs(path)
    except ModelError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    for spec in specs:
        np.dtype(spec.dtype)
        assert all(0 < size < 2**31 for size in spec.shape)


@settings(max_examples=300)
@given(tail=st.binary(max_size=200), head=st.binary(min_size=4, max_size=4))
def test_random_bytes_never_break_the_reader(path: Path, head: bytes, tail: bytes) -> None:
    assert_refused_or_valid(path, head + b"TFL3" + tail)


@settings(max_examples=300)
@given(length=st.integers(0, len(MODEL)))
def test_a_model_cut_short_never_breaks_the_reader(path: Path, length: int) -> None:
    assert_refused_or_valid(path, MODEL[:length])


@settings(max_examples=500)
@given(flips=st.lists(st.tuples(st.integers(0, len(MODEL) - 1), st.integers(1, 255)), min_size=1))
@example(flips=[(0, 255), (1, 255), (2, 255), (3, 255)])
def test_a_damaged_model_never_breaks_the_reader(path: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(MODEL)
    for place, mask in flips:
        content[place] ^= mask
    assert_refused_or_valid(path, bytes(content))


@settings(max_examples=300)
@given(place=st.integers(0, len(MODEL) // 4 - 1), word=st.integers(0, 2**32 - 1))
def test_a_wild_offset_never_breaks_the_reader(path: Path, place: int, word: int) -> None:
    content = bytearray(MODEL)
    content[4 * place : 4 * place + 4] = word.to_bytes(4, "little")
    assert_refused_or_valid(path, bytes(content))
