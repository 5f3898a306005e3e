"""Cost models of imported measurements, read from the store when they are first asked for."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from model.estimate import Provenance
from model.hardware import data_sheet
from model.transfer import TransferredCostModel, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.cost_model import FittedCostModel
    from model.hardware import DataSheet
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
        outdated: is told of each that cannot be read, once.
    """

    def __init__(self, store: Store, outdated: Callable[[CostModelRecord], None]) -> None:
        self._store = store
        self._outdated = outdated
        self._lock = threading.Lock()
        self._records: tuple[CostModelRecord, ...] | None = None
        self._models: dict[str, CurrentCostModel | None] = {}
        self._borrowed: dict[tuple[str, str], BorrowedCostModel] = {}

    def forget(self) -> None:
        """Looks the records up again at the next question: another one was fitted."""
        with self._lock:
            self._records = None

    def current(self, device: Device, engine: str) -> CurrentCostModel | BorrowedCostModel | None:
        """Returns the cost model of an engine on a device, of another engine where it has none.

        None where nothing was imported that could stand for it.
        """
        with self._lock:
            chosen = self._choose(device, engine)
            source = self._read(chosen) if chosen is not None else None
            if source is None or source.record.device == device.stored_name:
                return source
            return self._borrow(device, source)

    def chosen(self, device: Device, engine: str) -> CostModelRecord | None:
        """Returns the record of what :meth:`current` answers by, or would if it could be read."""
        with self._lock:
            return self._choose(device, engine)

    def uses(self, device: Device, record: CostModelRecord) -> bool:
        """Returns whether :meth:`current` answers by that record for any engine on the device.

        Reads no trees.
        """
        with self._lock:
            if record.id in self._models and self._models[record.id] is None:
                return False  # found to be unreadable
            chosen = (self._choose(device, engine) for engine in ("", *record.engines))
            return any(one is not None and one.id == record.id for one in chosen)

    def described(self, device: Device) -> tuple[CostModelRecord, Provenance] | None:
        """Returns the record of what :meth:`current` answers by, and what it is to the device.

        Reads no trees: they are large, and a listing asks for every device.
        """
        with self._lock:
            chosen = self._choose(device, "")
            if chosen is None:
                return None
            if chosen.id in self._models and self._models[chosen.id] is None:
                return None  # found to be unreadable
            own = chosen.device == device.stored_name
            return chosen, chosen.provenance if own else Provenance.TRANSFERRED

    def lender(self, device: str, sheet: DataSheet) -> tuple[str, bytes] | None:
        """Returns name and cost model of what can lend to a device that is fitted now.

        That card itself where it was measured elsewhere, or else the nearest one that runs
        the same kernels; None where none was imported.

        Args:
            device: whose measurements are fitted; it cannot lend to itself.
            sheet: its data sheet.
        """
        if not sheet.compute_capability:
            return None
        with self._lock:
            kin = {
                record.device: record
                for record in sorted(self._look_up(), key=lambda one: one.measurement_count)
                if record.device != device
                and data_sheet(record.device).compute_capability == sheet.compute_capability
            }
            near = nearest(sheet, [data_sheet(name) for name in kin])
            chosen = kin.get(sheet.name) or (kin[near.name] if near is not None else None)
            if chosen is None or self._read(chosen) is None:
                return None
            stored = self._store.cost_models.current(chosen.device, chosen.fingerprint)
            return (chosen.device, stored[1]) if stored is not None else None

    def _choose(self, device: Device, engine: str) -> CostModelRecord | None:
        records = self._look_up()
        own = [record for record in records if record.device == device.stored_name]
        if not own and records:
            near = nearest(device.sheet, [data_sheet(record.device) for record in records])
            own = [record for record in records if near and record.device == near.name]
        if not own:
            return None
        return next((record for record in own if engine in record.engines), own[0])

    def _look_up(self) -> tuple[CostModelRecord, ...]:
        if self._records is None:
            self._records = self._store.cost_models.imported()
            held = {record.id for record in self._records}
            self._models = {key: it for key, it in self._models.items() if key in held}
            self._borrowed = {key: it for key, it in self._borrowed.items() if key[1] in held}
        return self._records

    def _borrow(self, device: Device, source: CurrentCostModel) -> BorrowedCostModel:
        key = (device.name, source.record.id)
        if key not in self._borrowed:
            near = data_sheet(source.record.device)
            model = TransferredCostModel(source.model, near, device.sheet)
            self._borrowed[key] = BorrowedCostModel(source.record, model)
        return self._borrowed[key]

    def _read(self, record: CostModelRecord) -> CurrentCostModel | None:
        if record.id not in self._models:
            stored = self._store.cost_models.current(record.device, record.fingerprint)
            self._models[record.id] = readable(*stored) if stored is not None else None
            if stored is not None and self._models[record.id] is None:
                self._outdated(record)
        return self._models[record.id]


def readable(record: CostModelRecord, blob: bytes) -> CurrentCostModel | None:
    """Returns the stored cost model; None, and a warning in the log, where it cannot be read."""
    try:
        model = cost_model_of(blob)
    except ValueError as error:
        # Another version may write them otherwise; the measurements are there.
        _log.warning(
            "stored cost model cannot be read; it is fitted again",
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
    # The trees' library takes a tenth of a second to load: not where there are none.
    from model.cost_model import FittedCostModel  # noqa: PLC0415

    return FittedCostModel.from_bytes(blob)
