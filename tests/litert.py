"""Runs .tflite models in LiteRT, for tests: fed and read as the graph has its tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from hwbench.lower import TfliteModel

PLAIN = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def interpreter(content: bytes, *, xnnpack: bool = True, keep: bool = False) -> Interpreter:
    """A model ready to run; ``keep`` lets every tensor be read afterwards."""
    made = Interpreter(
        model_content=content,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.AUTO if xnnpack else PLAIN,
        experimental_preserve_all_tensors=keep,
    )
    made.allocate_tensors()
    return made


def feed(made: Interpreter, model: TfliteModel, inputs: Mapping[str, np.ndarray]) -> None:
    """Set a model's inputs from the graph's."""
    for detail, port in zip(made.get_input_details(), model.inputs, strict=True):
        made.set_tensor(detail["index"], port.to_file(inputs[port.name]))


def run_tflite(
    model: TfliteModel, inputs: Mapping[str, np.ndarray], *, xnnpack: bool = True
) -> list[np.ndarray]:
    """The model's outputs, as the graph has them."""
    made = interpreter(model.bytes, xnnpack=xnnpack)
    feed(made, model, inputs)
    made.invoke()
    details = zip(made.get_output_details(), model.outputs, strict=True)
    return [port.to_graph(made.get_tensor(detail["index"])) for detail, port in details]


def operators(content: bytes) -> list[str]:
    """Kinds of a model's operators, in order of execution."""
    return [detail["op_name"] for detail in interpreter(content, xnnpack=False)._get_ops_details()]


def delegated(content: bytes) -> list[dict[str, object]]:
    """The partitions that XNNPACK takes."""
    details = interpreter(content)._get_ops_details()
    return [detail for detail in details if detail["op_name"] == "DELEGATE"]
