"""Once-for-all MobileNetV3 spaces of any size: skeleton, network, MACs and text form.

The structure is that of OFA-MobileNetV3 (Cai et al., "Once-for-All", ICLR 2020, checked against
its released code): units of 2 to 4 inverted residual layers; every layer chooses its kernel and
its expansion; squeeze-and-excitation by unit. Batch norms are folded into convolutions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.errors import GraphError, UsageError
from hwbench.graph import Graph, GraphBuilder
from hwbench.spaces.base import Choice, Decision, Space, Value, listed


@dataclass(frozen=True, slots=True)
class Unit:
    """A run of layers of one width; the stride belongs to the first of them."""

    channels: int
    stride: int
    se: bool
    activation: str


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What all networks of a space share. Channels are those before ``width`` multiplies them.

    ``head`` are the channels of the 1x1 convolution before the global pooling, ``mix`` of the
    one after it. Kernels (odd) and expansions have one digit: the text form relies on it.
    """

    name: str
    resolutions: tuple[int, ...]
    stem: int
    stem_stride: int
    units: tuple[Unit, ...]
    head: int
    mix: int
    classes: int
    in_channels: int = 3
    width: float = 1.0
    depths: tuple[int, ...] = (2, 3, 4)
    kernels: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[int, ...] = (3, 4, 6)

    def __post_init__(self) -> None:
        if any(k % 2 == 0 for k in self.kernels):
            raise UsageError(f"space {self.name}: kernels {self.kernels} must be odd")
        if not all(1 <= v <= 9 for v in (*self.kernels, *self.expansions)):
            raise UsageError(f"space {self.name}: kernels and expansions must lie in 1..9")

    def channels(self, base: int) -> int:
        """``base`` channels after the width multiplier."""
        return round_channels(base * self.width)


@dataclass(frozen=True, slots=True)
class Layer:
    """One inverted residual layer with everything decided but kernel and expansion."""

    c_in: int
    c_out: int
    stride: int
    se: bool
    activation: str

    def add_to(self, b: GraphBuilder, x: str, kernel: int, expansion: int) -> str:
        """Append the layer's ops to a graph; an expansion of 1 has no expanding convolution."""
        mid = self.c_in * expansion
        y = x
        if expansion > 1:
            y = b.activation(b.conv(y, mid, kernel=1), self.activation)
        y = b.conv(y, mid, kernel=kernel, stride=self.stride, groups=mid)
        y = b.activation(y, self.activation)
        if self.se:
            gate = b.conv(b.global_avg_pool(y), squeezed(mid), kernel=1)
            gate = b.conv(b.activation(gate, "relu"), mid, kernel=1)
            y = b.mul(y, b.activation(gate, "hsigmoid"))
        y = b.conv(y, self.c_out, kernel=1)
        return b.add(x, y) if self.stride == 1 and self.c_in == self.c_out else y

    def macs(self, size: int, kernel: int, expansion: int) -> int:
        """Multiply-accumulates on a square input of ``size``."""
        mid = self.c_in * expansion
        expand = self.c_in * mid * size**2 if expansion > 1 else 0
        squeeze = 2 * mid * squeezed(mid) if self.se else 0
        return expand + squeeze + mid * (kernel**2 + self.c_out) * strided(size, self.stride) ** 2


def round_channels(channels: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``channels``, but never below 90 % of it.

    MobileNet's rule; halves round up.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def squeezed(channels: int) -> int:
    """Hidden channels of a squeeze-and-excitation block: a quarter, rounded."""
    return round_channels(channels // 4)


def strided(size: int, stride: int) -> int:
    """Output size of a same-padded window with an odd kernel."""
    return -(-size // stride)


class MobileNetV3Space(Space):
    """All networks over one skeleton.

    Decisions, in order: ``r``, the resolution; ``d0…``, the depth of each unit; ``k0…`` and
    ``e0…``, kernel and expansion of each layer. Layer i of unit u has number ``slots * u + i``
    and exists where ``d<u>`` is above i.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        self.slots = max(skeleton.depths)
        super().__init__(skeleton.name, list(_decisions(skeleton)))
        self.first, self.layers = _layers(skeleton)

    def build(self, choice: Choice) -> Graph:
        s = self.skeleton
        b = GraphBuilder(self.name)
        x = b.input("image", (1, s.in_channels, choice["r"], choice["r"]))
        x = b.conv(x, self.first.c_in, kernel=3, stride=s.stem_stride)
        x = self.first.add_to(b, b.activation(x, "hswish"), kernel=3, expansion=1)
        for number, layer in enumerate(self.layers):
            if f"k{number}" in choice:
                x = layer.add_to(b, x, choice[f"k{number}"], choice[f"e{number}"])
        x = b.activation(b.conv(x, s.channels(s.head), kernel=1), "hswish")
        x = b.conv(b.global_avg_pool(x), s.channels(s.mix), kernel=1, bias=False)
        return b.build(b.linear(b.flatten(b.activation(x, "hswish")), s.classes))

    # --- MACs -------------------------------------------------------------------------------

    def macs(self, codes: ArrayLike) -> NDArray[np.int64]:
        """Multiply-accumulates of each architecture (n, L) -> (n,): sums over a table."""
        rows = self.check(codes)
        outside, table = self._macs_tables
        layers = len(self.layers)
        r, k, e = rows[:, 0], rows[:, -2 * layers : -layers], rows[:, -layers:]
        costs = table[np.arange(layers), r[:, None], k, e]
        present = self.active(rows)[:, -layers:]
        macs: NDArray[np.int64] = outside[r] + np.where(present, costs, 0).sum(axis=1)
        return macs

    @cached_property
    def _macs_tables(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """MACs by resolution of what is always there, and of [layer, resolution, k, e]."""
        s = self.skeleton
        shape = (len(self.layers), len(s.resolutions), len(s.kernels), len(s.expansions))
        table = np.zeros(shape, dtype=np.int64)
        outside = np.zeros(len(s.resolutions), dtype=np.int64)
        head, mix = s.channels(s.head), s.channels(s.mix)
        for i, resolution in enumerate(s.resolutions):
            size = strided(resolution, s.stem_stride)
            outside[i] = s.in_channels * 9 * self.first.c_in * size**2
            outside[i] += self.first.macs(size, kernel=3, expansion=1)
            for number, layer in enumerate(self.layers):
                table[number, i] = [
                    [layer.macs(size, k, e) for e in s.expansions] for k in s.kernels
                ]
                size = strided(size, layer.stride)
            outside[i] += self.layers[-1].c_out * head * size**2 + head * mix + mix * s.classes
        return outside, table

    # --- text -------------------------------------------------------------------------------

    def text(self, choice: Choice) -> str:
        """E.g. ``r224 d2,3,2,2,2 k35,577,33,35,55 e34,466,66,33,46``: one digit a layer."""
        depths = [choice[f"d{u}"] for u in range(len(self.skeleton.units))]
        kernels, expansions = (
            ",".join(
                "".join(str(choice[f"{letter}{self.slots * u + i}"]) for i in range(depth))
                for u, depth in enumerate(depths)
            )
            for letter in "ke"
        )
        return f"r{choice['r']} d{listed(depths, ',')} k{kernels} e{expansions}"

    def parse(self, text: str) -> dict[str, Value]:
        s = self.skeleton
        fields = text.split()
        if [f[:1] for f in fields] != list("rdke"):
            raise GraphError("give four fields in the order r d k e, like r224 d2,… k35,… e34,…")
        r, d, k, e = (field[1:] for field in fields)
        choice: dict[str, Value] = {"r": _number(r, s.resolutions, "r")}
        depths = _by_unit(d, "d", len(s.units))
        for u, written in enumerate(depths):
            choice[f"d{u}"] = _number(written, s.depths, f"d of unit {u + 1}")
        for letter, field, values in (("k", k, s.kernels), ("e", e, s.expansions)):
            for u, digits in enumerate(_by_unit(field, letter, len(s.units))):
                where = f"{letter} of unit {u + 1}"
                if len(digits) != choice[f"d{u}"]:
                    raise GraphError(
                        f"{where} is {digits!r}, but the unit's depth is {choice[f'd{u}']}: "
                        "give one digit for each layer"
                    )
                for i, digit in enumerate(digits):
                    number = _number(digit, values, f"{where}, layer {i + 1},")
                    choice[f"{letter}{self.slots * u + i}"] = number
        return choice


def _decisions(s: Skeleton) -> Iterator[Decision]:
    units, slots = range(len(s.units)), max(s.depths)
    yield Decision("r", s.resolutions)
    for u in units:
        yield Decision(f"d{u}", s.depths)
    for letter, values in (("k", s.kernels), ("e", s.expansions)):
        for u in units:
            for i in range(slots):
                deeper = tuple(d for d in s.depths if d > i)
                when = None if deeper == s.depths else (f"d{u}", deeper)
                yield Decision(f"{letter}{slots * u + i}", values, when)


def _layers(s: Skeleton) -> tuple[Layer, list[Layer]]:
    """The first, undecided layer, and all others by number."""
    stem = s.channels(s.stem)
    first = Layer(stem, stem, stride=1, se=False, activation="relu")
    layers = []
    c_in = stem
    for unit in s.units:
        c_out = s.channels(unit.channels)
        for i in range(max(s.depths)):
            stride = unit.stride if i == 0 else 1
            layers.append(Layer(c_in, c_out, stride, unit.se, unit.activation))
            c_in = c_out
    return first, layers


def _by_unit(field: str, letter: str, units: int) -> list[str]:
    parts = field.split(",")
    if len(parts) != units:
        raise GraphError(f"{letter} has {len(parts)} parts: give {units}, one for each unit")
    return parts


def _number(written: str, values: Sequence[int], what: str) -> int:
    if re.fullmatch("[0-9]+", written) is None or int(written) not in values:
        raise GraphError(f"{what} is {written!r}: give one of {listed(values)}")
    return int(written)
