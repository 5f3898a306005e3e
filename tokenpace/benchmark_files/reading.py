"""Which tool wrote a file is seen by its content; its name plays no part."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tokenpace.arguments import ArgumentError
from tokenpace.benchmark_files import aiperf, guidellm, table, vllm
from tokenpace.benchmark_files.rows import BenchmarkFile, BenchmarkRow

if TYPE_CHECKING:
    from pathlib import Path

_KNOWN = (
    "known are results of `vllm bench serve --save-result`, aiperf's profile_export_aiperf.json,"
    " GuideLLM's benchmarks.json, and CSV files with the columns that README.md documents"
)
_LARGEST_BYTES = 512 * 1024 * 1024


def read(path: Path) -> BenchmarkFile:
    """Returns the rows of a benchmark file.

    Raises:
        ArgumentError: it cannot be read, no known tool wrote it, or a value in it cannot be
            used; names the file and the place.
    """
    name = path.name
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ArgumentError(name, "is larger than 512 MiB, which no known file is")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ArgumentError(name, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ArgumentError(name, f"is no text in UTF-8; {_KNOWN}") from error
    return parse(text, name)


def parse(text: str, name: str) -> BenchmarkFile:
    """Returns the rows of a file's content; arguments and errors as in ``read``."""
    if not text.strip():
        raise ArgumentError(name, "is empty")
    if text.lstrip()[0] not in "{[":
        return table.read(text, name)
    rows = [row for source, document in _documents(text, name) for row in _rows(document, source)]
    return BenchmarkFile(tuple(rows))


def _documents(text: str, name: str) -> list[tuple[str, Any]]:
    """Returns the one document, those of a list, or that of each line, with their places."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = [(n, line) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
        if len(lines) < 2:
            raise ArgumentError(name, f"is no JSON: {error}") from error
        return [(f"{name}:{n}", _line(line, f"{name}:{n}")) for n, line in lines]
    if isinstance(document, list):
        return [(f"{name}[{index}]", part) for index, part in enumerate(document)]
    return [(name, document)]


def _line(line: str, source: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ArgumentError(source, f"is no JSON: {error}") from error


def _rows(document: Any, source: str) -> list[BenchmarkRow]:  # noqa: ANN401 - JSON
    if isinstance(document, dict):
        if guidellm.recognises(document):
            return guidellm.rows(document, source)
        if vllm.recognises(document):
            return [vllm.row(document, source)]
        if aiperf.recognises(document):
            return [aiperf.row(document, source)]
    raise ArgumentError(source, f"no known tool wrote this; {_KNOWN}")
