"""Fits the cost model of a device that was measured elsewhere.

Published measurements are of kernels alone; a campaign brought home has layers and steps, too,
and with them what its engine adds.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from model.cost_model import NO_ENGINE, EngineTerms, FittedCostModel
from model.errors import NotEnoughMeasurementsError
from model.estimate import Phase, Provenance
from model.kernel_fitting import fit_kernels
from model.kernels import used_lender
from model.measurement import WHOLES
from model.operations import OperationKind
from model.overheads import Overheads
from model.regime_fitting import FEWEST_FOR_A_LAW
from model.rows import in_order, usable_rows
from model.training import fit_engines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.kernels import Lender
    from model.measurement import Measurement
    from model.precision import Precision
    from model.rows import Row
    from model.validation import Errors

_PRODUCTS = {OperationKind.LINEAR, OperationKind.LINEAR_PER_TENSOR}
"""Linears that stand in for each other."""
_FOR_PRECISION = _PRODUCTS | {OperationKind.ATTENTION, OperationKind.MLA}
"""Kinds whose precisions a question is asked in: of weights, and of the KV cache."""
_UNTESTED = 0.7
"""Half-width where nothing was held out: a factor of two."""
_KEPT_SCORES = 200


def fit_published(
    measurements: Sequence[Measurement],
    processors: int = 0,
    lender: Lender | None = None,
    processes: int = 1,
) -> FittedCostModel:
    """Fits on measurements that were made on a device elsewhere.

    Where there are layers and steps, their engine has terms of its own, as on a local device.
    For all other engines there are no whole steps to judge by: the interval of a step is that
    of the kernel that is predicted worst, so errors may add up.

    Args:
        measurements: of one device and source. What cannot be read is left out, and so are
            linears in a precision that has too few of them for a law: physics tells more.
        processors: that it has; 0: as many as usual.
        lender: as in :func:`model.training.fit_cost_model`.
        processes: as there.

    Raises:
        NotEnoughMeasurementsError: no precision has linears enough.
    """
    rows = _with_linears_enough(usable_rows(measurements))
    kernels, scores, errors = fit_kernels(rows, processors, lender, processes)
    precisions = [p for kind, p in kernels if kind in _FOR_PRECISION]
    # These come first: an engine that was not measured gets no other one's overheads.
    engines = {
        (NO_ENGINE, precision): EngineTerms(
            overheads=Overheads({}),
            correction=dict.fromkeys(Phase, 0.0),
            scores=dict.fromkeys(Phase, _widest(errors, precision)),
        )
        for precision in in_order(precisions)
    }
    measured, step_scores = fit_engines(rows, kernels)
    return FittedCostModel(
        kernels,
        engines | measured,
        (*scores, *step_scores),
        len(rows),
        Provenance.REFERENCE_DATA,
        lender=used_lender(kernels, lender),
        kernel_engines=_engines_of(rows),
    )


def _with_linears_enough(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows, without linears of a kind in a precision that has too few of them.

    Raises:
        NotEnoughMeasurementsError: no precision has enough; says how many are missing.
    """
    sizes: dict[tuple[str, Precision], set[tuple[float, ...]]] = defaultdict(set)
    for row in rows:
        if row.measurement.kind in _PRODUCTS:
            # Of one size again and again no law can be told.
            sizes[row.measurement.kind, row.measurement.precision].add(row.operations[0].shape)
    most = max(map(len, sizes.values()), default=0)
    if most < FEWEST_FOR_A_LAW:
        raise NotEnoughMeasurementsError(
            f"no precision has the {FEWEST_FOR_A_LAW} linear points of different sizes that a law"
            f" needs: {most} are there, {FEWEST_FOR_A_LAW - most} are missing; measure more"
        )
    return [
        row
        for row in rows
        if row.measurement.kind not in _PRODUCTS
        or len(sizes[row.measurement.kind, row.measurement.precision]) >= FEWEST_FOR_A_LAW
    ]


def _engines_of(rows: Sequence[Row]) -> dict[tuple[OperationKind, Precision], tuple[str, ...]]:
    """Returns whose kernels ran, by kind and precision: tables that lack one have another's."""
    engines: dict[tuple[OperationKind, Precision], set[str]] = defaultdict(set)
    for row in rows:
        measured = row.measurement
        if measured.kind not in WHOLES:
            engines[OperationKind(measured.kind), measured.precision].add(measured.engine)
    return {key: tuple(sorted(names)) for key, names in engines.items()}


def _widest(
    errors: dict[tuple[OperationKind, Precision], Errors], precision: Precision
) -> tuple[float, ...]:
    """Returns the absolute log errors of the precision's kernel that is predicted worst."""
    by_kind = [
        np.sort([abs(error) for group in found for _, error in group])
        for (_, held), found in errors.items()
        if held is precision and found
    ]
    worst = max(by_kind, key=lambda logs: float(np.quantile(logs, 0.9)), default=None)
    if worst is None:
        return (_UNTESTED,)
    ranks = np.linspace(0, len(worst) - 1, min(len(worst), _KEPT_SCORES)).astype(int)
    return tuple(worst[ranks].tolist())
