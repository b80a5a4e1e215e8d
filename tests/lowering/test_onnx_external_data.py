"""Weights beside an ONNX file are read from its folder, and from nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from hwbench.errors import ModelError
from hwbench.lower import create_session, from_onnx, open_onnx
from hwbench.lower.onnx_file import external_tensors
from tests.onnx_models import node_model, refusal


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder with data beside the model, below it, and outside it by several ways."""
    folder = tmp_path / "models"
    (folder / "below").mkdir(parents=True)
    data = np.arange(4, dtype=np.float32).tobytes()
    for path in (folder / "w.bin", folder / "below" / "w.bin", tmp_path / "outside.bin"):
        path.write_bytes(data)
    (folder / "short.bin").write_bytes(data[:8])
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "linked").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.bin")
    return folder


def write_external(folder: Path, location: str) -> Path:
    tensor = TensorProto(name="w", dims=[4], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value="16")
    model = node_model([helper.make_node("Mul", ["x", "w"], ["y"])], (1, 4))
    model.graph.initializer.append(tensor)
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["w.bin", "./w.bin", "below/w.bin"])
def test_external_data_inside_the_folder_is_read(model_folder: Path, location: str) -> None:
    _, weights = from_onnx(write_external(model_folder, location))
    assert weights["w.value"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../outside.bin", "not a path inside"),
        ("below/../../outside.bin", "not a path inside"),
        ("/etc/hostname", "not a path inside"),
        ("", "not a path inside"),
        ("link.bin", "link that leaves"),
        ("linked/outside.bin", "link that leaves"),
        ("absent.bin", "missing"),
        ("below", "missing"),
        ("pipe.bin", "missing"),
        ("short.bin", "damaged"),
    ],
)
def test_external_data_elsewhere_is_refused(
    model_folder: Path, location: str, message: str
) -> None:
    path = write_external(model_folder, location)
    assert message in refusal(path)
    if message != "damaged":
        with pytest.raises(ModelError, match="external data"):
            open_onnx(path)


def test_external_data_of_bytes_has_no_folder(model_folder: Path) -> None:
    content = write_external(model_folder, "w.bin").read_bytes()
    assert "give the model as a file" in refusal(content)


def test_external_data_is_found_in_attributes_and_subgraphs() -> None:
    def outside(name: str) -> TensorProto:
        tensor = TensorProto(name=name, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="../outside.bin")
        return tensor

    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=outside("deep"))],
        "b",
        [],
        [],
        [outside("stored")],
    )
    nodes = [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]
    model = node_model(nodes, (1,))
    assert {t.name for t in external_tensors(model)} == {"deep", "stored"}
    with pytest.raises(ModelError, match=r"'(deep|stored)'"):
        open_onnx(model.SerializeToString())


def test_the_runtime_is_given_files_with_external_data_as_they_are(model_folder: Path) -> None:
    session = create_session(write_external(model_folder, "w.bin"))
    assert session.run(None, {"x": np.ones((1, 4), np.float32)})[0].tolist() == [[0, 1, 2, 3]]
