"""Samples that cover a space better than uniform choices do.

Networks of uniform random choices crowd the middle of a space in size, since size is nearly a
sum over many decisions: of 10,000 of ``ofa_mbv3`` none comes near the smallest or the largest.
A predictor fitted on them extrapolates where searches go, to the ends.

- :func:`spread_sample` stays random, but spreads size: each architecture has a size level u and
  a loyalty rho of its own, both uniform in 0..1; each of its decisions takes the value at level
  u (its values ordered by MACs) with probability rho, else any value. So every value is drawn
  equally often, as in uniform sampling (a one-factor copula), yet all sizes come up.
- :func:`space_filling` chooses from a spread pool: the smallest and the largest network, then
  in turn from ten quantiles of MACs, each time the candidate whose nearest chosen one is farthest
  (greedy maximin; Gonzalez 1985). The distance is the share of the decisions active in either
  that differ (Gower): counting them instead would favour deep networks.
- :func:`extremes` finds the ends by steepest descent over neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwbench.errors import UsageError
from hwbench.spaces.base import ENUMERABLE, NOTHING_FIXED, Codes, Space, Value, unique_in_order

_PILOT = 32  # architectures on which every value is tried to tell small from large
_POOL = 4000
_OFFERED = 8  # of the pool there are at least so many for one that is chosen
_STRATA = 10


def spread_sample(
    space: Space,
    n: int,
    rng: np.random.Generator,
    *,
    fixed: Mapping[str, Value] = NOTHING_FIXED,
) -> Codes:
    """``n`` distinct random architectures (n, L) of all sizes.

    ``fixed`` pins decisions by name to a value. UsageError where the space has fewer than n.
    """
    by_size = _values_by_size(space, rng, fixed)

    def draw(m: int) -> Codes:
        level, loyalty = rng.random((m, 1)), rng.random((m, 1))
        shape = (m, len(by_size))
        levels = np.where(rng.random(shape) < loyalty, level, rng.random(shape))
        columns = (
            values[(levels[:, j] * len(values)).astype(int)] for j, values in enumerate(by_size)
        )
        return np.stack(list(columns), axis=1)

    return space.distinct(n, draw, rng, fixed=fixed)


def extremes(
    space: Space, rng: np.random.Generator, *, fixed: Mapping[str, Value] = NOTHING_FIXED
) -> Codes:
    """The architectures of fewest and of most MACs (2, L), as far as steepest descent finds."""
    start = space.sample(1, rng, fixed=fixed)[0]
    return np.stack([_climb(space, start, sign, fixed) for sign in (-1, 1)])


def space_filling(
    space: Space,
    n: int,
    rng: np.random.Generator,
    *,
    fixed: Mapping[str, Value] = NOTHING_FIXED,
) -> Codes:
    """``n`` distinct architectures (n, L) that cover the space in size and in choices.

    The first are the smallest and the largest; the order of the rest covers the space too, so
    that a run that is cut short has an even sample. The same ``rng`` state gives the same
    sample, and with a larger ``n`` the same first ones: a sample that grows keeps what it has
    (but for a single one, which is of middle size). Needs ``macs`` of a pool of thousands.
    UsageError where the space has fewer than n.
    """
    if n < 1:
        raise UsageError(f"{n} architectures were asked of {space.name}: give at least 1")
    if space.raw_size(fixed) <= ENUMERABLE:
        every = len(space.all_codes(fixed=fixed))
        if every < n:
            raise UsageError(f"{space.name} has {every} architectures, not {n}: ask for fewer")
    size = _POOL
    pool = candidates(space, size, rng, fixed=fixed)
    if n == 1:
        by_size = np.argsort(space.macs(pool), kind="stable")
        return pool[by_size[len(pool) // 2 :][:1]]
    codes = _filled(space, pool, 0, min(n, size // _OFFERED), rng)
    while len(codes) < n:
        size *= 2
        pool = np.concatenate([codes, candidates(space, size, rng, fixed=fixed)])
        most = min(n, size // _OFFERED)
        codes = _filled(space, unique_in_order(pool), len(codes), most, rng)
    return codes


def _filled(space: Space, pool: Codes, held: int, n: int, rng: np.random.Generator) -> Codes:
    """The first ``held`` of a pool, and more of it in turn from the strata, up to ``n``."""
    by_size = np.argsort(space.macs(pool), kind="stable")
    strata = np.array_split(by_size, _STRATA)
    active = space.active(pool)
    marked = np.where(active, pool, np.int16(-1))
    apart = np.full(len(pool), np.inf)
    chosen: list[int] = []

    def choose(i: int) -> None:
        chosen.append(i)
        differ = (marked != marked[i]).sum(axis=1)
        np.minimum(apart, differ / (active | active[i]).sum(axis=1), out=apart)

    for i in range(held) if held else (int(by_size[0]), int(by_size[-1])):
        choose(i)
    while len(chosen) < n:
        for k in rng.permutation(len(strata))[: n - len(chosen)]:
            left = strata[k][apart[strata[k]] > 0]
            if len(left):
                choose(int(left[np.argmax(apart[left])]))
    return pool[chosen]


def candidates(
    space: Space,
    n: int,
    rng: np.random.Generator,
    *,
    fixed: Mapping[str, Value] = NOTHING_FIXED,
) -> Codes:
    """A pool of n distinct architectures, spread, then its extremes; all where there are fewer."""
    if space.raw_size(fixed) <= ENUMERABLE:
        every = space.all_codes(fixed=fixed)
        if len(every) <= n:
            return rng.permutation(every)
    spread = spread_sample(space, n, rng, fixed=fixed)
    return unique_in_order(np.concatenate([spread, extremes(space, rng, fixed=fixed)]))


def _values_by_size(
    space: Space, rng: np.random.Generator, fixed: Mapping[str, Value]
) -> list[Codes]:
    """The codes of each decision, ordered by the mean log MACs with all else equal."""
    high = np.asarray(space.cardinalities)
    pilot = rng.integers(0, high, size=(8 * _PILOT, len(high)), dtype=np.int16)
    pinned = space.pinned(fixed)
    pilot[:, list(pinned)] = list(pinned.values())
    pilot = pilot[space.valid(pilot)][:_PILOT]
    orders = []
    for j, values in enumerate(space.cardinalities):
        effects = []
        for v in range(values):
            changed = pilot.copy()
            changed[:, j] = v
            kept = space.valid(changed)
            macs = np.maximum(space.macs(np.concatenate([pilot[kept], changed[kept]])), 1)
            before, after = np.log(macs).reshape(2, -1)
            effects.append(float(np.mean(after - before)) if kept.any() else 0.0)
        orders.append(np.argsort(effects, kind="stable").astype(np.int16))
    return orders


def _climb(space: Space, code: Codes, sign: int, fixed: Mapping[str, Value]) -> Codes:
    """Steepest ascent of ``sign * MACs`` over neighbours that keep to ``fixed``."""
    here, best = code, sign * int(space.macs(code[None])[0])
    while True:
        near = space.neighbours(here)
        for column, pin in space.pinned(fixed).items():
            near = near[(near[:, column] == pin) | ~space.active(near)[:, column]]
        macs = sign * space.macs(near)
        if not len(near) or macs.max() <= best:
            return here
        here, best = near[macs.argmax()], int(macs.max())
