"""A smooth function of many features, known at some points: a Gaussian process.

Its covariance is Matern's with smoothness 3/2 and a length of its own for each feature
(Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equation 4.17).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from model.gaussian_process import GaussianProcess

if TYPE_CHECKING:
    from model.laws import Array


@dataclass(frozen=True)
class MaternProcess:
    """A function of mean zero, known at some points up to noise.

    Attributes:
        centre, lengths: (features,), what is taken off a feature, and what it is divided by;
            a feature of infinite length does not count.
        variance: of the function.
        noise: variance of what was observed around it, (points,).
        points: where it was observed, so centred and divided, (points, features).
        targets: what was observed, (points,).
    """

    centre: Array
    lengths: Array
    variance: float
    noise: Array
    points: Array
    targets: Array

    def at(self, columns: Array) -> tuple[Array, Array]:
        """Returns what is expected there, and its standard deviation, (rows,) each.

        Args:
            columns: features, (rows, features).
        """
        placed = (columns - self.centre) / self.lengths
        cross = self.variance * correlation(placed, self.points)
        own = np.full(len(columns), self.variance)
        return self._process.mean(cross), self._process.deviation(cross, own)

    def covariance(self, columns: Array) -> Array:
        """Returns what is not known of the function there, (rows, rows): its covariance.

        Args:
            columns: features, (rows, features).
        """
        placed = (columns - self.centre) / self.lengths
        cross = self.variance * correlation(placed, self.points)
        return self._process.covariance(cross, self.variance * correlation(placed, placed))

    def left_out(self) -> Array:
        """Returns by how much each target is off what all others say of it, (points,)."""
        residuals, _ = self._process.left_out()
        return residuals

    @cached_property
    def _process(self) -> GaussianProcess:
        covariance = self.variance * correlation(self.points, self.points)
        return GaussianProcess(covariance, np.sqrt(self.noise), self.targets)

    def to_json(self) -> dict[str, Any]:
        """Returns what :meth:`from_json` reads: JSON, but for bytes."""
        return {
            "centre": _bytes(self.centre),
            "lengths": _bytes(self.lengths),
            "variance": self.variance,
            "noise": _bytes(self.noise),
            "points": _bytes(self.points),
            "targets": _bytes(self.targets),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> MaternProcess:
        """Returns the process that :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: the data is none.
        """
        lengths, targets = _array(data["lengths"]), _array(data["targets"])
        return cls(
            _array(data["centre"]),
            lengths,
            float(data["variance"]),
            _array(data["noise"]).reshape(len(targets)),
            _array(data["points"]).reshape(len(targets), len(lengths)),
            targets,
        )


def correlation(first: Array, second: Array) -> Array:
    """Returns that between points divided by their lengths, (n, m).

    Args:
        first: (n, features).
        second: (m, features).
    """
    return correlation_at(distances(first, second))


def distances(first: Array, second: Array) -> Array:
    """Returns the distances between points, times the root of 3, (n, m); arguments as above."""
    apart = np.sum(first**2, axis=1)[:, None] + np.sum(second**2, axis=1) - 2 * first @ second.T
    found: Array = np.sqrt(3 * np.maximum(apart, 0.0))
    return found


def correlation_at(distance: Array) -> Array:
    """Returns that of points so far apart, distances as :func:`distances` gives them."""
    found: Array = (1 + distance) * np.exp(-distance)
    return found


def _bytes(numbers: Array) -> bytes:
    return np.asarray(numbers, dtype="<f8").tobytes()


def _array(data: bytes) -> Array:
    return np.frombuffer(data, dtype="<f8")
