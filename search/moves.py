"""Random steps through a space, for searches that go from one architecture to the next."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwbench.spaces.base import NOTHING_FIXED, Codes, Space, Value

_TRIES = 8


def mutated(
    space: Space,
    codes: Codes,
    rng: np.random.Generator,
    fixed: Mapping[str, Value] = NOTHING_FIXED,
) -> Codes:
    """A neighbour (n, L) of each code: one active decision takes another value.

    Decisions that this turns on take any value, those of ``fixed`` theirs. Where no valid
    neighbour was found in eight tries the code stays as it is.
    """
    here = space.canonical(codes)
    out = here.copy()
    left = np.arange(len(here))
    pinned = space.pinned(fixed)
    for _ in range(_TRIES):
        if not len(left):
            break
        moved = _one_step(space, here[left], pinned, rng)
        good = space.valid(moved) & (moved != here[left]).any(axis=1)
        out[left[good]] = moved[good]
        left = left[~good]
    return out


def _one_step(
    space: Space,
    here: Codes,
    pinned: Mapping[int, int],
    rng: np.random.Generator,
) -> Codes:
    active, counts = space.active(here), np.asarray(space.cardinalities)
    movable = active & (counts > 1)
    movable[:, list(pinned)] = False
    column = np.where(movable, rng.random(here.shape), -1).argmax(axis=1)
    rows = np.arange(len(here))
    free = rng.integers(0, counts, size=here.shape, dtype=np.int16)
    moved = np.where(active, here, free)
    step = rng.integers(1, np.maximum(counts[column], 2))
    moved[rows, column] = (here[rows, column] + step) % counts[column]
    moved[:, list(pinned)] = list(pinned.values())
    return space.canonical(moved)
