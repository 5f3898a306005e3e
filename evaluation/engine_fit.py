"""Fits engines' coefficients on end-to-end rows.

What is fitted is what answers: the error is that of ``predict`` itself, the unknowns are
coefficients of ``model.engines``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import least_squares

from evaluation.rows import NO_KERNELS, predicted
from model.engines import Engine, engine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evaluation.rows import Kernels, Row
    from model.laws import Array

START = {
    "kernel_s": 3e-6,
    "elementwise": 0.25,
    "elementwise_traffic": 0.5,
    "step_s": 1e-3,
    "sequence_s": 5e-6,
    "request_s": 30e-3,
    "collective_s": 1e-5,
    "interference": 0.5,
    "queueing": 0.05,
    "link": 0.7,
    "compute": 0.65,
    "bandwidth": 0.8,
    "attention_compute": 0.4,
    "attention_bandwidth": 0.7,
    "experts_compute": 0.4,
    "experts_bandwidth": 0.7,
    "int8_share": 0.9,
    "int4_share": 0.8,
}
"""Where a fit begins, and what holds a coefficient that few rows tell of."""
_SHARES = frozenset(
    {name for name in START if name.endswith(("_compute", "_bandwidth", "_share"))}
    | {"link", "compute", "bandwidth"}
)
_LARGEST_SHARE = 0.97
PULL = 0.3
"""Weight of that hold against one row's log error."""


def unfitted(name: str) -> Engine:
    """Returns an engine with round figures for all that end-to-end rows could tell.

    What the rows of a fit do not tell stays so: coefficients in use were fitted on all rows,
    those that are held out among them.
    """
    today = engine(name)
    return Engine(
        name=today.name,
        linear_attention_compute=today.linear_attention_compute,  # of kernels, not of rows
        spread=today.spread,
        microbatches=today.microbatches,
        continuous=today.continuous,
    )


def fit(
    rows: Sequence[Row],
    base: Engine,
    start: Mapping[str, float],
    pull: float = PULL,
    kernels: Kernels = NO_KERNELS,
) -> Engine:
    """Returns an engine with coefficients fitted on the log error of the rows.

    Args:
        rows: at least one.
        base: whose other coefficients hold.
        start: coefficients to fit, and where they begin.
        pull: how firmly they are held there.
        kernels: measured ones, where there are some.
    """
    names = list(start)
    begin = np.log([start[name] for name in names])
    upper = np.array([np.log(_LARGEST_SHARE) if name in _SHARES else np.inf for name in names])
    begin = np.minimum(begin, upper - 1e-3)

    def coefficients(theta: Array) -> Engine:
        return replace(base, **dict(zip(names, np.exp(theta).tolist(), strict=True)))

    def error(theta: Array) -> Array:
        candidate = coefficients(theta)
        logs = [
            np.log([value for value, _, _ in predicted(row, candidate, kernels).values()])
            - row.logs
            for row in rows
        ]
        return np.concatenate([*logs, pull * (theta - begin)])

    found = least_squares(
        error,
        begin,
        bounds=(-np.inf, upper),
        loss="soft_l1",
        f_scale=0.15,
        diff_step=1e-3,
        max_nfev=20,
    )
    return coefficients(found.x)


def coefficient_lines(fitted: Iterable[Engine], names: Mapping[str, Iterable[str]]) -> list[str]:
    """Returns what was fitted on all rows of each engine, as ``model/engines.py`` holds it."""
    lines = ["Coefficients fitted on all rows of an engine:", ""]
    for found in fitted:
        values = ", ".join(f"{name} {getattr(found, name):.3g}" for name in names[found.name])
        lines.append(f"- {found.name}: {values}")
    return lines
