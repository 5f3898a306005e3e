"""What a campaign's time went to, as its file says: timing, and the profiler's own overhead."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from reference.campaigns import SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TEXTS = {
    "timing": "timing",
    "building": "building and capturing what is timed",
    "choosing": "choosing points, fitting and starting",
}


def sentence(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns what the time up to the last measurement went to; empty where no row says.

    Args:
        rows: of a campaign's file, as JSON objects.
    """
    spent = Counter[str]()
    for row in rows:
        spent.update(row.get(SECONDS, {}))
    whole = sum(spent.values())
    if not whole:
        return ""
    shares = ", ".join(f"{spent[name] / whole:.0%} {text}" for name, text in _TEXTS.items())
    return f"Of {whole:,.0f} seconds up to the last measurement: {shares}."
