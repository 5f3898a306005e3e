"""Errors of libraries as a line for a person: theirs run over many, advice behind the cause."""

from __future__ import annotations

_CHARACTERS = 200


def one_line(error: BaseException) -> str:
    """Returns the beginning of an error's text; the error's type where it has none."""
    return _text(error) or type(error).__name__


def typed_line(error: BaseException) -> str:
    """Returns the error's type and the beginning of its text."""
    return ": ".join(filter(None, (type(error).__name__, _text(error))))


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:_CHARACTERS]
