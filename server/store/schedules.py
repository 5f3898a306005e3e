"""Schedules and their latest runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select, update

from server.records import ScheduleOutcome, ScheduleRecord, ScheduleRun
from server.store.paging import Page, PageRequest, newest_first
from server.store.tables import schedule_runs, schedules

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Row
    from sqlalchemy.engine import Connection

    from server.store.database import Database

MAX_RUNS = 20


class Schedules:
    """The tables of schedules and of their runs, of which the latest 20 are kept."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, schedule: ScheduleRecord) -> None:
        """Stores a new schedule, without runs.

        Raises:
            StoreFullError: there is no room.
            StoreUnavailableError: the store cannot be written.
        """
        with self._database.write() as connection:
            connection.execute(
                insert(schedules).values(
                    id=schedule.id,
                    cron=schedule.cron,
                    interval_s=schedule.interval_s,
                    device=schedule.device,
                    budget_s=schedule.budget_s,
                    create_time=schedule.create_time,
                    next_run_time=schedule.next_run_time,
                )
            )

    def delete(self, schedule_id: str) -> bool:
        """Removes a schedule with its runs; returns whether there was one."""
        with self._database.write() as connection:
            connection.execute(
                delete(schedule_runs).where(schedule_runs.c.schedule_id == schedule_id)
            )
            found = connection.execute(delete(schedules).where(schedules.c.id == schedule_id))
            return found.rowcount > 0

    def set_next_run(self, schedule_id: str, time: datetime) -> bool:
        """Stores when a schedule is due next; returns whether there is such a schedule."""
        with self._database.write() as connection:
            found = connection.execute(
                update(schedules).where(schedules.c.id == schedule_id).values(next_run_time=time)
            )
            return found.rowcount > 0

    def record_run(self, schedule_id: str, run: ScheduleRun) -> bool:
        """Stores how the run due at ``run.time`` went, over what was stored of it before.

        Returns:
            Whether there is such a schedule; nothing is stored otherwise.

        Raises:
            StoreFullError: there is no room.
            StoreUnavailableError: the store cannot be written.
        """
        values = {
            "outcome": int(run.outcome),
            "reason": run.reason,
            "job_id": run.job_id,
            "drift": run.drift,
        }
        with self._database.write() as connection:
            known = connection.scalar(select(schedules.c.id).where(schedules.c.id == schedule_id))
            if known is None:
                return False
            same = (schedule_runs.c.schedule_id == schedule_id, schedule_runs.c.time == run.time)
            if connection.execute(update(schedule_runs).where(*same).values(values)).rowcount == 0:
                connection.execute(
                    insert(schedule_runs).values(schedule_id=schedule_id, time=run.time, **values)
                )
                _drop_old_runs(connection, schedule_id)
        return True

    def all(self) -> tuple[ScheduleRecord, ...]:
        """Returns all schedules, oldest first, with their runs."""
        with self._database.read() as connection:
            rows = connection.execute(select(schedules).order_by(schedules.c.number)).all()
            return _with_runs(connection, rows)

    def page(self, request: PageRequest) -> Page[ScheduleRecord]:
        """Returns a page, newest first, with their runs.

        Raises:
            InvalidFieldError: the page token was not made here.
        """
        with self._database.read() as connection:
            page = newest_first(connection, schedules, request)
            items = _with_runs(connection, page.items)
        return Page(items, page.next_token, page.total_size)


def _drop_old_runs(connection: Connection, schedule_id: str) -> None:
    oldest_kept = connection.scalar(
        select(schedule_runs.c.number)
        .where(schedule_runs.c.schedule_id == schedule_id)
        .order_by(schedule_runs.c.number.desc())
        .offset(MAX_RUNS - 1)
        .limit(1)
    )
    if oldest_kept is not None:
        connection.execute(
            delete(schedule_runs).where(
                schedule_runs.c.schedule_id == schedule_id, schedule_runs.c.number < oldest_kept
            )
        )


def _with_runs(connection: Connection, rows: Any) -> tuple[ScheduleRecord, ...]:  # noqa: ANN401 - rows of any select
    runs: dict[str, list[ScheduleRun]] = {row.id: [] for row in rows}
    query = (
        select(schedule_runs)
        .where(schedule_runs.c.schedule_id.in_(runs))
        .order_by(schedule_runs.c.number.desc())
    )
    for row in connection.execute(query):
        runs[row.schedule_id].append(
            ScheduleRun(
                time=row.time,
                outcome=ScheduleOutcome(row.outcome),
                reason=row.reason,
                job_id=row.job_id,
                drift=row.drift,
            )
        )
    return tuple(_record(row, tuple(runs[row.id])) for row in rows)


def _record(row: Row[Any], runs: tuple[ScheduleRun, ...]) -> ScheduleRecord:
    return ScheduleRecord(
        id=row.id,
        cron=row.cron,
        interval_s=row.interval_s,
        device=row.device,
        budget_s=row.budget_s,
        create_time=row.create_time,
        next_run_time=row.next_run_time,
        runs=runs,
    )
