"""API messages of jobs and schedules, and durations both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from google.protobuf.duration_pb2 import Duration

from model.errors import InvalidFieldError
from server.messages import timestamp
from tokenpace.v1 import profiler_pb2, types_pb2

if TYPE_CHECKING:
    from server.records import JobRecord, ScheduleRecord, ScheduleRun

_NANOS = 1_000_000_000


def seconds_of(message: Duration, field: str, low: float, high: float) -> float:
    """Returns a duration in seconds.

    Args:
        message: as it came; its nanos may be out of range.
        field: path of it in its request.
        low: least number of seconds.
        high: largest number of seconds.

    Raises:
        InvalidFieldError: it is no duration or out of range; names ``field``.
    """
    seconds, nanos = message.seconds, message.nanos
    if not abs(nanos) < _NANOS or (seconds < 0 < nanos) or (nanos < 0 < seconds):
        raise InvalidFieldError(
            field,
            "is no duration: nanos are -999,999,999 to 999,999,999 and have the sign of seconds",
        )
    value = seconds + nanos / _NANOS
    if not low <= value <= high:
        raise InvalidFieldError(field, f"{value:g} s is not in {low:g} s to {high:g} s")
    return value


def duration(seconds: float) -> Duration:
    """Returns seconds as the API writes them."""
    message = Duration()
    message.FromNanoseconds(round(seconds * _NANOS))
    return message


def profile_job(job: JobRecord) -> profiler_pb2.ProfileJob:
    """Returns a job."""
    message = profiler_pb2.ProfileJob(
        id=job.id,
        state=cast("types_pb2.JobState", int(job.state)),
        device=job.device,
        budget=duration(job.budget_s),
        measurement_count=job.measurement_count,
        progress=job.progress,
        error_message=job.error_message,
        create_time=timestamp(job.create_time),
        status=job.status,
        cost_model=job.cost_model,
        schedule_id=job.schedule_id,
        skipped=job.skipped,
    )
    if job.start_time is not None:
        message.start_time.CopyFrom(timestamp(job.start_time))
        message.spent.CopyFrom(duration(job.spent_s))
    if job.end_time is not None:
        message.end_time.CopyFrom(timestamp(job.end_time))
    return message


def schedule(record: ScheduleRecord) -> profiler_pb2.Schedule:
    """Returns a schedule with its latest runs."""
    message = profiler_pb2.Schedule(
        id=record.id,
        cron=record.cron,
        device=record.device,
        budget=duration(record.budget_s),
        create_time=timestamp(record.create_time),
        next_run_time=timestamp(record.next_run_time),
        runs=[_schedule_run(run) for run in record.runs],
    )
    if record.interval_s is not None:
        message.interval.CopyFrom(duration(record.interval_s))
    return message


def _schedule_run(run: ScheduleRun) -> profiler_pb2.ScheduleRun:
    return profiler_pb2.ScheduleRun(
        time=timestamp(run.time),
        outcome=cast("profiler_pb2.ScheduleOutcome", int(run.outcome)),
        reason=run.reason,
        job_id=run.job_id,
        drift=run.drift,
    )
