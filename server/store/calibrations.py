"""Calibrations and the rows they are fitted on."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from model.calibration_report import CalibrationScore, ErrorSummary
from model.plausibility import Remark
from server.records import CalibrationRecord
from server.store.errors import NameTakenError
from server.store.paging import Page, PageRequest, newest_first
from server.store.tables import calibration_rows, calibrations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from server.store.database import Database

_LISTS = ("devices", "engines", "engine_versions", "architectures")


class Calibrations:
    """The tables of calibrations and of their rows, serialised as they were sent."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, record: CalibrationRecord, rows: Sequence[bytes]) -> None:
        """Stores a new calibration.

        Raises:
            NameTakenError: there is one of that name.
            StoreFullError: there is no room.
            StoreUnavailableError: the store cannot be written.
        """
        try:
            with self._database.write() as connection:
                connection.execute(insert(calibrations).values(_columns(record)))
                connection.execute(
                    insert(calibration_rows),
                    [{"calibration": record.name, "row": row} for row in rows],
                )
        except IntegrityError as error:
            raise NameTakenError(record.name) from error

    def get(self, name: str) -> CalibrationRecord | None:
        """Returns the calibration of that name, None where there is none."""
        with self._database.read() as connection:
            query = select(calibrations).where(calibrations.c.name == name)
            row = connection.execute(query).one_or_none()
        return None if row is None else _record(row)

    def rows(self, name: str) -> tuple[bytes, ...]:
        """Returns the rows of a calibration in their order; none where there is no such one."""
        query = (
            select(calibration_rows.c.row)
            .where(calibration_rows.c.calibration == name)
            .order_by(calibration_rows.c.number)
        )
        with self._database.read() as connection:
            return tuple(connection.execute(query).scalars())

    def delete(self, name: str) -> bool:
        """Removes a calibration with its rows; returns whether there was one."""
        with self._database.write() as connection:
            connection.execute(
                delete(calibration_rows).where(calibration_rows.c.calibration == name)
            )
            found = connection.execute(delete(calibrations).where(calibrations.c.name == name))
            return found.rowcount > 0

    def page(self, request: PageRequest) -> Page[CalibrationRecord]:
        """Returns a page, newest first.

        Raises:
            InvalidFieldError: the page token was not made here.
        """
        with self._database.read() as connection:
            page = newest_first(connection, calibrations, request)
        return Page(tuple(_record(row) for row in page.items), page.next_token, page.total_size)


def _columns(record: CalibrationRecord) -> dict[str, object]:
    columns = asdict(record)
    return columns | {name: list(columns[name]) for name in (*_LISTS, "scores", "remarks")}


def _record(row: Row[Any]) -> CalibrationRecord:
    values = {field.name: row._mapping[field.name] for field in fields(CalibrationRecord)}
    values |= {name: tuple(values[name]) for name in _LISTS}
    values["scores"] = tuple(_score(score) for score in row.scores)
    values["remarks"] = tuple(
        Remark(it["code"], it["text"], tuple(it["rows"])) for it in row.remarks
    )
    return CalibrationRecord(**values)


def _score(values: dict[str, Any]) -> CalibrationScore:
    after = values["after"]
    return CalibrationScore(
        figure=values["figure"],
        rows=values["rows"],
        before=ErrorSummary(**values["before"]),
        after=None if after is None else ErrorSummary(**after),
        coverage=values["coverage"],
    )
