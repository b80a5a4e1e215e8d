"""Which operations a runtime's operators do, where these bear no names of ours.

XNNPACK, by which TFLite runs on a CPU, tells its operators by kind and in the order in which they
run. That is the order of the graph's operations but for a few, some of which have no operator of
their own and some several. The assignment that explains most is found by dynamic programming
(Needleman and Wunsch, 1970, with one operation for several operators).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hwbench.graph import Graph
from hwbench.measure.jobs import Node
from hwbench.ops import Op

_NORM = ("Mean", "Subtract", "Mean Squared", "Add", "Reciprocal Square Root", "Multiply")
_CLAMP = ("Clamp", "Maximum", "Minimum")
_REDUCED = ("Reduce Max", "Max Pooling")
#: What operations become, by the operators' kinds up to the bracket.
_PARTS: Mapping[str, Sequence[str]] = {
    "add": ("Add",),
    "avg_pool": ("Average Pooling", "Constant Pad", "Multiply"),
    "batch_norm": ("Multiply", "Add"),
    "cast": ("Convert", "CAST"),
    "clip": _CLAMP,
    "concat": ("Copy", "Concatenate"),
    "conv": ("Convolution", "Fully Connected", "Constant Pad"),
    "conv_transpose": ("Deconvolution", "Constant Pad"),
    "div": ("Divide",),
    "elu": ("ELU", "LeakyReLU"),
    "embedding": ("GATHER",),
    "equal": ("EQUAL",),
    "exp": ("Exp",),
    "expand": ("Broadcast", "Static Broadcast", "BROADCAST_TO"),
    "flatten": ("Static Reshape",),
    "gelu": ("GELU",),
    "global_avg_pool": ("Mean", "Global Average Pooling"),
    "global_max_pool": _REDUCED,
    "hsigmoid": ("Add", "Clamp", "Multiply"),
    "hswish": ("HardSwish",),
    "layer_norm": _NORM,
    "leaky_relu": ("LeakyReLU",),
    "linear": ("Fully Connected", "Batch Matrix Multiply"),
    "lrn": ("LOCAL_RESPONSE_NORMALIZATION",),
    "matmul": ("Batch Matrix Multiply", "Fully Connected"),
    "max": ("Reduce Max",),
    "max_pool": ("Max Pooling", "Constant Pad"),
    "maximum": ("Maximum",),
    "mean": ("Mean", "Mean Squared"),
    "minimum": ("Minimum",),
    "mul": ("Multiply",),
    "neg": ("Negate",),
    "pad": ("Constant Pad",),
    "pow": ("Square", "Multiply", "POW"),
    "reciprocal": ("Divide",),
    "relu": _CLAMP,
    "relu6": _CLAMP,
    "reshape": ("Static Reshape",),
    "scale": ("Multiply",),
    "sigmoid": ("Sigmoid",),
    "silu": ("Sigmoid", "Multiply"),
    "slice": ("Copy", "Static Slice", "Slice", "STRIDED_SLICE"),
    "softmax": ("Softmax",),
    "sqrt": ("Square Root",),
    "sub": ("Subtract",),
    "sum": ("Sum",),
    "tanh": ("TanH",),
    "transpose": ("Transpose",),
    "upsample": ("Resize Bilinear", "Static Resize", "RESIZE_NEAREST_NEIGHBOR", "Static Reshape"),
    "where": ("SELECT_V2",),
}
#: What an operator counts that is of an operation's parts, one that helps any, one that is not;
#: one more of a part that the operation has once; an operation that has none, one that multiplies.
_OWN, _HELPS, _STRANGE, _AGAIN, _NONE, _LOST = 1.0, 0.1, -0.5, -0.6, -0.05, -2.0
_HELPERS = ("Static Reshape", "Transpose", "Copy", "Convert")


def assigned(graph: Graph, nodes: Sequence[Node]) -> dict[str, list[Node]]:
    """The operators of each operation, by its name; every operator is of one."""
    ops = [op for op in graph.ops if op.kind != "constant"]
    if not (ops and nodes):
        return {}
    found: dict[str, list[Node]] = {}
    for place, node in zip(_places(graph, ops, nodes), nodes, strict=True):
        found.setdefault(ops[place].name, []).append(node)
    return found


def _places(graph: Graph, ops: Sequence[Op], nodes: Sequence[Node]) -> NDArray[np.intp]:
    """The operation (n,) of each operator, never going back."""
    kinds = [node.kind.partition(" (")[0] for node in nodes]
    worth = {kind: np.array([_worth(kind, op) for op in ops]) for kind in dict.fromkeys(kinds)}
    lost = np.array([_LOST if graph.macs_of(op) else _NONE for op in ops])
    before = np.concatenate([[0.0], np.cumsum(lost)])  # of the operations before each
    score = worth[kinds[0]] + before[:-1]
    came = np.zeros((len(nodes), len(ops)), np.intp)
    for i in range(1, len(nodes)):
        again = np.array([_again(kinds[i], kinds[i - 1], op) for op in ops])
        # From the best earlier operation, past those between; or once more to the same.
        reach = score - before[1:]
        leader = np.maximum.accumulate(reach)
        first = np.flatnonzero(reach == leader)
        at = first[np.searchsorted(first, np.arange(len(ops)), side="right") - 1]
        step = np.concatenate([[-np.inf], leader[:-1] + before[1:-1]])
        stay = score + again
        came[i] = np.where(stay >= step, np.arange(len(ops)), np.concatenate([[0], at[:-1]]))
        score = np.maximum(stay, step) + worth[kinds[i]]
    places = np.empty(len(nodes), np.intp)
    places[-1] = int(np.argmax(score + (before[-1] - before[1:])))
    for i in range(len(nodes) - 1, 0, -1):
        places[i - 1] = came[i][places[i]]
    return places


def _worth(kind: str, op: Op) -> float:
    if kind in _PARTS.get(op.kind, (op.kind.upper(),)):
        return _OWN
    return _HELPS if kind in _HELPERS else _STRANGE


def _again(kind: str, last: str, op: Op) -> float:
    """What it costs that an operation has two operators of one kind in a row."""
    return _AGAIN if kind == last and op.kind != "layer_norm" else 0.0
