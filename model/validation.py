"""Cross-validation by groups: how far a fit is off on shapes it never saw."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from model.conformal import coverage
from model.estimate import ValidationScore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.laws import Array
    from model.precision import Precision
    from model.rows import Row

    Predictor = Callable[[Sequence[Row]], Array]
    """Milliseconds of each row, (rows,)."""

    Errors = list[list[tuple[Row, float]]]
    """log(measured / predicted) of each row, a list a group."""

FOLDS = 8
_FOLDS_OF_MANY = ((8_000, 3), (1_000, 4))
"""From so many rows on so few folds: what is left is as good a fit, in half the time."""
_CONFIDENCE = 0.9


def held_out_errors(
    rows: Sequence[Row], fit: Callable[[list[Row]], Predictor], most_folds: int | None = None
) -> Errors:
    """Returns the error of each row as predicted by a fit on the groups of other folds.

    Args:
        rows: of any groups; with fewer than two of them nothing can be held out.
        fit: makes a predictor from rows.
        most_folds: folds, or as many as there are groups; None takes fewer of many rows.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.measurement.group].append(row)
    if len(groups) < 2:
        return []
    names = list(groups)
    usual = next((few for many, few in _FOLDS_OF_MANY if len(rows) >= many), FOLDS)
    folds = min(most_folds or usual, len(names))
    order = np.random.default_rng(0).permutation(len(names))
    errors: Errors = []
    for fold in range(folds):
        held = {names[i] for i in order[fold::folds]}
        predict = fit([r for r in rows if r.measurement.group not in held])
        for name in held:
            measured = np.array([r.latency_ms for r in groups[name]])
            logs = np.log(measured / predict(groups[name])).tolist()
            errors.append(list(zip(groups[name], logs, strict=True)))
    return errors


def score_of(
    kind: str, precision: Precision, errors: Errors, engine: str = ""
) -> list[ValidationScore]:
    """Returns the score of the errors of one kind; none where nothing was held out."""
    by_group = [np.array([error for _, error in group]) for group in errors if group]
    if not by_group:
        return []
    logs = np.concatenate(by_group)
    relative = np.abs(np.expm1(-logs))
    score = ValidationScore(
        kind=kind,
        precision=precision,
        rows=len(logs),
        groups=len(by_group),
        mean_error=float(relative.mean()),
        median_error=float(np.median(relative)),
        p90_error=float(np.quantile(relative, 0.9)),
        coverage=coverage([np.abs(group) for group in by_group], _CONFIDENCE)
        if len(by_group) > 1
        else 0.0,
        engine=engine,
    )
    return [score]
