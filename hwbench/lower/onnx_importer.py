"""A graph while it is being read from ONNX: what is known of every tensor so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hwbench.errors import GraphError
from hwbench.graph import GraphBuilder
from hwbench.lower.onnx_fold import Array, Node
from hwbench.ops import AttrValue


class UnsupportedNodeError(GraphError):
    """A node has no equivalent; the message is its kind, or its kind and the reason."""


@dataclass
class Importer:
    """A graph that is being read: what is known of every ONNX tensor so far.

    A tensor is a constant (``constants``) or has a name in the graph (``names``); ``nodes`` are
    the translated nodes by their first output, ``uses`` counts a tensor's readers. ``folded`` are
    the bytes that constants take which were computed, not stored.
    """

    name: str
    opset: int
    uses: Counter[str]
    constants: dict[str, Array] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    folded: int = 0
    builder: GraphBuilder = field(init=False)

    def __post_init__(self) -> None:
        self.builder = GraphBuilder(self.name)

    def tensor(self, name: str) -> str:
        """The graph's name of a tensor; a constant becomes an op of its own when first read."""
        if name not in self.names:
            if name not in self.constants:
                raise GraphError(f"nothing makes the tensor {name!r}")
            value = self.constants[name]
            attrs: dict[str, AttrValue] = {"shape": value.shape, "dtype": value.dtype.name}
            self.names[name] = self.builder.op("constant", [], attrs, name=name)
            self.weights[f"{name}.value"] = value
        return self.names[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self.builder.shape(self.tensor(name))

    def constant(self, node: Node, index: int, what: str) -> Array:
        """Value of an input that has to be known; ``what`` names it in the refusal."""
        if index >= len(node.inputs) or node.inputs[index] not in self.constants:
            raise UnsupportedNodeError(f"{node.op_type} with computed {what}")
        return self.constants[node.inputs[index]]

    def optional(self, node: Node, index: int, what: str) -> Array | None:
        """The same for an input that may be left out."""
        absent = index >= len(node.inputs) or not node.inputs[index]
        return None if absent else self.constant(node, index, what)

    def scalar(self, name: str) -> float | None:
        """Value of a constant of one element."""
        value = self.constants.get(name)
        return float(value.item()) if value is not None and value.size == 1 else None

    def maker(self, name: str, op_type: str) -> Node | None:
        """The node of that type that makes a tensor for one reader only."""
        node = self.nodes.get(name)
        return node if node and node.op_type == op_type and self.uses[name] == 1 else None

    def alias(self, node: Node) -> None:
        """Let a node's output be its first input."""
        source = node.inputs[0]
        if source in self.constants:
            self.constants[node.output] = self.constants[source]
        else:
            self.names[node.output] = self.tensor(source)

    def emit(
        self,
        node: Node,
        kind: str,
        inputs: Sequence[str],
        attrs: Mapping[str, AttrValue] | None = None,
        params: Mapping[str, Array | None] | None = None,
    ) -> None:
        """Add the op that stands for a node; it bears the name of the node's output."""
        op = self.builder.op(kind, map(self.tensor, inputs), attrs or {}, name=node.output)
        self.names[node.output] = op
        for param, value in (params or {}).items():
            if value is not None:
                self.weights[f"{op}.{param}"] = value


#: Says what a kind of ONNX node is in the graph, by adding ops to it.
Reader = Callable[[Importer, Node], None]
