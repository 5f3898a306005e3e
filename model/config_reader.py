"""Typed values of a Hugging Face config.json."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.dimensions import check_range
from model.errors import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Mapping

_QUOTED = 100
"""Longest quotation of a value in a message: errors travel in small trailers."""


@dataclass(frozen=True, slots=True)
class ConfigReader:
    """Reads typed values of a config; each method names the key in its error."""

    values: Mapping[str, object]

    def spelling(self, spellings: tuple[str, ...]) -> str:
        """Returns the spelling of a key that is set, else the first."""
        present = (key for key in spellings if self.values.get(key) is not None)
        return next(present, spellings[0])

    def integer(self, key: str, default: object, low: int, high: int) -> int | None:
        """Returns an integer in ``low`` to ``high``, or None for null."""
        value = self.values.get(key, default)
        return None if value is None else _integer(key, value, low, high)

    def integers(self, key: str, low: int, high: int) -> list[int] | None:
        """Returns a list of integers in ``low`` to ``high``, or None where there is none."""
        values = self.values.get(key)
        if values is None:
            return None
        if not isinstance(values, list):
            raise InvalidFieldError(key, f"{quoted(values)} is not a list of integers")
        return [_integer(f"{key}[{i}]", value, low, high) for i, value in enumerate(values)]

    def flag(self, key: str, *, default: bool) -> bool:
        """Returns a boolean; null counts as the default."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise InvalidFieldError(key, f"{quoted(value)} is neither true nor false")
        return value

    def text(self, key: str, default: str | None) -> str | None:
        """Returns a string; null counts as the default."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise InvalidFieldError(key, f"{quoted(value)} is not a string")
        return value

    def kinds(self, key: str, layers: int, known: tuple[str, ...]) -> list[str] | None:
        """Returns a list that names the kind of each layer, or None where there is none."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != layers:
            raise InvalidFieldError(key, f"is not a list of {layers} strings")
        for index, kind in enumerate(value):
            if kind not in known:
                raise InvalidFieldError(
                    f"{key}[{index}]",
                    f"{quoted(kind)} is not known; known: {', '.join(known)}",
                )
        return value


def _integer(key: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidFieldError(key, f"{quoted(value)} is not an integer")
    if not math.isfinite(value) or value != int(value):
        raise InvalidFieldError(key, f"{value} is not an integer")
    check_range(key, int(value), low, high)
    return int(value)


def quoted(value: object) -> str:
    """Returns a value as a message quotes it, cut to 100 characters."""
    text = repr(value)
    return text if len(text) <= _QUOTED else f"{text[: _QUOTED - 3]}..."
