"""Profiles devices again and again, and records how far the cost model was off."""

from __future__ import annotations

import math
import secrets
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import structlog
from cronsim import CronSim, CronSimError

from model.errors import InvalidFieldError
from server.device_queue import QueueFullError
from server.errors import ServiceError
from server.job_board import BoardClosedError
from server.records import (
    JobRecord,
    JobState,
    ScheduleOutcome,
    ScheduleRecord,
    ScheduleRun,
)
from server.store.errors import StoreError

if TYPE_CHECKING:
    from server.devices import Device
    from server.jobs import JobManager
    from server.reference_cost_models import CurrentCostModel
    from server.state import State
    from server.store.paging import Page, PageRequest

MIN_INTERVAL_S = 1.0
MAX_INTERVAL_S = 366 * 86_400.0
MAX_SCHEDULES = 100

_CRON_FIELDS = 5
_MAX_CRON_CHARACTERS = 256

_log = structlog.get_logger(__name__)


class TooManySchedulesError(Exception):
    """There are so many schedules that no more may be made."""


@dataclass(frozen=True, slots=True)
class _OpenRun:
    """A run whose job has not ended, and the cost model that it puts to the test."""

    schedule_id: str
    run: ScheduleRun
    before: CurrentCostModel | None


def next_cron_time(cron: str, after: datetime) -> datetime:
    """Returns the first time after ``after`` that a cron expression names.

    Args:
        cron: five fields, in UTC.
        after: with its time zone.

    Raises:
        InvalidFieldError: it is no such expression, or names no time at all; names ``cron``.
    """
    remedy = 'give minute, hour, day of month, month and day of week, as in "0 3 * * *"'
    if len(cron) > _MAX_CRON_CHARACTERS or len(cron.split()) != _CRON_FIELDS:
        raise InvalidFieldError("cron", f"is not an expression of five fields; {remedy}")
    try:
        return next(CronSim(cron, after.astimezone(UTC)))
    except CronSimError as error:
        raise InvalidFieldError("cron", f"{str(error).lower()}; {remedy}") from error
    except StopIteration:
        raise InvalidFieldError("cron", f"names a date that never comes; {remedy}") from None


class Schedules:
    """Starts the jobs of schedules when they are due.

    Args:
        state: store, devices and cost models.
        jobs: runs them.
    """

    def __init__(self, state: State, jobs: JobManager) -> None:
        self._state = state
        self._store = state.store.schedules
        self._jobs = jobs
        self._stopping = threading.Event()
        self._open: dict[str, _OpenRun] = {}
        self._creating = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="schedules", daemon=True)

    def start(self) -> None:
        """Begins to look at the clock; the job manager has taken up its jobs already."""
        self._take_up()
        self._thread.start()

    def stop(self) -> None:
        """Starts nothing any more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def create(
        self, device: Device, *, budget_s: float, cron: str = "", interval_s: float | None = None
    ) -> ScheduleRecord:
        """Stores a new schedule.

        Args:
            device: a local one.
            budget_s: seconds of each job.
            cron: five fields in UTC; empty with an interval.
            interval_s: seconds between starts, at least 1; None with cron.

        Raises:
            InvalidFieldError: cron or interval cannot be used; names it.
            TooManySchedulesError: there are ``MAX_SCHEDULES`` already.
            StoreFullError, StoreUnavailableError: it cannot be stored.
        """
        now = datetime.now(UTC)
        schedule = ScheduleRecord(
            id=f"schedule-{secrets.token_hex(6)}",
            device=device.name,
            budget_s=budget_s,
            create_time=now,
            next_run_time=now,
            cron=cron,
            interval_s=interval_s,
        )
        schedule = replace(schedule, next_run_time=_next_run_time(schedule, now))
        with self._creating:
            if len(self._store.all()) >= MAX_SCHEDULES:
                raise TooManySchedulesError(f"there are {MAX_SCHEDULES} schedules; delete one")
            self._store.add(schedule)
        return schedule

    def page(self, request: PageRequest) -> Page[ScheduleRecord]:
        """Returns a page, newest first, with their latest runs.

        Raises:
            InvalidFieldError: the page token was not made here.
        """
        return self._store.page(request)

    def delete(self, schedule_id: str) -> bool:
        """Removes a schedule; returns whether there was one. A job it started goes on."""
        return self._store.delete(schedule_id)

    def tick(self, now: datetime) -> None:
        """Notes how jobs ended and starts those that are due at ``now``."""
        for open_run in tuple(self._open.values()):
            self._close_if_ended(open_run)
        for schedule in self._store.all():
            if schedule.next_run_time <= now:
                self._run(schedule, now)

    def _work(self) -> None:
        while not self._stopping.wait(self._state.configuration.tick):
            try:
                self.tick(datetime.now(UTC))
            except StoreError as error:
                # What is due stays due; there may be room at the next look.
                _log.error("schedules cannot be read or stored", error=str(error))

    def _run(self, schedule: ScheduleRecord, now: datetime) -> None:
        # The next time counts from now: of times missed while the daemon was
        # down one is made up for. It is stored first: a crash may lose a run
        # and never doubles one.
        if not self._store.set_next_run(schedule.id, _next_run_time(schedule, now)):
            return
        run = ScheduleRun(time=schedule.next_run_time, outcome=ScheduleOutcome.STARTED)
        try:
            device = self._state.devices.get_local(schedule.device)
            before = self._state.cost_models.local(device)
            if occupant := self._jobs.occupant(device):
                self._skip(schedule, run, f"device busy: {occupant}")
                return
            self._state.occupancy.note_and_check(device)
            job = self._jobs.create(device, budget_s=schedule.budget_s, schedule_id=schedule.id)
        except (ServiceError, QueueFullError, BoardClosedError, StoreError) as error:
            self._skip(schedule, run, str(error))
            return
        run = replace(run, job_id=job.id)
        self._open[job.id] = _OpenRun(schedule.id, run, before)
        self._store.record_run(schedule.id, run)
        _log.info("schedule started a job", schedule=schedule.id, job=job.id)

    def _skip(self, schedule: ScheduleRecord, run: ScheduleRun, reason: str) -> None:
        _log.info("schedule skipped a run", schedule=schedule.id, reason=reason)
        skipped = replace(run, outcome=ScheduleOutcome.SKIPPED, reason=reason)
        self._store.record_run(schedule.id, skipped)

    def _close_if_ended(self, open_run: _OpenRun) -> None:
        job = self._jobs.board.get(open_run.run.job_id)
        if job is not None and not job.state.ended:
            return
        closed = replace(
            open_run.run,
            outcome=ScheduleOutcome.SUCCEEDED
            if job is not None and job.state is JobState.SUCCEEDED
            else ScheduleOutcome.FAILED,
            reason=_reason(job),
            drift=self._drift(open_run),
        )
        self._store.record_run(open_run.schedule_id, closed)
        del self._open[open_run.run.job_id]
        if closed.drift is not None:
            _log.info("drift", schedule=open_run.schedule_id, job=closed.job_id, drift=closed.drift)

    def _drift(self, open_run: _OpenRun) -> float | None:
        """Returns the median error of the cost model before the run on what the run measured."""
        if open_run.before is None:
            return None
        measured = self._state.store.measurements.of_job(open_run.run.job_id)
        if not measured:
            return None
        try:
            errors = open_run.before.model.errors_on(measured)
        except Exception:
            # The figure is a remark; the schedule goes on without it.
            _log.exception("drift cannot be told", schedule=open_run.schedule_id)
            return None
        drift = float(np.median(errors)) if len(errors) else math.nan
        return drift if math.isfinite(drift) else None

    def _take_up(self) -> None:
        """Finds the runs of before a restart that have not been closed."""
        for schedule in self._store.all():
            for run in schedule.runs:
                if run.outcome is ScheduleOutcome.STARTED:
                    self._reopen(schedule.id, run)
        # Of frequent schedules the latest 20 runs may all be skips meanwhile.
        for job in self._state.store.jobs.unfinished():
            if job.schedule_id and job.id not in self._open:
                run = ScheduleRun(
                    time=job.create_time, outcome=ScheduleOutcome.STARTED, job_id=job.id
                )
                self._reopen(job.schedule_id, run)

    def _reopen(self, schedule_id: str, run: ScheduleRun) -> None:
        job = self._jobs.board.get(run.job_id)
        before = None
        # A job that has ended fitted the model that is current now.
        if job is not None and not job.state.ended:
            device = self._state.devices.get(job.device)
            before = self._state.cost_models.local(device) if device.local else None
        self._open[run.job_id] = _OpenRun(schedule_id, run, before)


def _next_run_time(schedule: ScheduleRecord, now: datetime) -> datetime:
    if schedule.interval_s is None:
        return next_cron_time(schedule.cron, now)
    if not MIN_INTERVAL_S <= schedule.interval_s <= MAX_INTERVAL_S:
        raise InvalidFieldError(
            "interval", f"is not in {MIN_INTERVAL_S:g} s to {MAX_INTERVAL_S:g} s"
        )
    # Whole intervals, so that the starts do not wander off by the ticks.
    late = (now - schedule.next_run_time).total_seconds()
    intervals = math.floor(max(0.0, late) / schedule.interval_s) + 1
    return schedule.next_run_time + timedelta(seconds=intervals * schedule.interval_s)


def _reason(job: JobRecord | None) -> str:
    if job is None:
        return "the job is not in the store any more"
    if job.state is JobState.CANCELLED:
        return "the job was cancelled"
    return job.error_message
