"""Progress of a campaign without a daemon, on standard error."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY_S = 10.0
"""Time between lines where nobody watches: a log is read later."""


class Progress:
    """One line that is written over on a terminal, a plain line now and then elsewhere.

    Args:
        stream: where it goes.
        clock: monotonic seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._live = stream.isatty()
        self._shown = -_EVERY_S
        self._open = False

    def show(self, fraction: float, left_s: float, text: str) -> None:
        """Shows the share that is done, the seconds left and what is being done."""
        line = f"{fraction:4.0%}  {_minutes(left_s)} left  {text}"
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r{line[:width]:<{width}}")
            self._open = True
        elif self._clock() - self._shown >= _EVERY_S:
            self._stream.write(f"{line}\n")
            self._shown = self._clock()
        self._stream.flush()

    def say(self, text: str) -> None:
        """Says something once, on a line of its own."""
        self.close()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Ends the line that is written over."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
        self._open = False


def _minutes(seconds: float) -> str:
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"
