"""Profile jobs and schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from tokenpace.render import text
from tokenpace.render.catalog import more
from tokenpace.v1 import profiler_pb2, types_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType
    from rich.table import Table


def jobs(answer: profiler_pb2.ListProfileJobsResponse) -> RenderableType:
    """Returns one line for each job."""
    if not answer.profile_jobs:
        return Text("no job yet; start one with: tokenpace profile")
    rows = text.table(
        "id",
        "state",
        "device",
        "budget",
        "rows",
        "done",
        "created",
        "status",
        right=("budget", "rows", "done"),
    )
    for it in answer.profile_jobs:
        rows.add_row(
            it.id,
            _state(it.state),
            it.device,
            text.length(it.budget),
            f"{it.measurement_count}",
            _done(it),
            text.time(it, "create_time"),
            it.error_message or it.status,
        )
    return Group(rows, *more(answer.profile_jobs, answer.total_size, answer.next_page_token))


def job(it: profiler_pb2.ProfileJob) -> RenderableType:
    """Returns all that is known of a job."""
    return text.pairs(
        [
            ("job", it.id),
            ("state", _state(it.state)),
            ("error", it.error_message),
            ("status", it.status),
            ("device", it.device),
            ("budget", text.length(it.budget)),
            ("rows", f"{it.measurement_count}"),
            ("done", _done(it)),
            ("created", text.time(it, "create_time")),
            ("started", text.time(it, "start_time")),
            ("ended", text.time(it, "end_time")),
            ("cost model", it.cost_model),
            ("schedule", it.schedule_id),
            ("skipped", "\n".join(it.skipped)),
        ]
    )


def left_s(it: profiler_pb2.ProfileJob) -> float | None:
    """Returns the seconds of its budget that a job has left; None unless it is running."""
    if it.state != types_pb2.JOB_STATE_RUNNING or not it.HasField("spent"):
        return None
    return (it.budget.ToTimedelta() - it.spent.ToTimedelta()).total_seconds()


def _done(it: profiler_pb2.ProfileJob) -> str:
    seconds = left_s(it)
    left = f", {text.clock(seconds)} left" if seconds is not None else ""
    return f"{100 * it.progress:.0f}%{left}"


def schedule_page(answer: profiler_pb2.ListSchedulesResponse) -> RenderableType:
    """Returns one line for each schedule."""
    if not answer.schedules:
        return Text("no schedule yet; make one with: tokenpace schedules create --interval 6h")
    return Group(
        schedules(answer.schedules),
        *more(answer.schedules, answer.total_size, answer.next_page_token),
    )


def schedules(found: Iterable[profiler_pb2.Schedule]) -> Table:
    """Returns one line for each schedule, with its latest run."""
    rows = text.table("id", "when", "device", "budget", "next run", "last run")
    for it in found:
        rows.add_row(
            it.id,
            it.cron or f"every {text.length(it.interval)}",
            it.device,
            text.length(it.budget),
            text.time(it, "next_run_time"),
            _run(it.runs[0]) if it.runs else text.NONE,
        )
    return rows


def _run(run: profiler_pb2.ScheduleRun) -> str:
    outcome = text.enum(profiler_pb2.ScheduleOutcome, "SCHEDULE_OUTCOME_", run.outcome)
    parts = [f"{text.time(run, 'time')} {outcome}"]
    if run.HasField("drift"):
        parts.append(f"drift {text.percent(run.drift)}")
    if run.reason:
        parts.append(run.reason)
    return ", ".join(parts)


def _state(number: int) -> str:
    return text.enum(types_pb2.JobState, "JOB_STATE_", number)
