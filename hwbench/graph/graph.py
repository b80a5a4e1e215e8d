"""A graph of ops with known shapes, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from hwbench.errors import GraphError
from hwbench.ops import OP_KINDS, Op, TensorSpec, infer
from hwbench.records import digest


@dataclass(frozen=True)
class Graph:
    """Ops in topological order between named inputs and outputs; checked when made.

    Two graphs that do the same work in the same order have the same :attr:`hash`, whatever
    their tensors and ops are called.
    """

    name: str
    inputs: tuple[tuple[str, TensorSpec], ...]
    outputs: tuple[str, ...]
    ops: tuple[Op, ...]

    def __post_init__(self) -> None:
        if not self.outputs:
            raise GraphError(f"graph {self.name!r} has no output")
        made = {op.output for op in self.ops if op.output in self.tensors}
        if missing := [name for name in self.outputs if name not in made]:
            raise GraphError(f"graph {self.name!r}: output {missing[0]!r} is made by no op")
        if len(set(self.outputs)) != len(self.outputs):
            raise GraphError(f"graph {self.name!r}: an output is named twice")
        if len({op.name for op in self.ops}) != len(self.ops):
            raise GraphError(f"graph {self.name!r}: two ops share a name")

    @classmethod
    def inferred(
        cls,
        name: str,
        inputs: tuple[tuple[str, TensorSpec], ...],
        outputs: tuple[str, ...],
        ops: tuple[Op, ...],
        tensors: Mapping[str, TensorSpec],
    ) -> Graph:
        """A graph whose ``tensors`` were inferred op by op already: a third of what it costs."""
        graph = cls.__new__(cls)
        graph.__dict__["tensors"] = MappingProxyType(dict(tensors))
        cls.__init__(graph, name, inputs, outputs, ops)
        return graph

    def __reduce__(self) -> tuple[type[Graph], tuple[object, ...]]:
        return Graph, (self.name, self.inputs, self.outputs, self.ops)  # without the caches

    @cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Spec of every tensor by name, inputs included (shape inference)."""
        tensors: dict[str, TensorSpec] = {}
        for name, spec in self.inputs:
            define(tensors, name, spec, f"graph {self.name!r}")
        for op in self.ops:
            define(tensors, op.output, infer(op, tensors), f"op {op.name!r}")
        return MappingProxyType(tensors)

    def specs(self, op: Op) -> tuple[TensorSpec, ...]:
        """Specs of an op's inputs, in order."""
        return tuple(self.tensors[name] for name in op.inputs)

    def params(self, op: Op) -> Mapping[str, TensorSpec]:
        """An op's learned tensors: ``{"weight": spec, "bias": spec}`` for a convolution."""
        return OP_KINDS[op.kind].params(op, self.specs(op))

    def macs_of(self, op: Op) -> int:
        """Multiply-accumulates of one op (convolutions and matrix products only)."""
        return OP_KINDS[op.kind].macs(op, self.specs(op), self.tensors[op.output])

    def parameters_of(self, op: Op) -> int:
        """Number of learned values of one op."""
        return sum(spec.elements for spec in self.params(op).values())

    def bytes_moved_of(self, op: Op) -> int:
        """Bytes that one op reads (inputs, parameters) and writes, each tensor once."""
        if OP_KINDS[op.kind].is_view:
            return 0
        moved = sum(spec.bytes for spec in (*self.specs(op), self.tensors[op.output]))
        return moved + self.weight_bytes_of(op)

    def weight_bytes_of(self, op: Op) -> int:
        """Bytes of learned values that one op reads: all of them, but of a table only the rows
        that it looks up."""
        param_bytes = OP_KINDS[op.kind].param_bytes
        if param_bytes is not None:
            return param_bytes(op, self.specs(op))
        return sum(spec.bytes for spec in self.params(op).values())

    @cached_property
    def macs(self) -> int:
        return sum(map(self.macs_of, self.ops))

    @cached_property
    def parameters(self) -> int:
        return sum(map(self.parameters_of, self.ops))

    @cached_property
    def bytes_moved(self) -> int:
        return sum(map(self.bytes_moved_of, self.ops))

    @cached_property
    def weights(self) -> Mapping[str, TensorSpec]:
        """Spec of every learned tensor of the graph by ``"<op name>.<param>"``, in order."""
        every = {f"{op.name}.{p}": s for op in self.ops for p, s in self.params(op).items()}
        return MappingProxyType(every)

    @cached_property
    def hash(self) -> str:
        """Digest of the content; names of graph, ops and tensors play no part in it."""
        number = {name: i for i, (name, _) in enumerate(self.inputs)}
        rows = []
        for op in self.ops:
            rows.append([op.kind, [number[name] for name in op.inputs], op.attrs])
            number[op.output] = len(number)
        inputs = [[spec.shape, spec.dtype] for _, spec in self.inputs]
        return digest([inputs, rows, [number[name] for name in self.outputs]])


def define(tensors: dict[str, TensorSpec], name: str, spec: TensorSpec, where: str) -> None:
    """Enter a tensor under a name that is new."""
    if name in tensors:
        raise GraphError(f"{where}: tensor {name!r} is defined twice")
    tensors[name] = spec


@dataclass(frozen=True, slots=True)
class OpRow:
    """One line of the per-op table of a graph."""

    name: str
    kind: str
    shape: tuple[int, ...]
    macs: int
    parameters: int
    bytes_moved: int


def describe(graph: Graph) -> tuple[OpRow, ...]:
    """Cost of every op: kind, output shape, MACs, parameters, bytes moved."""
    return tuple(
        OpRow(
            op.name,
            op.kind,
            graph.tensors[op.output].shape,
            graph.macs_of(op),
            graph.parameters_of(op),
            graph.bytes_moved_of(op),
        )
        for op in graph.ops
    )
