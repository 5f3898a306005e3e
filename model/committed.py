"""Measurements that are committed with the project: one compact file a card.

JSON lines behind gzip: an origin, then a measurement a line. Times are kept to five digits, which
is finer than any of them repeats.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.measurement import LONGEST_MS, Distribution, Measurement, measurement_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FOLDER = Path(__file__).parent / "reference"
"""Where the files are; packaged with the module."""
SUFFIX = ".jsonl.gz"
_FORMAT = "tokenpace reference"
_VERSION = 1
_LARGEST_BYTES = 256 << 20
_DIGITS = 5


class CommittedFileError(ValueError):
    """A file that cannot be used; the text names it and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """First line of a file: what was measured, with what.

    Attributes:
        device: name of the card's data sheet.
        engine: that the measurements stand for.
        source: what tells all of the below in one line.
        device_name: of the card as its driver states it.
        memory_bytes: of the card.
        driver_version: of the card's driver.
        versions: of the packages that measured, by name.
        commit: of the checkout that measured.
        create_time: when the campaign was begun, ISO 8601 in UTC.
        command: that began it.
    """

    device: str
    engine: str
    source: str
    device_name: str
    memory_bytes: int
    driver_version: str
    versions: Mapping[str, str]
    commit: str
    create_time: str
    command: str


def write(origin: Origin, rows: Iterable[Measurement]) -> bytes:
    """Returns a file's content; the same measurements make the same bytes."""
    lines = [{"format": _FORMAT, "version": _VERSION, **asdict(origin)}, *map(_line, rows)]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    return gzip.compress(text.encode(), mtime=0)


def origin_of(content: bytes, path: Path) -> Origin:
    """Returns the first line of a file; the rest is not unpacked.

    Args:
        content: of the file.
        path: of the file, for errors.

    Raises:
        CommittedFileError: it is no such file.
    """
    return _origin(next(_lines(content, path), {}), path)


def measurements_of(content: bytes, path: Path) -> tuple[Measurement, ...]:
    """Returns all measurements of a file; arguments and errors as :func:`origin_of` has them."""
    lines = _lines(content, path)
    _origin(next(lines, {}), path)
    rows = []
    for number, line in enumerate(lines, 2):
        try:
            row = measurement_of(line)
        except ValueError as error:
            raise _damaged(path, f"line {number}: {error}") from error
        times = (row.latency_ms.median, row.latency_ms.p10, row.latency_ms.p90)
        if not all(isinstance(it, int | float) and 0 < it <= LONGEST_MS for it in times):
            raise _damaged(path, f"line {number}: latency_ms is no time")
        rows.append(row)
    return tuple(rows)


def _line(row: Measurement) -> dict[str, Any]:
    spread = row.latency_ms
    rounded = Distribution(
        median=_rounded(spread.median),
        p10=_rounded(spread.p10),
        p90=_rounded(spread.p90),
        samples=spread.samples,
    )
    shape = {name: int(s) if s.is_integer() else s for name, s in row.shape.items()}
    return {**asdict(row), "shape": shape, "latency_ms": asdict(rounded)}


def _rounded(milliseconds: float) -> float:
    return float(f"{milliseconds:.{_DIGITS}g}")


def _lines(content: bytes, path: Path) -> Iterator[dict[str, Any]]:
    unpacked = 0
    try:
        with gzip.open(io.BytesIO(content)) as file:
            for line in file:
                unpacked += len(line)
                if unpacked > _LARGEST_BYTES:
                    raise _damaged(path, f"unpacks to more than {_LARGEST_BYTES >> 20} MiB")
                read = json.loads(line)
                yield read if isinstance(read, dict) else {}
    except (OSError, EOFError, zlib.error, RecursionError) as error:
        raise _damaged(path, f"{error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _damaged(path, f"a line is no JSON: {error}") from error


def _origin(line: Mapping[str, Any], path: Path) -> Origin:
    if line.get("format") != _FORMAT:
        raise _damaged(path, "its first line is no such file's")
    if line.get("version") != _VERSION:
        raise CommittedFileError(
            f"{path}: version {line.get('version')!r} is not {_VERSION}; use the tokenpace that"
            " wrote it, or make it anew by `python -m profiler compact`"
        )
    names = {field.name for field in fields(Origin)}
    found = {name: line[name] for name in names & line.keys()}
    texts = names - {"memory_bytes", "versions"}
    whole = (
        all(isinstance(found.get(name), str) for name in texts)
        and isinstance(found.get("memory_bytes"), int)
        and isinstance(found.get("versions"), dict)
    )
    if not whole:
        raise _damaged(path, "its first line lacks a part")
    return Origin(**found)


def _damaged(path: Path, reason: str) -> CommittedFileError:
    return CommittedFileError(
        f"{path} is damaged ({reason}); restore it, or make it anew by `python -m profiler compact`"
    )
