"""Readers of single settings: from a flag, a variable or a TOML value to a checked one.

Each takes a text or a number and raises ValueError with the remedy.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_QUANTITY = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*")


def quoted(value: object) -> str:
    """Returns the value for an error message, at most 100 characters of it."""
    shown = str(value)
    return f'"{shown[:99]}…"' if len(shown) > 100 else f'"{shown}"'


def text(value: object) -> str:
    """Reads a text."""
    if not isinstance(value, str):
        raise ValueError(f"{quoted(value)} is not a text; put it in quotes")
    return value


def path(value: object) -> Path:
    """Reads a path; ``~`` is the home folder."""
    if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
        raise ValueError(f"{quoted(value)} is not a path; give the path of a folder")
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{quoted(value)}: {error}; give the whole path") from error


def address(value: object) -> str:
    """Reads HOST:PORT; an IPv6 host stands in brackets."""
    host, colon, port = text(value).rpartition(":")
    in_brackets = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not in_brackets):
        raise ValueError(f"{quoted(value)} is not HOST:PORT; write it as 127.0.0.1:50051")
    if not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ValueError(f"port {quoted(port)} is not a number of 0 to 65535; 0 picks a free one")
    return f"{host}:{int(port)}"


def choice(*allowed: str) -> Callable[[object], str]:
    """Returns a reader of one of the given words."""

    def read(value: object) -> str:
        if value not in allowed:
            raise ValueError(f"{quoted(value)} is not one of {', '.join(allowed)}")
        return str(value)

    return read


def whole_number(low: int, high: int) -> Callable[[object], int]:
    """Returns a reader of a whole number of ``low`` to ``high``."""

    def read(value: object) -> int:
        number = _number(value)
        if not number.is_integer() or not low <= number <= high:
            raise ValueError(f"{quoted(value)} is not a whole number of {low} to {high}")
        return int(number)

    return read


def fraction(value: object) -> float:
    """Reads a share above 0 and up to 1."""
    number = _number(value)
    if not 0 < number <= 1:
        raise ValueError(f"{quoted(value)} is not above 0 and at most 1; a share such as 0.8")
    return number


def duration(low: float, high: float) -> Callable[[object], float]:
    """Returns a reader of seconds: a number, or a text such as 90s, 10m, 1h."""

    def read(value: object) -> float:
        seconds = _quantity(value, _SECONDS)
        if seconds is None or not low <= seconds <= high:
            raise ValueError(
                f"{quoted(value)} is not a duration of {low:g} s to {high:g} s;"
                " write seconds or 90s, 10m, 1h"
            )
        return seconds

    return read


def size_in_bytes(low: int, high: int) -> Callable[[object], int]:
    """Returns a reader of bytes: a number, or a text such as 16MiB."""

    def read(value: object) -> int:
        size = _quantity(value, _BYTES)
        if size is None or not size.is_integer() or not low <= size <= high:
            raise ValueError(
                f"{quoted(value)} is not a size of {low} to {high} bytes;"
                " write bytes or a text such as 16MiB"
            )
        return int(size)

    return read


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{quoted(value)} is not a number")
    try:
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{quoted(value)} is not a number") from error
    if not math.isfinite(number):
        raise ValueError(f"{quoted(value)} is not a finite number")
    return number


def _quantity(value: object, units: dict[str, float] | dict[str, int]) -> float | None:
    if not isinstance(value, str):
        return _number(value)
    match = _QUANTITY.fullmatch(value)
    if match is None or match[2] not in units:
        return None
    return float(match[1]) * units[match[2]]
