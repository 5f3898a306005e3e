"""Fits the covariance of a smooth function to what was observed of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from model.gaussian_process import GaussianProcess
from model.matern import MaternProcess, correlation, correlation_at, distances

if TYPE_CHECKING:
    from model.laws import Array

_ENOUGH = 350
"""Of more points the covariance is fitted on so many, drawn at random: the cost is cubic."""
_ITERATIONS = 20
_JITTER = 1e-9
_LENGTH, _LENGTH_SPREAD = np.log(4.0), 1.5
"""What is assumed of the log of a length, in deviations of its feature."""
_BOUNDS = ((-12.0, 2.0), (-11.0, -3.0))
"""Of the logs of the function's variance and of the noise's."""
_LENGTH_BOUNDS = (-2.0, 6.0)
_NOISE = 1e-3
"""Variance that is assumed at first: 3%."""
_ROUNDS = 3
_FAR, _NEAR = 3 * 1.4826, 0.03
"""A target further off what the others say than so many medians, and than 3%, is doubted: three
standard deviations, one of which is 1.4826 times a normal distribution's median absolute value."""


def fit_matern(columns: Array, targets: Array) -> MaternProcess:
    """Fits variance, noise and a length for each feature, the likeliest with a weak prior.

    Rasmussen and Williams (2006), equations 5.8 and 5.9. Kernels that wait for their host are off
    by a factor: what lies far from all that its neighbours say counts as the noisier.

    Args:
        columns: features, (points, features).
        targets: what was observed, (points,), not all of them equal.
    """
    centre, spread = columns.mean(axis=0), columns.std(axis=0)
    varies = spread > _JITTER
    placed = (columns[:, varies] - centre[varies]) / spread[varies]
    some = np.random.default_rng(0).permutation(len(targets))[:_ENOUGH]
    start = np.array([np.log(targets.var()), np.log(_NOISE), *np.full(placed.shape[1], _LENGTH)])
    doubts = _doubts(start, placed, targets)
    found = minimize(
        _unlikeliness,
        start,
        args=(placed[some], targets[some], doubts[some]),
        jac=True,
        method="L-BFGS-B",
        bounds=[*_BOUNDS, *[_LENGTH_BOUNDS] * placed.shape[1]],
        options={"maxiter": _ITERATIONS},
    )
    variance, noise, *lengths = np.exp(found.x)
    noises = noise * _doubts(found.x, placed, targets)
    scale = np.full(len(centre), np.inf)
    scale[varies] = spread[varies] * lengths
    # In the order that they are read back in: sums in another one differ in the last digit.
    points = np.ascontiguousarray((columns - centre) / scale)
    return MaternProcess(centre, scale, float(variance), noises, points, targets)


def _doubts(theta: Array, placed: Array, targets: Array) -> Array:
    """Returns by what factor the noise of each target is larger than the usual, (n,), from 1 on.

    Args:
        theta: logs of the variance, the noise and the lengths.
        placed: points, (n, features).
        targets: (n,).
    """
    variance, noise = np.exp(theta[:2])
    scaled = placed / np.exp(theta[2:])
    covariance = variance * correlation(scaled, scaled)
    doubts = np.ones(len(targets))
    for _ in range(_ROUNDS):
        off, _ = GaussianProcess(covariance, np.sqrt(noise * doubts), targets).left_out()
        usual = max(_NEAR, _FAR * float(np.median(np.abs(off))))
        doubts = np.maximum(1.0, (off / usual) ** 2)
    return doubts


def _unlikeliness(
    theta: Array, placed: Array, targets: Array, doubts: Array
) -> tuple[float, Array]:
    """Returns minus the log of the posterior, up to a constant, and its gradient.

    Args:
        theta: logs of the variance, the noise and the lengths.
        placed: points, (n, features).
        targets: (n,).
        doubts: factors of the noise, (n,).
    """
    variance, noise = np.exp(theta[:2])
    scaled = placed / np.exp(theta[2:])
    apart = distances(scaled, scaled)
    function = variance * correlation_at(apart)
    root = np.linalg.cholesky(function + np.diag(noise * doubts + _JITTER))
    half = np.linalg.inv(root)
    inverse = half.T @ half
    weights = inverse @ targets
    lengths = (theta[2:] - _LENGTH) / _LENGTH_SPREAD
    value = targets @ weights / 2 + np.log(np.diag(root)).sum() + lengths @ lengths / 2
    slope = (inverse - np.outer(weights, weights)) / 2
    # By the log of a length the covariance changes by 3 exp(-sqrt(3) r) times its share of r^2.
    by_length = slope * 3 * variance * np.exp(-apart)
    gradient = np.empty_like(theta)
    gradient[0] = np.sum(slope * function)
    gradient[1] = noise * np.diag(slope) @ doubts
    gradient[2:] = 2 * (
        by_length.sum(axis=1) @ scaled**2 - np.sum(scaled * (by_length @ scaled), axis=0)
    )
    gradient[2:] += lengths / _LENGTH_SPREAD
    return float(value), gradient
