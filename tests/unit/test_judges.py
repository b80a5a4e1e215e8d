"""Who rules on the models of `hwbench gate`: each by its own inputs, whatever becomes of others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import pytest

from hwbench.cli.judges import ruled_all
from hwbench.devices import get_device
from hwbench.devices.base import Device
from hwbench.errors import ModelError, UnknownNameError
from hwbench.measure.jobs import Job
from hwbench.store import Store
from hwbench.watch.baselines import Baselines
from hwbench.watch.comparison import Comparison
from hwbench.watch.gate import GATE, Ruling
from hwbench.watch.trial import Effort


def open_input(path: Path, name: str) -> Path:
    """A model whose one input has an open batch."""
    x, y = (
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", 8]) for n in (name, "y")
    )
    node = onnx.helper.make_node("Relu", [name], ["y"])
    graph = onnx.helper.make_graph([node], "net", [x], [y])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    made.ir_version = 9
    onnx.save(made, path)
    return path


@dataclass
class Told:
    """Rules without measuring; keeps the jobs that it is given."""

    target: Device
    results: Store
    effort: Effort = GATE
    sides: list[tuple[Job, Job]] = field(default_factory=list)

    def each(self, rule: Any, models: Any) -> Any:
        return [rule(model) for model in models]

    def side_by_side(self, before: Job, after: Job) -> Ruling:
        self.sides.append((before, after))
        same = Comparison("a", "b", 0.0, 0.001, 10.0)
        return Ruling(after.workload.name, "same", same)

    def against_store(self, *asked: Any) -> Ruling:
        raise AssertionError(asked)


class TestRulings:
    """On models, whoever measures them."""

    @pytest.fixture
    def judge(self, own_store: Path) -> Iterator[Told]:
        with Store.open(own_store) as store:
            yield Told(get_device("cpu"), store)

    def test_a_shape_is_of_the_models_that_have_such_an_input(
        self, tmp_path: Path, judge: Told
    ) -> None:
        models = []
        for name in ("image", "ids"):
            for folder in ("before", "after"):
                (tmp_path / folder).mkdir(exist_ok=True)
                models.append(open_input(tmp_path / folder / f"{name}.onnx", name))
        files = {models[1]: models[0], models[3]: models[2]}
        given = {"image": (2, 8), "ids": (3, 8)}
        found = ruled_all(judge, [*files], Baselines(files), "before", given, 1, 1.0)
        assert [each.word for each in found if isinstance(each, Ruling)] == ["same", "same"]
        shapes = [[job.workload.inputs[0].shape for job in side] for side in judge.sides]
        assert shapes == [[(2, 8)] * 2, [(3, 8)] * 2]
        with pytest.raises(UnknownNameError, match="no_such"):
            ruled_all(judge, [*files], Baselines(files), "before", {"no_such": (1,)}, 1, 1.0)

    def test_a_file_that_cannot_be_read_takes_no_other_its_ruling(
        self, tmp_path: Path, judge: Told
    ) -> None:
        sound = open_input(tmp_path / "sound.onnx", "image")
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(b"no model")
        files = Baselines({sound: sound, broken: sound})
        one, other = ruled_all(judge, [broken, sound], files, "main", {"image": (2, 8)}, 1, 1.0)
        assert isinstance(one, ModelError)
        assert isinstance(other, Ruling)
