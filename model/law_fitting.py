"""Fits the constants of a law to measured latencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import least_squares

from model.laws import Law, Sizes, law_ms, soft_maximum

if TYPE_CHECKING:
    from model.laws import Array

_PULL = 0.02
"""Weak, to the start: keeps constants that the points say nothing of finite."""
_ENOUGH = 1e-4
"""Relative steps that change nothing a residual would not take up."""


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
        return np.concatenate([fitted - logs, _PULL * (theta - start)])

    def slope(theta: Array) -> Array:
        return np.vstack([_slope(sizes, theta), _PULL * np.eye(len(theta))])

    until = dict.fromkeys(("ftol", "xtol", "gtol"), _ENOUGH)
    found = least_squares(error, start, slope, loss="soft_l1", f_scale=0.1, x_scale="jac", **until)
    theta = found.x
    return Law(*(float(constant) for constant in _constants(theta)))


def _constants(theta: Array) -> tuple[float, ...]:
    """Returns the constants in the order of :class:`Law` from their logs."""
    a, c0, c1, c2, corner, c3 = np.exp(theta)
    return a, c0, c1, c2, 1.0 + corner, c3


def _slope(sizes: Sizes, theta: Array) -> Array:
    """Returns how the log of the law changes with each of theta, (operations, 6)."""
    a, c0, c1, c2, corner, c3 = _constants(theta)
    compute, move = c1 * sizes.flops, c2 * sizes.bytes
    soft = soft_maximum(compute, move, corner)
    ratio = np.minimum(compute, move) / np.maximum(compute, move)
    power = ratio**corner
    of_smaller = power / (1 + power)
    of_compute = np.where(compute >= move, 1 - of_smaller, of_smaller)
    by_corner = of_smaller * np.log(ratio) / corner - np.log1p(power) / corner**2
    parts = [
        np.full(len(soft), a),
        c0 * sizes.outputs,
        soft * of_compute,
        soft * (1 - of_compute),
        soft * by_corner * (corner - 1),
        c3 * sizes.items,
    ]
    return np.column_stack(parts) / law_ms(sizes, a, c0, c1, c2, corner, c3)[:, None]
