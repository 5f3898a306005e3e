"""CSV files: tokenpace's own columns, or those of aiconfigurator's ``silicon_sample.csv``."""

from __future__ import annotations

import csv
import difflib
import io
import math
from dataclasses import fields
from typing import TYPE_CHECKING

from tokenpace.arguments import ArgumentError
from tokenpace.benchmark_files import deployments
from tokenpace.benchmark_files.rows import BenchmarkFile, BenchmarkRow, long_queue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_TEXTS = ("model", "device", "engine", "engine_version", "precision", "kv_cache_precision")
_SHORT = {"tp": "tensor", "pp": "pipeline", "ep": "expert", "dp": "data"}
_COUNTS = ("input_tokens", "output_tokens", "concurrency", "batch_size")
_LATENCIES = ("ttft_ms", "tpot_ms")
COLUMNS = (*_TEXTS, *_SHORT, *_COUNTS, *_LATENCIES)
"""Columns of tokenpace's own files, in any order; README.md documents them."""
_CLOSE = 0.7


def read(text: str, name: str) -> BenchmarkFile:
    """Returns the rows of a CSV file with a head line.

    Args:
        text: its content.
        name: of the file, for the rows' sources.

    Raises:
        ArgumentError: the columns or a value cannot be used; names the line.
    """
    try:
        lines = list(csv.DictReader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise ArgumentError(name, f"is no CSV file: {error}") from error
    columns = [column for column in (lines[0] if lines else {}) if column is not None]
    if not lines:
        raise ArgumentError(name, "holds no row below its head line")
    clean = list(_clean(lines, name))
    if set(columns) >= deployments.COLUMNS:
        return _deployments(clean, name)
    notes = _check(columns, name)
    return BenchmarkFile(tuple(_row(line, source) for source, line in clean), notes)


def _clean(
    lines: Sequence[Mapping[str | None, object]], name: str
) -> Iterator[tuple[str, dict[str, str]]]:
    for index, line in enumerate(lines, start=2):
        source = f"{name}:{index}"
        if None in line or any(value is None for value in line.values()):
            raise ArgumentError(source, "has more or fewer values than the head line has columns")
        yield source, {str(key).strip(): str(value).strip() for key, value in line.items()}


def _deployments(lines: Sequence[tuple[str, dict[str, str]]], name: str) -> BenchmarkFile:
    together = [(source, line) for source, line in lines if line.get("mode", "agg") == "agg"]
    apart = len(lines) - len(together)
    if not together:
        raise ArgumentError(
            name, "has prefill and decode on separate devices alone (mode disagg); give mode agg"
        )
    notes = (
        (f"{apart} rows with prefill and decode on separate devices are left out (mode disagg)",)
        if apart
        else ()
    )
    return BenchmarkFile(tuple(deployments.row(line, source) for source, line in together), notes)


def _check(columns: Sequence[str], name: str) -> tuple[str, ...]:
    known = [column.strip() for column in columns]
    unknown = [column for column in known if column not in COLUMNS]
    for column in unknown:
        close = difflib.get_close_matches(column.lower(), COLUMNS, n=1, cutoff=_CLOSE)
        if close and close[0] not in known:
            raise ArgumentError(name, f"no column is called {column!r}; did you mean {close[0]}?")
    if not set(_LATENCIES) & set(known):
        raise ArgumentError(
            name,
            f"is no benchmark file: a CSV file needs the column ttft_ms or tpot_ms beside"
            f" others of {', '.join(COLUMNS)}",
        )
    return (f"columns that were not read: {', '.join(unknown)}",) if unknown else ()


def _row(line: Mapping[str, str], source: str) -> BenchmarkRow:
    values: dict[str, object] = {name: line.get(name, "") for name in _TEXTS}
    values |= {_SHORT.get(name, name): _count(line, name, source) for name in (*_SHORT, *_COUNTS)}
    values |= {name: _latency(line, name, source) for name in _LATENCIES}
    known = {field.name for field in fields(BenchmarkRow)}
    row = {name: value for name, value in values.items() if name in known}
    ttft = _latency(line, "ttft_ms", source)
    return BenchmarkRow(source=source, **row, suspicions=tuple(long_queue(ttft)))  # type: ignore[arg-type]


def _count(line: Mapping[str, str], name: str, source: str) -> int | None:
    value = line.get(name, "")
    if not value:
        return None
    if not value.isdecimal():
        raise ArgumentError(source, f"{name} is {value[:40]!r} and not a whole number")
    return int(value)


def _latency(line: Mapping[str, str], name: str, source: str) -> float | None:
    value = line.get(name, "")
    if not value:
        return None
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not (found > 0 and math.isfinite(found)):
        raise ArgumentError(source, f"{name} is {value[:40]!r} and not a number above 0")
    return found
