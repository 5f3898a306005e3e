"""Fits the cost model of one device from its measurements.

Three stages, each on what the one before leaves over: kernels (law and residual)
from operations timed alone; the layer's terms from real layers less their kernels;
the step's and the request's terms from real ``generate()`` runs less their layers.
Every error and interval comes from groups held out whole: weight shapes for
kernels, architectures for layers and steps.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

from model.cost_model import EngineTerms, FittedCostModel
from model.errors import NotEnoughMeasurementsError
from model.estimate import Phase
from model.execution import FUSED_ENGINES, PAGED_ENGINES
from model.kernel_fitting import fit_kernels
from model.kernels import has_kernel, kernel_of, used_lender
from model.laws import KERNELS, sizes_of
from model.measurement import WHOLES
from model.operations import PLAIN_ATTENTIONS, OperationKind
from model.overheads import TERMS, Overheads, columns
from model.rows import Row, in_order, usable_rows
from model.validation import held_out_errors, score_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model.estimate import ValidationScore
    from model.kernels import AnyKernel, Lender
    from model.measurement import Measurement
    from model.precision import Precision
    from model.validation import Predictor

_CORRECTION_PRIOR = 3.0
"""Weight of "no correction", in architectures."""
_TERM_NAMES = tuple(name for names in TERMS.values() for name in names)


def fit_cost_model(
    measurements: Sequence[Measurement],
    processors: int = 0,
    lender: Lender | None = None,
    processes: int = 1,
) -> FittedCostModel:
    """Fits on all measurements.

    Args:
        measurements: of one device in one environment; what cannot be read is left out.
        processors: that it has, if it is a GPU; 0: as many as usual.
        lender: device that runs the same machine code, measured elsewhere; None: there is none.
        processes: that share the work.

    Raises:
        NotEnoughMeasurementsError: no precision has linears, attentions, layers and
            steps measured.
    """
    rows = usable_rows(measurements)
    _check_complete(rows)
    kernels, scores, _ = fit_kernels(rows, processors, lender, processes)
    engines, step_scores = fit_engines(rows, kernels)
    return FittedCostModel(
        kernels,
        engines,
        (*scores, *step_scores),
        len(rows),
        lender=used_lender(kernels, lender),
        disturbed=sum(bool(row.measurement.flags) for row in rows) / len(rows),
        kernel_engines={
            (OperationKind.PAGED_ATTENTION, row.measurement.precision): (row.measurement.engine,)
            for row in rows
            if row.measurement.kind == OperationKind.PAGED_ATTENTION
        },
    )


def fit_engines(
    rows: Sequence[Row], kernels: Mapping[tuple[OperationKind, Precision], AnyKernel]
) -> tuple[dict[tuple[str, Precision], EngineTerms], list[ValidationScore]]:
    """Returns the terms and scores of each engine and precision with points of all kinds.

    Args:
        rows: kernels timed alone, layers and steps.
        kernels: fitted on these rows.
    """
    engines: dict[tuple[str, Precision], EngineTerms] = {}
    scores: list[ValidationScore] = []
    rows = [r for r in rows if r.measurement.kind not in WHOLES or _is_priced(r, kernels)]
    for (engine, precision), lacking in _lacking(rows).items():
        if lacking:
            continue
        steps = [
            r
            for r in rows
            if (r.measurement.engine, r.measurement.precision) == (engine, precision)
            and r.measurement.kind in WHOLES
        ]
        engines[engine, precision], step_scores = _fit_engine(steps, kernels, precision, engine)
        scores += step_scores
    return engines, scores


def _check_complete(rows: Sequence[Row]) -> None:
    """Raises NotEnoughMeasurementsError where no engine and precision has points of all kinds.

    It names what the closest one lacks.
    """
    lacking = _lacking(rows)
    if not lacking:
        raise NotEnoughMeasurementsError("there are no measurements; profile the device first")
    (_, precision), missing = min(lacking.items(), key=lambda item: len(item[1]))
    if missing:
        raise NotEnoughMeasurementsError(
            f"{precision} lacks {' and '.join(missing)} points; profile for longer"
        )


def _lacking(rows: Sequence[Row]) -> dict[tuple[str, Precision], list[str]]:
    """Returns the kinds that each engine and precision lacks; kernels are any engine's."""
    lacking: dict[tuple[str, Precision], list[str]] = {}
    for engine, precision in in_order(
        (r.measurement.engine, r.measurement.precision) for r in rows
    ):
        held = {
            r.measurement.kind
            for r in rows
            if r.measurement.precision is _precision_of(r.measurement.kind, precision)
            and (r.measurement.engine == engine or r.measurement.kind not in WHOLES)
        }
        static = engine in FUSED_ENGINES
        attended = OperationKind.STATIC_ATTENTION if static else OperationKind.ATTENTION
        if engine in PAGED_ENGINES and OperationKind.PAGED_ATTENTION in held:
            attended = OperationKind.PAGED_ATTENTION
        product = OperationKind.LINEAR
        if product not in held and OperationKind.LINEAR_PER_TENSOR in held:
            product = OperationKind.LINEAR_PER_TENSOR
        kinds = (product, attended, *WHOLES)
        lacking[engine, precision] = [kind for kind in kinds if kind not in held]
    return lacking


def _precision_of(kind: str, precision: Precision) -> Precision:
    """Returns what points of a kind are measured in: attention knows activations alone."""
    return precision.activation if kind in PLAIN_ATTENTIONS else precision


# --- layers, steps, requests ----------------------------------------------------


def _fit_engine(
    rows: Sequence[Row],
    kernels: Mapping[tuple[OperationKind, Precision], AnyKernel],
    precision: Precision,
    engine: str,
) -> tuple[EngineTerms, list[ValidationScore]]:
    kernel_ms = {id(r): _kernel_ms(r, kernels) for r in rows}

    def fit(training: list[Row]) -> Predictor:
        overheads, correction = _fit_terms(training, kernel_ms)
        return lambda held: np.array(
            [_predict(r, kernel_ms[id(r)], overheads) * np.exp(correction[r.phase]) for r in held]
        )

    errors = held_out_errors(rows, fit)
    overheads, correction = _fit_terms(list(rows), kernel_ms)
    scores: dict[Phase, tuple[float, ...]] = {}
    for phase in Phase:
        whole = [abs(e) for group in errors for r, e in group if r.measurement.kind == phase.value]
        if not whole:
            # A single architecture leaves nothing to hold out: its own misfit, doubled.
            whole = [
                2 * abs(np.log(r.latency_ms / _predict(r, kernel_ms[id(r)], overheads)))
                for r in rows
                if r.measurement.kind == phase.value
            ]
        scores[phase] = tuple(sorted(float(e) for e in whole))
    reports = []
    for kind in WHOLES:
        chosen = [[(r, e) for r, e in group if r.measurement.kind == kind] for group in errors]
        reports += score_of(kind, precision, chosen, engine)
    return EngineTerms(overheads=overheads, correction=correction, scores=scores), reports


def _fit_terms(
    rows: list[Row], kernel_ms: dict[int, float]
) -> tuple[Overheads, dict[Phase, float]]:
    """Fits all terms in one non-negative least squares on the relative error."""
    matrix = np.zeros((len(rows), len(_TERM_NAMES)))
    target = np.zeros(len(rows))
    for index, row in enumerate(rows):
        for operation in row.operations:
            if operation.kind in TERMS:
                names = TERMS[operation.kind]
                for name, size in zip(names, columns(operation), strict=True):
                    matrix[index, _TERM_NAMES.index(name)] += size * operation.count
        target[index] = row.latency_ms - kernel_ms[id(row)]
    weights = np.array([1.0 / row.latency_ms for row in rows])
    scaled = matrix * weights[:, None]
    scale = np.where(scaled.any(axis=0), np.abs(scaled).max(axis=0), 1.0)
    found, _ = nnls(scaled / scale, np.maximum(target, 0.0) * weights)
    overheads = Overheads(dict(zip(_TERM_NAMES, (found / scale).tolist(), strict=True)))
    return overheads, {phase: _correction(rows, kernel_ms, overheads, phase) for phase in Phase}


def _correction(
    rows: list[Row], kernel_ms: dict[int, float], overheads: Overheads, phase: Phase
) -> float:
    """Returns the log ratio that steps of the phase share, shrunk to none by few architectures."""
    by_group: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.measurement.kind == phase.value:
            ratio = row.latency_ms / _predict(row, kernel_ms[id(row)], overheads)
            by_group[row.measurement.group].append(float(np.log(ratio)))
    if not by_group:
        return 0.0
    count = len(by_group)
    middle = float(np.median([np.mean(ratios) for ratios in by_group.values()]))
    return middle * count / (count + _CORRECTION_PRIOR)


def _kernel_ms(row: Row, kernels: Mapping[tuple[OperationKind, Precision], AnyKernel]) -> float:
    total = 0.0
    for kind in KERNELS:
        chosen = [o for o in row.operations if o.kind is kind]
        if chosen:
            kernel = kernel_of(kernels, kind, chosen[0].precision)
            latency = kernel.latency_ms(sizes_of(kind, chosen))
            total += float(latency @ np.array([o.count for o in chosen]))
    return total


def _is_priced(row: Row, kernels: Mapping[tuple[OperationKind, Precision], AnyKernel]) -> bool:
    """Returns whether all kernels of a layer or step were measured alone: experts may lack."""
    return all(
        has_kernel(kernels, o.kind, o.precision) for o in row.operations if o.kind in KERNELS
    )


def _predict(row: Row, kernel_ms: float, overheads: Overheads) -> float:
    return kernel_ms + sum(
        overheads.latency_ms(o) * o.count for o in row.operations if o.kind in TERMS
    )
