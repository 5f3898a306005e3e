"""Calls off work that another thread is doing or waiting for."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class CancelledError(Exception):
    """The one who asked for the work does not want it any more."""


class Cancellation:
    """One piece of work that may be called off, once and for good.

    Attributes:
        event: set once it is cancelled.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: dict[object, Callable[[], None]] = {}

    @property
    def cancelled(self) -> bool:
        """Whether it was called off."""
        return self.event.is_set()

    def cancel(self) -> None:
        """Calls it off; any thread may, again and again.

        Called by gRPC on the one thread that serves all calls, so that no callback
        may wait for anything.
        """
        with self._lock:
            self.event.set()
            callbacks = tuple(self._callbacks.values())
            self._callbacks.clear()
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Does nothing unless it was called off.

        Raises:
            CancelledError: it was.
        """
        if self.cancelled:
            raise CancelledError("cancelled")

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Calls ``callback`` if it is called off within the block, or was before.

        Args:
            callback: returns at once; may be called on any thread.
        """
        key = object()
        with self._lock:
            late = self.cancelled
            if not late:
                self._callbacks[key] = callback
        if late:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.pop(key, None)
