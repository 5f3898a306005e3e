"""Reads the rows of an import out of its message, and refuses what cannot be fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.errors import InvalidFieldError
from model.measurement import LONGEST_MS, Distribution, Measurement
from model.shapes import SIZES, operations_of
from profiler.interface import Environment
from server.conversions import REFERENCE_ENGINE, Violations, engine_name, precision_of
from server.errors import quote

if TYPE_CHECKING:
    from server.devices import Device
    from tokenpace.v1 import catalog_pb2, types_pb2

_MOST_ROWS = 20_000
_LONGEST_SOURCE = 500
_LONGEST_GROUP = 200
_LONGEST_NAME = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """What an ImportMeasurementsRequest holds.

    Attributes:
        engine: that the rows stand for.
        source: who measured them.
        first_row: number of the first row in its source.
        rows: the measurements.
    """

    engine: str
    source: str
    first_row: int
    rows: tuple[Measurement, ...]


def imported_measurements(request: catalog_pb2.ImportMeasurementsRequest) -> Import:
    """Returns what the request holds.

    Raises:
        InvalidFieldError: the source or the number of a row is wrong; names the field.
        ServiceError: INVALID_ARGUMENT, rows that cannot be read; names the fields.
    """
    engine = engine_name(request.engine, REFERENCE_ENGINE, "engine")
    if not request.source:
        raise InvalidFieldError("source", "is required: who measured, licence, versions")
    if len(request.source) > _LONGEST_SOURCE:
        raise InvalidFieldError("source", f"is longer than {_LONGEST_SOURCE} characters")
    if request.first_row < 0:
        raise InvalidFieldError("first_row", f"{request.first_row} is negative")
    if len(request.measurements) > _MOST_ROWS:
        raise InvalidFieldError(
            "measurements", f"{len(request.measurements)} rows are more than {_MOST_ROWS}"
        )
    violations = Violations()
    rows = []
    for index, message in enumerate(request.measurements):
        with violations.within(f"measurements[{index}]"):
            rows.append(_measurement(message, engine))
    violations.check()
    return Import(
        engine=engine, source=request.source, first_row=request.first_row, rows=tuple(rows)
    )


def imported_environment(device: Device, source: str, engine: str) -> Environment:
    """Returns what tells rows of one source and engine on a device from all others."""
    return Environment(
        device_name=device.sheet.display_name,
        device_kind=device.sheet.kind,
        source=source,
        engine=engine,
    )


def _measurement(message: types_pb2.Measurement, engine: str) -> Measurement:
    latency = message.latency_ms
    for name in ("median", "p10", "p90"):
        value = getattr(latency, name)
        # The ends may be left out.
        if not 0 < value <= LONGEST_MS and (value or name == "median"):
            raise InvalidFieldError(
                f"latency_ms.{name}",
                f"{value} is not above 0 and up to an hour ({LONGEST_MS:.0f}); give milliseconds,"
                " or leave the row out",
            )
    precision = precision_of(message.precision, "precision")
    if precision is None:
        raise InvalidFieldError("precision", "is required")
    row = Measurement(
        kind=message.kind,
        precision=precision,
        engine=message.engine or engine,
        shape=dict(message.shape),
        latency_ms=Distribution(
            median=latency.median,
            p10=latency.p10 or latency.median,
            p90=latency.p90 or latency.median,
            samples=latency.samples or 1,
        ),
        group=message.group[:_LONGEST_GROUP] or _sizes(message),
        flags=tuple(message.flags),
    )
    check_shape(row)
    return row


def check_shape(row: Measurement) -> None:
    """Refuses what :func:`operations_of` cannot read, and what it would not look at.

    Raises:
        InvalidFieldError: names the kind, or the size.
    """
    if (sizes := SIZES.get(row.kind)) is None:
        raise InvalidFieldError(
            "kind", f"{quote(row.kind)} is not known; known: {', '.join(SIZES)}"
        )
    remedy = f"the sizes of {row.kind} are {', '.join(sizes)}"
    if unknown := sorted(row.shape.keys() - set(sizes)):
        raise InvalidFieldError(
            f"shape.{unknown[0][:_LONGEST_NAME]}", f"is no size of this kind; {remedy}"
        )
    try:
        operations_of(row)
    except KeyError as error:
        raise InvalidFieldError(f"shape.{error.args[0]}", f"is missing; {remedy}") from error
    except InvalidFieldError as error:
        raise error.within("shape") from None


def _sizes(message: types_pb2.Measurement) -> str:
    return " ".join(f"{name}={size:g}" for name, size in sorted(message.shape.items()))
