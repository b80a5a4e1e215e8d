"""Where a sliding window reads: between the graph's paddings and TFLite's SAME and VALID."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwbench.lower.tflite_layout import IMAGE, frame
from hwbench.lower.tflite_lowering import Lowering, Value
from hwbench.ops import Op

SAME, VALID = 0, 1
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """A window over an image, (height, width) each; a sequence is an image of height 1."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    begin: Pair
    end: Pair
    size: Pair
    out: Pair

    @classmethod
    def of(cls, op: Op, shape: Sequence[int], out: Sequence[int]) -> Window:
        """The window of a convolution or a pool on an input of that NCHW or NCL shape."""
        rank = len(op["kernel"])
        dilation = op["dilation"] if op.kind == "conv" else (1,) * rank
        return cls(
            _pair(op["kernel"], 1),
            _pair(op["stride"], 1),
            _pair(dilation, 1),
            _pair(op["padding"][:rank], 0),
            _pair(op["padding"][rank:], 0),
            _pair(shape[2:], 1),
            _pair(out[2:], 1),
        )

    @property
    def reach(self) -> Pair:
        """Extent of the dilated window."""
        (a, b), (c, d) = self.kernel, self.dilation
        return c * (a - 1) + 1, d * (b - 1) + 1

    def mode(self) -> int | None:
        """SAME or VALID where they read the very same places; ``None`` where neither does."""
        axes = list(zip(self.size, self.out, self.reach, self.stride, self.begin, strict=True))
        if all(begin == 0 and (n - k) // s + 1 == out for n, out, k, s, begin in axes):
            return VALID
        # TFLite halves what SAME adds and puts an odd one at the end.
        if all(
            -(-n // s) == out and max((out - 1) * s + k - n, 0) // 2 == begin
            for n, out, k, s, begin in axes
        ):
            return SAME
        return None

    def inside(self) -> np.ndarray:
        """How many of a window's places lie inside the image: (out height, out width)."""
        counts = []
        for axis in (0, 1):
            places = (
                np.arange(self.out[axis])[:, None] * self.stride[axis]
                - self.begin[axis]
                + np.arange(self.kernel[axis]) * self.dilation[axis]
            )
            counts.append(((places >= 0) & (places < self.size[axis])).sum(axis=1))
        return np.outer(*counts)


def _pair(sizes: Sequence[int], height: int) -> Pair:
    first, second = (height, *sizes)[-2:]
    return first, second


def padded(
    lo: Lowering, x: Value, window: Window, value: float = 0.0, *, explicit: bool = False
) -> tuple[int, int]:
    """An image that a window can read, and SAME or VALID.

    What neither says becomes a PAD with ``value``, ``explicit`` all that lies outside.
    """
    order = IMAGE[len(x.shape)]
    tensor = lo.place(x, order)
    mode = window.mode()
    if mode == VALID or (mode == SAME and not explicit):
        return tensor, mode
    n, height, width, channels = frame(x.shape, order)
    (top, left), (bottom, right) = window.begin, window.end
    shape = (n, height + top + bottom, width + left + right, channels)
    inputs = [tensor, lo.integers([(0, 0), (top, bottom), (left, right), (0, 0)])]
    if value == 0:
        return lo.operate("PAD", inputs, shape, "PadOptions", step="pad"), VALID
    inputs.append(lo.scalar(value))
    return lo.operate("PADV2", inputs, shape, "PadV2Options", step="pad"), VALID
