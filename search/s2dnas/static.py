"""The user's trained network as a search sees it: a graph, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwbench.graph import Graph
from hwbench.lower.weights import check_weights
from hwbench.search.s2dnas.folding import fold
from hwbench.search.supernet import StandAlone

Weights = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class StaticNet:
    """A classifier of one image: ``graph`` (1, c, h, w) -> (1, classes), in float32.

    Batch norms are ops of their own, since training needs them; :meth:`folded` is what runs.
    GraphError where weights are missing or do not fit.
    """

    graph: Graph
    weights: Weights

    def __post_init__(self) -> None:
        check_weights(self.graph, self.weights)

    @property
    def image(self) -> str:
        """Name of the one input."""
        return self.graph.inputs[0][0]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width of an image."""
        return self.graph.inputs[0][1].shape[1:]

    @property
    def output(self) -> str:
        """Name of the tensor that holds the logits."""
        return self.graph.outputs[0]

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.graph.tensors[self.output].shape[1]

    def folded(self) -> StandAlone:
        """The network with its batch norms folded in: equal answers up to rounding."""
        return fold(StandAlone(self.graph, self.weights))
