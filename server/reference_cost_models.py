"""Cost models of imported measurements, read from the store when they are first asked for."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from model.hardware import data_sheet

if TYPE_CHECKING:
    from model.cost_model import FittedCostModel
    from model.transfer import TransferredCostModel
    from server.devices import Device
    from server.records import CostModelRecord
    from server.store import Store

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CurrentCostModel:
    """A cost model with what the store knows of it."""

    record: CostModelRecord
    model: FittedCostModel


@dataclass(frozen=True, slots=True)
class BorrowedCostModel:
    """Another device's, scaled; the record is that of the other one."""

    record: CostModelRecord
    model: TransferredCostModel


class ReferenceCostModels:
    """The cost models of devices that are not here.

    A device without measurements of its own borrows those of the nearest one that has
    some, scaled by the data sheets.

    Args:
        store: keeps them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._records: tuple[CostModelRecord, ...] | None = None
        self._models: dict[str, CurrentCostModel | None] = {}
        self._borrowed: dict[tuple[str, str], BorrowedCostModel] = {}

    def forget(self) -> None:
        """Lets go of all: another one was fitted."""
        with self._lock:
            self._records = None
            self._borrowed.clear()

    def current(self, device: Device, engine: str) -> CurrentCostModel | BorrowedCostModel | None:
        """Returns the cost model of an engine on a device, of another engine where it has none.

        None where nothing was imported that could stand for it.
        """
        with self._lock:
            if self._records is None:
                self._records = self._store.cost_models.imported()
            if not self._records:
                return None
            own = [record for record in self._records if record.device == device.stored_name]
            if own:
                return self._read(_of_engine(own, engine))
            return self._borrow(device, engine, self._records)

    def _borrow(
        self, device: Device, engine: str, records: tuple[CostModelRecord, ...]
    ) -> BorrowedCostModel | None:
        from model.transfer import TransferredCostModel, nearest  # noqa: PLC0415 - seldom needed

        near = nearest(device.sheet, [data_sheet(record.device) for record in records])
        if near is None:
            return None
        record = _of_engine([r for r in records if r.device == near.name], engine)
        key = (device.name, record.id)
        if key not in self._borrowed:
            source = self._read(record)
            if source is None:
                return None
            model = TransferredCostModel(source.model, near, device.sheet)
            self._borrowed[key] = BorrowedCostModel(source.record, model)
        return self._borrowed[key]

    def _read(self, record: CostModelRecord) -> CurrentCostModel | None:
        if record.id not in self._models:
            stored = self._store.cost_models.current(record.device, record.fingerprint)
            self._models[record.id] = readable(*stored) if stored is not None else None
        return self._models[record.id]


def readable(record: CostModelRecord, blob: bytes) -> CurrentCostModel | None:
    """Returns the stored cost model; None, and a warning in the log, where it cannot be read."""
    try:
        model = cost_model_of(blob)
    except ValueError as error:
        # A newer version may write them otherwise; the measurements are there.
        _log.warning(
            "stored cost model cannot be read; FitCostModel makes a new one",
            cost_model=record.id,
            error=str(error),
        )
        return None
    return CurrentCostModel(replace(record, current=True), model)


def cost_model_of(blob: bytes) -> FittedCostModel:
    """Returns the cost model of its bytes.

    Raises:
        ValueError: they are none.
    """
    # The trees' library takes a third of a second to load: not where there are none.
    from model.cost_model import FittedCostModel  # noqa: PLC0415

    return FittedCostModel.from_bytes(blob)


def _of_engine(records: list[CostModelRecord], engine: str) -> CostModelRecord:
    return next((record for record in records if engine in record.engines), records[0])
