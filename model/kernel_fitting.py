"""Fits each kind of operation from points timed alone: a law, a residual, errors held out."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from model.collectives import Collective, fit_collective
from model.features import features
from model.kernels import Kernel, extent, law_of
from model.law_fitting import fit_law
from model.laws import KERNELS, REGIMES, Law, Sizes, sizes_of
from model.operations import COLLECTIVES, OperationKind
from model.rows import Row, in_order
from model.trees import trees_of
from model.validation import held_out_errors, on_few, score_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.estimate import ValidationScore
    from model.kernels import AnyKernel
    from model.laws import Array
    from model.precision import Precision
    from model.trees import Trees
    from model.validation import Errors, Predictor

_FEWEST_FOR_A_REGIME = 8
_FEWEST_FOR_A_SCALE = 3
_FEWEST_FOR_TREES = 40
_MANY = 250
"""Beyond so many rows boosting beats averaged trees, and costs less to serve."""
_LARGE = 8_000
"""Beyond so many rows noise averages out, and weights and more leaves cost a minute."""
_NOISE = 0.03
"""Log errors below it are all one; a row further off counts the less, as for least deviations."""
_ENOUGH = 3_000
"""Of more rows the smooth parts are fitted to so many, drawn at random."""


def fit_kernels(
    rows: Sequence[Row],
) -> tuple[
    dict[tuple[OperationKind, Precision], AnyKernel],
    list[ValidationScore],
    dict[tuple[OperationKind, Precision], Errors],
]:
    """Returns the kernels of all kinds and precisions, their scores and held-out errors."""
    kernels: dict[tuple[OperationKind, Precision], AnyKernel] = {}
    scores: list[ValidationScore] = []
    errors: dict[tuple[OperationKind, Precision], Errors] = {}
    alone: dict[tuple[str, Precision], list[Row]] = defaultdict(list)
    for row in rows:
        alone[row.measurement.kind, row.measurement.precision].append(row)
    for precision in in_order(row.measurement.precision for row in rows):
        for kind in KERNELS:
            same = alone.get((kind.value, precision))
            if same:
                kernels[kind, precision] = _fit_kernel(kind, same)
                errors[kind, precision] = found = kernel_errors(kind, same)
                scores += score_of(kind.value, precision, found)
        for kind in COLLECTIVES:
            same = alone.get((kind.value, precision))
            if same:
                kernels[kind, precision] = _fit_collective(kind, same)
    return kernels, scores, errors


def _fit_kernel(kind: OperationKind, rows: Sequence[Row]) -> Kernel:
    sizes = sizes_of(kind, [r.operations[0] for r in rows])
    latency = np.array([r.latency_ms for r in rows])
    laws = _fit_laws(kind, sizes, latency)
    trees = None
    if len(rows) >= _FEWEST_FOR_TREES:
        law_ms = law_of(laws, sizes)
        trees = _fit_trees(features(kind, sizes, law_ms), np.log(latency / law_ms))
    spread = extent(sizes)
    return Kernel(kind, laws, trees, spread.min(axis=0), spread.max(axis=0))


def _fit_laws(kind: OperationKind, sizes: Sizes, latency: Array) -> tuple[Law, ...]:
    """Fits a law for each regime; one seldom measured is all regimes' law, scaled to it."""
    if len(latency) > _ENOUGH:
        # Enough for each regime, rare or not.
        order = np.random.default_rng(0).permutation(len(latency))
        ranks = np.empty(len(latency), dtype=np.intp)
        for regime in range(REGIMES[kind]):
            same = order[sizes.regime[order] == regime]
            ranks[same] = np.arange(len(same))
        drawn = ranks < _ENOUGH // REGIMES[kind]
        sizes, latency = sizes.take(drawn), latency[drawn]
    pooled = fit_law(sizes, latency)
    laws = []
    for regime in range(REGIMES[kind]):
        rows = sizes.regime == regime
        here, measured = sizes.take(rows), latency[rows]
        if len(measured) >= _FEWEST_FOR_A_REGIME:
            laws.append(fit_law(here, measured))
        elif len(measured) >= _FEWEST_FOR_A_SCALE:
            laws.append(pooled.scaled(float(np.exp(np.median(np.log(measured / pooled(here)))))))
        else:
            laws.append(pooled)
    return tuple(laws)


def _fit_trees(columns_: Array, target: Array) -> Trees:
    # More threads gain nothing at these sizes, and lose much where others use the cores.
    with threadpool_limits(limits=1, user_api="openmp"):
        if len(target) < _MANY:
            regressor = ExtraTreesRegressor(
                n_estimators=80, min_samples_leaf=2, max_features=0.8, random_state=0
            )
            return trees_of(regressor.fit(columns_, target))
        weights, leaves = None, max(8, len(target) // 40)
        if len(target) < _LARGE:
            # Some kernels wait for their host: a few rows in a hundred are off by a factor.
            rough = _boosting(15, 31, 0.3).fit(columns_, target).predict(columns_)
            weights = 1 / np.maximum(_NOISE, np.abs(target - rough))
        else:
            leaves = min(255, len(target) // 80)
        boosted = _boosting(120, leaves, 0.1).fit(columns_, target, weights)
        return trees_of(boosted)


def _boosting(iterations: int, leaves: int, rate: float) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(
        max_iter=iterations,
        max_leaf_nodes=leaves,
        learning_rate=rate,
        min_samples_leaf=5,
        max_features=0.3,
        random_state=0,
    )


def kernel_errors(kind: OperationKind, rows: Sequence[Row], points: int | None = None) -> Errors:
    """Returns log(measured / predicted) of rows as predicted by a fit on other groups.

    Args:
        kind: one of ``KERNELS``.
        rows: all of that kind, of one precision.
        points: fit on so many of the other groups' rows, drawn at random; None takes all.
    """

    def fit(training: Sequence[Row]) -> Predictor:
        kernel = _fit_kernel(kind, training)
        return lambda held: kernel.latency_ms(sizes_of(kind, [r.operations[0] for r in held]))

    return held_out_errors(rows, on_few(fit, points))


def _fit_collective(kind: OperationKind, rows: Sequence[Row]) -> Collective:
    sizes = sizes_of(kind, [r.operations[0] for r in rows])
    return fit_collective(kind, sizes, np.array([r.latency_ms for r in rows]))
