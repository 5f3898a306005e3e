"""Published measurements of operations, and the cost models of kernels fitted on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evaluation.rows import CONFIDENCE
from model.cost_model import NO_ENGINE, EngineTerms, FittedCostModel
from model.estimate import Phase, Provenance
from model.hardware import data_sheet
from model.kernel_fitting import fit_kernels
from model.measurement import Distribution, Measurement
from model.overheads import Overheads
from model.precision import Precision
from model.published import fit_published
from model.steps import Estimate
from reference.sources import package_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.estimate import MeasuredCostModel
    from model.rows import Row as OperationRow
    from reference.rows import Row as TableRow

LIMIT = 3_000
"""Rows of one kind and precision that kernels of deployments are fitted on."""
ALL_ROWS = 1 << 30
"""A limit that is none."""


def measured_kernels(device: str, engine: str, limit: int = LIMIT) -> FittedCostModel:
    """Returns the cost model of an engine's published kernels on a device.

    Args:
        device: our name of it.
        engine: one of ``reference.tables.ENGINES``.
        limit: most rows of one kind and precision.
    """
    return fit_published(measurements(device, engine, limit), data_sheet(device).processors)


def measurements(
    device: str, engine: str, limit: int = ALL_ROWS, *, launched: bool = False
) -> list[Measurement]:
    """Returns the published rows of an engine on a device, at most ``limit`` of one kind.

    Args:
        device: our name of it.
        engine: one of ``reference.tables.ENGINES``.
        limit: most rows of one kind and precision.
        launched: takes linears that were timed as the host launched them, too.
    """
    source = package_source(device, engine, limit, launched=launched)
    return [measurement_of(row) for row in source.rows]


def measurement_of(row: TableRow) -> Measurement:
    """Returns a row of a table as the cost model takes it."""
    ms = row.latency_ms
    return Measurement(
        kind=row.kind,
        precision=Precision(row.precision),
        engine=row.engine,
        shape=row.shape,
        latency_ms=Distribution(median=ms, p10=ms, p90=ms, samples=1),
        group=row.group,
    )


def kernel_model(rows: Sequence[OperationRow], device: str) -> FittedCostModel:
    """Returns what ``fit_published`` does for operations of one kind and precision alone.

    Its interval is that kind's own, from whole groups left out.

    Args:
        rows: measured alone, of two groups or more.
        device: that they ran on.
    """
    kernels, scores, errors = fit_kernels(rows, data_sheet(device).processors)
    (found,) = errors.values()
    logs = np.sort([abs(error) for group in found for _, error in group])
    terms = EngineTerms(
        overheads=Overheads({}),
        correction=dict.fromkeys(Phase, 0.0),
        scores=dict.fromkeys(Phase, tuple(logs.tolist())),
    )
    engines = {(NO_ENGINE, rows[0].measurement.precision): terms}
    return FittedCostModel(kernels, engines, tuple(scores), len(rows), Provenance.REFERENCE_DATA)


def alone(model: MeasuredCostModel, rows: Sequence[OperationRow]) -> list[Estimate]:
    """Returns milliseconds and interval of each operation as a step of its own.

    Args:
        model: that holds their kind.
        rows: operations measured alone.
    """
    steps = [(row.operations, Phase.DECODE) for row in rows]
    found = model.estimate_phases(steps, CONFIDENCE)
    return [Estimate(one.value_ms, one.lower_ms, one.upper_ms) for one in found]
