"""Files that a user brings: which layout each is of, and what is imported of all of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reference import plain, vidur
from reference.errors import MeasurementFileError
from reference.rows import thinned
from reference.sheets import read
from reference.sources import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from reference.rows import Row
    from reference.sheets import Sheet

LONGEST_ORIGIN = 200
"""Characters that who measured, and the licence, may take of a source's text."""
_DIGITS = 16
_NAMED = 3
_LONGEST_NAME = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class FileImport:
    """What files hold.

    Attributes:
        sources: one for each engine, in the order they were met.
        notes: what was left out, for a person.
    """

    sources: tuple[Source, ...]
    notes: tuple[str, ...]


def file_import(
    paths: Sequence[Path], *, device: str, engine: str, origin: str, limit: int
) -> FileImport:
    """Returns what files hold, all of it or nothing.

    A source is known again by the files' names, content and order, and by the limit.

    Args:
        paths: CSV or Parquet.
        device: that all of it was measured on.
        engine: of rows that name none; empty: each must.
        origin: who measured, under which licence; may be empty.
        limit: most rows of one kind and precision.

    Raises:
        MeasurementFileError: something cannot be used; names file, line, column and remedy.
        NotInstalledError: a file is Parquet, and pyarrow is missing.
    """
    problems: list[str] = []
    notes: list[str] = []
    found: list[Row] = []
    sheets = [read(path, problems) for path in paths]
    for sheet in sheets:
        rows, left_out = _rows(sheet, engine, problems)
        found += rows
        if left_out:
            counts = ", ".join(f"{count:,} {reason}" for reason, count in left_out.most_common())
            notes.append(f"{sheet.name}: times that are not imported: {counts}")
        if not rows and not problems:
            problems.append(f"{sheet.name} holds nothing that can be imported; leave it out")
    if problems:
        raise MeasurementFileError(problems)
    text = "; ".join(part for part in (_text(sheets, limit), origin) if part)
    sources = []
    for name in dict.fromkeys(row.engine for row in found):
        own = [row for row in found if row.engine == name]
        kept = thinned(own, limit)
        if len(kept) < len(own):
            notes.append(
                f"{len(own) - len(kept):,} rows of {name} are left out: --rows keeps {limit:,} of"
                " a kind and precision"
            )
        sources.append(Source(device=device, engine=name, text=text, rows=kept))
    return FileImport(sources=tuple(sources), notes=tuple(notes))


def _rows(sheet: Sheet, engine: str, problems: list[str]) -> tuple[list[Row], Counter[str]]:
    left_out: Counter[str] = Counter()
    if vidur.recognises(sheet):
        return vidur.rows(sheet, engine, problems, left_out), left_out
    if plain.recognises(sheet):
        return plain.rows(sheet, engine, problems), left_out
    problems.append(
        f"{sheet.name}:1: holds no measurements of operations: neither the columns kind,"
        " precision and latency_ms that docs/measurement-files.md names, nor a profile of Vidur"
    )
    return [], left_out


def _text(sheets: Iterable[Sheet], limit: int) -> str:
    digest = hashlib.sha256()
    names = []
    for sheet in sheets:
        digest.update(hashlib.sha256(sheet.name.encode()).digest())
        digest.update(hashlib.sha256(sheet.content).digest())
        layout = f" ({vidur.LAYOUT})" if vidur.recognises(sheet) else ""
        names.append(sheet.name[:_LONGEST_NAME] + layout)
    shown = names[:_NAMED]
    if len(names) > _NAMED:
        shown.append(f"{len(names) - _NAMED} more")
    return (
        f"{', '.join(shown)}, sha256 {digest.hexdigest()[:_DIGITS]};"
        f" at most {limit} rows a kind and precision"
    )
