"""Weights for runs where their values do not matter: random, repeatable, well scaled.

A latency needs weights of the right shapes in memory of their own, and values that keep the
activations away from denormals and infinities; it needs no particular values, and no copy of
them in every model file. A lowered model therefore only *names* its weights
(:data:`RANDOM_LOCATION`), and whoever loads it makes them with the rule below, from names and
shapes alone.

The rule: one short block of normal numbers is drawn once. Each tensor is the block, repeated
and scaled, in a region of its own of one shared buffer:

- a matrix or filter is scaled to ``sqrt(2 / fan_in)`` (He et al., arXiv 1502.01852);
- what multiplies or divides each channel lies near 1, what is added to it near 0;
- a table that is looked up is standard normal.

Constants that are not float32 are zeros: they may be indices.

Why not slices of one random array: every fan-in needs a scale of its own, or sixty layers
shrink the signal to denormals (slow) or blow it up to infinity. Why not one scaled array per
fan-in, shared by all tensors of that fan-in: a runtime that reads weights where they lie would
find them in the cache by that accident, and measure too fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import GraphError
from hwbench.graph import Graph

#: Where a lowered model says its weights are: no file, but this rule (and its version).
RANDOM_LOCATION = "hwbench-random-weights-1"

Floats = NDArray[np.float32]

_BLOCK = 65_521  # prime, so that repeated rows of a matrix differ; 256 KiB fit the cache
_ALIGNMENT = 16  # elements: a cache line
_TRANSPOSED = "weight_t"


def _he(shape: tuple[int, ...], fan_axes: slice) -> tuple[float, float]:
    return 0.0, math.sqrt(2 / math.prod(shape[fan_axes]))


#: Centre and spread of a parameter's values, by its name (the part after the last dot).
_SCALES: Mapping[str, Callable[[tuple[int, ...]], tuple[float, float]]] = {
    "weight": lambda shape: _he(shape, slice(1, None)),
    _TRANSPOSED: lambda shape: _he(shape, slice(0, 1)),
    "bias": lambda shape: (0.0, 0.01),
    "mean": lambda shape: (0.0, 0.01),
    "scale": lambda shape: (1.0, 0.05),
    "var": lambda shape: (1.0, 0.05),
    "value": lambda shape: (1.0, 0.05),
    "table": lambda shape: (0.0, 1.0),
}


def random_tensors(
    shapes: Iterable[tuple[str, tuple[int, ...]]], seed: int = 0
) -> Mapping[str, Floats]:
    """Random weights for ``(name, shape)`` pairs, side by side in one buffer, 64-byte aligned.

    The values depend on the seed, the order, the shapes and the names' last part only. The
    arrays are read-only views. Raises :class:`GraphError` for a parameter of unknown role.
    """
    pairs = tuple(shapes)
    sizes = [math.prod(shape) for _, shape in pairs]
    offsets = np.concatenate([[0], np.cumsum([-(-n // _ALIGNMENT) * _ALIGNMENT for n in sizes])])
    buffer = _aligned(int(offsets[-1]))
    block = _normal_block(seed)
    tensors = {}
    for (name, shape), size, offset in zip(pairs, sizes, offsets.tolist(), strict=False):
        role = name.rpartition(".")[2]
        if role not in _SCALES:
            raise GraphError(f"no rule for random values of {name!r}: known are {list(_SCALES)}")
        values = buffer[offset : offset + size]
        _fill(values, block, offset % _BLOCK, *_SCALES[role](shape))
        tensors[name] = values.reshape(shape)
        if role == _TRANSPOSED:  # the same matrix as "weight", laid out the other way
            tensors[name][...] = values.reshape(shape[::-1]).copy().T
        tensors[name].flags.writeable = False
    return tensors


def random_weights(graph: Graph, seed: int = 0) -> Mapping[str, NDArray[Any]]:
    """Random weights for every parameter of a graph, keyed ``"<op name>.<param>"``.

    With seed 0 they equal, value for value, those of a model lowered without weights.
    """
    specs = graph.weights.items()
    floats = random_tensors(((n, s.shape) for n, s in specs if s.dtype == "float32"), seed)
    return {
        name: floats[name] if name in floats else np.zeros(spec.shape, spec.dtype)
        for name, spec in specs
    }


def check_weights(graph: Graph, weights: Mapping[str, NDArray[Any]]) -> None:
    """Raise :class:`GraphError` unless there is a fitting array for every parameter."""
    for name, spec in graph.weights.items():
        if name not in weights:
            raise GraphError(f"graph {graph.name!r}: no weights are given for {name!r}")
        array = weights[name]
        if array.shape != spec.shape or array.dtype.name != spec.dtype:
            got = f"{array.dtype.name} {array.shape}"
            raise GraphError(f"weights {name!r} are {got}, not {spec.dtype} {spec.shape}")


@lru_cache(maxsize=4)
def _normal_block(seed: int) -> Floats:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(_BLOCK, dtype=np.float32)


def _aligned(elements: int) -> Floats:
    raw = np.empty(elements + _ALIGNMENT, dtype=np.float32)
    start = -raw.ctypes.data % (4 * _ALIGNMENT) // 4
    return raw[start : start + elements]


def _fill(values: Floats, block: Floats, start: int, centre: float, spread: float) -> None:
    """``values[i] = centre + spread * block[(start + i) % len(block)]``."""
    done = 0
    while done < values.size:
        piece = block[start : start + values.size - done]
        target = values[done : done + piece.size]
        np.multiply(piece, np.float32(spread), out=target)
        if centre:
            target += np.float32(centre)
        done, start = done + piece.size, 0
