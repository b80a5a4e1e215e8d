"""A graph for another batch size."""

from __future__ import annotations

import math
from dataclasses import replace

from hwbench.errors import GraphError
from hwbench.graph import Graph
from hwbench.ops import Op, TensorSpec, infer


def rebatch(graph: Graph, batch: int) -> Graph:
    """The graph with dimension 0 of every input set to ``batch``.

    Reshapes, the only ops that name a batch size themselves, carry it on in their dimension 0.
    Raises GraphError where inputs differ in dimension 0, and where an output does not grow with
    the batch: the graph has then fixed its size.
    """
    sizes = {spec.shape[0] if spec.shape else 0 for _, spec in graph.inputs}
    if len(sizes) != 1 or 0 in sizes:
        raise GraphError(
            f"graph {graph.name!r}: its inputs have no dimension 0 in common to be the batch"
        )
    old = sizes.pop()
    if batch == old:
        return graph
    inputs = tuple((n, TensorSpec((batch, *s.shape[1:]), s.dtype)) for n, s in graph.inputs)
    tensors, ops = dict(inputs), []
    for op in graph.ops:
        ops.append(_carry(op, tensors, batch, old))
        tensors[op.output] = infer(ops[-1], tensors)
    for name in graph.outputs:
        if tensors[name].elements * old != graph.tensors[name].elements * batch:
            raise GraphError(f"graph {graph.name!r}: output {name!r} does not grow with the batch")
    return Graph(graph.name, inputs, graph.outputs, tuple(ops))


def _carry(op: Op, tensors: dict[str, TensorSpec], batch: int, old: int) -> Op:
    """A reshape whose input grew with the batch, with a target that does."""
    if op.kind != "reshape":
        return op
    first, *rest = op["shape"]
    grown = first * batch // old
    if grown * math.prod(rest) != tensors[op.inputs[0]].elements:
        return op
    return replace(op, attrs=(("shape", (grown, *rest)),))
