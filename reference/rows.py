"""One published measurement, in the words of the API."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_MS = 3_600_000.0
"""An hour: no operation runs so long, and a file that says so is in other units or damaged."""
_SEED = 0


class Row(NamedTuple):
    """A timed operation.

    Attributes:
        kind: as in the API's Measurement ("linear", "attention", "experts", ...).
        precision: spelt as the command spells it ("bf16", "fp8-block").
        engine: whose kernel ran.
        shape: sizes by name, those of the kind.
        latency_ms: time of one run.
        group: rows of one shape or model share it; held out together.
        kernel: that the table names, where several may have run.
    """

    kind: str
    precision: str
    engine: str
    shape: dict[str, float]
    latency_ms: float
    group: str
    kernel: str = ""


def thinned(found: Iterable[Row], limit: int) -> list[Row]:
    """Returns at most ``limit`` rows of one kind and precision, drawn the same at each run."""
    alike: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in found:
        alike[row.kind, row.precision].append(row)
    kept: list[Row] = []
    for same in alike.values():
        # Draws of a simulation, no secret.
        pick = random.Random(_SEED)  # noqa: S311
        kept += pick.sample(same, limit) if len(same) > limit else same
    return kept
