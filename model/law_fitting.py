"""Fits the constants of a law to measured latencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import least_squares

from model.block_law import BlockLaw, amounts, block_law_ms, soft_minimum
from model.laws import Law, Sizes, law_ms, soft_maximum

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.laws import Array

_PULL = 0.02
"""Weak, to the start: keeps constants that the points say nothing of finite."""
_ENOUGH = 1e-4
"""Relative steps that change nothing a residual would not take up."""
_BLOCKS_FIRST = np.log([0.8, 12.0, 1e6, 16.0])
"""First guesses of a value's and an edge's step, a wave and a value, in times that two FLOPs take
one processor."""
_SHARPNESS = np.log(8.0)


def fit_law(sizes: Sizes, latency_ms: Array) -> Law:
    """Fits the constants to the relative error, outliers damped.

    Args:
        sizes: at least one operation.
        latency_ms: (operations,), positive.
    """
    start = np.array(
        [
            np.log(latency_ms.min() / 4),
            _guess(latency_ms, sizes.outputs, 0.05) - 2.0,
            _guess(latency_ms, sizes.flops, 0.1),
            _guess(latency_ms, sizes.bytes, 0.1),
            0.0,
            _guess(latency_ms, sizes.items, 0.05) - 2.0,
        ]
    )
    theta = _fit(
        latency_ms,
        start,
        lambda theta: law_ms(sizes, *_constants(theta)),
        lambda theta: _slope(sizes, theta),
    )
    return Law(*_constants(theta))


def fit_block_law(sizes: Sizes, latency_ms: Array, processors: int) -> BlockLaw:
    """Fits the constants as :func:`fit_law` does.

    Args:
        sizes: of at least one linear.
        latency_ms: (operations,), positive.
        processors: that the device has.
    """
    counted = amounts(sizes, processors)
    output = _guess(latency_ms, sizes.outputs, 0.05) - 2.0
    start = np.array(
        [
            *(_guess(latency_ms, sizes.flops, 0.1) + np.log(2 * processors) + _BLOCKS_FIRST),
            output - 1.0,
            _SHARPNESS,
            np.log(latency_ms.min() / 4),
            output,
            _guess(latency_ms, sizes.bytes, 0.1),
            0.0,
        ]
    )
    theta = _fit(
        latency_ms,
        start,
        lambda theta: block_law_ms(sizes, counted, *_block_constants(theta)),
        lambda theta: _block_slope(sizes, counted, theta),
    )
    return BlockLaw(processors, *_block_constants(theta))


def _fit(
    latency_ms: Array,
    start: Array,
    law: Callable[[Array], Array],
    slope: Callable[[Array], Array],
) -> Array:
    """Returns the theta, near to the start, whose law's log is closest to the latencies'."""
    logs = np.log(latency_ms)

    def error(theta: Array) -> Array:
        return np.concatenate([np.log(law(theta)) - logs, _PULL * (theta - start)])

    def slopes(theta: Array) -> Array:
        return np.vstack([slope(theta), _PULL * np.eye(len(theta))])

    until = dict.fromkeys(("ftol", "xtol", "gtol"), _ENOUGH)
    found = least_squares(error, start, slopes, loss="soft_l1", f_scale=0.1, x_scale="jac", **until)
    theta: Array = found.x
    return theta


def _guess(latency_ms: Array, cost: Array, quantile: float) -> float:
    """Returns the log of milliseconds a unit where it counts for the most."""
    return float(np.log(np.quantile(latency_ms / cost, quantile)))


def _constants(theta: Array) -> tuple[float, ...]:
    """Returns the constants in the order of :class:`Law` from their logs."""
    a, c0, c1, c2, corner, c3 = np.exp(theta).tolist()
    return a, c0, c1, c2, 1.0 + corner, c3


def _block_constants(theta: Array) -> tuple[float, ...]:
    """Returns the constants in the order of :class:`BlockLaw` from their logs."""
    *others, corner = np.exp(theta).tolist()
    return *others, 1.0 + corner


def _slope(sizes: Sizes, theta: Array) -> Array:
    """Returns how the log of the law changes with each of theta, (operations, 6)."""
    a, c0, c1, c2, corner, c3 = _constants(theta)
    soft, of_compute, by_corner = _corner_slope(c1 * sizes.flops, c2 * sizes.bytes, corner)
    parts = [
        np.full(len(soft), a),
        c0 * sizes.outputs,
        soft * of_compute,
        soft * (1 - of_compute),
        soft * by_corner,
        c3 * sizes.items,
    ]
    return np.column_stack(parts) / law_ms(sizes, a, c0, c1, c2, corner, c3)[:, None]


def _block_slope(sizes: Sizes, counted: Array, theta: Array) -> Array:
    """Returns how the log of the law changes with each of theta, (operations, 10).

    Args:
        sizes: of linears.
        counted: their amounts.
        theta: logs of the constants.
    """
    *each, sharpness, start, output, byte, corner = _block_constants(theta)
    times = counted @ each
    fastest = soft_minimum(times, sharpness)
    shares = (times / fastest[:, None]) ** -sharpness
    by_each = np.einsum("ij,ijk->ik", shares / times, counted) * each
    by_sharpness = np.sum(shares * np.log(times / fastest[:, None]), axis=1)
    soft, of_compute, by_corner = _corner_slope(fastest, byte * sizes.bytes, corner)
    of_fastest = soft * of_compute
    parts = [
        of_fastest[:, None] * by_each,
        of_fastest * by_sharpness,
        np.full(len(soft), start),
        output * sizes.outputs,
        soft - of_fastest,
        soft * by_corner,
    ]
    total = start + output * sizes.outputs + soft
    return np.column_stack(parts) / total[:, None]


def _corner_slope(compute: Array, move: Array, corner: float) -> tuple[Array, Array, Array]:
    """Returns the soft maximum and how its log changes, (operations,) each.

    Namely with the log of computing, and with that of what the corner is above 1.
    """
    ratio = np.minimum(compute, move) / np.maximum(compute, move)
    power = ratio**corner
    of_smaller = power / (1 + power)
    of_compute = np.where(compute >= move, 1 - of_smaller, of_smaller)
    by_corner = of_smaller * np.log(ratio) / corner - np.log1p(power) / corner**2
    return soft_maximum(compute, move, corner), of_compute, by_corner * (corner - 1)
