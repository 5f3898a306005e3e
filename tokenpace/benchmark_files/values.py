"""Figures of a parsed file, checked: a benchmark file may hold anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tokenpace.arguments import ArgumentError

Object = Mapping[str, Any]


def number(found: Object, key: str, source: str) -> float | None:
    """Returns a number at or above zero; None where it is absent or null.

    Raises:
        ArgumentError: it is something else; names file and key.
    """
    value = found.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ArgumentError(source, f"{key} is {_shown(value)} and not a number at or above 0")
    if not math.isfinite(value):
        raise ArgumentError(source, f"{key} is not finite")
    return float(value)


def first(found: Object, keys: tuple[str, ...], source: str) -> float | None:
    """Returns the first of several numbers that is there, None where none is."""
    for key in keys:
        value = number(found, key, source)
        if value is not None:
            return value
    return None


def inner(found: Object, *path: str) -> Object:
    """Returns the object at a path of keys; an empty one where there is none."""
    here: Any = found
    for key in path:
        here = here.get(key) if isinstance(here, Mapping) else None
    return here if isinstance(here, Mapping) else {}


def text(found: Object, key: str) -> str:
    """Returns a text; empty where there is none."""
    value = found.get(key)
    return value.strip() if isinstance(value, str) else ""


def positive(value: float | None) -> float | None:
    """Returns the number; None in place of 0, which tools write for what they did not measure."""
    return value or None


def whole(value: float | None) -> int | None:
    """Returns the nearest integer; None stays None."""
    return None if value is None else round(value)


def in_flight(rate: float | None, latency_ms: float | None) -> float | None:
    """Returns the mean number of requests in flight (Little's law), None where it is not known.

    Args:
        rate: requests that end in a second.
        latency_ms: mean latency of one.
    """
    if not rate or not latency_ms:
        return None
    return rate * latency_ms / 1e3


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:39] + "…"
