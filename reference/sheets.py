"""A CSV or Parquet file as lines of text cells, and the checks that every layout shares."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reference import parquet
from reference.errors import MeasurementFileError
from reference.rows import LONGEST_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_LARGEST_BYTES = 512 * 1024 * 1024
_LARGEST = 1 << 53
"""Whole numbers up to here are exact as floats."""
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a file.

    Attributes:
        place: file and line, such as "mine.csv:3".
        cells: text by column; empty where there is none.
        problems: of the whole file; what is wrong with this line is added.
    """

    place: str
    cells: Mapping[str, str]
    problems: list[str]

    def text(self, column: str) -> str:
        """Returns a cell; empty where it is, or where there is no such column."""
        return self.cells.get(column, "")

    def reject(self, column: str, text: str) -> None:
        """Notes what is wrong with a cell, and the remedy."""
        self.problems.append(f"{self.place}: {column} {text}")

    def flag(self, column: str) -> bool | None:
        """Returns a truth; None, and a problem, where it is none."""
        known = {"true": True, "1": True, "false": False, "0": False}
        found = known.get(self.text(column).lower())
        if found is None:
            self.reject(column, f"is {self.text(column)[:_SHOWN]!r}; it must be True or False")
        return found

    def whole(self, column: str, low: int = 1) -> float | None:
        """Returns a whole number from ``low`` on; None, and a problem, where it is none."""
        return self._number(
            column,
            lambda value: low <= value <= _LARGEST and value == int(value),
            f"a whole number from {low} on",
        )

    def at_least(self, column: str, low: float) -> float | None:
        """Returns a finite number from ``low`` on; None, and a problem, where it is none."""
        return self._number(column, lambda value: value >= low, f"a number from {low:g} on")

    def milliseconds(self, column: str) -> float | None:
        """Returns a latency; None, and a problem, where it is none."""
        return self._number(
            column,
            lambda value: 0 < value <= LONGEST_MS,
            f"a number of milliseconds above 0 and up to an hour ({LONGEST_MS:.0f})",
        )

    def _number(self, column: str, fits: Callable[[float], bool], due: str) -> float | None:
        cell = self.text(column)
        if not cell:
            self.reject(column, f"is empty; it must be {due}")
            return None
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and fits(value):
            return value
        self.reject(column, f"is {cell[:_SHOWN]!r}; it must be {due}")
        return None


@dataclass(frozen=True, slots=True)
class Sheet:
    """One file.

    Attributes:
        name: of the file, without its folders.
        columns: of the file, in its order.
        lines: its rows.
        content: its bytes, by which it is known again.
    """

    name: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    content: bytes

    def lacking(self, needed: set[str]) -> list[str]:
        """Returns the columns that are needed and missing."""
        return sorted(needed.difference(self.columns))


def read(path: Path, problems: list[str]) -> Sheet:
    """Returns a file; ``.parquet`` is read as Parquet, all others as CSV with a head line.

    Args:
        path: of the file.
        problems: what its lines find wrong is added.

    Raises:
        MeasurementFileError: it cannot be read; names it and, where there is one, the line.
        NotInstalledError: it is Parquet, and pyarrow is missing.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise MeasurementFileError([f"{path.name} is larger than 512 MiB; split it"])
        content = path.read_bytes()
    except OSError as error:
        raise MeasurementFileError([f"{path.name} cannot be read: {error.strerror}"]) from error
    parse = _parquet if path.suffix.lower() == ".parquet" else _csv
    columns, lines = parse(content, path.name, problems)
    # Tables that pandas writes have its index in a column without a name.
    names = tuple(column for column in columns if column)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MeasurementFileError([f"{path.name}:1: {twice[0]} is the name of two columns"])
    if not lines:
        raise MeasurementFileError([f"{path.name} holds no row below its head line"])
    return Sheet(path.name, names, tuple(lines), content)


def _csv(content: bytes, name: str, problems: list[str]) -> tuple[list[str], list[Line]]:
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        columns = [column.strip() for column in next(reader, [])]
        return columns, list(_lines(reader, columns, name, problems))
    except UnicodeDecodeError as error:
        raise MeasurementFileError(
            [f"{name} is no text in UTF-8; only names that end in .parquet are read as Parquet"]
        ) from error
    except csv.Error as error:
        raise MeasurementFileError([f"{name}:{reader.line_num} is no CSV: {error}"]) from error


def _lines(reader: Any, columns: list[str], name: str, problems: list[str]) -> Iterator[Line]:  # noqa: ANN401 - csv's reader has no public type
    for values in reader:
        if not values:
            continue
        place = f"{name}:{reader.line_num}"
        if len(values) != len(columns):
            problems.append(
                f"{place}: has {len(values)} values, and the head line names {len(columns)}"
                " columns; add or remove commas"
            )
        cells = dict(zip(columns, (value.strip() for value in values), strict=False))
        yield Line(place, cells, problems)


def _parquet(content: bytes, name: str, problems: list[str]) -> tuple[list[str], list[Line]]:
    reader = parquet.reader()
    import pyarrow  # noqa: PLC0415 - of an extra

    try:
        table = reader.read_table(pyarrow.BufferReader(content))
    except (pyarrow.ArrowException, OSError) as error:
        raise MeasurementFileError([f"{name} is no Parquet file: {error}"]) from error
    columns = [column.strip() for column in table.column_names]
    held = [[_cell(value) for value in column.to_pylist()] for column in table.columns]
    lines = [
        Line(f"{name}:row {number}", dict(zip(columns, cells, strict=True)), problems)
        for number, cells in enumerate(zip(*held, strict=True), start=1)
    ]
    return columns, lines


def _cell(value: object) -> str:
    # Tables of pandas hold NaN where there is nothing.
    return "" if value is None or value != value else str(value).strip()  # noqa: PLR0124
