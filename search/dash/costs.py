"""What each operator has to do, counted.

The counts are those of the derived complexity: with t taps of all candidates together, l the
aggregated kernel's length, N the transform's, b the batch,

- mixed results: b c_in c_out n t products;
- mixed weights: c_in c_out t, then b c_in c_out n l;
- Fourier: c_in c_out t, (c_in c_out + b (c_in + c_out)) N log N, then b c_in c_out N complex ones,

and besides them the numbers that are moved and the calls that are made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwbench.search.dash.cases import Case
from hwbench.search.dash.mixture import kept_taps
from hwbench.search.dash.operators import (
    CROPPED_RESULTS,
    CROPPED_WEIGHTS,
    FOURIER,
    RESULTS,
    WEIGHTS,
)
from hwbench.search.dash.spectral import smooth_length


@dataclass(frozen=True, slots=True)
class Counts:
    """What a forward pass does: calls, products, N log N of transforms, numbers that are moved."""

    calls: float
    products: float
    transforms: float
    moved: float

    @property
    def operations(self) -> float:
        """Products and transforms together, 5 / 2 products for each N log2 N."""
        return self.products + 2.5 * self.transforms


def counts(operator: str, case: Case) -> Counts:
    """Of one forward pass of an operator."""
    m, batch = case.mixture, case.batch
    pairs = m.c_in * m.c_out / m.groups
    n = math.prod(case.sizes)
    out = math.prod(-(-size // m.stride) for size in case.sizes)
    moved = batch * (m.c_in * n + m.c_out * out)
    crop = operator in (CROPPED_RESULTS, CROPPED_WEIGHTS, FOURIER)
    taps, halves = extent(case, crop)
    if operator in (RESULTS, CROPPED_RESULTS):
        calls = len(m.candidates)
        return Counts(calls, batch * pairs * out * taps, 0, calls * moved)
    length = math.prod(2 * h + 1 for h in halves)
    filling = pairs * (taps + length)
    if operator in (WEIGHTS, CROPPED_WEIGHTS):
        return Counts(1, batch * pairs * out * length, 0, moved + filling)
    room = halves if operator == FOURIER else [2 * h for h in halves]
    full = math.prod(smooth_length(s + r) for s, r in zip(case.sizes, room, strict=True))
    signals = batch * (m.c_in + m.c_out)
    return Counts(
        calls=1,
        products=batch * pairs * full * 2,  # half the frequencies, four real products each
        transforms=(pairs + signals) * full * math.log2(full),
        moved=(pairs + signals) * full + filling,
    )


def extent(case: Case, crop: bool) -> tuple[int, list[int]]:
    """All taps, and the reach of the longest candidate to one side, by dimension."""
    taps, halves = 0, [0] * len(case.sizes)
    for k, d in case.mixture.candidates:
        own = [k // 2 if not crop else kept_taps(k, d, n).stop - 1 - k // 2 for n in case.sizes]
        taps += math.prod(2 * half + 1 for half in own)
        halves = [max(h, d * half) for h, half in zip(halves, own, strict=True)]
    return taps, halves


def plain_is_hopeless(case: Case) -> bool:
    """Whether leaving taps in multiplies the work of a dense form: then only cropped ones run."""
    plain, cropped = (counts(name, case).operations for name in (WEIGHTS, CROPPED_WEIGHTS))
    return plain > 2 * cropped
