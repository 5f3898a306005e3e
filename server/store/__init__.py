"""What the daemon keeps: measurements, jobs, cost models, schedules, calibrations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from sqlalchemy.engine import URL

from server.store.calibrations import Calibrations
from server.store.cost_models import CostModels
from server.store.database import Database
from server.store.environments import Environments
from server.store.job_states import JobStates
from server.store.jobs import Jobs
from server.store.lock import FolderLock
from server.store.measurements import Measurements
from server.store.schedules import Schedules

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "tokenpace.db"


class Store:
    """The daemon's memory; any thread may use it.

    Attributes:
        environments, measurements, jobs, job_states, cost_models, schedules, calibrations: its
            tables.

    Args:
        data_dir: folder that is this daemon's alone as long as the store is open.
        database_url: of SQLAlchemy; empty: an SQLite file in ``data_dir``.
        max_bytes: largest size of that file; 0 is no limit.

    Raises:
        StoreUnavailableError: the folder is in use or cannot be written, or the
            database is damaged or from a newer version; the text names the remedy.
        StoreFullError: there is no room for the tables.
    """

    def __init__(self, data_dir: Path, database_url: str = "", max_bytes: int = 0) -> None:
        self._lock = FolderLock(data_dir)
        try:
            url = database_url or URL.create("sqlite", database=str(data_dir / FILE_NAME))
            self._database = Database(url, max_bytes)
        except BaseException:
            self._lock.release()
            raise
        self.environments = Environments(self._database)
        self.measurements = Measurements(self._database)
        self.jobs = Jobs(self._database)
        self.job_states = JobStates(self._database)
        self.cost_models = CostModels(self._database)
        self.schedules = Schedules(self._database)
        self.calibrations = Calibrations(self._database)

    def close(self) -> None:
        """Closes the database and gives the folder free."""
        self._database.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
