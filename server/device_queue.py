"""One user of a device at a time: live measurements in line, a campaign in the gaps."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from profiler.interface import Pause, Resume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from server.cancellation import Cancellation


class QueueFullError(Exception):
    """So many wait for the device that no more may."""


class CampaignTurn:
    """A campaign's use of the device, interrupted where others go ahead.

    Its worker is told to pause and to resume; that it paused is told by its
    ``Paused``. A worker that is asked twice answers twice, so that the answers
    are counted: an answer to an earlier request frees nothing.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._send: Callable[[Pause | Resume], None] | None = None
        self._wanted = False
        self._told = False
        self._unanswered = 0

    @contextmanager
    def working(self, send: Callable[[Pause | Resume], None]) -> Iterator[None]:
        """Uses the device within the block, through a worker.

        Args:
            send: speaks to the worker and waits for nothing.
        """
        with self._changed:
            self._send, self._told, self._unanswered = send, False, 0
            self._tell()
        try:
            yield
        finally:
            with self._changed:
                self._send, self._told = None, False

    def paused(self) -> None:
        """Notes the worker's ``Paused``."""
        with self._changed:
            self._unanswered -= 1
            self._changed.notify_all()

    def want(self, off: bool) -> None:
        """Asks it to pause or to go on; the lock is held."""
        self._wanted = off
        self._tell()

    @property
    def is_off(self) -> bool:
        """Whether it leaves the device alone; the lock is held.

        Before its worker works and after that (the fit) it does not: both take
        the processor, and with it the precision of what is timed beside them.
        """
        return self._told and self._unanswered == 0

    def _tell(self) -> None:
        if self._send is None or self._wanted == self._told:
            return
        self._told = self._wanted
        if self._wanted:
            self._unanswered += 1
            self._send(Pause())
        else:
            self._send(Resume())


class DeviceQueue:
    """Who uses one device now and who is next.

    Args:
        max_waiting: live measurements that may wait behind another.
        before_campaign: is called when a campaign has the device, before it uses it.
    """

    def __init__(
        self, max_waiting: int, before_campaign: Callable[[], None] = lambda: None
    ) -> None:
        self._max_waiting = max_waiting
        self._before_campaign = before_campaign
        self._changed = threading.Condition()
        self._line: deque[object] = deque()
        self._campaign: CampaignTurn | None = None

    @property
    def measuring(self) -> bool:
        """Whether a live measurement runs or waits."""
        with self._changed:
            return bool(self._line)

    @property
    def waiting(self) -> int:
        """Number of live measurements behind another."""
        with self._changed:
            return max(0, len(self._line) - 1)

    @property
    def busy(self) -> bool:
        """Whether anybody uses the device or waits for it."""
        with self._changed:
            return bool(self._line) or self._campaign is not None

    @property
    def has_campaign(self) -> bool:
        """Whether a campaign has the device, which may pause meanwhile."""
        with self._changed:
            return self._campaign is not None

    @contextmanager
    def measurement(self, cancellation: Cancellation) -> Iterator[None]:
        """Waits for the device and holds it within the block.

        A campaign makes room at its next point; another measurement is waited for.

        Raises:
            QueueFullError: too many wait already.
            CancelledError: it was called off while it waited.
        """
        ticket = object()
        with self._changed:
            if self._line and self.waiting >= self._max_waiting:
                raise QueueFullError(
                    f"the device is measuring and {self._max_waiting} more wait for it"
                )
            self._line.append(ticket)
            if self._campaign is not None:
                self._campaign.want(off=True)
        try:
            with cancellation.calling(self._wake):
                self._wait(lambda: self._is_next(ticket), cancellation)
            yield
        finally:
            with self._changed:
                self._line.remove(ticket)
                if not self._line and self._campaign is not None:
                    self._campaign.want(off=False)
                self._changed.notify_all()

    @contextmanager
    def campaign(self, cancellation: Cancellation) -> Iterator[CampaignTurn]:
        """Waits until nobody uses the device or waits for it, and holds it within the block.

        Raises:
            CancelledError: it was called off while it waited.
        """
        turn = CampaignTurn(self._changed)
        with cancellation.calling(self._wake), self._changed:
            self._wait(lambda: not self._line and self._campaign is None, cancellation)
            self._campaign = turn
        try:
            self._before_campaign()
            yield turn
        finally:
            with self._changed:
                self._campaign = None
                self._changed.notify_all()

    def _is_next(self, ticket: object) -> bool:
        return self._line[0] is ticket and (self._campaign is None or self._campaign.is_off)

    def _wait(self, ready: Callable[[], bool], cancellation: Cancellation) -> None:
        with self._changed:
            self._changed.wait_for(lambda: cancellation.cancelled or ready())
            cancellation.check()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
