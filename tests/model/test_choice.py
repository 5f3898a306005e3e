"""What tells most of a smooth function is observed first."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.choice import most_telling
from model.matern_fitting import fit_matern

seeds = st.integers(0, 1000)


def known(seed, rows=40):
    rng = np.random.default_rng(seed)
    columns = rng.uniform(-3, 3, (rows, 2))
    return fit_matern(columns, np.sin(columns[:, 0]) + 0.05 * rng.normal(size=rows))


def alone(count):
    return np.arange(count)


@settings(max_examples=10)
@given(seeds, st.integers(0, 40))
def test_each_candidate_comes_once_and_as_many_as_asked(seed, count):
    columns = np.random.default_rng(seed).uniform(-3, 3, (25, 2))
    found = most_telling(known(seed), columns, alone(25), count)
    assert len(found) == len(set(found)) == min(count, 25)


@settings(max_examples=10)
@given(seeds)
def test_what_is_known_already_comes_last(seed):
    process = known(seed)
    seen = process.points[:1] * process.lengths + process.centre
    far = seen + np.array([[9.0, 9.0]])
    assert most_telling(process, np.vstack([seen, far]), alone(2), 1) == [1]


def test_a_crowd_comes_before_what_lies_alone_and_is_asked_once():
    process = known(0)
    crowd = np.array([[9.0, 9.0]]) + 0.01 * np.random.default_rng(0).normal(size=(10, 2))
    columns = np.vstack([[[-40.0, 40.0]], crowd])
    first, second = most_telling(process, columns, alone(11), 2)
    assert first > 0
    assert second == 0


@settings(max_examples=10)
@given(seeds)
def test_each_lowers_what_is_not_known_by_most(seed):
    process = known(seed)
    columns = np.random.default_rng(seed).uniform(-6, 6, (12, 2))
    (first,) = most_telling(process, columns, alone(12), 1)
    covariance = process.covariance(columns)
    left = [
        np.trace(covariance)
        - (covariance[:, row] ** 2).sum() / (covariance[row, row] + process.noise.min())
        for row in range(12)
    ]
    assert left[first] == pytest.approx(min(left))


def test_rows_of_one_candidate_are_observed_together():
    # Whichever of the first two comes first tells what the other would.
    columns = np.array([[9.0, 9.0], [9.01, 9.01], [9.01, 9.0], [9.0, -9.0]])
    found = most_telling(known(0), columns, np.array([0, 0, 1, 2]), 3)
    assert found[1] == 2
