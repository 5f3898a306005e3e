"""How each profile job stands, for those who ask and those who watch."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from server.store.errors import StoreError
from server.store.paging import Page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.cancellation import Cancellation
    from server.records import JobRecord
    from server.store import Store
    from server.store.paging import PageRequest

# Each answer to a watcher takes processor time away from what is being timed.
_WATCH_INTERVAL_S = 0.2

_log = structlog.get_logger(__name__)


class BoardClosedError(Exception):
    """The daemon is ending; jobs that have not ended go on at its next start."""


class JobBoard:
    """Jobs as they stand: unfinished ones in memory, all of them in the store.

    Args:
        store: keeps them over restarts.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._live: dict[str, JobRecord] = {}
        self._closed = False

    def add(self, job: JobRecord) -> None:
        """Notes a new job.

        Raises:
            StoreFullError, StoreUnavailableError: it cannot be stored.
        """
        self._store.jobs.add(job)
        self._publish(job)

    def put(self, job: JobRecord, *, save: bool = True) -> None:
        """Notes how a job stands.

        Where the store is full it is kept in memory: what was measured is what
        the store is for, and a job that could not be noted as ended goes on
        after a restart, when there may be room.

        Args:
            job: whose measurement_count the store counts by itself.
            save: whether it must outlast a crash.
        """
        saved = False
        if save:
            try:
                self._store.jobs.update(job)
                saved = True
            except StoreError as error:
                _log.error("job cannot be stored", job=job.id, error=str(error))
        self._publish(job, forget=saved and job.state.ended)

    def get(self, job_id: str) -> JobRecord | None:
        """Returns the job with that id, None where there is none."""
        with self._changed:
            if (live := self._live.get(job_id)) is not None:
                return live
        return self._store.jobs.get(job_id)

    def page(self, request: PageRequest) -> Page[JobRecord]:
        """Returns a page, newest first.

        Raises:
            InvalidFieldError: the page token was not made here.
        """
        page = self._store.jobs.page(request)
        with self._changed:
            items = tuple(self._live.get(job.id, job) for job in page.items)
        return Page(items, page.next_token, page.total_size)

    def watch(self, job: JobRecord, cancellation: Cancellation) -> Iterator[JobRecord]:
        """Yields a job, and again whenever it has changed, until it has ended.

        Args:
            job: as it stands now.
            cancellation: of the one who watches.

        Raises:
            CancelledError: the watcher has gone away.
            BoardClosedError: the daemon is ending.
        """
        shown = job
        yield shown
        while not shown.state.ended:
            shown = self._await_change(shown, cancellation)
            yield shown
            cancellation.event.wait(0 if shown.state.ended else _WATCH_INTERVAL_S)

    def await_end(self, job_id: str, timeout_s: float) -> None:
        """Waits until a job has ended, or for ``timeout_s`` seconds."""
        end = time.monotonic() + timeout_s
        job = self.get(job_id)
        while job is not None and not job.state.ended and time.monotonic() < end:
            with self._changed:
                if self._live.get(job_id) == job:
                    self._changed.wait(timeout=max(0.0, end - time.monotonic()))
            job = self.get(job_id)

    def close(self) -> None:
        """Sends those who watch away."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _await_change(self, shown: JobRecord, cancellation: Cancellation) -> JobRecord:
        def is_over() -> bool:
            changed = self._live.get(shown.id) != shown
            return cancellation.cancelled or self._closed or changed

        with cancellation.calling(self._wake), self._changed:
            self._changed.wait_for(is_over)
            cancellation.check()
            job = self._live.get(shown.id)
            if job is None and not self._closed:
                job = self._store.jobs.get(shown.id)
        if job is None or (job == shown and self._closed):
            raise BoardClosedError("the daemon is ending; the job goes on at its next start")
        return job

    def _publish(self, job: JobRecord, *, forget: bool = False) -> None:
        with self._changed:
            if forget:
                self._live.pop(job.id, None)
            else:
                self._live[job.id] = job
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
