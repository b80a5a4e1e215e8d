"""Groups of ONNX nodes that exporters write for one op, recognised from their last node.

What is left over of a group is dropped with everything else that no output needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwbench.lower.onnx_fold import Array, Node
from hwbench.lower.onnx_importer import Importer


def silu_input(importer: Importer, node: Node) -> str | None:
    """The x of ``x * sigmoid(x)``."""
    for x, gate in (node.inputs, node.inputs[::-1]):
        sigmoid = importer.maker(gate, "Sigmoid")
        if sigmoid and sigmoid.inputs == (x,):
            return x
    return None


def gelu_input(importer: Importer, node: Node) -> str | None:
    """The x of ``x * 0.5 * (1 + erf(x / sqrt 2))``, whatever the order of the factors."""
    factors = list(node.inputs)
    for name in node.inputs:
        if inner := importer.maker(name, "Mul"):
            factors.remove(name)
            factors.extend(inner.inputs)
    if len(factors) != 3:
        return None
    for gate in factors:
        x = _erf_input(importer, gate)
        others = [name for name in factors if name != gate]
        if x in others and any(importer.scalar(name) == 0.5 for name in others):
            return x
    return None


def _erf_input(importer: Importer, gate: str) -> str | None:
    """The x of ``1 + erf(x / sqrt 2)``."""
    add = importer.maker(gate, "Add")
    if not add or 1.0 not in map(importer.scalar, add.inputs):
        return None
    for name in add.inputs:
        erf = importer.maker(name, "Erf")
        for op_type, scale in (("Div", math.sqrt(2)), ("Mul", math.sqrt(0.5))):
            scaled = importer.maker(erf.inputs[0], op_type) if erf else None
            factor = importer.scalar(scaled.inputs[1]) if scaled else None
            if scaled and factor is not None and math.isclose(factor, scale, rel_tol=1e-5):
                return scaled.inputs[0]
    return None


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """What a layer norm over the last axis is of."""

    x: str
    epsilon: float
    scale: Array
    bias: Array


def layer_norm(importer: Importer, node: Node) -> LayerNorm | None:
    """``(x - mean) / sqrt(mean((x - mean)^2) + epsilon) * scale + bias``, ending in the Add."""
    for scaled, shift in (node.inputs, node.inputs[::-1]):
        product, bias = importer.maker(scaled, "Mul"), importer.constants.get(shift)
        if product is None or bias is None:
            continue
        for normed, factor in (product.inputs, product.inputs[::-1]):
            scale, quotient = importer.constants.get(factor), importer.maker(normed, "Div")
            found = None if scale is None or quotient is None else _normed(importer, quotient)
            if found and scale is not None:
                x, epsilon = found
                width = importer.shape(x)[-1:]
                if scale.shape == bias.shape == width and len(importer.shape(x)) > 1:
                    return LayerNorm(x, epsilon, scale, bias)
    return None


def _normed(importer: Importer, quotient: Node) -> tuple[str, float] | None:
    """x and epsilon of ``(x - mean) / sqrt(variance + epsilon)``."""
    centred = importer.nodes.get(quotient.inputs[0])
    root = importer.maker(quotient.inputs[1], "Sqrt")
    raised = importer.maker(root.inputs[0], "Add") if root else None
    if centred is None or centred.op_type != "Sub" or raised is None:
        return None
    x = centred.inputs[0]
    if _mean_of(importer, centred.inputs[1]) != x:
        return None
    for variance, offset in (raised.inputs, raised.inputs[::-1]):
        epsilon = importer.scalar(offset)
        if epsilon is not None and _is_square(
            importer, _mean_of(importer, variance), centred.output
        ):
            return x, epsilon
    return None


def _mean_of(importer: Importer, name: str) -> str | None:
    """The x of its mean over the last axis, which stays."""
    node = importer.maker(name, "ReduceMean")
    if node is None or not node.attr("keepdims", 1):
        return None
    x = node.inputs[0]
    shape = importer.shape(x)
    return x if importer.shape(name) == (*shape[:-1], 1) and shape[-1] > 1 else None


def _is_square(importer: Importer, name: str | None, base: str) -> bool:
    """Whether a tensor is ``base^2``, as a power or a product."""
    node = importer.nodes.get(name or "")
    if node is None:
        return False
    if node.op_type == "Pow":
        return node.inputs[0] == base and importer.scalar(node.inputs[1]) == 2.0
    return node.op_type == "Mul" and node.inputs == (base, base)
