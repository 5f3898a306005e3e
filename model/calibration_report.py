"""What a calibration does to the error of its own rows, cross-validated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.calibration import Correction, Observed
    from model.laws import Array

_CONFIDENCE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSummary:
    """Size of absolute percentage errors; fields as in the API's message."""

    mean: float
    median: float
    p90: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationScore:
    """Error of one figure; fields as in the API's message, ``after`` None with one row."""

    figure: str
    rows: int
    before: ErrorSummary
    after: ErrorSummary | None
    coverage: float


def score_of(figure: str, rows: Sequence[Observed], correction: Correction) -> CalibrationScore:
    """Returns the error of a figure before and after.

    Args:
        figure: "ttft" or "tpot".
        rows: that hold it, at least one.
        correction: fitted on them.
    """
    before = np.log([row.measured / row.predicted.value for row in rows])
    found = correction.left_out
    alone = len(rows) < 2
    return CalibrationScore(
        figure=figure,
        rows=len(rows),
        before=_summary(before),
        after=None if alone else _summary(found.residuals),
        coverage=0.0 if alone else correction.coverage(_CONFIDENCE),
    )


def _summary(residuals: Array) -> ErrorSummary:
    """Returns the size of predicted / measured - 1.

    Args:
        residuals: log(measured / predicted), (rows,).
    """
    errors = np.abs(np.expm1(-residuals))
    return ErrorSummary(
        mean=float(errors.mean()),
        median=float(np.median(errors)),
        p90=float(np.quantile(errors, 0.9)),
    )
