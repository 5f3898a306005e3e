"""Fits what is learned of a kernel beyond its law."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from model.matern_fitting import fit_matern
from model.residual import Residual, Smooth
from model.trees import trees_of

if TYPE_CHECKING:
    from model.laws import Array
    from model.trees import Trees

_MANY = 250
"""Beyond so many rows boosting is worth its time, and beats averaged trees alone."""
_MANY_FOR_SMOOTH = 600
"""Beyond so many rows trees alone do better."""
_LARGE = 8_000
"""Beyond so many rows weights and more leaves cost a minute."""
_FAR = 3.0
"""Median deviations that a row of many may lie off."""
_BINS = 127
"""Of each feature: as good as twice as many, and a seventh faster."""
_NOISE = 0.03
"""Log errors below it are all one; a row further off counts the less, as for least deviations."""


def fit_residual(columns: Array, target: Array) -> Residual:
    """Fits a regression of what a law leaves over.

    Args:
        columns: features, (rows, features).
        target: log(latency / law), (rows,).
    """
    # More threads gain nothing at these sizes, and lose much where others use the cores.
    with threadpool_limits(limits=1):
        smooth = len(target) <= _MANY_FOR_SMOOTH and bool(np.ptp(target) > 0)
        return Residual(
            _fit_trees(columns, target), _fit_smooth(columns, target) if smooth else None
        )


def _fit_smooth(columns: Array, targets: Array) -> Smooth:
    process = fit_matern(columns, targets)
    left = process.left_out()
    weights = 1 / np.maximum(_NOISE, np.abs(left))
    # Rows that are off are slow: as many shall lie above as below, not their mean between them.
    target = left + np.median(left)
    ensembles: list[ExtraTreesRegressor | HistGradientBoostingRegressor] = [_averaging(50, 0.5)]
    if len(targets) >= _MANY:
        ensembles.append(_boosting(120, 8, 0.05))
    return Smooth(process, tuple(trees_of(e.fit(columns, target, weights)) for e in ensembles))


def _fit_trees(columns: Array, target: Array) -> Trees:
    if len(target) < _MANY:
        return trees_of(_averaging(30, 0.8).fit(columns, target))
    # Some kernels wait for their host: a few rows in a hundred are off by a factor.
    if len(target) >= _LARGE:
        leaves = min(400, len(target) // 60)
        rough = _boosting(30, leaves, 0.12).fit(columns, target).predict(columns)
        near = rough + _within(target - rough)
        return trees_of(_boosting(100, leaves, 0.12).fit(columns, near))
    rough = _boosting(15, 31, 0.3).fit(columns, target).predict(columns)
    weights = 1 / np.maximum(_NOISE, np.abs(target - rough))
    return trees_of(_boosting(120, max(8, len(target) // 40), 0.1).fit(columns, target, weights))


def _within(left: Array) -> Array:
    """Returns what is left over, no further from its median than is usual, (rows,)."""
    median = np.median(left)
    far = _FAR * np.median(np.abs(left - median))
    return np.clip(left, median - far, median + far)


def _boosting(iterations: int, leaves: int, rate: float) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(
        max_iter=iterations,
        max_leaf_nodes=leaves,
        learning_rate=rate,
        min_samples_leaf=5,
        max_features=0.3,
        max_bins=_BINS,
        random_state=0,
    )


def _averaging(trees: int, features: float) -> ExtraTreesRegressor:
    return ExtraTreesRegressor(
        n_estimators=trees, min_samples_leaf=2, max_features=features, random_state=0
    )
