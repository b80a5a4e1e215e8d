"""Where the elements of a graph's tensor lie in a TFLite tensor's memory.

A graph speaks of NCHW, TFLite of NHWC. Instead of moving data wherever a graph reshapes or
permutes its axes, the lowering keeps count of where every axis went: most reshapes and
transposes then cost nothing, or vanish into a permutation of the next layer's weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

#: A graph's axes in the order of a TFLite tensor's; -1 stands for an axis of size 1 that the
#: graph does not have.
Order = tuple[int, ...]

#: Channels last, by the rank of the graph's tensor: a sequence is an image of height 1.
IMAGE: dict[int, Order] = {3: (0, -1, 2, 1), 4: (0, 2, 3, 1)}


def plain(rank: int) -> Order:
    """The graph's own order."""
    return tuple(range(rank))


def frame(shape: Sequence[int], order: Order) -> tuple[int, ...]:
    """Shape of the TFLite tensor that holds a graph's tensor of ``shape`` in that order."""
    return tuple(1 if axis < 0 else shape[axis] for axis in order)


@dataclass(frozen=True, slots=True)
class Layout:
    """The memory is an array of ``sizes``, slowest part first, none of them 1; ``axes[i]`` are
    the parts that make up the graph's axis i, slowest first.

    An NHWC image of shape (2, C, H, W) has sizes (2, H, W, C) and axes ((0,), (3,), (1,), (2,));
    flattened to (2, C * H * W) it keeps the sizes, with axes ((0,), (3, 1, 2)).
    """

    sizes: tuple[int, ...]
    axes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, shape: Sequence[int], order: Order) -> Layout:
        """A graph's tensor of ``shape`` whose axes lie in that order."""
        kept = [axis for axis in order if axis >= 0 and shape[axis] > 1]
        place = {axis: (part,) for part, axis in enumerate(kept)}
        sizes = tuple(shape[axis] for axis in kept)
        return cls(sizes, tuple(place.get(axis, ()) for axis in range(len(shape))))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the graph's tensor."""
        return tuple(math.prod(self.sizes[part] for part in parts) for parts in self.axes)

    def parts(self, order: Order) -> tuple[int, ...]:
        """The parts of the memory as they follow each other in that order of axes."""
        return tuple(part for axis in order if axis >= 0 for part in self.axes[axis])

    def lies(self, order: Order) -> bool:
        """Whether the memory holds the axes in that order."""
        return self.parts(order) == tuple(range(len(self.sizes)))

    def sorted_order(self) -> Order | None:
        """The order of axes that lies in memory; ``None`` where axes are torn or interleaved."""
        order = tuple(sorted(range(len(self.axes)), key=lambda axis: self.axes[axis]))
        return order if self.lies(order) else None

    def extended(self, rank: int) -> Layout:
        """With leading axes of size 1, as broadcasting has it."""
        return Layout(self.sizes, ((),) * (rank - len(self.axes)) + self.axes)

    def transposed(self, perm: Sequence[int]) -> Layout:
        """Axis i is axis ``perm[i]`` of this; nothing moves."""
        return Layout(self.sizes, tuple(self.axes[axis] for axis in perm))

    def reshaped(self, shape: Sequence[int]) -> Layout | None:
        """Another grouping of the same elements; nothing moves.

        ``None`` where an axis would begin inside a part that does not divide there.
        """
        pending = [(part, self.sizes[part]) for part in reversed(self.parts(plain(len(self.axes))))]
        pieces: list[tuple[int, int]] = []  # part of this layout, size
        axes: list[list[int]] = []  # indices into pieces
        for size in shape:
            axes.append([])
            missing = size
            while missing > 1:
                part, length = pending.pop()
                taken = math.gcd(length, missing)
                if taken not in (length, missing):
                    return None
                if taken < length:
                    pending.append((part, length // taken))
                axes[-1].append(len(pieces))
                pieces.append((part, taken))
                missing //= taken
        # Pieces of one part came slowest first, so a stable sort by part is the memory's order.
        memory = sorted(range(len(pieces)), key=lambda piece: pieces[piece][0])
        rank = {piece: i for i, piece in enumerate(memory)}
        layout = Layout(
            tuple(pieces[piece][1] for piece in memory),
            tuple(tuple(rank[piece] for piece in axis) for axis in axes),
        )
        return layout._merged()

    def _merged(self) -> Layout:
        """The same with parts joined that follow each other both in memory and in an axis."""
        joins = {b for axis in self.axes for a, b in pairwise(axis) if b == a + 1}
        sizes: list[int] = []
        new = {}
        for part, size in enumerate(self.sizes):
            if part in joins:
                sizes[-1] *= size
            else:
                new[part] = len(sizes)
                sizes.append(size)
        axes = (tuple(new[part] for part in axis if part in new) for axis in self.axes)
        return Layout(tuple(sizes), tuple(axes))
