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

    def at(self, columns: Array, least: float = 0.0) -> tuple[Array, Array]:
        """Returns what is expected there, and its standard deviation, (rows,) each.

        Args:
            columns: features, (rows, features).
            least: deviations below it count as it: most of the time goes into telling them.
        """
        cross = self._with_known((columns - self.centre) / self.lengths)
        mean = self._process.mean(cross)
        if self.variance <= least**2:
            return mean, np.full(len(columns), least)
        own = np.full(len(columns), self.variance)
        return mean, np.maximum(self._process.deviation(cross, own), least)

    def covariance(self, columns: Array) -> Array:
        """Returns what is not known of the function there, (rows, rows): its covariance.

        Args:
            columns: features, (rows, features).
        """
        placed = (columns - self.centre) / self.lengths
        own = self.variance * correlation(placed, placed)
        return self._process.covariance(self._with_known(placed), own)

    def left_out(self) -> Array:
        """Returns by how much each target is off what all others say of it, (points,)."""
        residuals, _ = self._process.left_out()
        return residuals

    def _with_known(self, placed: Array) -> Array:
        """Returns the covariance of further points with the known ones, (rows, points)."""
        apart = _distances(placed, self.points, self._squares)
        found: Array = self.variance * correlation_at(apart)
        return found

    @cached_property
    def _squares(self) -> Array:
        found: Array = np.sum(self.points**2, axis=1)
        return found

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
    return _distances(first, second, np.sum(second**2, axis=1))


def _distances(first: Array, second: Array, squares: Array) -> Array:
    """Returns what :func:`distances` does; a Predict need not sum the squares of ``second``."""
    apart = np.sum(first**2, axis=1)[:, None] + squares - 2 * first @ second.T
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
