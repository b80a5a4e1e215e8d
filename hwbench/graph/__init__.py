"""The one currency of hwbench: an immutable graph of ops with known shapes.

A space makes a :class:`Graph`, a lowering turns it into what a runtime eats, a predictor reads
features off it. It holds no weights: those travel beside it as
``Mapping["<op name>.<param>", array]``.
"""

from hwbench.graph.builder import GraphBuilder
from hwbench.graph.graph import Graph, OpRow, describe

__all__ = ["Graph", "GraphBuilder", "OpRow", "describe"]
