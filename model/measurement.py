"""A timed point, as the profiler makes it and the regression reads it."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.precision import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Spread of repeated timings, in milliseconds."""

    median: float
    p10: float
    p90: float
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One point.

    Attributes:
        kind: "linear", "attention", "embedding", "layer", "prefill" or "decode"
            (the last two are steps of a real ``generate()``).
        precision: format it ran in.
        engine: whose code ran: "transformers" or "torch".
        shape: sizes by name; which names a kind has is told in ``model.points``.
        latency_ms: time of one run.
        group: points of one architecture or shape share it; held out together.
        flags: remarks such as "throttled"; empty when undisturbed.
    """

    kind: str
    precision: Precision
    engine: str
    shape: dict[str, float]
    latency_ms: Distribution
    group: str
    flags: tuple[str, ...] = field(default=())
