"""Batch norms folded into the layer before them, as every runtime does that can."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hwbench.graph import Graph
from hwbench.ops import Op
from hwbench.search.supernet import StandAlone

_FOLDS_INTO = ("conv", "linear")


def fold(net: StandAlone) -> StandAlone:
    """The same network without the batch norms that alone read a convolution or linear layer.

    ``scale * (w x + b - mean) / sqrt(var + epsilon) + bias`` becomes one layer with a bias, under
    the name of the layer; its tensor bears the norm's. Other batch norms stay.
    """
    graph = net.graph
    readers = Counter(name for op in graph.ops for name in op.inputs)
    readers.update(graph.outputs)
    made = {op.output: op for op in graph.ops}
    norms: dict[str, Op] = {}  # by the name of the layer that takes it in
    for op in graph.ops:
        maker = made.get(op.inputs[0]) if op.kind == "batch_norm" else None
        if maker is not None and maker.kind in _FOLDS_INTO and readers[maker.output] == 1:
            norms[maker.name] = op
    gone = {norm.name for norm in norms.values()}
    weights: dict[str, NDArray[np.float32]] = {}
    ops = []
    for layer in graph.ops:
        if layer.name in gone:
            continue
        op = layer
        own = {p: net.weights[f"{op.name}.{p}"] for p in graph.params(op)}
        if (norm := norms.get(op.name)) is not None:
            of_norm = {p: net.weights[f"{norm.name}.{p}"] for p in graph.params(norm)}
            own = _folded(own, of_norm, norm["epsilon"])
            attrs = tuple((key, True if key == "bias" else value) for key, value in op.attrs)
            op = replace(op, output=norm.output, attrs=attrs)
        ops.append(op)
        weights |= {f"{op.name}.{p}": array for p, array in own.items()}
    return StandAlone(Graph(graph.name, graph.inputs, graph.outputs, tuple(ops)), weights)


def _folded(
    layer: dict[str, NDArray[np.float32]], norm: dict[str, NDArray[np.float32]], epsilon: float
) -> dict[str, NDArray[np.float32]]:
    weight = layer["weight"].astype(np.float64)
    factor = norm["scale"] / np.sqrt(norm["var"].astype(np.float64) + epsilon)
    bias = layer.get("bias", np.zeros(1)) - norm["mean"].astype(np.float64)
    return {
        "weight": (weight.T * factor).T.astype(np.float32),
        "bias": (bias * factor + norm["bias"]).astype(np.float32),
    }
