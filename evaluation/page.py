"""The page that the tables make up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.heading import heading
from evaluation.requirements import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAME = "accuracy.md"
TITLE = "How far predictions are off"
_INTRODUCTION = (
    "Errors are |predicted / measured - 1| in %, as mean / median / 90th percentile. *Bias* is the"
    " median of the signed error, *covered* the share of measurements inside the 90% interval,"
    " *width* how far the median interval reaches above the prediction. *Must* is what"
    " the project asks of itself. What is scored was never fitted on, except where a line says so."
)


@dataclass(frozen=True, slots=True)
class Section:
    """What a table adds to the page.

    Attributes:
        title: its heading.
        lines: Markdown; pictures lie beside the page.
    """

    title: str
    lines: Sequence[str]

    @property
    def text(self) -> str:
        """The section as Markdown, a line feed at its end."""
        return "\n".join([f"## {self.title}", "", *self.lines, ""])


def write(
    folder: Path, command: str, sections: Sequence[Section], unfinished: Sequence[str] = ()
) -> Path:
    """Writes the page, and returns its path.

    Args:
        folder: exists.
        command: that makes the page.
        sections: in order.
        unfinished: tables that were asked for and are not there yet.
    """
    parts = [heading(TITLE, command, PACKAGES.values()), _INTRODUCTION + "\n"]
    if unfinished:
        parts.append(f"**Not finished**: {', '.join(unfinished)}.\n")
    path = folder / NAME
    path.write_text("\n".join(parts + [section.text for section in sections]), encoding="utf-8")
    return path


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table."""
    return [_row(head), "|" + "---|" * len(head), *(_row(cells) for cells in rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
