"""One path of a supernet as a network of its own, for any runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hwbench.graph import Graph
from hwbench.search.supernet.elastic import EPSILON, ElasticLayer, NormalisedConv, Statistics
from hwbench.search.supernet.net import Supernet
from hwbench.spaces.mbv3 import MobileNetV3Space

#: Weight and bias, or no bias.
_Pair = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, slots=True, eq=False)
class StandAlone:
    """A graph and its weights, as ``to_onnx``, ``to_tflite`` and ``to_torch`` take them."""

    graph: Graph
    weights: Mapping[str, NDArray[np.float32]]


@torch.no_grad()
def extract(
    net: Supernet,
    code: ArrayLike,
    statistics: Statistics,
    classes: Sequence[int] | None = None,
) -> StandAlone:
    """The path of one code (L,), its batch norms (``statistics`` of that path) folded in.

    It computes what the path computes: equal logits, up to rounding. With ``classes``, the
    classifier keeps the rows of these alone, in their order.
    """
    space = net.space
    if classes is not None:
        space = MobileNetV3Space(replace(space.skeleton, classes=len(classes)))
    graph = space.graph(code)
    weights: dict[str, NDArray[np.float32]] = {}
    weighted = [op for op in graph.ops if graph.params(op)]
    for op, (weight, bias) in zip(weighted, _pairs(net, code, statistics, classes), strict=True):
        weights[f"{op.name}.weight"] = weight.numpy(force=True).copy()
        if bias is not None:
            weights[f"{op.name}.bias"] = bias.numpy(force=True).copy()
    return StandAlone(graph, weights)


def _pairs(
    net: Supernet, code: ArrayLike, statistics: Statistics, classes: Sequence[int] | None
) -> Iterator[_Pair]:
    """Weights and biases in the order of the graph's ops."""
    norms = iter(statistics)
    yield _folded(net.stem.weight, net.stem, next(norms))
    for layer, kernel, expansion in ((net.first, 3, 1), *net.path(code)):
        yield from _layer(layer, kernel, expansion, norms)
    yield _folded(net.head.weight, net.head, next(norms))
    yield net.mix.weight, None
    rows = slice(None) if classes is None else list(classes)
    yield net.classifier.weight[rows], net.classifier.bias[rows]


def _layer(
    layer: ElasticLayer, kernel: int, expansion: int, norms: Iterator[tuple[Tensor, Tensor]]
) -> Iterator[_Pair]:
    mid = layer.layer.c_in * expansion
    if layer.expand is not None and expansion > 1:
        yield _folded(layer.expand.weight[:mid], layer.expand, next(norms))
    filters = layer.kernel(layer.depthwise.weight[:mid], kernel)
    yield _folded(filters, layer.depthwise, next(norms))
    if layer.se is not None:
        yield from layer.se.part(mid)
    yield _folded(layer.project.weight[:, :mid], layer.project, next(norms))


def _folded(weight: Tensor, conv: NormalisedConv, statistics: tuple[Tensor, Tensor]) -> _Pair:
    """``scale * (w * x - mean) / sqrt(variance + epsilon) + shift`` as one convolution."""
    mean, variance = statistics
    factor = conv.scale[: len(mean)] / torch.sqrt(variance + EPSILON)
    return weight * factor[:, None, None, None], conv.shift[: len(mean)] - mean * factor
