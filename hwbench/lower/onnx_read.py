"""ONNX -> Graph, for files made by others.

Constants are folded, what does nothing at inference vanishes, and shape arithmetic is done with
the concrete shapes. What each remaining node means stands in ``hwbench.lower.onnx_nodes``. What
has no equivalent is listed in the error, all of it at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import external_data_helper, inliner

from hwbench.errors import GraphError, ModelError
from hwbench.graph import Graph
from hwbench.lower.onnx_file import Shapes, input_specs, label_of, open_onnx
from hwbench.lower.onnx_fold import (
    FOLDS,
    MOST_BYTES,
    Array,
    Node,
    array_of,
    fold,
    memory_of,
    shape_of,
)
from hwbench.lower.onnx_importer import Importer, UnsupportedNodeError
from hwbench.lower.onnx_nodes import READERS
from hwbench.lower.session import external_initializers
from hwbench.lower.weights import check_weights


def from_onnx(
    source: str | Path | bytes, shapes: Shapes | None = None
) -> tuple[Graph, dict[str, Array]]:
    """Read a model file, or its bytes, into a graph and its weights.

    ``shapes`` gives the inputs' concrete shapes where the file leaves them open. Ops are named
    by the tensors that they make. Weights that repeat one value may be read-only views of it.

    Raises :class:`ModelError`, in one line, for a file that cannot be read, a shape left open,
    and nodes that a :class:`Graph` cannot express: every kind of them with its first node.
    """
    model = open_onnx(source)
    try:
        return _import(model, source, shapes)
    except (GraphError, ModelError) as error:
        raise ModelError(f"{label_of(source)}: {error}") from error


def _import(
    model: onnx.ModelProto, source: str | Path | bytes, shapes: Shapes | None
) -> tuple[Graph, dict[str, Array]]:
    if model.functions:
        model = inliner.inline_local_functions(model)
    nodes = [Node.of(proto) for proto in model.graph.node]
    outputs = [value.name for value in model.graph.output]
    uses = Counter(name for node in nodes for name in node.inputs) + Counter(outputs)
    importer = Importer(model.graph.name or "model", _opset(model), uses)
    importer.constants.update(_initializers(model, source))
    for spec in input_specs(model, shapes):
        importer.names[spec.name] = importer.builder.input(spec.name, spec.shape, spec.dtype)
    unknown = _Unknown()
    for node in nodes:
        _read(importer, node, unknown)
    if unknown.kinds:
        raise UnsupportedNodeError(f"no equivalent for {unknown}")
    return _finish(importer, outputs)


def _opset(model: onnx.ModelProto) -> int:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            newest = onnx.defs.onnx_opset_version()
            if not 1 <= entry.version <= newest:
                raise GraphError(f"opset {entry.version} is none of 1..{newest}: export it anew")
            return int(entry.version)
    raise GraphError("imports no ONNX operator set")


def _initializers(
    model: onnx.ModelProto, source: str | Path | bytes
) -> Iterable[tuple[str, Array]]:
    """Stored tensors, those outside the file included (their places were checked on opening)."""
    random = external_initializers(model)
    yield from random.items()
    folder = "" if isinstance(source, bytes) else str(Path(source).parent)
    for tensor in model.graph.initializer:
        if tensor.name not in random:
            try:
                if external_data_helper.uses_external_data(tensor):
                    external_data_helper.load_external_data_for_tensor(tensor, folder)
                yield tensor.name, array_of(tensor)
            except (ValueError, OSError, onnx.checker.ValidationError) as error:
                reason = " ".join(str(error).split())
                raise GraphError(f"tensor {tensor.name!r} is damaged: {reason}") from error


@dataclass
class _Unknown:
    """The kinds of nodes that found no equivalent, and what they would have made."""

    kinds: dict[str, list[str]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)

    def add(self, kind: str, node: Node) -> None:
        self.kinds.setdefault(kind, []).append(node.name)

    def __str__(self) -> str:
        return ", ".join(
            f"{kind} (node {names[0]!r}{f' and {len(names) - 1} more' if names[1:] else ''})"
            for kind, names in self.kinds.items()
        )


def _read(importer: Importer, node: Node, unknown: _Unknown) -> None:
    """Read one node: fold it, translate it, or note that it cannot be done."""
    try:
        if not node.outputs:
            raise GraphError("it makes nothing")
        if node.op_type not in FOLDS and node.op_type not in READERS:
            raise UnsupportedNodeError(node.op_type)
        if unknown.lost.intersection(node.inputs):
            unknown.lost.update(node.outputs)  # told already, by the node that comes first
        elif not _fold(importer, node):
            if node.op_type not in READERS:
                raise UnsupportedNodeError(f"{node.op_type} of a computed tensor")
            importer.nodes[node.output] = node
            READERS[node.op_type](importer, node)
    except UnsupportedNodeError as error:
        unknown.add(str(error), node)
        unknown.lost.update(node.outputs)
    except GraphError as error:
        raise GraphError(f"node {node.name!r} ({node.op_type}): {error}") from error
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        reason = f"malformed: {' '.join(str(error).split())}"
        raise GraphError(f"node {node.name!r} ({node.op_type}): {reason}") from error


def _fold(importer: Importer, node: Node) -> bool:
    """Evaluate a node whose inputs are all known; False if they are not."""
    if node.op_type == "Shape" and node.inputs and node.inputs[0] in importer.names:
        shape = importer.builder.shape(importer.names[node.inputs[0]])
        importer.constants[node.output] = shape_of(node, shape)
        return True
    if node.op_type not in FOLDS or any(n and n not in importer.constants for n in node.inputs):
        return False
    if not importer.uses[node.output]:  # what nobody reads takes no memory
        return True
    values = [importer.constants.get(name) for name in node.inputs]
    made = fold(node, values, MOST_BYTES - importer.folded)
    importer.folded += memory_of(made, values)
    importer.constants[node.output] = made
    return True


def _finish(importer: Importer, outputs: list[str]) -> tuple[Graph, dict[str, Array]]:
    """The graph of all ops that an output needs, and their weights."""
    wanted = [importer.tensor(name) for name in outputs]
    whole = importer.builder.build(list(dict.fromkeys(wanted)))
    needed, kept = set(wanted), []
    for op in reversed(whole.ops):
        if op.output in needed:
            needed.update(op.inputs)
            kept.append(op)
    graph = Graph(whole.name, whole.inputs, whole.outputs, tuple(reversed(kept)))
    weights = {name: importer.weights[name] for name in graph.weights}
    check_weights(graph, weights)
    return graph, weights
