"""Test cases: which pairs of operations does a device's runtime do as one kernel?

Each graph asks of one operation what may follow it, in many short branches that end in one more.
Each has an input and an output of its own: equal ones would be done once. They are profiled only,
in some seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count

from hwbench.graph import Graph, GraphBuilder
from hwbench.ops import AttrValue
from hwbench.predictors.kernels.drawing import FUNCTIONS

_SIDE, _WIDTH = 8, 32

Make = Callable[[GraphBuilder, str], str]


def _conv(kernel: int, groups: int = 1, channels: int = _WIDTH) -> Make:
    return lambda b, x: b.conv(x, channels, kernel=kernel, groups=groups)


#: What comes first in a branch, with the channels of its input; an input of 0 has no image.
_FIRST: Mapping[str, tuple[int, Make]] = {
    "conv": (_WIDTH, _conv(3)),
    "pointwise conv": (_WIDTH, _conv(1)),
    "depthwise": (_WIDTH, _conv(3, _WIDTH)),
    "grouped conv": (_WIDTH, _conv(3, 2)),
    "grouped conv of odd": (_WIDTH, _conv(1, 4)),
    "conv of few": (3, _conv(3)),
    "conv of odd": (_WIDTH + 1, _conv(3)),
    "pointwise conv of odd": (_WIDTH + 1, _conv(1)),
    "max_pool": (_WIDTH, lambda b, x: b.max_pool(x, 3, 1, 1)),
    "concat": (_WIDTH, lambda b, x: b.concat([x, x])),
    "batch_norm": (_WIDTH, lambda b, x: b.op("batch_norm", [x], {"epsilon": 1e-5})),
    "add": (_WIDTH, lambda b, x: b.add(x, x)),
    "linear": (-_WIDTH, lambda b, x: b.linear(x, _WIDTH)),
    "linear vector": (0, lambda b, x: b.linear(x, _WIDTH)),
}


#: Functions that not every runtime has: in cases of their own.
_RARE = ("erf",)


def case_count() -> int:
    """How many test cases there are."""
    return 2 * len(_FIRST)


def case(number: int) -> Graph:
    """Test case ``number``; those of the second half ask of rare functions."""
    rare, place = divmod(number, len(_FIRST))
    name, (channels, first) = list(_FIRST.items())[place]
    b = GraphBuilder(f"case {name}, rare" if rare else f"case {name}")
    shape = (1, channels, _SIDE, _SIDE) if channels > 0 else (1, _SIDE, _WIDTH)

    def start() -> str:
        return first(b, b.input(f"x{next(number_of)}", shape if channels else (1, _WIDTH)))

    number_of = count()
    image = channels > 0
    outputs = []
    for function in (name for name in FUNCTIONS if (name in _RARE) == bool(rare)):
        outputs.append(_applied(b, start(), function))
        outputs.append(_applied(b, b.add(start(), start()), function))
        if image:
            outputs.append(_applied(b, _normed(b, start()), function))
            outputs.append(_applied(b, b.add(_normed(b, start()), start()), function))
    if not rare:
        outputs += [b.mul(start(), start()), b.sub(start(), start())]
    if image and not rare:
        for normed in (False, True):
            x = _normed(b, start()) if normed else start()
            outputs.append(b.activation(_scaled(b, x), "relu"))
    return b.build([b.conv(y, 8, kernel=1) if image else b.linear(y, 8) for y in outputs])


def _normed(b: GraphBuilder, x: str) -> str:
    return b.op("batch_norm", [x], {"epsilon": 1e-5})


def _scaled(b: GraphBuilder, x: str) -> str:
    """A scale and a shift of each channel, as Caffe's networks have them after a norm."""
    attrs: dict[str, AttrValue] = {"shape": (1, b.shape(x)[1], 1, 1), "dtype": "float32"}
    return b.add(b.mul(x, b.op("constant", [], attrs)), b.op("constant", [], attrs))


def _applied(b: GraphBuilder, x: str, function: str) -> str:
    return b.op(function, [x], FUNCTIONS[function])
