"""A graph's answer in torch, and whether float32 is enough to have it at all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from hwbench.graph import Graph
from hwbench.lower import random_weights, to_torch
from tests.graphs import input_values, relative_error


def run_torch(
    graph: Graph,
    weights: Mapping[str, np.ndarray] | None,
    inputs: Mapping[str, np.ndarray],
    dtype: torch.dtype = torch.float32,
) -> list[np.ndarray]:
    values = [torch.from_numpy(v) for v in inputs.values()]
    values = [v.to(dtype) if v.is_floating_point() else v for v in values]
    outputs = to_torch(graph, weights).to(dtype)(*values)
    return [y.detach().numpy() for y in (outputs if isinstance(outputs, tuple) else (outputs,))]


def float32_suffices(graph: Graph, seed: int, tolerance: float) -> bool:
    """Whether rounding alone stays far inside the tolerance that runtimes are held to.

    A layer norm of nearly equal values multiplies the rounding of what came before, by up to
    300 and once more in each block: no two float32 runtimes agree on such a net.
    """
    inputs, weights = input_values(graph, seed), random_weights(graph, seed)
    exact = run_torch(graph, weights, inputs, torch.float64)
    rounded = run_torch(graph, weights, inputs)
    errors = map(relative_error, rounded, exact)
    return max(errors) <= tolerance / 5
