"""What is done, on standard error, with the time that it took."""

from __future__ import annotations

import sys
import time


class Progress:
    """Tells of steps; a table's name stands before those that it needs.

    Args:
        tables: how many there will be.
    """

    def __init__(self, tables: int) -> None:
        self._begin = time.monotonic()
        self._tables = tables
        self._done = 0
        self._name = ""

    def begin(self, name: str) -> None:
        """Turns to the next table."""
        self._done += 1
        self._name = name
        self.say("begins")

    def say(self, text: str) -> None:
        """Tells of a step that is done."""
        seconds = time.monotonic() - self._begin
        where = f"{self._done}/{self._tables} {self._name}"
        print(f"[{seconds:6.0f} s] {where}: {text}", file=sys.stderr, flush=True)
