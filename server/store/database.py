"""The database behind the store: connections, transactions, migrations, faults in plain words."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, column, create_engine, event, inspect, select, table
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from server.store.errors import StoreFullError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL, Connection, Engine

MIGRATIONS = Path(__file__).parent.parent / "migrations"
_BUSY_S = 10.0
_BEGIN = "sqlite_begin"
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Database:
    """Connections to one database, brought to this version's tables.

    Args:
        url: of SQLAlchemy.
        max_bytes: largest size of an SQLite file; 0 is no limit.

    Raises:
        StoreUnavailableError: it cannot be opened, is damaged, or comes from a
            newer version.
        StoreFullError: there is no room for the tables.
    """

    def __init__(self, url: str | URL, max_bytes: int = 0) -> None:
        try:
            self._engine = create_engine(url)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise StoreUnavailableError(
                f"the database URL cannot be used ({error});"
                " write it as SQLAlchemy does, or leave it out for a file in --data-dir"
            ) from error
        self._name = str(self._engine.url.database or self._engine.url)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        # SQLite takes one writer at a time; waiting here is fair and costs no retries.
        self._writing = threading.Lock()
        if self._is_sqlite:
            _prepare_sqlite(self._engine, max_bytes)
        try:
            self._check()
            self._migrate()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Opens a transaction that reads one state of the database.

        Raises:
            StoreUnavailableError: it cannot be read.
        """
        with self._translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Opens a transaction that is on disk once the block is left without an error.

        Raises:
            StoreFullError: there is no room; nothing of the block is stored.
            StoreUnavailableError: it cannot be written.
        """
        with self._translated(), self._writing, self._engine.connect() as connection:
            immediate = connection.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
            with immediate.begin():
                yield immediate

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # a fault of the caller, not of the database
        except DBAPIError as error:
            code = getattr(error.orig, "sqlite_errorcode", None)
            # The low byte is the kind of error, the rest its variant.
            kind = None if code is None else code & 0xFF
            if kind == sqlite3.SQLITE_FULL:
                raise StoreFullError(
                    f"the store {self._name} is full: the disk has no room or"
                    " max_store_bytes is reached; make room and try again"
                ) from error
            if kind in _DAMAGED:
                raise self._damaged(str(error.orig)) from error
            raise StoreUnavailableError(
                f"the store {self._name} cannot be used ({error.orig});"
                " see that its folder exists and can be written, or name another --data-dir"
            ) from error

    def _damaged(self, detail: str) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"the store {self._name} is damaged ({detail});"
            " put a copy back, or move it away to start afresh"
        )

    def _check(self) -> None:
        if not self._is_sqlite:
            return
        with self.read() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if found != "ok":
            raise self._damaged(str(found).splitlines()[-1])

    def _migrate(self) -> None:
        """Brings the tables to this version; alembic is loaded only where there is work."""
        known = known_revisions()
        with self.read() as connection:
            revision = _revision(connection)
        if revision == known[-1]:
            return
        if revision is not None and revision not in known:
            raise StoreUnavailableError(
                f"the store {self._name} was written by a newer tokenpace (its revision is"
                f" {revision}, this one knows up to {known[-1]}); upgrade tokenpace, or name"
                " another --data-dir"
            )
        from alembic import command  # noqa: PLC0415 - heavy, and needed once a version
        from alembic.config import Config  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        with self.write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def known_revisions() -> list[str]:
    """Returns the revisions that this version knows, oldest first: their files begin with them."""
    return sorted(file.stem.split("_")[0] for file in MIGRATIONS.glob("versions/0*.py"))


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version = column("version_num", Text)
    revision: str | None = connection.scalar(select(version).select_from(table("alembic_version")))
    return revision


def _prepare_sqlite(engine: Engine, max_bytes: int) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: sqlite3.Connection, _record: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        # The driver would commit before every CREATE TABLE; begin() below opens
        # real transactions instead.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(_BUSY_S * 1000)}")
        cursor.execute("PRAGMA journal_mode = WAL")
        # A committed row survives kill -9 and a power cut.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        if max_bytes:
            (page_size,) = cursor.execute("PRAGMA page_size").fetchone()
            cursor.execute(f"PRAGMA max_page_count = {max(1, max_bytes // page_size)}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))
