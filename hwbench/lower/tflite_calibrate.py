"""What values the tensors of a float TFLite net take on given inputs, found by running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hwbench.errors import GraphError
from hwbench.lower.tflite_net import Array, Net
from hwbench.lower.tflite_write import serialise

Range = tuple[float, float]


def calibrated(net: Net, feeds: Sequence[Sequence[Array]]) -> Mapping[int, Range]:
    """Least and largest value of every float tensor that is not constant, over all feeds.

    The net runs in LiteRT without XNNPACK, which would keep the tensors inside to itself.
    Raises :class:`GraphError` where a value is not finite.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=serialise(net),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    inputs = [detail["index"] for detail in interpreter.get_input_details()]
    tensors = [i for i, t in enumerate(net.tensors) if t.data is None and t.dtype == "float32"]
    ranges: dict[int, Range] = {}
    for feed in feeds:
        for index, array in zip(inputs, feed, strict=True):
            interpreter.set_tensor(index, np.ascontiguousarray(array))
        interpreter.invoke()
        for i in tensors:
            values = interpreter.get_tensor(i)
            low, high = float(values.min()), float(values.max())
            if not np.isfinite([low, high]).all():
                raise GraphError(
                    f"calibration for int8 made {net.tensors[i].name!r} infinite or no number: "
                    "give batches of real inputs"
                )
            if i in ranges:
                low, high = min(low, ranges[i][0]), max(high, ranges[i][1])
            ranges[i] = low, high
    return ranges
