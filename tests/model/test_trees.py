"""Trees say the same through treelite and through scikit-learn; treelite alone stores them."""

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor

import model.trees
from model.training import fit_cost_model
from model.trees import ScikitTrees, TreeliteTrees, trees_of, trees_of_bytes

RNG = np.random.default_rng(0)
COLUMNS = RNG.normal(size=(300, 4))
TARGET = COLUMNS[:, 0] * COLUMNS[:, 1] + np.sin(3 * COLUMNS[:, 2]) + 5
AVERAGED = ExtraTreesRegressor(n_estimators=20, random_state=0).fit(COLUMNS, TARGET)
BOOSTED = HistGradientBoostingRegressor(max_iter=20, random_state=0).fit(COLUMNS, TARGET)

fitted = pytest.mark.parametrize("regressor", [AVERAGED, BOOSTED], ids=["averaged", "boosted"])


@pytest.fixture
def without_treelite(monkeypatch):
    monkeypatch.setattr(model.trees, "_has_treelite", lambda: False)


@fitted
def test_both_say_the_same(regressor):
    pytest.importorskip("treelite")
    quick, plain = trees_of(regressor), ScikitTrees(regressor)
    assert isinstance(quick, TreeliteTrees)
    fresh = RNG.normal(size=(50, 4))
    np.testing.assert_allclose(quick.predict(fresh), plain.predict(fresh), rtol=1e-5)
    # The first of the boosted trees is left out of the one.
    tolerance = 1e-4 if regressor is AVERAGED else 0.2
    np.testing.assert_allclose(quick.spread(fresh), plain.spread(fresh), rtol=tolerance)


@fitted
def test_trees_outlive_their_bytes(regressor):
    pytest.importorskip("treelite")
    again = trees_of_bytes(trees_of(regressor).to_bytes())
    np.testing.assert_array_equal(again.predict(COLUMNS), trees_of(regressor).predict(COLUMNS))


def test_a_cost_model_is_fitted_without_treelite_but_not_stored(
    without_treelite, synthetic_device, monkeypatch
):
    rows = synthetic_device().campaign()
    plain = fit_cost_model(rows)
    with pytest.raises(ModuleNotFoundError, match="install treelite"):
        plain.to_bytes()
    monkeypatch.undo()
    scores = fit_cost_model(rows).scores
    assert [s.median_error for s in plain.scores] == pytest.approx(
        [s.median_error for s in scores], rel=1e-3
    )
