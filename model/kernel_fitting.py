"""Fits each kind of operation from points timed alone: a law, a residual, errors held out."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from model.collectives import Collective, fit_collective
from model.features import USUAL_PROCESSORS, features
from model.kernels import Kernel, law_of
from model.law_fitting import fit_law
from model.laws import KERNELS, REGIMES, Law, Sizes, sizes_of
from model.operations import COLLECTIVES, OperationKind
from model.residual_fitting import fit_residual
from model.rows import Row, in_order
from model.validation import held_out_errors, on_few, score_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.estimate import ValidationScore
    from model.kernels import AnyKernel
    from model.laws import Array
    from model.precision import Precision
    from model.validation import Errors, Predictor

_FEWEST_FOR_A_REGIME = 8
_FEWEST_FOR_A_SCALE = 3
_FEWEST_FOR_A_RESIDUAL = 40
_ENOUGH = 3_000
"""Of more rows the smooth parts are fitted to so many, drawn at random."""


def fit_kernels(
    rows: Sequence[Row],
    processors: int = 0,
) -> tuple[
    dict[tuple[OperationKind, Precision], AnyKernel],
    list[ValidationScore],
    dict[tuple[OperationKind, Precision], Errors],
]:
    """Returns the kernels of all kinds and precisions, their scores and held-out errors.

    Args:
        rows: of one device.
        processors: that it has; 0: as many as usual.
    """
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
                kernels[kind, precision] = _fit_kernel(kind, same, processors)
                errors[kind, precision] = found = kernel_errors(kind, same, processors)
                scores += score_of(kind.value, precision, found)
        for kind in COLLECTIVES:
            same = alone.get((kind.value, precision))
            if same:
                kernels[kind, precision] = _fit_collective(kind, same)
    return kernels, scores, errors


def _fit_kernel(kind: OperationKind, rows: Sequence[Row], processors: int) -> Kernel:
    processors = processors or USUAL_PROCESSORS
    sizes = sizes_of(kind, [r.operations[0] for r in rows])
    latency = np.array([r.latency_ms for r in rows])
    laws = _fit_laws(kind, sizes, latency)
    residual = None
    if len(rows) >= _FEWEST_FOR_A_RESIDUAL:
        law_ms = law_of(laws, sizes)
        residual = fit_residual(features(kind, sizes, law_ms, processors), np.log(latency / law_ms))
    low, high = sizes.extent.min(axis=0), sizes.extent.max(axis=0)
    return Kernel(kind, laws, residual, low, high, processors)


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


def kernel_errors(
    kind: OperationKind,
    rows: Sequence[Row],
    processors: int = 0,
    points: int | None = None,
    most_folds: int | None = None,
) -> Errors:
    """Returns log(measured / predicted) of rows as predicted by a fit on other groups.

    Args:
        kind: one of ``KERNELS``.
        rows: all of that kind, of one precision.
        processors: of the device; 0: as many as usual.
        points: fit on so many of the other groups' rows, drawn at random; None takes all.
        most_folds: as in :func:`held_out_errors`.
    """

    def fit(training: Sequence[Row]) -> Predictor:
        kernel = _fit_kernel(kind, training, processors)
        return lambda held: kernel.latency_ms(sizes_of(kind, [r.operations[0] for r in held]))

    return held_out_errors(rows, on_few(fit, points), most_folds)


def _fit_collective(kind: OperationKind, rows: Sequence[Row]) -> Collective:
    sizes = sizes_of(kind, [r.operations[0] for r in rows])
    return fit_collective(kind, sizes, np.array([r.latency_ms for r in rows]))
