"""Fits the constants of a law to measured latencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import least_squares

from model.laws import Law, Sizes, law_ms

if TYPE_CHECKING:
    from model.laws import Array


def fit_law(sizes: Sizes, latency_ms: Array) -> Law:
    """Fits the constants to the relative error, outliers damped.

    Args:
        sizes: at least one operation.
        latency_ms: (operations,), positive.
    """
    logs = np.log(latency_ms)

    def guess(cost: Array, quantile: float) -> float:
        return float(np.log(np.quantile(latency_ms / cost, quantile)))

    start = np.array(
        [
            np.log(latency_ms.min() / 4),
            guess(sizes.outputs, 0.05) - 2.0,
            guess(sizes.flops, 0.1),
            guess(sizes.bytes, 0.1),
            0.0,
            guess(sizes.items, 0.05) - 2.0,
        ]
    )

    def error(theta: Array) -> Array:
        fitted = np.log(law_ms(sizes, *_constants(theta)))
        # A weak pull to the start keeps constants that the points say nothing of finite.
        return np.concatenate([fitted - logs, 0.02 * (theta - start)])

    theta = least_squares(error, start, loss="soft_l1", f_scale=0.1).x
    return Law(*(float(constant) for constant in _constants(theta)))


def _constants(theta: Array) -> tuple[float, ...]:
    """Returns the constants in the order of :class:`Law` from their logs."""
    a, c0, c1, c2, corner, c3 = np.exp(theta)
    return a, c0, c1, c2, 1.0 + corner, c3
