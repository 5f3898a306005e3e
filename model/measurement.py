"""A timed point, as the profiler makes it and the regression reads it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import IO, TYPE_CHECKING, Any

from model.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable

WHOLES = ("layer", "prefill", "decode")
"""Kinds that are no single operation."""
LONGEST_MS = 3_600_000.0
"""An hour: nothing that is measured runs so long, and a time that says so is none."""
PUBLISHED = "--published"
"""Tells ``model.fit`` that the measurements were made elsewhere."""
PROCESSORS = "--processors"
"""Tells it how many the device has."""
LENDER = "--lender"
"""Tells it the name of a device that runs the same kernels, and the file of its cost model."""


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
        kind: "linear", "attention", "experts", "mla", "batched_linear", "embedding", "layer",
            "prefill" or "decode" (the last two are steps of a real ``generate()``).
        precision: format it ran in.
        engine: whose code ran: "transformers" or "torch".
        shape: sizes by name; which names a kind has is told in ``model.shapes``.
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


def write_json(measurements: Iterable[Measurement], file: IO[bytes]) -> int:
    """Writes what :func:`from_json` reads, one by one, and returns how many there were."""
    count = 0
    file.write(b'{"measurements": [')
    for measurement in measurements:
        file.write(b",\n" if count else b"\n")
        file.write(json.dumps(asdict(measurement)).encode())
        count += 1
    file.write(b"]}")
    return count


def from_json(text: str | bytes) -> tuple[Measurement, ...]:
    """Returns the measurements that :func:`write_json` wrote.

    Raises:
        ValueError: the text is no such object.
    """
    try:
        rows = json.loads(text)["measurements"]
        return tuple(measurement_of(row) for row in rows)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no measurements in this JSON: {error!r}") from error


def measurement_of(row: dict[str, Any]) -> Measurement:
    """Returns the measurement of the object that ``dataclasses.asdict`` makes of one.

    Raises:
        ValueError: it is no such object.
    """
    try:
        return Measurement(
            kind=row["kind"],
            precision=Precision(row["precision"]),
            engine=row["engine"],
            shape={name: float(size) for name, size in row["shape"].items()},
            latency_ms=Distribution(**row["latency_ms"]),
            group=row["group"],
            flags=tuple(row["flags"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no measurement in this JSON: {error!r}") from error
