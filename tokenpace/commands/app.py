"""The commands put together, and what their endings are for the shell."""

from __future__ import annotations

import importlib.metadata
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

from tokenpace.arguments import ArgumentError
from tokenpace.commands import (
    calibration,
    catalog,
    daemon,
    evaluate,
    jobs,
    latency,
    measurements,
    reference,
    schedules,
)
from tokenpace.commands.session import DONE, INTERRUPTED, REFUSED, UNREACHABLE, USAGE, CommandError
from tokenpace.errors import TokenpaceError

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(
    name="tokenpace",
    pretty_exceptions_enable=False,  # errors are one line; a traceback would be a bug's
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Milliseconds per token of transformer models: predicted with an interval, and measured."""
    if version:
        print(f"tokenpace {importlib.metadata.version('tokenpace')}")
        raise typer.Exit(DONE)
    if context.invoked_subcommand is None:
        with redirect_stdout(sys.stderr):  # typer prints part of the help itself
            print(context.get_help(), end="")
        raise typer.Exit(USAGE)


app.command()(daemon.serve)
app.command()(latency.predict)
app.command()(latency.measure)
app.command()(jobs.profile)
app.command()(catalog.devices)
app.command()(catalog.architectures)
app.command()(catalog.models)
app.add_typer(measurements.app, name="measurements")
app.command()(calibration.calibrate)
app.command()(calibration.calibrations)
app.add_typer(jobs.app, name="jobs")
app.add_typer(schedules.app, name="schedules")
app.add_typer(reference.app, name="reference")
app.command()(evaluate.evaluate)
app.command()(daemon.config)


def run(arguments: Sequence[str] | None) -> int:
    """Runs the command and returns its exit code; errors become one line on standard error."""
    try:
        code = app(args=arguments, standalone_mode=False, prog_name="tokenpace")
    except TokenpaceError as error:
        return _fail(UNREACHABLE if error.unreachable else REFUSED, _line_of(error))
    except CommandError as error:
        return _fail(error.code, str(error))
    except ArgumentError as error:
        return _fail(USAGE, f"{error.field}: {error.message}")
    except typer.exceptions.TyperException as error:
        return _fail(USAGE, error.format_message())
    if code == INTERRUPTED:  # what typer makes of KeyboardInterrupt
        return _fail(INTERRUPTED, "interrupted")
    return code if isinstance(code, int) else DONE


def _line_of(error: TokenpaceError) -> str:
    if error.unreachable:
        return f"no daemon answers: {error.message}"
    if not error.field_violations:
        return error.message
    return "; ".join(f"{v.field}: {v.description}" for v in error.field_violations)


def _fail(code: int, text: str) -> int:
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    return code
