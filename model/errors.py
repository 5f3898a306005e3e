"""What bad input raises in this package: a value that cannot be used, a name unknown."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class InvalidFieldError(ValueError):
    """A value that cannot be used.

    Attributes:
        field: path of the value, relative to the object that was being read
            (``"tensor"``, ``"huggingface_config.hidden_size"``); empty for the
            object itself.
        message: what is wrong and the remedy, without the path.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message

    def __reduce__(self) -> tuple[type[InvalidFieldError], tuple[str, str]]:
        """Returns how it is made anew behind a pipe."""
        return type(self), (self.field, self.message)

    def within(self, parent: str) -> InvalidFieldError:
        """Returns the same error seen from the object that holds ``parent``."""
        path = ".".join(part for part in (parent, self.field) if part)
        return InvalidFieldError(path, self.message)


class UnknownNameError(LookupError):
    """A name that nothing goes by.

    Attributes:
        kind: what was looked for: "preset", "device", ...
        name: the name that was asked for.
        message: says so, with the names closest to it.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = difflib.get_close_matches(name[:_LONGEST_NAME].lower(), names, n=3, cutoff=0.5)
        remedy = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"
        self.kind = kind
        self.name = name
        self.message = f"no {kind} is called {name[:_LONGEST_NAME]!r}; {remedy}"
        super().__init__(self.message)


_LONGEST_NAME = 100


class NotEnoughMeasurementsError(ValueError):
    """The measurements do not make a cost model; the text says what is missing."""
