"""Options of a GPU, graphs for another batch, and modules by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.devices.cuda.batch import rebatch
from hwbench.devices.cuda.models import read_torch_module
from hwbench.devices.cuda.options import CudaOptions
from hwbench.errors import GraphError, ModelError, UsageError
from hwbench.graph import GraphBuilder
from hwbench.spaces import get_space, space_names


class TestOptions:
    def test_by_default_nothing_is_rounded_flushed_or_captured(self) -> None:
        assert dict(CudaOptions().labels) == {
            "dtype": "fp32",
            "tf32": "false",
            "channels_last": "false",
            "autotune": "false",
            "cuda_graph": "false",
            "cache": "hot",
        }

    @pytest.mark.parametrize(
        "other",
        [
            {"dtype": "fp16"},
            {"dtype": "bf16"},
            {"tf32": True},
            {"channels_last": True},
            {"autotune": True},
            {"cuda_graph": True},
            {"cache": "cold"},
        ],
    )
    def test_each_option_makes_another_workload(self, other: dict[str, Any]) -> None:
        assert CudaOptions(**other).labels != CudaOptions().labels

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch": -1}, "batch is a number of inputs"),
            ({"tf32": True, "dtype": "fp16"}, "tf32 rounds fp32; with dtype=fp16 leave it out"),
            ({"tf32": True, "dtype": "bf16"}, "tf32 rounds fp32; with dtype=bf16 leave it out"),
        ],
    )
    def test_a_contradiction_is_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            CudaOptions(**options)


class TestBatch:
    @pytest.mark.parametrize("name", space_names())
    def test_every_architecture_grows_with_the_batch(self, name: str) -> None:
        space = get_space(name)
        graph = space.graph(space.sample(1, np.random.default_rng(0))[0])
        eight = rebatch(graph, 8)
        assert [spec.shape[0] for _, spec in eight.inputs] == [8] * len(graph.inputs)
        assert eight.macs == 8 * graph.macs
        assert eight.parameters == graph.parameters
        assert eight.hash != graph.hash

    @given(old=st.integers(1, 5), new=st.integers(1, 9))
    def test_there_and_back_is_the_same_graph(self, old: int, new: int) -> None:
        b = GraphBuilder("net")
        x = b.conv(b.input("x", (old, 3, 8, 8)), 4, kernel=3)
        constant = b.op("constant", [], {"shape": (4, 1, 1), "dtype": "float32"})
        x = b.add(x, b.reshape(constant, (1, 4, 1, 1)))
        x = b.linear(b.reshape(x, (old, 256)), 10)
        graph = b.build(x)
        grown = rebatch(graph, new)
        assert grown.tensors[grown.outputs[0]].shape == (new, 10)
        assert rebatch(grown, old) == graph
        if new == old:
            assert grown is graph

    def test_a_graph_that_folds_its_batch_away_is_refused(self) -> None:
        b = GraphBuilder("folded")
        graph = b.build(b.reshape(b.input("x", (1, 6)), (2, 3)))
        assert rebatch(graph, 4).tensors[graph.outputs[0]].shape == (8, 3)
        b = GraphBuilder("mean")
        graph = b.build(b.mean(b.input("x", (1, 6)), [0], keepdims=True))
        with pytest.raises(GraphError, match="graph 'mean': output 'mean1' does not grow"):
            rebatch(graph, 4)

    def test_inputs_without_a_common_batch_are_refused(self) -> None:
        b = GraphBuilder("two")
        graph = b.build(b.add(b.input("x", (2, 6)), b.input("y", (1, 6))))
        with pytest.raises(GraphError, match="no dimension 0 in common"):
            rebatch(graph, 4)


SOURCE = "import torch\n\ndef net():\n    return torch.nn.Linear(4, 2)\n"


class TestTorchModules:
    SHAPES = {"x": (1, 4)}  # noqa: RUF012

    def test_a_module_is_known_by_its_content(self, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text(SOURCE)
        one = read_torch_module("mine:net", self.SHAPES, tmp_path)
        assert one.name == "mine:net"
        assert [(i.name, i.dtype, i.shape) for i in one.inputs] == [("x", "float32", (1, 4))]
        assert read_torch_module("mine:net", self.SHAPES, tmp_path) == one
        assert [stamp.path.name for stamp in one.files] == ["mine.py"]
        (tmp_path / "mine.py").write_text(SOURCE.replace("(4, 2)", "(4, 3)"))
        assert read_torch_module("mine:net", self.SHAPES, tmp_path).hash != one.hash

    def test_finding_it_runs_none_of_its_code_and_leaves_the_path_alone(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
        path = list(sys.path)
        read_torch_module("trap:net", self.SHAPES, tmp_path)
        assert sys.path == path
        assert not (tmp_path / "ran").exists()

    def test_a_file_of_the_users_shadows_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "json.py").write_text(SOURCE)
        found = read_torch_module("json:loads", self.SHAPES, tmp_path)
        (tmp_path / "json.py").unlink()
        assert read_torch_module("json:loads", self.SHAPES, tmp_path) == found

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "mine",
            "mine:",
            ":net",
            "mine.py:net",
            "a/b:net",
            "mine:net()",
            "..mine:net",
            "-c:x y",
        ],
    )
    def test_another_form_is_refused(self, text: str, tmp_path: Path) -> None:
        with pytest.raises((UsageError, ModelError)):
            read_torch_module(text, self.SHAPES, tmp_path)

    def test_inputs_are_needed(self, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text(SOURCE)
        with pytest.raises(UsageError, match="name its inputs, as --shape x=1,3,224,224"):
            read_torch_module("mine:net", {}, tmp_path)

    @pytest.mark.parametrize("text", ["nowhere:net", "nowhere.deep:net", "json.nowhere:net"])
    def test_a_module_that_is_not_there_is_refused(self, text: str, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="nowhere"):
            read_torch_module(text, self.SHAPES, tmp_path)

    def test_a_built_in_module_has_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="is no Python file"):
            read_torch_module("sys:exit", self.SHAPES, tmp_path)
