"""Ctrl-C while a stream is followed, without losing it.

An exception raised by the signal's handler at whatever line runs can vanish
inside gRPC. So the handler takes a note, and the loop over the stream looks.
"""

from __future__ import annotations

import queue
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

_LOOK_EVERY_S = 0.1


@contextmanager
def interrupts_noted(*signals: signal.Signals) -> Iterator[threading.Event]:
    """Gives an event that these signals (SIGINT when none is named) set while the block runs.

    A second signal raises KeyboardInterrupt at once: the way out where a call hangs.
    """
    noted = threading.Event()

    def note(number: int, frame: object) -> None:
        if noted.is_set():
            raise KeyboardInterrupt
        noted.set()

    before = {number: signal.signal(number, note) for number in signals or (signal.SIGINT,)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def until_interrupted(stream: Iterable[T], noted: threading.Event) -> Iterator[T]:
    """Yields what the stream yields and raises what it raises.

    The stream is read in a thread, which ends once the client is closed.

    Raises:
        KeyboardInterrupt: an interrupt was noted.
    """
    arrived: queue.SimpleQueue[tuple[T] | BaseException | None] = queue.SimpleQueue()

    def read() -> None:
        try:
            for item in stream:
                arrived.put((item,))
        except Exception as error:
            arrived.put(error)
        else:
            arrived.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        if noted.is_set():
            raise KeyboardInterrupt
        try:
            item = arrived.get(timeout=_LOOK_EVERY_S)
        except queue.Empty:
            continue
        match item:
            case None:
                return
            case BaseException():
                raise item
            case (value,):
                yield value
