"""What is learned beyond a law: trees, and mostly a smooth function where it is sure."""

import numpy as np
import pytest

from model.blobs import pack, unpack
from model.residual import Residual
from model.residual_fitting import fit_residual

RNG = np.random.default_rng(0)
COLUMNS = RNG.uniform(0, 4, (800, 3))
TARGET = 0.2 * np.sin(2 * COLUMNS[:, 0]) + 0.05 * COLUMNS[:, 1]


def error(rows):
    learned = fit_residual(COLUMNS[:rows], TARGET[:rows])
    fresh = RNG.uniform(0, 4, (500, 3))
    expected = 0.2 * np.sin(2 * fresh[:, 0]) + 0.05 * fresh[:, 1]
    alone = learned.trees.predict(fresh) - expected
    return np.abs(learned.predict(fresh) - expected).mean(), np.abs(alone).mean()


@pytest.mark.parametrize("rows", [60, 300])
def test_few_rows_are_better_known_with_a_smooth_function(rows):
    both, trees = error(rows)
    assert both < 0.8 * trees


def test_many_rows_are_left_to_the_trees():
    assert fit_residual(COLUMNS, TARGET).smooth is None


def test_rows_that_all_agree_need_nothing_smooth():
    same = fit_residual(COLUMNS[:60], np.full(60, 0.3))
    assert same.smooth is None
    assert same.predict(COLUMNS[60:70]) == pytest.approx(np.full(10, 0.3))


def test_unlike_all_rows_the_trees_alone_answer():
    learned = fit_residual(COLUMNS[:60], TARGET[:60])
    far = COLUMNS[:5] + 1e4
    trees, (smooth, deviation) = learned.trees.predict(far), learned.smooth.at(far)
    share = 0.7 * (0.1 / np.maximum(deviation, 0.1)) ** 2
    assert learned.predict(far) == pytest.approx(trees + share * (smooth - trees))
    assert share.max() < 0.7


def test_slow_rows_do_not_raise_what_most_rows_say():
    slow = TARGET[:400] + 0.5 * (np.arange(400) % 10 == 0)
    learned = fit_residual(COLUMNS[:400], slow)
    fresh = RNG.uniform(0, 4, (500, 3))
    expected = 0.2 * np.sin(2 * fresh[:, 0]) + 0.05 * fresh[:, 1]
    assert abs(np.median(learned.predict(fresh) - expected)) < 0.02


def test_a_few_slow_rows_of_many_do_not_pull_their_neighbours_up():
    columns = RNG.uniform(0, 4, (9_000, 3))
    expected = 0.2 * np.sin(2 * columns[:, 0]) + 0.05 * columns[:, 1]
    slow = expected + RNG.normal(0, 0.02, 9_000) + (RNG.uniform(size=9_000) < 0.03)
    learned = fit_residual(columns[:8_500], slow[:8_500])
    off = learned.predict(columns[8_500:]) - expected[8_500:]
    # Trees on the rows as they are err by 0.05.
    assert np.abs(off).mean() < 0.03


@pytest.mark.parametrize("rows", [60, 800])
def test_a_residual_outlives_its_bytes(rows):
    written = fit_residual(COLUMNS[:rows], TARGET[:rows])
    read = Residual.from_json(unpack(pack(written.to_json())))
    np.testing.assert_array_equal(read.predict(COLUMNS), written.predict(COLUMNS))
    np.testing.assert_array_equal(read.spread(COLUMNS), written.spread(COLUMNS))
