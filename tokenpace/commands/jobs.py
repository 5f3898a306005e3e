"""`profile` and `jobs`: campaigns in the background and waiting for them."""

from __future__ import annotations

import itertools
import json as json_format
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from tokenpace.commands.exporting import line_of
from tokenpace.commands.interrupt import interrupts_noted, until_interrupted
from tokenpace.commands.options import PRECISIONS, Page, PageSize
from tokenpace.commands.session import (
    REFUSED,
    USAGE,
    Address,
    CommandError,
    Json,
    Session,
    progress_bar,
)
from tokenpace.render import catalog, text
from tokenpace.render import jobs as render
from tokenpace.v1 import types_pb2

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from tokenpace.commands.session import Report
    from tokenpace.v1 import profiler_pb2

JobId = Annotated[str, typer.Argument(help="Id of the job.", metavar="ID")]

app = typer.Typer(help="List, show, watch, cancel and export profile jobs.")


def profile(
    *,
    budget: Annotated[
        str | None, typer.Option(help="Time for all of it: 90s, 10m, 1h; 120s when left out.")
    ] = None,
    device: Annotated[str, typer.Option(help="Local device; local when left out.")] = "",
    target_error: Annotated[
        float, typer.Option(help="End early once the median error is below (0.05 is 5%).")
    ] = 0.0,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Measure these, in this order: {PRECISIONS}. When left out, all that the device"
            " runs, its default first; on a GPU in less than 20m bf16 and fp8 alone."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Profile beside other processes, which disturb it.")
    ] = False,
    ranks: Annotated[
        int,
        typer.Option(
            help="Measure what so many ranks send each other, too; all GPUs of one kind when left"
            " out, and none on the CPU."
        ),
    ] = 0,
    address: Address = None,
    json: Json = False,
) -> None:
    """Profile the local device, wait for it and print the fitted error; Ctrl-C cancels."""
    with Session(address, json) as session:
        with interrupts_noted() as noted:
            job = session.client.create_profile_job(
                device=device,
                budget=budget,
                target_error=target_error,
                precisions=precision or (),
                force=force,
                ranks=ranks,
            ).profile_job
            with _cancelled_on_interrupt(session, job.id), progress_bar("waiting") as report:
                job = follow(session, job, report, noted)
        check(job)
        fitted = session.client.cost_model(job.cost_model).cost_model if job.cost_model else None
    if fitted:
        session.say(catalog.cost_model(fitted))
        session.say("its page:")
        session.say_command(f"tokenpace jobs export {job.id} FILE")
        session.say_command("tokenpace evaluate --campaign FILE")
    if job.status:
        session.say(job.status)


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    *,
    page_size: PageSize = 0,
    page_token: Page = "",
    address: Address = None,
    json: Json = False,
) -> None:
    """List profile jobs, newest first; or show, watch, cancel or export one."""
    context.obj = (address, json)
    if context.invoked_subcommand is None:
        _list(context, page_size, page_token, address, json)


@app.command("list")
def list_jobs(
    context: typer.Context,
    *,
    page_size: PageSize = 0,
    page_token: Page = "",
    address: Address = None,
    json: Json = False,
) -> None:
    """List jobs, newest first."""
    _list(context, page_size, page_token, address, json)


@app.command("get")
def get_job(
    context: typer.Context, job: JobId, *, address: Address = None, json: Json = False
) -> None:
    """Show a job as it stands."""
    with Session.within(context, address, json) as session:
        answer = session.client.profile_job(job)
        session.show(answer, lambda answer: render.job(answer.profile_job))


@app.command("cancel")
def cancel_job(
    context: typer.Context, job: JobId, *, address: Address = None, json: Json = False
) -> None:
    """End a job; what it measured is kept."""
    with Session.within(context, address, json) as session:
        answer = session.client.cancel_profile_job(job)
        session.show(answer, lambda answer: render.job(answer.profile_job))


@app.command("watch")
def watch_job(
    context: typer.Context, job: JobId, *, address: Address = None, json: Json = False
) -> None:
    """Follow a job until it has ended; Ctrl-C leaves it running."""
    with Session.within(context, address, json) as session:
        found = session.client.profile_job(job).profile_job
        with interrupts_noted() as noted, progress_bar("waiting") as report:
            ended = follow(session, found, report, noted)
        session.say(render.job(ended))
    check(ended)


@app.command("export")
def export_job(
    context: typer.Context,
    job: JobId,
    path: Annotated[Path, typer.Argument(help="New file, of JSON lines.", metavar="FILE")],
    *,
    address: Address = None,
    json: Json = False,
) -> None:
    """Write all that a job measured, and how its device stood, into the file of a campaign.

    `tokenpace evaluate --campaign FILE` makes a page of it, `tokenpace measurements import FILE`
    brings it to the daemon of another machine.
    """
    with Session.within(context, address, json) as session:
        events = session.client.export_profile_job(job)
        # The file is made only where there is something to write.
        first = next(events)
        rows = 0
        with _new_file(path) as file:
            for event in itertools.chain((first,), events):
                session.emit(event)
                rows += event.HasField("measurement")
                if (line := line_of(event)) is not None:
                    file.write(json_format.dumps(line) + "\n")
        session.say(f"{path}: {rows:,} measurements; its page:")
        session.say_command(shlex.join(["tokenpace", "evaluate", "--campaign", str(path)]))


def follow(
    session: Session, job: profiler_pb2.ProfileJob, report: Report, noted: threading.Event
) -> profiler_pb2.ProfileJob:
    """Reports a job's progress until it has ended, and returns it then.

    Raises:
        KeyboardInterrupt: an interrupt was noted.
    """
    for event in until_interrupted(session.client.watch_profile_job(job.id), noted):
        session.emit(event)
        job = event.profile_job
        report(job.progress, _doing(job), render.left_s(job))
    return job


def _doing(job: profiler_pb2.ProfileJob) -> str:
    if job.state == types_pb2.JOB_STATE_RUNNING:
        return f"{job.measurement_count} rows, {job.status}".rstrip(", ")
    state = text.enum(types_pb2.JobState, "JOB_STATE_", job.state)
    return f"{state}, {job.measurement_count} rows"


def check(job: profiler_pb2.ProfileJob) -> None:
    """Ends the command with exit code 1 where a job did not succeed.

    Raises:
        CommandError: the job failed, was cancelled, or goes on unwatched.
    """
    if job.state == types_pb2.JOB_STATE_SUCCEEDED:
        return
    state = text.enum(types_pb2.JobState, "JOB_STATE_", job.state)
    reason = f": {job.error_message}" if job.error_message else ""
    raise CommandError(REFUSED, f"job {job.id} is {state}{reason}")


def _list(
    context: typer.Context, page_size: int, page_token: str, address: str | None, json: bool
) -> None:
    with Session.within(context, address, json) as session:
        answer = session.client.profile_jobs(page_size=page_size, page_token=page_token)
        session.show(answer, render.jobs)


@contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """Opens a file that is not there yet; what was not written to its end is removed.

    Raises:
        CommandError: it is there, or cannot be written.
    """
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError as error:
        raise CommandError(USAGE, f"{path} is there already; name another file") from error
    except OSError as error:
        raise CommandError(USAGE, f"cannot write {path}: {error.strerror}") from error
    try:
        with file:
            yield file
    except OSError as error:
        path.unlink()
        raise CommandError(USAGE, f"cannot write {path}: {error.strerror}") from error
    except BaseException:
        path.unlink()
        raise


@contextmanager
def _cancelled_on_interrupt(session: Session, job_id: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        cancelled = session.client.cancel_profile_job(job_id)
        session.emit(cancelled)
        rows = cancelled.profile_job.measurement_count
        print(f"cancelled job {job_id}; its {rows} rows are kept", file=sys.stderr)
        raise
