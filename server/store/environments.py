"""Environments that something was measured in."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from profiler.interface import Environment
from server.store.tables import environments

if TYPE_CHECKING:
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
        if row is None:
            return None
        return Environment(
            **{field.name: row._mapping[field.name] for field in fields(Environment)}
        )


def ensure(connection: Connection, environment: Environment) -> str:
    """Stores the environment unless it is there, and returns its fingerprint."""
    fingerprint = environment.fingerprint
    known = select(environments.c.fingerprint).where(environments.c.fingerprint == fingerprint)
    if connection.scalar(known) is None:
        connection.execute(
            insert(environments).values(fingerprint=fingerprint, **asdict(environment))
        )
    return fingerprint
