"""What a campaign's time goes to: timing, building what is timed, and all the rest."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

_T = TypeVar("_T")


class Tally:
    """Adds up time.

    Attributes:
        seconds: so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts what is done meanwhile."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - begin

    def over(self, items: Iterator[_T]) -> Iterator[_T]:
        """Yields the items, and counts the time that they take to be made, not to be used."""
        while True:
            with self.running():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item


TIMED = Tally()
"""Time in which this process took samples, the runs before the first one among it."""


class Overhead:
    """Says what a campaign's time went to since it was last asked.

    Args:
        begin: monotonic seconds at which the campaign began.
        measuring: time spent in points, samples among it.
    """

    def __init__(self, begin: float, measuring: Tally) -> None:
        self._measuring = measuring
        self._last = (begin, measuring.seconds, TIMED.seconds)

    def lap(self) -> dict[str, float]:
        """Returns the seconds by what they went to.

        "timing" samples; "building" what is timed: data, models and graphs, and checking it;
        "choosing" the points, fits for it among them, a GPU's warming up behind these, and
        whatever else.
        """
        now = (time.monotonic(), self._measuring.seconds, TIMED.seconds)
        passed, measuring, timing = (new - old for new, old in zip(now, self._last, strict=True))
        self._last = now
        spent = {
            "timing": timing,
            "building": measuring - timing,
            "choosing": passed - measuring,
        }
        return {name: round(max(0.0, seconds), 4) for name, seconds in spent.items()}
