"""Smooth functions of a few points: what is found again, what is certain, what lasts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad

from model.blobs import pack, unpack
from model.matern import MaternProcess, correlation
from model.matern_fitting import _unlikeliness, fit_matern


def sample(seed, rows=120):
    """Returns columns of which the last says nothing, and a function of the first two."""
    rng = np.random.default_rng(seed)
    columns = np.column_stack([rng.uniform(-3, 3, (rows, 3)), np.full(rows, 2.0)])
    return columns, np.sin(columns[:, 0]) * 0.3 + 0.1 * columns[:, 1]


seeds = st.integers(0, 1000)


@settings(max_examples=10)
@given(seeds)
def test_a_smooth_function_is_found_between_its_points(seed):
    columns, targets = sample(seed)
    fresh, expected = sample(seed + 1)
    found, deviation = fit_matern(columns, targets).at(fresh)
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.2 * np.std(expected)
    assert np.all(deviation >= 0)


def test_far_from_all_points_nothing_is_known():
    columns, targets = sample(0)
    process = fit_matern(columns, targets)
    found, deviation = process.at(columns[:1] + np.array([1e4, 0.0, 0.0, 0.0]))
    assert found == pytest.approx([0.0], abs=1e-6)
    assert deviation == pytest.approx([np.sqrt(process.variance)])


@pytest.mark.parametrize("least", [1e-3, 0.05, 10.0])
def test_deviations_below_the_least_count_as_it(least):
    columns, targets = sample(0)
    process, (fresh, _) = fit_matern(columns, targets), sample(1)
    (mean, deviation), (same, floored) = process.at(fresh), process.at(fresh, least)
    np.testing.assert_array_equal(same, mean)
    np.testing.assert_array_equal(floored, np.maximum(deviation, least))


def test_a_feature_that_never_varied_does_not_count():
    columns, targets = sample(0)
    process = fit_matern(columns, targets)
    moved = columns + np.array([0.0, 0.0, 0.0, 5.0])
    np.testing.assert_array_equal(process.at(moved)[0], process.at(columns)[0])


@settings(max_examples=20)
@given(seeds)
def test_the_gradient_is_that_of_the_likelihood(seed):
    rng = np.random.default_rng(seed)
    placed, targets = rng.normal(size=(12, 3)), rng.normal(size=12)
    theta, doubts = rng.uniform(-1.5, 1.0, 5), rng.uniform(1.0, 9.0, 12)
    off = check_grad(
        lambda at: _unlikeliness(at, placed, targets, doubts)[0],
        lambda at: _unlikeliness(at, placed, targets, doubts)[1],
        theta,
    )
    assert off < 1e-3 * max(1.0, np.abs(_unlikeliness(theta, placed, targets, doubts)[1]).max())


@settings(max_examples=10)
@given(seeds)
def test_what_is_off_by_a_factor_does_not_move_its_neighbours(seed):
    columns, targets = sample(seed)
    wild = targets + 3.0 * (np.arange(len(targets)) % 20 == 0)
    fresh, expected = sample(seed + 1)
    process = fit_matern(columns, wild)
    assert np.sqrt(np.mean((process.at(fresh)[0] - expected) ** 2)) < 0.4 * np.std(expected)
    assert process.noise[::20].min() > 10 * np.median(process.noise)


def test_left_out_is_what_the_others_say_without_it():
    columns, targets = sample(0, rows=30)
    process = fit_matern(columns, targets)
    rest = np.arange(30) != 4
    others = MaternProcess(
        process.centre,
        process.lengths,
        process.variance,
        process.noise[rest],
        process.points[rest],
        targets[rest],
    )
    (said,), _ = others.at(columns[4:5])
    assert process.left_out()[4] == pytest.approx(targets[4] - said, abs=1e-6)


def test_the_covariance_is_what_deviations_are_the_diagonal_of():
    columns, targets = sample(0)
    process, (fresh, _) = fit_matern(columns, targets), sample(1, rows=15)
    covariance = process.covariance(fresh)
    assert np.sqrt(np.diag(covariance)) == pytest.approx(process.at(fresh)[1])
    np.testing.assert_allclose(covariance, covariance.T, atol=1e-12)


@given(seeds)
def test_points_are_alike_the_more_the_closer_they_are(seed):
    points = np.random.default_rng(seed).normal(size=(6, 2))
    found = correlation(points, points)
    assert np.diag(found) == pytest.approx(np.ones(6))
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    order = np.argsort(apart.ravel())
    assert np.all(np.diff(found.ravel()[order]) <= 1e-6)


def test_what_was_fitted_outlives_its_bytes():
    columns, targets = sample(3)
    written = fit_matern(columns, targets)
    read = MaternProcess.from_json(unpack(pack(written.to_json())))
    for first, second in zip(read.at(columns), written.at(columns), strict=True):
        np.testing.assert_array_equal(first, second)


DAMAGES = [{"points": bytes(24)}, {"targets": bytes(7)}, {"lengths": b""}, {"noise": bytes(8)}]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_json_is_refused(damage):
    written = fit_matern(*sample(0)).to_json()
    with pytest.raises(ValueError, match=r".+"):
        MaternProcess.from_json(written | damage)
