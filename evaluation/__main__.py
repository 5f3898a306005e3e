"""Runs the tables: ``python -m evaluation``, which ``tokenpace evaluate`` starts.

Exit codes: 0 done, 2 wrong usage or a missing extra, 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation import requirements
from evaluation.tables import TABLES, section_of

if TYPE_CHECKING:
    from collections.abc import Sequence

DONE, USAGE, INTERRUPTED = 0, 2, 130
_LEAST_LIMIT = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is asked for and returns the exit code.

    Args:
        arguments: without the program's name; None reads the process's own.
    """
    options = _parser().parse_args(arguments)
    if options.list:
        width = max(map(len, TABLES))
        print("\n".join(f"{name:{width}}  {text}" for name, (_, text) in TABLES.items()))
        return DONE
    needed = requirements.PACKAGES if options.campaign is None else requirements.CAMPAIGN
    if remedy := requirements.missing(needed):
        return _fail(remedy)
    names = [name for name in TABLES if name in (options.table or TABLES)]
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _fail(f"--out: {error}")
    try:
        if options.campaign is not None:
            return _campaign(options.campaign, options.out)
        return _run(names, options.out, options.limit)
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(names: Sequence[str], out: Path, limit: int | None) -> int:
    # Only now: what computes may be missing, and takes seconds to load.
    from evaluation.inputs import Inputs  # noqa: PLC0415
    from evaluation.page import write  # noqa: PLC0415
    from evaluation.progress import Progress  # noqa: PLC0415

    progress = Progress(len(names))
    inputs = Inputs(out=out, say=progress.say, limit=limit)
    sections = []
    for count, name in enumerate(names, 1):
        progress.begin(name)
        section = section_of(name)(inputs)
        print(section.text, flush=True)
        sections.append(section)
        # After every table: one that is cut off loses no other.
        path = write(out, _command(names, out, limit), sections, names[count:])
        progress.say(f"in {path}")
    return DONE


def _campaign(file: Path, out: Path) -> int:
    from evaluation import campaign  # noqa: PLC0415 - as above
    from reference.errors import MeasurementFileError  # noqa: PLC0415

    command = shlex.join(["tokenpace", "evaluate", "--campaign", str(file), "--out", str(out)])
    try:
        print(campaign.write(file, out, command))
    except (MeasurementFileError, OSError) as error:
        return _fail(f"--campaign: {error}")
    return DONE


def _command(names: Sequence[str], out: Path, limit: int | None) -> str:
    parts = ["tokenpace", "evaluate", "--out", str(out)]
    if len(names) < len(TABLES):
        parts += [part for name in names for part in ("--table", name)]
    if limit is not None:
        parts += ["--limit", str(limit)]
    return shlex.join(parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation",
        description="Runs every accuracy table from source data and writes a page with plots.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("accuracy"), help="folder of the page (./accuracy)"
    )
    parser.add_argument(
        "--table", action="append", choices=TABLES, help="this one alone; may be repeated"
    )
    parser.add_argument(
        "--limit",
        type=_limit,
        help="most deployments, and most rows of one kind of operation: a quick look",
    )
    parser.add_argument(
        "--campaign",
        type=Path,
        metavar="FILE",
        help="write the page of a campaign's file instead",
    )
    parser.add_argument("--list", action="store_true", help="print the tables there are, and end")
    return parser


def _limit(text: str) -> int:
    if not text.isdecimal() or int(text) < _LEAST_LIMIT:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number from {_LEAST_LIMIT} on: fewer rows make no tables"
        )
    return int(text)


def _fail(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return USAGE


if __name__ == "__main__":
    sys.exit(main())
