"""What reading measurements can fail by."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_SHOWN = 20


class NotInstalledError(Exception):
    """A package of the extra ``reference`` is missing; the text says how to get it."""


class MeasurementFileError(Exception):
    """Files that cannot be imported as they are.

    Args:
        problems: each with file, line and column, and the remedy; the first
            ``MOST_SHOWN`` make the text.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        shown = list(problems[:MOST_SHOWN])
        if len(problems) > MOST_SHOWN:
            shown.append(f"and {len(problems) - MOST_SHOWN:,} more")
        super().__init__("; ".join(shown))
        self.problems = tuple(problems)
