"""Environments that something was measured in."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, insert, select
from sqlalchemy.exc import IntegrityError

from profiler.interface import Environment
from server.records import COMMITTED
from server.store.tables import environments, measurements

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.engine import Connection

    from server.store.database import Database


class Environments:
    """The table of environments; rows are never changed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, fingerprint: str) -> Environment | None:
        """Returns the environment with that fingerprint, None where there is none."""
        with self._database.read() as connection:
            row = connection.execute(
                select(environments).where(environments.c.fingerprint == fingerprint)
            ).one_or_none()
        return None if row is None else _environment(row)

    def of_job(self, job_id: str) -> Environment | None:
        """Returns the one that a job measured in last; None where it measured nothing."""
        query = (
            select(environments)
            .join(measurements, measurements.c.fingerprint == environments.c.fingerprint)
            .where(measurements.c.job_id == job_id)
            .order_by(measurements.c.number.desc())
            .limit(1)
        )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _environment(row)

    def newest_imported(self, device: str, engine: str) -> Environment | None:
        """Returns the environment of the rows imported last for a device and engine.

        Of committed ones where a user has imported none.
        """
        query = (
            select(environments)
            .join(measurements, measurements.c.fingerprint == environments.c.fingerprint)
            .where(measurements.c.device == device, environments.c.engine == engine)
            .where(environments.c.source != "")
            .order_by(committed(), measurements.c.number.desc())
            .limit(1)
        )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _environment(row)


def _environment(row: Row[Any]) -> Environment:
    return Environment(**{field.name: row._mapping[field.name] for field in fields(Environment)})


def committed() -> ColumnElement[int]:
    """Returns what orders environments: those of committed measurements behind all others."""
    return case((environments.c.source.startswith(COMMITTED, autoescape=True), 1), else_=0)


def ensure(connection: Connection, environment: Environment) -> str:
    """Stores the environment unless it is there, and returns its fingerprint."""
    fingerprint = environment.fingerprint
    known = select(environments.c.fingerprint).where(environments.c.fingerprint == fingerprint)
    if connection.scalar(known) is None:
        row = insert(environments).values(fingerprint=fingerprint, **asdict(environment))
        # Where several may write at once, another may have stored it meanwhile.
        with contextlib.suppress(IntegrityError), connection.begin_nested():
            connection.execute(row)
    return fingerprint


def lock(connection: Connection, fingerprint: str) -> None:
    """Waits for all others that have locked the environment, until the transaction ends.

    SQLite has one writer at a time and knows no such lock; its queries leave it out.
    """
    row = select(environments.c.fingerprint).where(environments.c.fingerprint == fingerprint)
    connection.execute(row.with_for_update())
