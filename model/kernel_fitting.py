"""Fits each kind of operation from points timed alone: a law, a residual, errors held out."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from model.collectives import Collective, fit_collective
from model.features import USUAL_PROCESSORS, features
from model.kernels import Kernel, ranks_of
from model.laws import KERNELS, sizes_of
from model.operations import COLLECTIVES, OperationKind
from model.regime_fitting import fit_laws, misfit
from model.residual_fitting import fit_residual
from model.rows import Row, in_order
from model.side_by_side import side_by_side
from model.trees import load_format
from model.validation import held_out_errors, score_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.estimate import ValidationScore
    from model.kernels import AnyKernel, Lender
    from model.precision import Precision
    from model.validation import Errors, Predictor

    _IndexedErrors = list[list[tuple[int, float]]]

_FEWEST_FOR_A_RESIDUAL = 40
_FEW = 1_000
"""Up to so many rows another device's many tell more than they do."""


def fit_kernels(
    rows: Sequence[Row],
    processors: int = 0,
    lender: Lender | None = None,
    processes: int = 1,
) -> tuple[
    dict[tuple[OperationKind, Precision], AnyKernel],
    list[ValidationScore],
    dict[tuple[OperationKind, Precision], Errors],
]:
    """Returns the kernels of all kinds and precisions, their scores and held-out errors.

    Args:
        rows: of one device.
        processors: that it has; 0: as many as usual.
        lender: device whose kernels stand beside few rows; None: there is none.
        processes: that share the work.
    """
    alone: dict[tuple[str, Precision], list[Row]] = defaultdict(list)
    for row in rows:
        alone[row.measurement.kind, row.measurement.precision].append(row)
    precisions = in_order(row.measurement.precision for row in rows)
    kernels: dict[tuple[OperationKind, Precision], AnyKernel] = {
        (kind, precision): _fit_collective(kind, same)
        for precision in precisions
        for kind in COLLECTIVES
        if (same := alone.get((kind.value, precision)))
    }
    groups = {
        (kind, precision): same
        for precision in precisions
        for kind in KERNELS
        if (same := alone.get((kind.value, precision)))
    }
    lent = lender.kernels if lender is not None else {}

    def do(task: _Task) -> Kernel | _IndexedErrors:
        kind, same, beside = task.key[0], groups[task.key], lent.get(task.key)
        if task.held_out:
            found = kernel_errors(kind, same, processors, lender=beside)
            return _indexed(found, same)
        return fit_kernel(kind, same, processors, beside)

    # Folds are fits of their own: the longest work first.
    tasks = sorted(
        (_Task(key, held_out) for key in groups for held_out in (True, False)),
        key=lambda task: (task.held_out, len(groups[task.key])),
        reverse=True,
    )
    if processes > 1:
        load_format()
    done = dict(side_by_side(do, tasks, processes))
    errors: dict[tuple[OperationKind, Precision], Errors] = {}
    scores: list[ValidationScore] = []
    for key, same in groups.items():
        kernel, found = done[_Task(key, held_out=False)], done[_Task(key, held_out=True)]
        assert isinstance(kernel, Kernel)  # noqa: S101 - each task has its own result
        assert isinstance(found, list)  # noqa: S101
        kernels[key] = kernel
        errors[key] = [[(same[index], error) for index, error in group] for group in found]
        scores += score_of(key[0].value, key[1], errors[key])
    return kernels, scores, errors


class _Task(NamedTuple):
    """Fitting one kind in one precision, or its errors on what was held out."""

    key: tuple[OperationKind, Precision]
    held_out: bool


def _indexed(errors: Errors, rows: Sequence[Row]) -> _IndexedErrors:
    """Returns errors with the places of their rows: rows are many, and stay where they are."""
    places = {id(row): index for index, row in enumerate(rows)}
    return [[(places[id(row)], error) for row, error in group] for group in errors]


def fit_kernel(
    kind: OperationKind, rows: Sequence[Row], processors: int = 0, lender: Kernel | None = None
) -> Kernel:
    """Fits laws and residual of one kind in one precision.

    Args:
        kind: one of ``KERNELS``.
        rows: all of that kind, of one precision.
        processors: of the device; 0: as many as usual.
        lender: the kernel of another device that runs the same code. What it learned stands
            between the laws and the residual where the rows are few and it explains them
            better than laws alone.
    """
    sizes = sizes_of(kind, [r.operations[0] for r in rows])
    latency = np.array([r.latency_ms for r in rows])
    laws = fit_laws(kind, sizes, latency, processors)
    before, used = laws(sizes), None
    if lender is not None and len(rows) <= _FEW:
        factor = lender.factor(sizes)
        beside = fit_laws(kind, sizes, latency / factor, processors)
        lent = beside(sizes) * factor
        if misfit(latency, lent) < misfit(latency, before):
            laws, before, used = beside, lent, lender
    waves_of = processors or USUAL_PROCESSORS
    residual = None
    if len(rows) >= _FEWEST_FOR_A_RESIDUAL:
        residual = fit_residual(features(kind, sizes, before, waves_of), np.log(latency / before))
    low, high = sizes.extent.min(axis=0), sizes.extent.max(axis=0)
    ranks = float(ranks_of(sizes).max()) if kind is OperationKind.EXPERTS else 0.0
    return Kernel(kind, laws, residual, low, high, waves_of, used, ranks)


def kernel_errors(
    kind: OperationKind,
    rows: Sequence[Row],
    processors: int = 0,
    lender: Kernel | None = None,
) -> Errors:
    """Returns log(measured / predicted) of rows as predicted by a fit on other groups.

    Args:
        kind: one of ``KERNELS``.
        rows: all of that kind, of one precision.
        processors: of the device; 0: as many as usual.
        lender: as in :func:`fit_kernel`.
    """

    def fit(training: Sequence[Row]) -> Predictor:
        return predictor(fit_kernel(kind, training, processors, lender))

    return held_out_errors(rows, fit)


def predictor(kernel: Kernel) -> Predictor:
    """Returns what tells milliseconds of rows of the kernel's kind."""
    return lambda rows: kernel.latency_ms(sizes_of(kernel.kind, [r.operations[0] for r in rows]))


def _fit_collective(kind: OperationKind, rows: Sequence[Row]) -> Collective:
    sizes = sizes_of(kind, [r.operations[0] for r in rows])
    return fit_collective(kind, sizes, np.array([r.latency_ms for r in rows]))
