"""Sends the rows of a source to the daemon and has a cost model fitted on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tokenpace.commands.session import Report, Session
    from tokenpace.v1 import catalog_pb2, types_pb2

R = TypeVar("R")

_ROWS_A_CALL = 5_000


@dataclass(frozen=True, slots=True)
class Rows(Generic[R]):
    """Measurements of one source, in an order that never changes.

    Attributes:
        device: that they stand for.
        engine: likewise.
        source: who measured, licence and versions.
        rows: the measurements.
        message: makes the API's message of one.
    """

    device: str
    engine: str
    source: str
    rows: Sequence[R]
    message: Callable[[R], types_pb2.Measurement]


def bring(session: Session, rows: Rows[R], report: Report) -> catalog_pb2.FitCostModelResponse:
    """Sends what the daemon does not hold yet, has it fitted and returns the cost model."""
    where = f"{rows.device} {rows.engine}"
    count, total = held(session, rows), len(rows.rows)
    while count < total:
        report(0.5 * count / total, f"{where}: {count:,} rows stored")
        count = held(session, rows, count, count + _ROWS_A_CALL)
    report(0.5, f"{where}: fitting on {total:,} rows")
    fitted = session.client.fit_cost_model(
        device=rows.device, engine=rows.engine, source=rows.source
    )
    report(1.0, f"{where}: fitted")
    return fitted


def held(session: Session, rows: Rows[R], begin: int = 0, end: int = 0) -> int:
    """Sends rows of that range, none at first; returns how many of the source the daemon holds."""
    answer = session.client.import_measurements(
        map(rows.message, rows.rows[begin:end]),
        device=rows.device,
        engine=rows.engine,
        source=rows.source,
        first_row=begin,
    )
    return answer.measurement_count
