"""What is learned beyond a law: trees, and half of a smooth function where it is sure."""

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
    share = np.abs(learned.predict(far) - learned.trees.predict(far))
    deviation = learned.smooth.at(far)[1]
    assert share == pytest.approx(
        np.abs(learned.trees.predict(far)) * 0.5 * (0.1 / np.maximum(deviation, 0.1)) ** 2
    )


@pytest.mark.parametrize("rows", [60, 800])
def test_a_residual_outlives_its_bytes(rows):
    written = fit_residual(COLUMNS[:rows], TARGET[:rows])
    read = Residual.from_json(unpack(pack(written.to_json())))
    np.testing.assert_array_equal(read.predict(COLUMNS), written.predict(COLUMNS))
    np.testing.assert_array_equal(read.spread(COLUMNS), written.spread(COLUMNS))
