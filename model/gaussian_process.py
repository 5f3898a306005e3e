"""Gaussian process regression with a known covariance, in closed form.

Rasmussen and Williams, Gaussian Processes for Machine Learning (2006): algorithm 2.1 for
mean and variance, equations 5.10 to 5.12 for the leave-one-out residuals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from model.laws import Array

_JITTER = 1e-9
"""Share of the diagonal that is added to it, so that equal rows factorise."""


class GaussianProcess:
    """A function of mean zero, known at some points up to noise.

    Args:
        covariance: of the function between those points, (n, n), n at least 1.
        noise: standard deviation of what was observed around it, (n,), above 0.
        targets: what was observed, (n,).
    """

    def __init__(self, covariance: Array, noise: Array, targets: Array) -> None:
        jitter = _JITTER * float(np.max(np.diag(covariance)))
        observed = covariance + np.diag(noise**2 + jitter)
        # The inverse of the factor: one product a point then answers at any number of rows.
        self._root = np.linalg.inv(np.linalg.cholesky(observed))
        self._weights = self._root.T @ (self._root @ targets)

    def mean(self, cross: Array) -> Array:
        """Returns what is expected at further points, (m,).

        Args:
            cross: covariance of those points with the known ones, (m, n).
        """
        found: Array = cross @ self._weights
        return found

    def deviation(self, cross: Array, own: Array) -> Array:
        """Returns the standard deviation of the function at further points, (m,).

        Args:
            cross: covariance of those points with the known ones, (m, n).
            own: variance of the function at those points, (m,).
        """
        known = self._root @ cross.T
        found: Array = np.sqrt(np.maximum(own - np.sum(known**2, axis=0), 0.0))
        return found

    def covariance(self, cross: Array, own: Array) -> Array:
        """Returns the covariance of the function between further points, (m, m).

        Args:
            cross: covariance of those points with the known ones, (m, n).
            own: covariance between those points, (m, m), before anything was known.
        """
        known = self._root @ cross.T
        found: Array = own - known.T @ known
        return found

    def left_out(self) -> tuple[Array, Array]:
        """Returns residual and variance of each point as seen from all others, (n,) each.

        The variance is that of what is observed there, noise included.
        """
        precision = np.sum(self._root**2, axis=0)
        return self._weights / precision, 1.0 / precision
