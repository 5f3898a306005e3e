"""Closed forms against what they stand for: fits on all points but one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.gaussian_process import GaussianProcess


def covariance(first, second):
    return 0.5 * np.exp(-np.abs(first[:, None] - second[None])) + 0.1


def process(points, targets, noise):
    return GaussianProcess(covariance(points, points), noise, targets)


points = st.lists(st.floats(-3, 3), min_size=2, max_size=8).map(np.array)


@given(points, st.integers(0, 1000))
def test_leaving_out_in_closed_form_is_leaving_out(at, seed):
    rng = np.random.default_rng(seed)
    targets, noise = rng.normal(size=len(at)), rng.uniform(0.05, 0.5, len(at))
    residuals, variances = process(at, targets, noise).left_out()
    for index in range(len(at)):
        rest = np.arange(len(at)) != index
        fitted = process(at[rest], targets[rest], noise[rest])
        cross = covariance(at[[index]], at[rest])
        assert residuals[index] == pytest.approx(targets[index] - fitted.mean(cross)[0], abs=1e-5)
        function = fitted.deviation(cross, np.array([0.6]))[0]
        assert variances[index] == pytest.approx(function**2 + noise[index] ** 2, rel=1e-4)


def test_what_was_observed_exactly_is_returned_and_certain():
    at, targets = np.array([0.0, 1.0, 5.0]), np.array([1.0, -1.0, 0.5])
    fitted = process(at, targets, np.full(3, 1e-6))
    cross = covariance(at, at)
    assert fitted.mean(cross) == pytest.approx(targets, abs=1e-4)
    assert fitted.deviation(cross, np.full(3, 0.6)) == pytest.approx(0.0, abs=1e-3)


def test_far_away_only_what_is_common_is_known():
    at = np.linspace(0, 1, 20)
    fitted = process(at, np.ones(20), np.full(20, 0.1))
    cross = covariance(np.array([100.0]), at)
    assert 0 < fitted.mean(cross)[0] < 0.5
    assert fitted.deviation(cross, np.array([0.6]))[0] > np.sqrt(0.5)


def test_equal_points_factorise():
    fitted = process(np.zeros(50), np.ones(50), np.full(50, 1e-12))
    assert fitted.mean(covariance(np.zeros(1), np.zeros(50)))[0] == pytest.approx(1.0, rel=1e-3)
