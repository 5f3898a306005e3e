"""Errors and intervals of many predictions in a few figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model.steps import Estimate

    Triple = tuple[float, float, float]
    """Mean, median and 90th percentile of absolute errors, in percent."""


class Cell(NamedTuple):
    """One figure, predicted and measured.

    Attributes:
        model: whose rows are left out together.
        error: predicted / measured - 1.
        inside: whether the interval held the measurement.
        width: upper end over the prediction, less 1; 0 where it has no interval.
    """

    model: str
    error: float
    inside: bool = False
    width: float = 0.0


def cell(model: str, measured: float, predicted: Estimate) -> Cell:
    """Returns what a prediction with an interval comes to.

    Args:
        model: whose rows are left out together.
        measured: milliseconds, as the prediction's.
        predicted: with the ends of its interval.
    """
    value, lower, upper = predicted
    return Cell(model, value / measured - 1, lower <= measured <= upper, upper / value - 1)


def size(cells: Iterable[Cell]) -> Triple:
    """Returns mean, median and 90th percentile of the absolute errors in percent."""
    return size_of([one.error for one in cells])


def size_of(errors: Sequence[float] | np.ndarray) -> Triple:
    """Returns the same of relative errors, (rows,)."""
    absolute = 100 * np.abs(errors)
    return float(absolute.mean()), float(np.median(absolute)), float(np.quantile(absolute, 0.9))


def of_logs(logs: np.ndarray) -> Triple:
    """Returns the same of log(measured / predicted), (rows,)."""
    return size_of(np.expm1(-logs))


def shown(triple: Triple) -> str:
    """Returns mean / median / p90 as text."""
    return " / ".join(f"{one:.1f}" for one in triple)


def coverage(cells: Sequence[Cell]) -> float:
    """Returns the share of intervals that held."""
    return float(np.mean([one.inside for one in cells]))


def width(cells: Sequence[Cell]) -> float:
    """Returns the median width."""
    return float(np.median([one.width for one in cells]))


def columns(cells: Sequence[Cell], *, intervals: bool = True) -> list[str]:
    """Returns rows, models, error, bias, covered and width as text; see ``COLUMNS``."""
    bias = float(np.median([one.error for one in cells]))
    return [
        f"{len(cells):,}",
        f"{len({one.model for one in cells})}",
        shown(size(cells)),
        f"{bias:+.1%}",
        f"{coverage(cells):.0%}" if intervals else "-",
        f"{width(cells):.0%}" if intervals else "-",
    ]


COLUMNS = ("rows", "models", "MAPE / median / p90", "bias", "covered", "width")
