"""Fitted cost models."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select, update

from model.estimate import Provenance, ValidationScore
from model.precision import Precision
from server.records import CostModelRecord
from server.store.environments import committed, ensure
from server.store.paging import Page, PageRequest, newest_first
from server.store.tables import cost_model_blobs, cost_models, environments

if TYPE_CHECKING:
    from sqlalchemy import Row

    from profiler.interface import Environment
    from server.store.database import Database


class CostModels:
    """The table of cost models and their serialised trees."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, model: CostModelRecord, blob: bytes, environment: Environment) -> None:
        """Stores a cost model and makes it the current one of its device and environment.

        The trees of those it replaces are dropped: nothing asks for them again,
        and their measurements and scores stay.

        Args:
            model: what was fitted; its fingerprint is that of ``environment``.
            blob: the serialised trees.
            environment: it was measured in.

        Raises:
            StoreFullError: there is no room; the one before stays current.
            StoreUnavailableError: the store cannot be written.
        """
        same = (
            cost_models.c.device == model.device,
            cost_models.c.fingerprint == model.fingerprint,
        )
        with self._database.write() as connection:
            ensure(connection, environment)
            replaced = select(cost_models.c.id).where(*same)
            connection.execute(
                delete(cost_model_blobs).where(cost_model_blobs.c.cost_model_id.in_(replaced))
            )
            connection.execute(update(cost_models).where(*same).values(current=False))
            connection.execute(insert(cost_models).values(_columns(model) | {"current": True}))
            connection.execute(insert(cost_model_blobs).values(cost_model_id=model.id, blob=blob))

    def get(self, cost_model_id: str) -> CostModelRecord | None:
        """Returns the cost model with that id, None where there is none."""
        query = select(cost_models).where(cost_models.c.id == cost_model_id)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _record(row)

    def current(self, device: str, fingerprint: str) -> tuple[CostModelRecord, bytes] | None:
        """Returns the current cost model of a device in one environment, and its trees."""
        query = (
            select(cost_models, cost_model_blobs.c.blob)
            .join(cost_model_blobs, cost_model_blobs.c.cost_model_id == cost_models.c.id)
            .where(
                cost_models.c.device == device,
                cost_models.c.fingerprint == fingerprint,
                cost_models.c.current.is_(True),
            )
        )
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else (_record(row), row.blob)

    def imported(self) -> tuple[CostModelRecord, ...]:
        """Returns the current cost models of all imported measurements, newest first.

        Those of committed measurements come last: what a user imports is before them.
        """
        query = (
            select(cost_models)
            .join(environments, environments.c.fingerprint == cost_models.c.fingerprint)
            .where(
                cost_models.c.provenance == int(Provenance.REFERENCE_DATA),
                cost_models.c.current.is_(True),
            )
            .order_by(committed(), cost_models.c.number.desc())
        )
        with self._database.read() as connection:
            return tuple(_record(row) for row in connection.execute(query))

    def page(self, request: PageRequest, *, device: str = "") -> Page[CostModelRecord]:
        """Returns a page, newest first; an empty device matches all.

        Raises:
            InvalidFieldError: the page token was not made here.
        """
        conditions = [cost_models.c.device == device] if device else []
        with self._database.read() as connection:
            page = newest_first(connection, cost_models, request, conditions)
        return Page(tuple(_record(row) for row in page.items), page.next_token, page.total_size)


def _columns(model: CostModelRecord) -> dict[str, object]:
    columns = asdict(model)
    columns["precisions"] = [precision.value for precision in model.precisions]
    columns["engines"] = list(model.engines)
    columns["provenance"] = int(model.provenance)
    columns["scores"] = [asdict(score) for score in model.scores]
    return columns


def _record(row: Row[Any]) -> CostModelRecord:
    values = {field.name: row._mapping[field.name] for field in fields(CostModelRecord)}
    values["precisions"] = tuple(Precision(name) for name in row.precisions)
    values["engines"] = tuple(row.engines)
    values["provenance"] = Provenance(row.provenance)
    values["scores"] = tuple(
        ValidationScore(**score | {"precision": Precision(score["precision"])})
        for score in row.scores
    )
    return CostModelRecord(**values)
