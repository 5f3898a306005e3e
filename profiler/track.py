"""How far one precision has come along its design, for the kinds of points of one group."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from profiler.selection import most_telling

if TYPE_CHECKING:
    from collections.abc import Collection

    from model.cost_model import FittedCostModel
    from model.precision import Precision
    from profiler.design import Design
    from profiler.point_kinds import KindGroup
    from profiler.points import Measured, Point

_MOST_IN_VAIN = 10
"""So many points of a kind in a row of which nothing was measured end the kind."""
_TAKEN = 3
"""One of so many candidates is measured until they are weighed anew."""


class Track:
    """How far one precision has come along its design.

    Points *taken* are off the design, measured now or in an earlier campaign; those *dealt*
    with cost this campaign time, by which its next ones are expected to.

    Args:
        precision: of all its points.
        design: that they are drawn from.
        measured: what was measured, in this campaign, too.
        group: kinds of its points.
        share: of the campaign's time, over that of the first precision's dense points.
        avoided: groups of points that are not measured.

    Attributes:
        precision: as given.
        spent: seconds in its points.
    """

    def __init__(
        self,
        precision: Precision,
        design: Design,
        measured: Measured,
        group: KindGroup,
        share: float,
        avoided: Collection[str] = (),
    ) -> None:
        self.precision = precision
        self.spent = 0.0
        self._share = share
        self._kinds = {kind.name: kind for kind in group.kinds}
        self._points = {name: kind.points(design) for name, kind in self._kinds.items()}
        self._pools: dict[str, list[Point]] = {kind: [] for kind in self._kinds}
        self._next: dict[str, list[Point]] = {}
        self._adviser: FittedCostModel | None = None
        self._seconds = dict.fromkeys(self._kinds, 0.0)
        self._taken = Counter[str]()
        self._dealt = Counter[str]()
        self._in_vain = Counter[str]()
        self._measured = measured
        self._avoided = avoided
        for kind in self._kinds:
            self._fill(kind, 1)

    @property
    def used_up(self) -> float:
        """Seconds in its points over its share of the campaign's time."""
        return self.spent / self._share

    @property
    def base_is_done(self) -> bool:
        """Whether the design's first points are measured."""
        return all(self._taken[name] >= self._kinds[name].base_points for name in self._going_on)

    @property
    def _going_on(self) -> list[str]:
        return [name for name in self._kinds if self._in_vain[name] < _MOST_IN_VAIN]

    def next_point(
        self, cost_model: FittedCostModel | None, left: float
    ) -> tuple[str, Point] | None:
        """Returns the kind that is most behind its share and fits the time left, with a point.

        Args:
            cost_model: that chooses the point; None takes the design's next one.
            left: seconds.
        """
        fitting = [kind for kind in self._going_on if self._expected(kind) < left]
        if not fitting:
            return None
        kind = min(fitting, key=lambda k: self._seconds[k] / self._kinds[k].weight)
        if cost_model is None:
            return kind, self._fill(kind, 1).pop(0)
        return kind, self._chosen(kind, cost_model)

    def record(self, kind: str, seconds: float, *, measured: bool) -> str:
        """Notes that a point was dealt with; returns why its kind ends with it, empty: it goes on.

        Args:
            kind: of the point.
            seconds: that it took.
            measured: whether anything of it was.
        """
        self._taken[kind] += 1
        self._dealt[kind] += 1
        self._seconds[kind] += seconds
        self.spent += seconds
        self._in_vain[kind] = 0 if measured else self._in_vain[kind] + 1
        if self._in_vain[kind] < _MOST_IN_VAIN:
            return ""
        plural = self._kinds[kind].plural
        return f"{plural} in {self.precision}: nothing of {_MOST_IN_VAIN} in a row was measured"

    def describe(self, error: float) -> str:
        """Returns what is being done, for a person.

        Args:
            error: median error of its steps; NaN where it cannot be told.
        """
        counts = ", ".join(f"{self._taken[n]} {kind.plural}" for n, kind in self._kinds.items())
        tail = "" if math.isnan(error) else f"; median error {error:.1%}"
        return f"{self.precision}: {counts}{tail}"

    def _chosen(self, kind: str, cost_model: FittedCostModel) -> Point:
        if cost_model is not self._adviser:
            self._adviser = cost_model
            self._next.clear()
        if not self._next.get(kind):
            pool = self._fill(kind, self._kinds[kind].candidates)
            count = -(-len(pool) // _TAKEN)
            chosen = most_telling(cost_model, pool, self.precision, count)
            self._next[kind] = [pool[index] for index in chosen]
        point = self._next[kind].pop(0)
        self._pools[kind].remove(point)
        return point

    def _fill(self, kind: str, count: int) -> list[Point]:
        """Returns the next points that are not measured yet, at least so many."""
        pool = self._pools[kind]
        while len(pool) < count:
            point = next(self._points[kind])
            is_done = point.group in self._avoided
            if is_done or point.is_measured(self.precision, self._measured):
                self._taken[kind] += 1
            else:
                pool.append(point)
        return pool

    def _expected(self, kind: str) -> float:
        if not self._dealt[kind]:
            return self._kinds[kind].first_guess_s
        return self._seconds[kind] / self._dealt[kind]
