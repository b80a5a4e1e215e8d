"""The regression under the predictor: evidence, leave-one-out errors, outliers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hwbench.predictors.bayes import Data, _by_labels, _by_weights, _Problem, regress, spread


def made_up(n: int, d: int, *, noise: float = 0.03, seed: int = 0) -> tuple[Data, np.ndarray]:
    """A sample of ``n``, whose second half of ``d`` features matters little; and its weights."""
    rng = np.random.default_rng(seed)
    features = np.column_stack([np.ones(n), rng.standard_normal((n, d)) / math.sqrt(d)])
    weights = np.r_[1, rng.standard_normal(d) * np.repeat([0.5, 0.02], d // 2)]
    groups = np.r_[0, np.repeat([1, 2], d // 2)]
    shape = rng.uniform(0.5, 2, n)
    target = features @ weights + noise * np.sqrt(shape) * rng.standard_normal(n)
    return Data(features, groups, target, np.zeros(n), shape), weights


THETA = np.log([0.3, 0.1, 0.03])


@pytest.mark.parametrize(("n", "d"), [(30, 50), (90, 40)])
def test_the_gradient_of_the_evidence(n: int, d: int) -> None:
    data, _ = made_up(n, d)
    problem = _Problem(data, np.random.default_rng(1).uniform(0.3, 1.5, n))
    value, gradient = problem.loss(THETA)
    steps = 1e-5 * np.eye(len(THETA))
    slopes = [problem.loss(THETA + h)[0] - problem.loss(THETA - h)[0] for h in steps]
    np.testing.assert_allclose(gradient, np.array(slopes) / 2e-5, rtol=1e-5)
    assert math.isfinite(value)


@pytest.mark.parametrize(("n", "d"), [(30, 50), (90, 40)])
def test_by_labels_and_by_weights_are_the_same(n: int, d: int) -> None:
    data, _ = made_up(n, d)
    noise = np.random.default_rng(2).uniform(0.01, 0.1, n) ** 2
    one, other = (f(data, np.ones(3), noise) for f in (_by_labels, _by_weights))
    np.testing.assert_allclose(one.pull, other.pull, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(one.precision, other.precision, rtol=1e-6)
    np.testing.assert_allclose(one.determined, other.determined, atol=1e-8)
    assert one.log_det == pytest.approx(other.log_det, abs=1e-7)


def test_leave_one_out_errors_are_those_of_fits_without_the_label() -> None:
    data, _ = made_up(40, 20)
    whole = _Problem(data, np.ones(40)).solve(THETA, math.inf)
    for i in (0, 17, 39):
        rest = np.arange(40) != i
        part = Data(
            data.features[rest], data.groups, data.target[rest], data.known[rest], data.shape[rest]
        )
        without = _Problem(part, np.ones(39)).solve(THETA, math.inf)
        row = data.features[i]
        (mean,), (variance,) = without.at(row[None])
        assert whole.loo_error[i] == pytest.approx(data.target[i] - mean)
        variance += without.noise**2 * data.shape[i]
        assert whole.loo_scale[i] == pytest.approx(math.sqrt(variance))


@pytest.mark.parametrize(("n", "d"), [(30, 50), (90, 40)])
def test_fitted_values_are_those_of_the_weights(n: int, d: int) -> None:
    data, _ = made_up(n, d)
    found = spread(regress(data), np.random.default_rng(0))
    design = np.random.default_rng(3).standard_normal((7, d + 1))
    mean, variance = found.at(design)
    weights, covariance = found.moments()
    np.testing.assert_allclose(mean, design @ weights, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(variance, np.diag(design @ covariance @ design.T), rtol=1e-6)


def test_a_posterior_is_mixed_over_the_scales_that_the_labels_allow() -> None:
    """Against a grid over the one scale that is left free, where that can be had."""
    rng = np.random.default_rng(5)
    features = np.column_stack([np.ones(12), rng.standard_normal((12, 3))])
    target = 1 + features[:, 1:] @ [0.05, -0.1, 0.02] + 0.03 * rng.standard_normal(12)
    data = Data(features, np.array([0, 1, 1, 1]), target, np.zeros(12), np.ones(12))
    best = regress(data)
    mixed = spread(best, rng, 256)
    assert mixed.shares.sum() == pytest.approx(1)
    problem = _Problem(data, np.ones(12))
    axes = np.meshgrid(np.linspace(-9, 2, 80), np.linspace(-7, 0, 80), indexing="ij")
    grid = np.stack([a.ravel() for a in axes], axis=1)
    log_share = np.array([-problem.loss(theta)[0] for theta in grid])
    shares = np.exp(log_share - log_share.max())
    far = np.array([[1.0, 8.0, 0.0, 0.0]])
    parts = problem.fitted(grid[shares > 1e-6], far)
    shares = shares[shares > 1e-6] / shares[shares > 1e-6].sum()
    means, variances = (np.array(p)[:, 0] for p in zip(*parts, strict=True))
    mean = shares @ means
    (found,), (variance,) = mixed.at(far)
    assert found == pytest.approx(mean, abs=0.03)
    assert variance == pytest.approx(shares @ (variances + (means - mean) ** 2), rel=0.15)
    assert variance > best.at(far)[1][0]


def test_it_finds_scales_and_noise() -> None:
    data, weights = made_up(2000, 40, noise=0.03)
    found = regress(data)
    assert np.abs(found.moments()[0] - weights).max() < 0.02
    assert found.noise == pytest.approx(0.03, rel=0.1)
    strong, weak = np.exp(found.theta[:2])
    assert strong == pytest.approx(0.5, rel=0.4)
    assert weak == pytest.approx(0.02, rel=0.6)


def test_noise_that_is_known_is_not_learned_again() -> None:
    data, _ = made_up(400, 20, noise=0.03)
    known = Data(data.features, data.groups, data.target, 0.03**2 * data.shape, data.shape)
    assert regress(known).noise < 0.01


def test_students_t_holds_against_outliers_and_wins_by_its_density() -> None:
    data, weights = made_up(150, 20, noise=0.01)
    spoiled = data.target.copy()
    spoiled[::10] += 1.0
    data = Data(data.features, data.groups, spoiled, data.known, data.shape)
    normal, robust = regress(data), regress(data, tail=2.0)
    fitted = data.features @ weights
    errors = [np.abs(f.at(data.features)[0] - fitted).max() for f in (normal, robust)]
    assert errors[1] < 0.03 < 0.3 < errors[0]
    assert robust.loo_log_density > normal.loo_log_density


def test_normal_noise_is_recognised_as_such() -> None:
    data, _ = made_up(300, 20)
    assert regress(data).loo_log_density > regress(data, tail=2.0).loo_log_density
