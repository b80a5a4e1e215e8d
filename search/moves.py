"""Random steps through a space, for searches that go from one architecture to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwbench.spaces.base import Codes, Space

_TRIES = 8


def mutated(space: Space, codes: Codes, rng: np.random.Generator) -> Codes:
    """A neighbour (n, L) of each code: one active decision takes another value.

    Decisions that this turns on take any value. Where no valid neighbour was found in eight tries
    the code stays as it is.
    """
    here = space.canonical(codes)
    out = here.copy()
    left = np.arange(len(here))
    counts = np.asarray(space.cardinalities)
    for _ in range(_TRIES):
        if not len(left):
            break
        moved = _one_step(space, here[left], counts, rng)
        good = space.valid(moved) & (moved != here[left]).any(axis=1)
        out[left[good]] = moved[good]
        left = left[~good]
    return out


def _one_step(
    space: Space,
    here: Codes,
    counts: NDArray[np.int_],
    rng: np.random.Generator,
) -> Codes:
    active = space.active(here)
    movable = active & (counts > 1)
    column = np.where(movable, rng.random(here.shape), -1).argmax(axis=1)
    rows = np.arange(len(here))
    free = rng.integers(0, counts, size=here.shape, dtype=np.int16)
    moved = np.where(active, here, free)
    step = rng.integers(1, np.maximum(counts[column], 2))
    moved[rows, column] = (here[rows, column] + step) % counts[column]
    return space.canonical(moved)
