"""Spread samples and designs cover a space better than uniform choices."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hwbench.errors import UsageError
from hwbench.spaces import Codes, Space, get_space, space_filling, spread_sample
from hwbench.spaces.design import candidates, extremes

OFA = get_space("ofa_mbv3")
NB201 = get_space("nasbench201")
SEEDS = range(3)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def hamming(space: Space, a: Codes, b: Codes) -> NDArray[np.int64]:
    """Number of decisions that differ, of each row of a from each of b."""
    marked_a, marked_b = (np.where(space.active(x), x, -1) for x in (a, b))
    return (marked_a[:, None] != marked_b[None]).sum(axis=2)


def log_macs(space: Space, codes: Codes) -> NDArray[np.float64]:
    return np.sort(np.log(space.macs(codes)))


def test_extremes_are_the_smallest_and_the_largest_network() -> None:
    assert OFA.macs(extremes(OFA, rng())).tolist() == [65_536_896, 843_101_040]
    every = NB201.macs(NB201.all_codes())
    assert NB201.macs(extremes(NB201, rng())).tolist() == [every.min(), every.max()]


def test_extremes_keep_to_what_is_fixed() -> None:
    fixed = {"r": 160, "d2": 3, "k11": 7}
    small, large = OFA.decode(extremes(OFA, rng(), fixed=fixed))
    assert small == "r160 d2,2,3,2,2 k33,33,333,33,33 e33,33,333,33,33"
    assert large == "r160 d4,4,3,4,4 k7777,7777,777,7777,7777 e6666,6666,666,6666,6666"


def test_a_spread_sample_reaches_the_sizes_that_a_uniform_one_misses() -> None:
    low, high = np.log(OFA.macs(extremes(OFA, rng())))
    bins = np.linspace(low, high, 11)
    spread, _ = np.histogram(log_macs(OFA, spread_sample(OFA, 3000, rng())), bins)
    uniform, _ = np.histogram(log_macs(OFA, OFA.sample(3000, rng())), bins)
    assert spread.min() > 3000 / 10 / 5  # no tenth of the range has under a fifth of its share
    assert uniform.min() == 0


def test_a_spread_sample_draws_every_value_equally_often() -> None:
    codes = spread_sample(OFA, 8000, rng())
    always = OFA.active(codes).all(axis=0)
    assert always.sum() == 1 + 5 + 2 * 10
    for j in np.flatnonzero(always):
        share = np.bincount(codes[:, j]) / len(codes)
        assert np.abs(share * OFA.cardinalities[j] - 1).max() < 0.1, OFA.decisions[j].name


def test_a_spread_sample_is_distinct_valid_and_keeps_to_what_is_fixed() -> None:
    codes = spread_sample(NB201, 500, rng(), fixed={"0>3": "none"})
    assert len(np.unique(codes, axis=0)) == 500
    assert NB201.valid(codes).all()
    assert not codes[:, 3].any()
    codes = spread_sample(OFA, 500, rng(), fixed={"r": 192})
    assert {text[:5] for text in OFA.decode(codes)} == {"r192 "}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_design_covers_size_and_choices_better_than_uniform(seed: int) -> None:
    design = space_filling(OFA, 300, rng(seed))
    uniform = OFA.sample(300, rng(seed))
    low, high = np.log(OFA.macs(extremes(OFA, rng())))
    population = spread_sample(OFA, 500, rng(100 + seed))

    covered = [np.ptp(log_macs(OFA, x)) / (high - low) for x in (design, uniform)]
    assert covered[0] == 1
    assert covered[1] < 0.8
    gaps = [np.diff([low, *log_macs(OFA, x), high]).max() for x in (design, uniform)]
    assert gaps[0] < gaps[1]
    closest = [(hamming(OFA, x, x) + 99 * np.eye(300, dtype=int)).min() for x in (design, uniform)]
    assert closest[0] >= closest[1]
    nearest = [hamming(OFA, population, x).min(axis=1).mean() for x in (design, uniform)]
    assert nearest[0] < 0.85 * nearest[1]


def test_a_design_draws_on_every_value_of_every_decision() -> None:
    codes = space_filling(OFA, 300, rng())
    active = OFA.active(codes)
    for j, values in enumerate(OFA.cardinalities):
        count = np.bincount(codes[active[:, j], j], minlength=values)
        assert count.min() > 0.3 * active[:, j].sum() / values, OFA.decisions[j].name


@pytest.mark.parametrize("space", [OFA, NB201], ids=lambda s: s.name)
def test_a_design_is_distinct_valid_reproducible_and_starts_at_the_ends(space: Space) -> None:
    codes = space_filling(space, 100, rng(4))
    assert np.array_equal(codes, space_filling(space, 100, rng(4)))
    assert not np.array_equal(codes, space_filling(space, 100, rng(5)))
    assert np.array_equal(space.canonical(codes), codes)
    assert len(np.unique(codes, axis=0)) == 100
    assert space.valid(codes).all()
    assert space.macs(codes[:2]).tolist() == space.macs(extremes(space, rng())).tolist()


@pytest.fixture(scope="module")
def grown() -> Codes:
    """Its pool of candidates has grown by then."""
    return space_filling(NB201, 510, rng(4))


@pytest.mark.parametrize("n", [2, 3, 9, 11, 500, 501])
def test_a_design_that_grows_keeps_what_it_has(n: int, grown: Codes) -> None:
    assert np.array_equal(space_filling(NB201, n, rng(4)), grown[:n])


def test_a_design_cut_short_covers_all_sizes_too() -> None:
    low, high = np.log(OFA.macs(extremes(OFA, rng())))
    first = log_macs(OFA, space_filling(OFA, 300, rng())[:22])
    assert np.diff([low, *first, high]).max() < 0.25 * (high - low)


@pytest.mark.parametrize("n", [1, 2, 3, 11, 30])
def test_a_small_design_of_a_fixed_resolution(n: int) -> None:
    codes = space_filling(OFA, n, rng(), fixed={"r": 128})
    assert codes.shape == (n, 46)
    assert not codes[:, 0].any()


def test_a_design_may_take_all_there_is_and_no_more() -> None:
    fixed = {"0>1": "none", "0>2": "none", "1>2": "none", "1>3": "none"}
    every = NB201.all_codes(fixed=fixed)
    codes = space_filling(NB201, len(every), rng(), fixed=fixed)
    assert np.array_equal(np.unique(codes, axis=0), every)
    with pytest.raises(UsageError, match="nasbench201 has 20 architectures, not 21"):
        space_filling(NB201, 21, rng(), fixed=fixed)
    with pytest.raises(UsageError, match="0 architectures were asked"):
        space_filling(NB201, 0, rng())


def test_candidates_hold_the_extremes_or_all_there_is() -> None:
    pool = candidates(OFA, 200, rng(), fixed={"r": 224})
    assert len(np.unique(pool, axis=0)) == len(pool)
    assert 200 <= len(pool) <= 202
    assert OFA.macs(pool).max() == 843_101_040
    assert len(candidates(NB201, 20_000, rng())) == len(NB201.all_codes())


def test_what_is_fixed_turns_others_off_and_leaves_few() -> None:
    """Of 3 ** 14 codes of kernels 3 ** 6 are architectures: the other layers are not there."""
    shallow = {f"d{unit}": 2 for unit in range(5)} | {f"e{i}": 3 for i in range(20)}
    fixed = {"r": 224, **shallow, **{f"k{i}": 3 for i in range(6)}}
    assert OFA.raw_size(fixed) == 3**6
    assert len(OFA.all_codes(fixed=fixed)) == 3**6
    assert len(space_filling(OFA, 300, rng(), fixed=fixed)) == 300
