"""`schedules`: the device profiles itself again and again."""

from __future__ import annotations

from typing import Annotated

import typer

from tokenpace.commands.options import Page, PageSize
from tokenpace.commands.session import Address, Json, Session
from tokenpace.render import jobs as render

app = typer.Typer(help="List, create and delete schedules of self-profiling.")


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    *,
    page_size: PageSize = 0,
    page_token: Page = "",
    address: Address = None,
    json: Json = False,
) -> None:
    """List schedules with their latest runs; or create or delete one."""
    context.obj = (address, json)
    if context.invoked_subcommand is None:
        _list(context, page_size, page_token, address, json)


@app.command("list")
def list_schedules(
    context: typer.Context,
    *,
    page_size: PageSize = 0,
    page_token: Page = "",
    address: Address = None,
    json: Json = False,
) -> None:
    """List schedules with their latest runs, newest schedule first."""
    _list(context, page_size, page_token, address, json)


@app.command("create")
def create_schedule(
    context: typer.Context,
    *,
    cron: Annotated[str, typer.Option(help='Five fields in UTC, such as "0 3 * * *".')] = "",
    interval: Annotated[
        str | None, typer.Option(help="Time between starts, such as 6h; instead of --cron.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Budget of each job; 120s when left out.")
    ] = None,
    device: Annotated[str, typer.Option(help="Local device; local when left out.")] = "",
    address: Address = None,
    json: Json = False,
) -> None:
    """Make the device profile itself, by --cron or at an --interval."""
    if bool(cron) == bool(interval):
        raise typer.BadParameter("give one of the two", param_hint="--cron, --interval")
    with Session.within(context, address, json) as session:
        answer = session.client.create_schedule(
            cron=cron, interval=interval, device=device, budget=budget
        )
        session.show(answer, lambda answer: render.schedules([answer.schedule]))


@app.command("delete")
def delete_schedule(
    context: typer.Context,
    schedule: Annotated[str, typer.Argument(help="Id of the schedule.", metavar="ID")],
    *,
    address: Address = None,
    json: Json = False,
) -> None:
    """Remove a schedule; a job it started goes on."""
    with Session.within(context, address, json) as session:
        session.show(session.client.delete_schedule(schedule), lambda _: f"deleted {schedule}")


def _list(
    context: typer.Context, page_size: int, page_token: str, address: str | None, json: bool
) -> None:
    with Session.within(context, address, json) as session:
        answer = session.client.schedules(page_size=page_size, page_token=page_token)
        session.show(answer, render.schedule_page)
