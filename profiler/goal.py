"""How many points an asked error takes: told when it is reached, foreseen when it is not."""

from __future__ import annotations

import math

import numpy as np

_FEWEST = 3
"""Fits after which a curve can be told."""
_FAR = 100.0
"""Times the points so far, beyond which nothing is foreseen."""


class Goal:
    """The error that a campaign was asked for, and how it came closer.

    Args:
        error: median error of steps, as a share; 0: none is asked for.
    """

    def __init__(self, error: float) -> None:
        self._error = error
        self._curve: list[tuple[int, float]] = []

    @property
    def is_set(self) -> bool:
        """Whether an error was asked for."""
        return self._error > 0

    def note(self, points: int, error: float) -> bool:
        """Notes the error of a fit on so many points; returns whether that is good enough.

        Args:
            points: measured so far.
            error: NaN where it cannot be told.
        """
        if not self.is_set or math.isnan(error):
            return False
        self._curve.append((points, error))
        return error <= self._error

    @property
    def text(self) -> str:
        """What came of it, for a person; empty where nothing was asked for."""
        if not self.is_set:
            return ""
        asked = f"the asked error of {self._error:.1%}"
        if not self._curve:
            return f"{asked} was not reached: it could not be told yet"
        points, error = self._curve[-1]
        if error <= self._error:
            return f"{asked} took {points:,} points"
        foreseen = self._foreseen()
        more = f"; it may take about {foreseen:,}" if foreseen else ""
        return f"{asked} was not reached: {error:.1%} with {points:,} points{more}"

    def _foreseen(self) -> int:
        """Returns the points at which a power law through all fits comes to the error, or 0."""
        if len({points for points, _ in self._curve}) < _FEWEST:
            return 0
        counts, errors = np.log(np.array(self._curve)).T
        slope, start = np.polyfit(counts, errors, 1)
        if slope >= 0:
            return 0
        ahead = (math.log(self._error) - start) / slope
        if ahead > math.log(_FAR) + counts[-1]:
            return 0
        # Two figures: a curve through a few fits is no better than that.
        return max(self._curve[-1][0] + 1, int(float(f"{math.exp(ahead):.2g}")))
