"""Profile jobs."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from model.precision import Precision
from server.records import JobRecord, JobState
from server.store.paging import Page, PageRequest, newest_first
from server.store.tables import jobs

if TYPE_CHECKING:
    from sqlalchemy import Row

    from server.store.database import Database


class Jobs:
    """The table of jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, job: JobRecord) -> None:
        """Stores a new job.

        Raises:
            StoreFullError: there is no room.
            StoreUnavailableError: the store cannot be written.
        """
        with self._database.write() as connection:
            connection.execute(insert(jobs).values(_columns(job)))

    def update(self, job: JobRecord) -> None:
        """Stores how a job stands; its measurement_count is left as it is counted here.

        Raises:
            StoreFullError: there is no room; the job stays as it was stored.
            StoreUnavailableError: the store cannot be written.
        """
        columns = _columns(job)
        del columns["measurement_count"]
        with self._database.write() as connection:
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(columns))

    def get(self, job_id: str) -> JobRecord | None:
        """Returns the job with that id, None where there is none."""
        with self._database.read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
        return None if row is None else _record(row)

    def unfinished(self) -> tuple[JobRecord, ...]:
        """Returns the jobs that have not ended, oldest first."""
        states = [state.value for state in JobState if not state.ended]
        query = select(jobs).where(jobs.c.state.in_(states)).order_by(jobs.c.number)
        with self._database.read() as connection:
            return tuple(_record(row) for row in connection.execute(query))

    def page(self, request: PageRequest) -> Page[JobRecord]:
        """Returns a page, newest first.

        Raises:
            InvalidFieldError: the page token was not made here.
        """
        with self._database.read() as connection:
            page = newest_first(connection, jobs, request)
        return Page(tuple(_record(row) for row in page.items), page.next_token, page.total_size)


def _columns(job: JobRecord) -> dict[str, object]:
    columns = asdict(job)
    columns["state"] = int(job.state)
    columns["precisions"] = [precision.value for precision in job.precisions]
    columns["skipped"] = list(job.skipped)
    return columns


def _record(row: Row[Any]) -> JobRecord:
    values = {field.name: row._mapping[field.name] for field in fields(JobRecord)}
    values["state"] = JobState(row.state)
    values["precisions"] = tuple(Precision(name) for name in row.precisions)
    values["skipped"] = tuple(row.skipped)
    return JobRecord(**values)
