"""The workbench on which a graph becomes a TFLite net: values, where they lie, who reads them.

What each kind of op becomes is said in :mod:`hwbench.lower.tflite_ops`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.graph import Graph
from hwbench.lower.tflite_layout import IMAGE, Layout, Order, frame, plain
from hwbench.lower.tflite_net import ACTIVATION, NONE, Array, Net, Operator, Tensor
from hwbench.ops import Op, TensorSpec

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Value:
    """A graph's tensor as it lies in a tensor of the net."""

    tensor: int
    layout: Layout

    @property
    def shape(self) -> tuple[int, ...]:
        """In the graph."""
        return self.layout.shape


@dataclass(frozen=True, slots=True)
class Constant:
    """A graph's tensor that is known; it is laid out when somebody reads it."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """In the graph."""
        return self.array.shape


def extended(x: Value | Constant, rank: int) -> Value | Constant:
    """With leading axes of size 1, as broadcasting has it."""
    if isinstance(x, Value):
        return Value(x.tensor, x.layout.extended(rank))
    return Constant(x.array.reshape((1,) * (rank - x.array.ndim) + x.array.shape))


class Lowering:
    """The net under construction, and the way from the graph's tensors to the net's.

    ``op`` is the op at work: what is emitted bears its name.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, Floats]) -> None:
        self.graph = graph
        self.weights = weights
        self.net = Net(graph.name)
        self.values: dict[str, Value | Constant] = {}
        self.op = graph.ops[0]
        self.folded: set[str] = set()  # ops that an earlier operator does as well
        self._readers: dict[str, list[Op | None]] = {name: [] for name in graph.tensors}
        for op in graph.ops:
            for name in op.inputs:
                self._readers[name].append(op)
        for name in graph.outputs:
            self._readers[name].append(None)
        self._uses: Counter[int] = Counter()
        self._makers: dict[int, Operator] = {}
        self._placed: dict[tuple[object, ...], int] = {}

    # -- the graph's side ---------------------------------------------------------------------

    def input(self, name: str, spec: TensorSpec, order: Order) -> None:
        """Declare an input that lies in that order."""
        tensor = self.net.add_tensor(Tensor(name, frame(spec.shape, order), spec.dtype))
        self.net.inputs.append(tensor)
        self.bind(name, Value(tensor, Layout.of(spec.shape, order)))

    def bind(self, name: str, value: Value | Constant) -> None:
        """Say what a graph's tensor is."""
        self.values[name] = value
        if isinstance(value, Value):
            self._uses[value.tensor] += len(self._readers[name])

    def read(self, name: str) -> Value | Constant:
        """What a graph's tensor is."""
        return self.values[name]

    def read_value(self, name: str) -> Value:
        """The same for ops that gain nothing from knowing a constant: it is laid out plainly."""
        value = self.values[name]
        if isinstance(value, Value):
            return value
        order = plain(len(value.shape))
        return Value(self.place(value, order), Layout.of(value.shape, order))

    def view(self, value: Value, layout: Layout) -> Value:
        """The same memory, which one reader less reads directly."""
        self._uses[value.tensor] -= 1
        return Value(value.tensor, layout)

    def only_reader(self, name: str) -> Op | None:
        """The one op that reads a graph's tensor, if there is one and it is no output."""
        readers = self._readers[name]
        return readers[0] if len(readers) == 1 else None

    def readers(self, name: str) -> list[Op]:
        """Ops that read a graph's tensor."""
        return [op for op in self._readers[name] if op is not None]

    def weight(self, op: Op, param: str) -> Floats:
        """A learned tensor of an op, as the graph holds it."""
        return self.weights[f"{op.name}.{param}"]

    # -- the net's side -----------------------------------------------------------------------

    def shape_of(self, value: Value) -> tuple[int, ...]:
        """Shape of the TFLite tensor."""
        return self.net.tensors[value.tensor].shape

    def constant(self, array: Array, name: str) -> int:
        """A tensor that is known."""
        return self.net.add_tensor(Tensor(name, array.shape, array.dtype.name, array))

    def integers(self, values: Sequence[Any]) -> int:
        """Axes, paddings and the like: equal ones are one tensor."""
        array = np.asarray(values, np.int32)
        key = ("integers", array.shape, array.tobytes())
        if key not in self._placed:
            self._placed[key] = self.constant(array, f"integers{len(self._placed)}")
        return self._placed[key]

    def scalar(self, value: float) -> int:
        """A number as an operand."""
        return self.constant(np.array(value, np.float32), f"{self.op.output}/{value:.4g}")

    def operate(
        self,
        kind: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        table: str = "",
        options: Mapping[str, Any] = MappingProxyType({}),
        step: str = "",
    ) -> int:
        """Append an operator; the number of its output, a tensor of that TFLite shape.

        Its dtype is that of the first input.
        ``options`` are the fields of the schema's ``table``; ``step`` tells apart the operators
        that one op of the graph becomes.
        """
        name = f"{self.op.output}/{step}" if step else self.op.output
        dtype = self.net.tensors[inputs[0]].dtype
        output = self.net.add_tensor(Tensor(name, tuple(shape), dtype))
        operator = Operator(kind, list(inputs), output, table, dict(options))
        self.net.operators.append(operator)
        self._makers[output] = operator
        return output

    def like(
        self,
        x: Value,
        kind: str,
        operands: Sequence[int] = (),
        table: str = "",
        options: Mapping[str, Any] = MappingProxyType({}),
        step: str = "",
    ) -> Value:
        """An element-wise operator on ``x``, whose result lies as ``x`` does."""
        inputs = [x.tensor, *operands]
        output = self.operate(kind, inputs, self.shape_of(x), table, options, step)
        return Value(output, x.layout)

    def maker(self, value: Value) -> Operator | None:
        """The operator whose only reader reads ``value``."""
        return self._makers.get(value.tensor) if self._uses[value.tensor] == 1 else None

    def made_by(self, tensor: int) -> Operator | None:
        """The operator that makes a tensor, however many read it."""
        return self._makers.get(tensor)

    def fuse(self, value: Value, activation: int) -> bool:
        """Let the maker of ``value`` apply an activation, if it can and nobody else reads it."""
        maker = self.maker(value)
        if maker is None or maker.options.get(ACTIVATION) != NONE:
            return False
        maker.options[ACTIVATION] = activation
        self.take_over(value)
        return True

    def take_over(self, value: Value) -> None:
        """The op at work is done by the maker of ``value``: its result is named after the op."""
        self._uses[value.tensor] -= 1
        self.net.tensors[value.tensor].name = self.op.output

    # -- where things lie ---------------------------------------------------------------------

    def order_of(self, value: Value) -> Order | None:
        """The order in which a value's axes lie; ``None`` where no order tells it."""
        shape, here = value.shape, self.shape_of(value)
        candidates = [plain(len(shape))]
        if image := IMAGE.get(len(shape)):
            candidates.append(image)
        if found := value.layout.sorted_order():
            candidates.append(found)
        fitting = [order for order in candidates if value.layout.lies(order)]
        exact = [order for order in fitting if frame(shape, order) == here]
        return next(iter(exact or fitting), None)

    def common_order(self, xs: Sequence[Value | Constant], rank: int) -> Order:
        """The order in which the axes of the largest of these lie, missing ones in front."""
        values = [x for x in xs if isinstance(x, Value)]
        if not values:
            return plain(rank)
        largest = max(values, key=lambda x: math.prod(x.shape))
        return self.order_of(Value(largest.tensor, largest.layout.extended(rank))) or plain(rank)

    def ordered(self, value: Value) -> tuple[int, Order]:
        """A value in an order that can be told, moved if need be: tensor, order."""
        order = self.order_of(value) or plain(len(value.shape))
        return self.place(value, order), order

    def place(self, x: Value | Constant, order: Order, shape: tuple[int, ...] | None = None) -> int:
        """A tensor that holds ``x`` in that order of its axes (and of that TFLite shape).

        What lies so already costs nothing; a known tensor is permuted here and now.
        """
        shape = frame(x.shape, order) if shape is None else shape
        if isinstance(x, Constant):
            axes = [axis for axis in order if axis >= 0]
            return self.constant(x.array.transpose(axes).reshape(shape), self._constant_name())
        tensor = x.tensor
        if not x.layout.lies(order):
            tensor = self._transposed(x, order, shape)
        return self.reshaped(tensor, shape)

    def _constant_name(self) -> str:
        return f"{self.op.output}/constant{len(self.net.tensors)}"

    def reshaped(self, tensor: int, shape: tuple[int, ...]) -> int:
        """The same elements as a tensor of another shape."""
        if self.net.tensors[tensor].shape == shape:
            return tensor
        key = ("reshape", tensor, shape)
        if key not in self._placed:
            self._placed[key] = self.copied(tensor, shape)
        return self._placed[key]

    def copied(self, tensor: int, shape: tuple[int, ...]) -> int:
        """A RESHAPE, even to the shape that is there."""
        step = f"reshape{len(self.net.tensors)}"
        return self.operate("RESHAPE", [tensor, self.integers(shape)], shape, step=step)

    def _transposed(self, x: Value, order: Order, shape: tuple[int, ...]) -> int:
        """The parts of ``x`` as they follow each other in that order, near to ``shape``."""
        sizes, wanted = x.layout.sizes, x.layout.parts(order)
        here = self.shape_of(x)
        tensor = x.tensor
        runs = _runs(here, sizes)
        if runs is None:
            # With axes of size 1 where they spare the reshape behind the transpose.
            units = len(shape) - len(sizes)
            here = (*(1,) * units, *sizes) if shape.count(1) == units else sizes
            tensor = self.reshaped(tensor, here)
            runs = [(len(here) - len(sizes) + part,) for part in range(len(sizes))]
        perm = _permutation(here, [runs[part] for part in wanted], shape)
        key = ("transpose", tensor, perm)
        if key not in self._placed:
            moved = tuple(here[axis] for axis in perm)
            inputs = [tensor, self.integers(perm)]
            step = f"transpose{len(self.net.tensors)}"
            self._placed[key] = self.operate(
                "TRANSPOSE", inputs, moved, "TransposeOptions", step=step
            )
        return self._placed[key]


def _runs(here: Sequence[int], sizes: Sequence[int]) -> list[tuple[int, ...]] | None:
    """The axes of a tensor of shape ``here`` that make up each part of its memory.

    ``None`` where an axis reaches over the end of a part.
    """
    axes = [axis for axis, n in enumerate(here) if n > 1]
    runs = []
    for size in sizes:
        run: list[int] = []
        while (length := math.prod(here[axis] for axis in run)) < size:
            run.append(axes.pop(0))
        if length > size:
            return None
        runs.append(tuple(run))
    return runs


def _permutation(
    here: Sequence[int], wanted: Sequence[Sequence[int]], shape: Sequence[int]
) -> tuple[int, ...]:
    """The axes of a tensor of shape ``here`` in the order of the runs ``wanted``.

    Axes of size 1 go where ``shape`` has them, so that no reshape need follow.
    """
    units = [axis for axis, n in enumerate(here) if n == 1]
    runs = iter(wanted)
    perm: list[int] = []
    for size in shape:
        if size == 1 and units:
            perm.append(units.pop(0))
        taken: list[int] = []
        while math.prod(here[axis] for axis in taken) < size:
            taken += next(runs)
        perm += taken
    return (*perm, *units)


#: Says what a kind of op becomes, by adding operators to the net.
Lower = Callable[[Lowering, Op], Value | Constant]
