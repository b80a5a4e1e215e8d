"""A TFLite model while it is made: tensors, operators, and how values are quantised."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Quant:
    """``real = (stored - zero_point) * scale``; several scales, one for each index of ``axis``."""

    scale: NDArray[np.float32]
    zero_point: int = 0
    axis: int = 0


@dataclass(slots=True)
class Tensor:
    """A tensor by its TFLite shape; ``data`` of a constant one. ``dtype`` is numpy's name."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    data: Array | None = None
    quant: Quant | None = None


@dataclass(slots=True)
class Operator:
    """One operator with one output; tensors by number.

    ``kind`` is the name of a ``BuiltinOperator`` of the schema, ``table`` that of its options,
    ``options`` their fields as the schema spells them.
    """

    kind: str
    inputs: list[int]
    output: int
    table: str
    options: dict[str, Any]


@dataclass(slots=True)
class Net:
    """A model of one subgraph; operators in the order of execution."""

    name: str
    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def add_tensor(self, tensor: Tensor) -> int:
        """Append a tensor; its number."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1


#: Fused activations, by their numbers in the schema.
NONE, RELU, RELU_N1_TO_1, RELU6 = 0, 1, 2, 3
#: The option that holds one, in every operator that takes one.
ACTIVATION = "FusedActivationFunction"
#: The options of an operator that could apply an activation and does not (yet).
FUSABLE = {ACTIVATION: NONE}
