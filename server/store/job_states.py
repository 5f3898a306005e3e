"""How the devices of profile jobs stood meanwhile."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select

from profiler.telemetry import Telemetry
from server.store.tables import job_states

if TYPE_CHECKING:
    from sqlalchemy import Row

    from server.store.database import Database


class JobStates:
    """The table of states; rows are added and never changed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, job_id: str, state: Telemetry) -> None:
        """Stores how a job's device stands.

        Raises:
            StoreFullError: there is no room.
            StoreUnavailableError: the store cannot be written.
        """
        values = asdict(state)
        row = {"job_id": job_id, "time": values.pop("time"), "state": values}
        with self._database.write() as connection:
            connection.execute(insert(job_states).values(row))

    def of(self, job_id: str) -> tuple[Telemetry, ...]:
        """Returns how a job's device stood, oldest first."""
        query = (
            select(job_states).where(job_states.c.job_id == job_id).order_by(job_states.c.number)
        )
        with self._database.read() as connection:
            return tuple(_state(row) for row in connection.execute(query))


def _state(row: Row[Any]) -> Telemetry:
    # JSON knows no tuples.
    values: dict[str, Any] = {
        n: tuple(v) if isinstance(v, list) else v for n, v in row.state.items()
    }
    return Telemetry(time=row.time, **values)
