"""Fits the cost model of one device from its measurements.

Three stages, each on what the one before leaves over: kernels (law and residual)
from operations timed alone; the layer's terms from real layers less their kernels;
the step's and the request's terms from real ``generate()`` runs less their layers.
Every error and interval comes from groups held out whole: weight shapes for
kernels, architectures for layers and steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.cost_model import FittedCostModel
from model.errors import NotEnoughMeasurementsError
from model.execution import FUSED_ENGINES, PAGED_ENGINES
from model.kernel_fitting import fit_kernels
from model.kernels import has_kernel, used_lender
from model.laws import KERNELS
from model.measurement import WHOLES
from model.operations import PLAIN_ATTENTIONS, OperationKind
from model.rows import in_order, usable_rows
from model.term_fitting import fit_terms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model.cost_model import EngineTerms
    from model.estimate import ValidationScore
    from model.kernels import AnyKernel, Lender
    from model.measurement import Measurement
    from model.precision import Precision
    from model.rows import Row


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
        engines[engine, precision], step_scores = fit_terms(steps, kernels, precision, engine)
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


def _is_priced(row: Row, kernels: Mapping[tuple[OperationKind, Precision], AnyKernel]) -> bool:
    """Returns whether all kernels of a layer or step were measured alone: experts may lack."""
    return all(
        has_kernel(kernels, o.kind, o.precision) for o in row.operations if o.kind in KERNELS
    )
