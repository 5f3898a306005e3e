"""`evaluate`: the accuracy tables, in a process of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from tokenpace.commands.interrupt import interrupts_noted

_MODULE = "evaluation"
_LOOK_EVERY_S = 0.2
_KILLED_BY = 128
"""A shell's exit code of a process that a signal ended, less the signal's number."""

Out = Annotated[Path, typer.Option(help="Folder of the page and its plots.")]
Table = Annotated[
    list[str] | None, typer.Option(help="This table alone; may be repeated.", metavar="NAME")
]
Limit = Annotated[
    int | None,
    typer.Option(
        help="Most deployments, and most rows of one kind of operation: a quick look.",
        show_default="all",
    ),
]
Campaign = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write the page of a file of `python -m profiler campaign`, or of `tokenpace jobs"
        " export`, instead.",
    ),
]
List = Annotated[bool, typer.Option("--list", help="Print the tables there are, and end.")]


def evaluate(
    *,
    out: Out = Path("accuracy"),
    table: Table = None,
    limit: Limit = None,
    campaign: Campaign = None,
    list_: List = False,
) -> None:
    """Score predictions on published measurements and write a page with plots.

    Needs no daemon; half an hour on two cores for all tables. Peers (aiconfigurator, a random
    forest, a roofline) are scored on the same rows. With --campaign: rooflines, errors and clocks
    of one campaign.
    """
    arguments = ["--out", str(out)]
    arguments += [part for name in table or () for part in ("--table", name)]
    arguments += ["--limit", str(limit)] if limit is not None else []
    arguments += ["--campaign", str(campaign)] if campaign is not None else []
    arguments += ["--list"] if list_ else []
    code = _run([sys.executable, "-m", _MODULE, *arguments])
    if code:
        raise typer.Exit(code)


def _run(command: list[str]) -> int:
    """Runs a process to its end and returns its exit code; passes interrupts on."""
    # What computes is no import of this command's: it talks to daemons, and starts at once.
    with (
        interrupts_noted(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as noted,
        # In a group of its own a terminal's Ctrl-C comes here alone, and is passed on once.
        subprocess.Popen(command, process_group=0) as process,
    ):
        try:
            while process.poll() is None:
                if noted.wait(_LOOK_EVERY_S):
                    process.send_signal(signal.SIGINT)
                    process.wait()
        except KeyboardInterrupt:
            process.kill()
            raise
        code = process.returncode
    return code if code >= 0 else _KILLED_BY - code
