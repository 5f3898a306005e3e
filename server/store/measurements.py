"""Measurements: rows are added and never changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select, update

from model.errors import InvalidFieldError
from model.measurement import Distribution, Measurement
from model.precision import Precision
from server.records import MeasurementRecord
from server.store.environments import ensure, lock
from server.store.paging import Page, PageRequest, newest_first
from server.store.tables import jobs, measurements

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.engine import Connection

    from profiler.interface import Environment
    from server.store.database import Database


_ROWS_AT_A_TIME = 1_000


class Measurements:
    """The table of measurements."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(
        self,
        rows: Sequence[Measurement],
        *,
        device: str,
        environment: Environment,
        job_id: str = "",
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Stores the measurements, and counts them in their job, all or none.

        Args:
            rows: what was measured.
            device: canonical name of the device they were made on.
            environment: it was measured in.
            job_id: job that made them; empty for imported rows.
            seconds: what the time since the job's measurement before went to, by name; None
                where it is not known.

        Raises:
            StoreFullError: there is no room; none is stored.
            StoreUnavailableError: the store cannot be written.
        """
        if not rows:
            return
        with self._database.write() as connection:
            fingerprint = ensure(connection, environment)
            _insert(
                connection,
                rows,
                device=device,
                fingerprint=fingerprint,
                job_id=job_id,
                seconds=seconds,
            )
            if job_id:
                connection.execute(
                    update(jobs)
                    .where(jobs.c.id == job_id)
                    .values(measurement_count=jobs.c.measurement_count + len(rows))
                )

    def append_imported(
        self, rows: Sequence[Measurement], *, first: int, device: str, environment: Environment
    ) -> int:
        """Stores those rows of a source that are not held yet, and returns how many are now.

        Of clients that import one source at the same moment each waits for the one before,
        whatever daemon they talk to.

        Args:
            rows: in the order of their source.
            first: number of the first of them in their source.
            device: canonical name of the device they were made on.
            environment: tells the source.

        Raises:
            InvalidFieldError: rows before the first one are missing.
            StoreFullError: there is no room; none is stored.
            StoreUnavailableError: the store cannot be written.
        """
        if not rows and not first:
            return self.count(device, environment.fingerprint)
        with self._database.write() as connection:
            fingerprint = ensure(connection, environment)
            # Only one writer at a time gets so far; what it counts is then all there is.
            lock(connection, fingerprint)
            held = _count(connection, device, fingerprint)
            if first > held:
                raise InvalidFieldError(
                    "first_row", f"{first} leaves a gap: {held} rows of this source are held"
                )
            fresh = rows[held - first :]
            if fresh:
                _insert(connection, fresh, device=device, fingerprint=fingerprint)
        return held + len(fresh)

    def of(self, device: str, fingerprint: str) -> tuple[Measurement, ...]:
        """Returns all of a device in one environment, oldest first."""
        return tuple(self.stream(device, fingerprint))

    def stream(self, device: str, fingerprint: str) -> Iterator[Measurement]:
        """Yields what :meth:`of` returns, a few at a time: there may be hundreds of thousands."""
        query = (
            select(measurements)
            .where(measurements.c.device == device, measurements.c.fingerprint == fingerprint)
            .order_by(measurements.c.number)
            .execution_options(yield_per=_ROWS_AT_A_TIME)
        )
        with self._database.read() as connection:
            for row in connection.execute(query):
                yield _measurement(row)

    def count(self, device: str, fingerprint: str) -> int:
        """Returns the number of rows of a device in one environment."""
        with self._database.read() as connection:
            return _count(connection, device, fingerprint)

    def of_job(self, job_id: str) -> tuple[Measurement, ...]:
        """Returns all that a job measured, oldest first."""
        query = (
            select(measurements)
            .where(measurements.c.job_id == job_id)
            .order_by(measurements.c.number)
        )
        with self._database.read() as connection:
            return tuple(_measurement(row) for row in connection.execute(query))

    def stream_job(self, job_id: str, fingerprint: str) -> Iterator[MeasurementRecord]:
        """Yields what a job measured in one environment, oldest first.

        No transaction is open while the caller takes its time.
        """
        table = measurements.c
        query = (
            select(measurements)
            .where(table.job_id == job_id, table.fingerprint == fingerprint)
            .order_by(table.number)
            .limit(_ROWS_AT_A_TIME)
        )
        last = 0
        while True:
            with self._database.read() as connection:
                rows = connection.execute(query.where(table.number > last)).all()
            yield from map(_record, rows)
            if len(rows) < _ROWS_AT_A_TIME:
                return
            last = rows[-1].number

    def page(
        self, request: PageRequest, *, device: str = "", job_id: str = "", kind: str = ""
    ) -> Page[MeasurementRecord]:
        """Returns a page, newest first.

        Args:
            request: which page.
            device: canonical name that must match; empty matches all.
            job_id: job that must match; empty matches all.
            kind: kind that must match; empty matches all.

        Raises:
            InvalidFieldError: the page token was not made here.
        """
        table = measurements.c
        wanted = ((table.device, device), (table.job_id, job_id), (table.kind, kind))
        conditions: list[ColumnElement[bool]] = [
            column == value for column, value in wanted if value
        ]
        with self._database.read() as connection:
            page = newest_first(connection, measurements, request, conditions)
        return Page(tuple(_record(row) for row in page.items), page.next_token, page.total_size)


def _count(connection: Connection, device: str, fingerprint: str) -> int:
    query = (
        select(func.count())
        .select_from(measurements)
        .where(measurements.c.device == device, measurements.c.fingerprint == fingerprint)
    )
    return connection.scalar(query) or 0


def _insert(
    connection: Connection,
    rows: Sequence[Measurement],
    *,
    device: str,
    fingerprint: str,
    job_id: str = "",
    seconds: Mapping[str, float] | None = None,
) -> None:
    common = {
        "job_id": job_id or None,
        "device": device,
        "fingerprint": fingerprint,
        "create_time": datetime.now(UTC),
        "seconds": None,
    }
    values = [common | _columns(row) for row in rows]
    values[0]["seconds"] = dict(seconds) if seconds else None
    connection.execute(insert(measurements), values)


def _columns(row: Measurement) -> dict[str, object]:
    return {
        "kind": row.kind,
        "precision": row.precision.value,
        "engine": row.engine,
        "shape": row.shape,
        "median_ms": row.latency_ms.median,
        "p10_ms": row.latency_ms.p10,
        "p90_ms": row.latency_ms.p90,
        "samples": row.latency_ms.samples,
        "held_out_group": row.group,
        "flags": list(row.flags),
    }


def _measurement(row: Row[Any]) -> Measurement:
    return Measurement(
        kind=row.kind,
        precision=Precision(row.precision),
        engine=row.engine,
        shape=row.shape,
        latency_ms=Distribution(
            median=row.median_ms, p10=row.p10_ms, p90=row.p90_ms, samples=row.samples
        ),
        group=row.held_out_group,
        flags=tuple(row.flags),
    )


def _record(row: Row[Any]) -> MeasurementRecord:
    return MeasurementRecord(
        id=row.number,
        job_id=row.job_id or "",
        device=row.device,
        fingerprint=row.fingerprint,
        create_time=row.create_time,
        measurement=_measurement(row),
        seconds=row.seconds or {},
    )
