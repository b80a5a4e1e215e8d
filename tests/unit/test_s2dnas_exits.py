"""Thresholds are the best of all that were looked at, and say what they give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hwbench.errors import UsageError
from hwbench.search.s2dnas import all_exits, mean_latency


def one_by_one(sure, right, costs, thresholds):
    """Shares that leave, accuracy and mean cost, image by image."""
    stages, n = sure.shape
    left, good, spent = np.zeros(stages), 0, 0.0
    for i in range(n):
        for j in range(stages):
            spent += costs[j]
            if j == stages - 1 or sure[j, i] >= thresholds[j]:
                left[j] += 1
                good += right[j, i]
                break
    return left / n, good / n, spent / n


@st.composite
def judged(draw, most: int = 4):
    stages, n = draw(st.integers(1, most)), draw(st.integers(1, 12))
    sure = draw(hnp.arrays(float, (stages, n), elements=st.floats(0.1, 1)))
    right = draw(hnp.arrays(bool, (stages, n)))
    costs = draw(hnp.arrays(float, stages, elements=st.floats(0.1, 5)))
    return sure, right, costs


@given(judged(), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_each_way_gives_what_going_image_by_image_gives(data, random) -> None:
    sure, right, costs = data
    found = all_exits(*data)
    assert len(found) <= 20_000
    for row in random.sample(range(len(found)), min(5, len(found))):
        left, accuracy, cost = one_by_one(sure, right, costs, found.thresholds[row])
        assert np.allclose(found.left[row], left)
        assert found.accuracy[row] == pytest.approx(accuracy)
        assert found.cost[row] == pytest.approx(cost)
        assert mean_latency(costs, left) == pytest.approx(cost)


@given(judged(most=3))
@settings(max_examples=40)
def test_few_images_are_parted_in_every_way_there_is(data) -> None:
    sure, right, costs = data
    found = {tuple(np.round(row, 9)) for row in all_exits(*data).left}
    ways = [[0.0, *np.nextafter(np.unique(row), 2)] for row in sure[:-1]]
    for thresholds in np.array(np.meshgrid(*ways)).reshape(len(ways), -1).T if ways else [()]:
        if all(t <= 1 for t in thresholds):
            assert tuple(np.round(one_by_one(sure, right, costs, thresholds)[0], 9)) in found


def test_neighbouring_floats_are_parted_as_well() -> None:
    sure = np.array([[0.1, np.nextafter(0.1, 1)], [0.5, 0.5]])
    found = all_exits(sure, np.ones((2, 2), bool), [1.0, 1.0])
    assert [0.5, 0.5] in found.left.tolist()


@given(judged())
@settings(max_examples=40)
def test_the_front_holds_the_best_and_nothing_else(data) -> None:
    found = all_exits(*data)
    front = found.front()
    assert (np.diff(front.cost) >= 0).all()
    assert (np.diff(front.accuracy) > 0).all()
    for cost, accuracy in zip(found.cost, found.accuracy, strict=True):
        assert (front.accuracy[front.cost <= cost] >= accuracy).any()


def test_the_cheapest_way_that_is_accurate_enough_is_chosen() -> None:
    # Sure and right, sure and wrong, unsure: what stage 1 is unsure of stage 2 knows.
    sure = np.array([[0.9] * 6 + [0.8] * 2 + [0.4] * 2, [0.9] * 10])
    right = np.array([[1] * 6 + [0] * 2 + [0] * 2, [1] * 10])
    found = all_exits(sure, right, [1.0, 3.0])
    best = found.cheapest(1.0)
    assert best.left.tolist() == [[0.6, 0.4]]
    assert 0.8 < best.thresholds[0, 0] <= 0.9
    assert best.cost[0] == pytest.approx(1 + 0.4 * 3)
    assert found.cheapest(0.8).cost[0] == pytest.approx(1 + 0.2 * 3)
    assert found.cheapest(0.5).left.tolist() == [[1.0, 0.0]]


def test_what_cannot_be_had_is_said() -> None:
    sure, right = np.array([[0.9, 0.8], [0.9, 0.9]]), np.array([[0, 0], [1, 1]])
    found = all_exits(sure, right, [1.0, 1.0])
    with pytest.raises(UsageError, match=r"nothing leaves before the last stage"):
        found.cheapest(1.0)
    with pytest.raises(UsageError, match=r"an accuracy of 1\.1000: the most is 1\.0000"):
        found.cheapest(1.1)
    assert all_exits(sure[1:], right[1:], [1.0]).cheapest(1.0).left.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("sure", "right", "costs", "match"),
    [
        (np.ones((2, 0)), np.ones((2, 0)), [1, 1], "do not fit"),
        (np.ones((2, 3)), np.ones((2, 2)), [1, 1], "do not fit"),
        (np.ones((2, 3)), np.ones((2, 3)), [1], "do not fit"),
        (np.ones(3), np.ones(3), [1], "do not fit"),
        (np.full((2, 3), np.nan), np.ones((2, 3)), [1, 1], "no number"),
    ],
)
def test_what_does_not_fit_is_refused(sure, right, costs, match) -> None:
    with pytest.raises(UsageError, match=match):
        all_exits(sure, right, costs)
