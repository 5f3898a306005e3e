"""Trees say the same through ONNX Runtime and through scikit-learn; ONNX alone stores them."""

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor

import model.trees
from model.training import fit_cost_model
from model.trees import FEATURES, TREES, OnnxTrees, ScikitTrees, trees_of, trees_of_json

RNG = np.random.default_rng(0)
COLUMNS = RNG.normal(size=(300, 4))
TARGET = COLUMNS[:, 0] * COLUMNS[:, 1] + np.sin(3 * COLUMNS[:, 2]) + 5
AVERAGED = ExtraTreesRegressor(n_estimators=20, random_state=0).fit(COLUMNS, TARGET)
BOOSTED = HistGradientBoostingRegressor(max_iter=20, random_state=0).fit(COLUMNS, TARGET)
# Too few rows for a question: every tree is a leaf.
CONSTANT = HistGradientBoostingRegressor(max_iter=5).fit(COLUMNS[:30], TARGET[:30])

fitted = pytest.mark.parametrize(
    "regressor", [AVERAGED, BOOSTED, CONSTANT], ids=["averaged", "boosted", "constant"]
)


@pytest.fixture
def onnx():
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name)


@pytest.fixture
def without_onnx(monkeypatch):
    monkeypatch.setattr(model.trees, "_has_onnx", lambda: False)


@fitted
def test_both_say_the_same(onnx, regressor):
    quick, plain = trees_of(regressor), ScikitTrees(regressor)
    assert isinstance(quick, OnnxTrees)
    fresh = RNG.normal(size=(50, 4))
    # scikit-learn rounds the features of averaged trees to 32 bits.
    np.testing.assert_allclose(quick.predict(fresh), plain.predict(fresh), rtol=1e-6)


@fitted
def test_trees_apart_are_as_many_as_were_fitted_and_sum_to_the_ensemble(onnx, regressor):
    import onnxruntime

    from model.tree_conversion import apart, onnx_of

    ensemble = onnx_of(regressor)
    session = onnxruntime.InferenceSession(apart(ensemble.model))
    (each,) = session.run([TREES], {FEATURES: COLUMNS.astype(np.float32)})
    assert each.shape == (len(COLUMNS), getattr(regressor, "n_iter_", 20))
    whole = ensemble.base + ensemble.weight * each.sum(axis=1)
    np.testing.assert_allclose(whole, OnnxTrees(ensemble).predict(COLUMNS), rtol=1e-6)


def test_both_tell_the_spread_of_averaged_trees(onnx):
    fresh = RNG.normal(size=(50, 4))
    quick, plain = trees_of(AVERAGED).spread(fresh), ScikitTrees(AVERAGED).spread(fresh)
    np.testing.assert_allclose(quick, plain, rtol=1e-4)


def test_both_tell_the_spread_of_boosted_trees(onnx):
    fresh = RNG.normal(size=(50, 4))
    quick, plain = trees_of(BOOSTED).spread(fresh), ScikitTrees(BOOSTED).spread(fresh)
    # The first tree is left out of the one.
    assert np.median(quick / plain) == pytest.approx(1, abs=0.1)


@fitted
def test_trees_outlive_their_bytes(onnx, regressor):
    again = trees_of_json(trees_of(regressor).to_json())
    np.testing.assert_array_equal(again.predict(COLUMNS), trees_of(regressor).predict(COLUMNS))


@pytest.mark.parametrize("data", [b"", b"rubbish", b"\x08\x0a\x12"])
def test_rubbish_is_no_model(onnx, data):
    with pytest.raises(ValueError, match="unreadable trees"):
        trees_of_json({"model": data, "base": 0.0, "weight": 1.0})


def test_a_cost_model_is_fitted_without_onnx_but_not_stored(
    without_onnx, synthetic_device, monkeypatch
):
    rows = synthetic_device().campaign(linears=12, attentions=24, models=4)
    plain = fit_cost_model(rows)
    with pytest.raises(ModuleNotFoundError, match="install onnx"):
        plain.to_bytes()
    monkeypatch.undo()
    scores = fit_cost_model(rows).scores
    assert [s.median_error for s in plain.scores] == pytest.approx(
        [s.median_error for s in scores], rel=1e-3
    )
