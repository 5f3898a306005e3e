"""What every command that talks to the daemon has: a client, an output, a progress bar."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Protocol, Self, TypeVar

import typer
from google.protobuf.json_format import MessageToJson
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from tokenpace.client import DEFAULT_ADDRESS, Client
from tokenpace.render.text import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from google.protobuf.message import Message
    from rich.console import RenderableType
    from rich.progress import Task

DONE, REFUSED, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes."""

ADDRESS_VARIABLE = "TOKENPACE_ADDRESS"

Address = Annotated[
    str | None,
    typer.Option(
        help=f"HOST:PORT of the daemon; else ${ADDRESS_VARIABLE}, else {DEFAULT_ADDRESS}.",
        show_default=False,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the response as JSON, one object a line for streams."),
]


M = TypeVar("M", bound="Message")


class CommandError(Exception):
    """Ends the command with this exit code and the text as its one line."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Report(Protocol):
    """Shows progress on standard error."""

    def __call__(self, fraction: float | None, text: str, left_s: float | None = None) -> None:
        """Shows the share that is done, what is being done and the seconds left.

        None stands for what is not known.
        """


class Session:
    """A connection for one command, and where its answers go.

    Args:
        address: as given on the command line; None asks the environment.
        json: whether answers are printed as JSON instead of tables.
    """

    def __init__(self, address: str | None, json: bool) -> None:
        self.json = json
        self.client = Client(
            address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS,
        )
        self._console = output()

    @classmethod
    def within(cls, context: typer.Context, address: str | None, json: bool) -> Self:
        """Returns the session of a subcommand; its group's options count where it has none."""
        group_address, group_json = context.obj
        return cls(address or group_address, json or group_json)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.client.close()

    def show(self, answer: M, render: Callable[[M], RenderableType]) -> None:
        """Prints an answer: as JSON when asked for, else as ``render`` makes it."""
        if self.json:
            self.emit(answer)
        else:
            self._console.print(render(answer))

    def emit(self, answer: Message) -> None:
        """Prints an answer as one line of JSON; prints nothing when tables are wanted."""
        if self.json:
            text = MessageToJson(answer, always_print_fields_with_no_presence=True, indent=None)
            print(text, flush=True)

    def say(self, text: RenderableType) -> None:
        """Prints something for a person; nothing when JSON is wanted."""
        if not self.json:
            self._console.print(text)

    def say_command(self, text: str) -> None:
        """Prints a command for a person to copy: on a line of its own, however long."""
        if not self.json:
            self._console.print(f"  {text}", soft_wrap=True)


def output() -> Console:
    """Returns the console on standard output; the daemon's text is never read as markup."""
    return Console(markup=False, highlight=False, soft_wrap=False)


class _TimeColumn(ProgressColumn):
    """The time left, which goes on between reports; where none is known, that since the start."""

    def __init__(self) -> None:
        super().__init__()
        self._elapsed = TimeElapsedColumn()

    def render(self, task: Task) -> Text:
        """Returns the text of a task whose field ``end`` is in monotonic seconds, or None."""
        end: float | None = task.fields["end"]
        if end is None:
            return self._elapsed.render(task)
        return Text(f"{clock(end - time.monotonic())} left", style="progress.remaining")


@contextmanager
def progress_bar(text: str) -> Iterator[Report]:
    """Shows a bar on standard error (its last state alone where that is no terminal)."""
    console = Console(file=sys.stderr, markup=False, highlight=False)
    with Progress(
        SpinnerColumn(),
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        _TimeColumn(),
        console=console,
        expand=True,
        # Else what is printed meanwhile would land on standard error too.
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task(text, total=None, end=None)

        def report(fraction: float | None, text: str, left_s: float | None = None) -> None:
            progress.update(
                task,
                total=None if fraction is None else 1.0,
                completed=fraction or 0.0,
                description=text,
                end=None if left_s is None else time.monotonic() + left_s,
            )

        try:
            yield report
        except BaseException:
            progress.update(task, visible=False)  # the error's line says what there is to say
            raise
