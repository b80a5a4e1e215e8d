"""Runs .tflite models in LiteRT on one thread, and tells how it runs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.lower.tflite_model import TfliteModel

Floats = NDArray[np.float32]
Batch = Mapping[str, Floats]


def interpreter_of(content: bytes, *, xnnpack: bool, keep: bool = False) -> Any:
    """A model ready to run; ``keep`` lets every tensor be read afterwards (without XNNPACK)."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(
        model_content=content,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.AUTO if xnnpack else plain,
        experimental_preserve_all_tensors=keep,
    )
    interpreter.allocate_tensors()
    return interpreter


def feed(interpreter: Any, model: TfliteModel, inputs: Batch) -> None:
    """Set a model's inputs from the graph's."""
    for detail, port in zip(interpreter.get_input_details(), model.inputs, strict=True):
        interpreter.set_tensor(detail["index"], port.to_file(inputs[port.name]))


def run_tflite(model: TfliteModel, inputs: Batch, *, xnnpack: bool = True) -> list[Floats]:
    """A model's outputs, as the graph has them."""
    interpreter = interpreter_of(model.bytes, xnnpack=xnnpack)
    feed(interpreter, model, inputs)
    interpreter.invoke()
    details = zip(interpreter.get_output_details(), model.outputs, strict=True)
    return [port.to_graph(interpreter.get_tensor(detail["index"])) for detail, port in details]


def operators(content: bytes) -> list[str]:
    """Kinds of a model's operators, in order of execution."""
    details = interpreter_of(content, xnnpack=False)._get_ops_details()
    return [detail["op_name"] for detail in details]


def partitions(content: bytes) -> list[Mapping[str, NDArray[np.int32]]]:
    """``inputs`` and ``outputs`` of the pieces of a model that XNNPACK takes."""
    details = interpreter_of(content, xnnpack=True)._get_ops_details()
    return [detail for detail in details if detail["op_name"] == "DELEGATE"]


def is_taken_whole(content: bytes) -> bool:
    """Whether XNNPACK takes a model in one piece, from its inputs to its outputs."""
    interpreter = interpreter_of(content, xnnpack=True)
    ends = [interpreter.get_input_details(), interpreter.get_output_details()]
    inputs, outputs = ({int(detail["index"]) for detail in details} for details in ends)
    pieces = partitions(content)
    made = {int(i) for d in interpreter._get_ops_details() for i in d["outputs"]}
    return len(pieces) == 1 and (
        {int(i) for i in pieces[0]["inputs"]} & (made | inputs) == inputs
        and {int(i) for i in pieces[0]["outputs"]} == outputs
    )
