"""Is every operator of an int8 model right? Each is asked alone, on the model's own numbers.

The error of a whole int8 model says little: it mixes what the quantisation did wrong with how
much noise the network makes of a little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.graph import Graph
from hwbench.lower import Int8
from hwbench.lower.tflite_model import lowered
from hwbench.lower.tflite_net import Net, Operator, Tensor
from hwbench.lower.tflite_write import serialise
from hwbench.verify.litert import interpreter_of

Floats = NDArray[np.float32]


def operator_steps(graph: Graph, int8: Int8) -> float:
    """How far an operator of the int8 model is off, at worst, in steps of its output's scale.

    Each is given what the int8 model computed, as real numbers, and its float form computes the
    same; a result beyond the output's range counts as the end of the range. Half a step is
    rounding.
    """
    net, inputs, _ = lowered(graph, int8=int8)
    batch = int8.feeds(graph)[0]
    interpreter = interpreter_of(serialise(net), xnnpack=False, keep=True)
    for number, port in zip(net.inputs, inputs, strict=True):
        interpreter.set_tensor(number, port.to_file(batch[port.name]))
    interpreter.invoke()
    return max(_steps(net, op, interpreter.get_tensor) for op in net.operators)


def _steps(net: Net, op: Operator, value_of: Callable[[int], NDArray[Any]]) -> float:
    quant = net.tensors[op.output].quant
    assert quant is not None
    got = value_of(op.output).astype(np.float64)
    ends = (np.array([-128.0, 127.0]) - quant.zero_point) * quant.scale
    wanted = _in_float(net, op, value_of).clip(*ends) / quant.scale + quant.zero_point
    return float(np.abs(got - wanted).max())


def _in_float(net: Net, op: Operator, value_of: Callable[[int], NDArray[Any]]) -> Floats:
    """An int8 operator's result on its own inputs, in float32."""
    alone, feeds = Net(net.name), []
    numbers: dict[int, int] = {}
    for number in op.inputs:
        tensor = net.tensors[number]
        if number in numbers:
            continue
        real = _real(tensor, value_of(number) if tensor.data is None else tensor.data)
        known = real if tensor.data is not None else None
        made = Tensor(tensor.name, real.shape, real.dtype.name, known)
        numbers[number] = alone.add_tensor(made)
        if known is None:
            alone.inputs.append(numbers[number])
            feeds.append(real)
    if op.kind == "QUANTIZE":
        return feeds[0]
    output = alone.add_tensor(Tensor("y", net.tensors[op.output].shape))
    inputs = [numbers[number] for number in op.inputs]
    alone.operators.append(Operator(op.kind, inputs, output, op.table, op.options))
    alone.outputs.append(output)
    interpreter = interpreter_of(serialise(alone), xnnpack=False)
    for detail, feed in zip(interpreter.get_input_details(), feeds, strict=True):
        interpreter.set_tensor(detail["index"], feed)
    interpreter.invoke()
    result: Floats = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return result


def _real(tensor: Tensor, stored: NDArray[Any]) -> NDArray[Any]:
    """The numbers that a quantised tensor stands for."""
    quant = tensor.quant
    if quant is None:
        return stored  # axes, shapes and paddings
    scale = quant.scale
    if len(scale) > 1:
        scale = scale.reshape([-1 if i == quant.axis else 1 for i in range(stored.ndim)])
    return ((stored.astype(np.float64) - quant.zero_point) * scale).astype(np.float32)
