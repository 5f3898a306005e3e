"""Notes now and then how a device stands while it is measured."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from profiler import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiler.telemetry import Telemetry

_LOOK_EVERY_S = 5.0


class Watch:
    """Looks at a device between points: a look during one would disturb it.

    Args:
        name: "cpu" or "cuda:0".
        note: takes how it stands; what it raises goes on.
    """

    def __init__(self, name: str, note: Callable[[Telemetry], None]) -> None:
        self._name = name
        self._note = note
        self._next = 0.0

    def look(self, *, always: bool = False) -> None:
        """Notes how the device stands, if that can be told.

        Args:
            always: before and behind all points, too, not just when it is time to.
        """
        now = time.monotonic()
        if now < self._next and not always:
            return
        self._next = now + _LOOK_EVERY_S
        try:
            state = telemetry.read(self._name, (os.getpid(),))
        except (OSError, ValueError):
            return
        self._note(state)
