"""One published measurement, in the words of the API."""

from __future__ import annotations

from typing import NamedTuple


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
